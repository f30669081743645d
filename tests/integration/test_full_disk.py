"""A disk that runs full in any stage: told, nothing left half-written, and put right by space."""

import os
import re
import shutil

import pytest
from hostile import fill_disk, small_disk
from workflow_run import ON_TWO_CORES, digests

#: Stage and what it makes. Those of one run need nothing of each other, so that each is reached.
RUNS = [
    {"report": "results/report.html"},
    # Alone: Snakemake removes what else a failed job of these rules had made, which is space enough
    # for a table or for the features of few slices.
    {"evaluate": "results/metrics/resnext50-study.json"},
    {"plot_evaluation": "results/calibration/efficientnet_b0-image.svg"},
    {
        "predict_lstm": "results/predictions/combined-image.parquet",
        "train_lstm": "results/lstm/efficientnet_b0-study.pt",
    },
    {"merge_features": "results/features/resnext50.h5"},
    {"extract_features": "results/features/efficientnet_b0.h5"},
    {"train_cnn": "results/cnn/resnext50.pt"},
    {"positives": "results/data/positives.h5"},
    {"slices": "results/data/slices.parquet"},
    {
        "shard": "results/data/shards/shard-000.h5",
        "plan": "results/data/plan.parquet",
    },
]


def test_a_full_disk_is_told_in_every_stage_and_freeing_it_lets_the_run_complete(tiny, tiny_copy):
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    results = tiny_copy.folder / "results"
    expected = digests(tiny.folder / "results")
    shutil.rmtree(results)
    with small_disk(results, 60_000_000):
        shutil.copytree(tiny.folder / "results", results, dirs_exist_ok=True)
        for stages in RUNS:
            paths = [tiny_copy.folder / target for target in stages.values()]
            size = sum(path.stat().st_size for path in paths)
            for path in paths:
                path.unlink()
            # The parts are as large as the whole.
            left = int(1.6 * size) if "merge_features" in stages else 0
            ballast = fill_disk(results, left)
            arguments = "--keep-going", "--retries", "0", *ON_TWO_CORES, *stages.values()
            done = tiny_copy.build(*arguments, check=False)
            ballast.unlink()
            assert done.returncode != 0, stages
            for stage in stages:
                said = "\n".join(re.findall(rf"^\[{stage}[ \]].*", done.stderr, re.MULTILINE))
                assert f"the disk {results} may run full" in said, (stage, done.stderr)
                assert f"the disk {results} is full: results/" in said, (stage, done.stderr)
                assert " needs " in said
                assert "were free for it" in said
                assert "run the same command again" in said
            assert not [path for path in paths if path.exists()]
            assert list(results.rglob(".*.tmp*")) == []
            tiny_copy.build(*arguments)
        tiny_copy.build(*ON_TWO_CORES, "all")
        assert digests(results) == expected
