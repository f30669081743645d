"""A disk that runs full in any stage: told, nothing left half-written, and put right by space."""

import os
import shutil

import pytest
from hostile import fill_disk, small_disk
from workflow_run import ON_TWO_CORES, digests

#: Stage and what it makes, from the last to the first: what is missing is never needed before.
STAGES = {
    "report": "results/report.html",
    "plot_evaluation": "results/calibration/combined-study.svg",
    "evaluate": "results/metrics/combined-study.json",
    "predict_lstm": "results/predictions/combined-study.parquet",
    "train_lstm": "results/lstm/combined-study.pt",
    "merge_features": "results/features/resnext50.h5",
    "extract_features": "results/features/efficientnet_b0.h5",
    "train_cnn": "results/cnn/resnext50.pt",
    "positives": "results/data/positives.h5",
    "slices": "results/data/slices.parquet",
    "shard": "results/data/shards/shard-000.h5",
    "plan": "results/data/plan.parquet",
}


def test_a_full_disk_is_told_in_every_stage_and_freeing_it_lets_the_run_complete(tiny, tiny_copy):
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    results = tiny_copy.folder / "results"
    shutil.rmtree(results)
    with small_disk(results, 60_000_000):
        shutil.copytree(tiny.folder / "results", results, dirs_exist_ok=True)
        for stage, target in STAGES.items():
            path = tiny_copy.folder / target
            size = path.stat().st_size
            path.unlink()
            # The parts are as large as the whole.
            ballast = fill_disk(results, left=int(1.6 * size) if stage == "merge_features" else 0)
            done = tiny_copy.build("--retries", "0", *ON_TWO_CORES, target, check=False)
            ballast.unlink()
            assert done.returncode != 0, stage
            assert f"[{stage} " in done.stderr or f"[{stage}]" in done.stderr, done.stderr
            assert f"the disk {results} is full: results/" in done.stderr, stage
            assert " needs " in done.stderr
            assert "were free for it" in done.stderr
            assert "run the same command again" in done.stderr
            assert f"the disk {results} may run full" in done.stderr, stage
            assert not path.exists()
            assert list(results.rglob(".*.tmp*")) == []
        tiny_copy.build(*ON_TWO_CORES, "all")
        assert digests(results) == digests(tiny.folder / "results")
