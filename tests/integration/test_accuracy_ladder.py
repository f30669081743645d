"""The ladder of recipes at a size that a test can train, as CI runs it."""

import json
import os
import subprocess
import sys

import pytest
from tree_masks import write_cases
from workflow_run import PROJECT

from clotline.models.checkpoint import Checkpoint


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("ladder")


def climb(folder, *arguments, part="phantom", **variables):
    command = [sys.executable, "-m", "bench.accuracy", part, "--tiny", *arguments]
    command += ["--folder", folder / "runs", "--output", folder / "accuracy.md"]
    env = os.environ | variables
    done = subprocess.run(
        command, cwd=PROJECT, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, (folder / "accuracy.md").read_text(encoding="utf-8")


def rows_of(text, heading):
    """Rung to the other cells of its row in the table that begins with such a heading."""
    table = text[text.index(heading) :].split("\n\n")[0].splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in table]
    return {row[0]: row[1:] for row in rows}


def test_rungs_are_trained_and_written_and_it_goes_on_where_it_was_stopped(folder):
    said, text = climb(folder, "--rungs", "0")
    assert said.count("seed 1, ") == 1
    assert "## The ladder, on the hard phantom" in text
    assert "By the slices' position alone: study AUROC" in text
    assert list(rows_of(text, "| rung | seeds")) == ["published recipe"]

    # Both have one of the networks, which is trained once.
    said, text = climb(folder, "--rungs", "9", "10")
    assert said.count("seed 1, ") == 2
    rows = rows_of(text, "| rung | seeds")
    two = rows["+ EfficientNet-B0 as well: the mean of two"]
    # Of one seed, with two differences a level, each with its interval.
    assert two[0] == "1"
    assert sum("[" in cell for cell in two) == 4
    bands = rows_of(text, "| rung | 1–5 positive slices")
    assert bands.keys() == rows.keys()
    assert "(n " in bands["+ one joint network"][0]

    # Each network starts from one of its own form, which is trained once.
    starts = {str(path) for path in (folder / "runs/pretrained").glob("*/best.pt")}
    trained = (folder / "runs/seed-1").glob("*/best.pt")
    found = [Checkpoint.load(path).config["init"] for path in trained]
    assert len(found) == len(starts) == 4  # two of one plane, two of three
    assert set(found) == starts

    # No DICOM file and no features stay behind.
    assert not list(folder.rglob("*.dcm"))
    assert not list(folder.rglob("features.h5"))


def test_it_is_climbed_on_semi_synthetic_studies_too(folder):
    write_cases(folder / "real/cadpe_masks")
    real = {"part": "semisynthetic", "CLOTLINE_REAL": str(folder / "real")}
    said, text = climb(folder, "--rungs", "0", **real)
    assert said.count("seed 1, ") == 1
    text = text[text.index("## The ladder, on semi-synthetic studies") :]
    assert "masks of 3 patients (1 train, 1 valid, 1 test)" in text
    assert "24 studies of 24 to 24 slices; 8 train, 8 validate, 8 test." in text
    # Twins have the same positions.
    assert "By the slices' position alone: study AUROC 0.500" in text
    assert list(rows_of(text, "| rung | seeds")) == ["published recipe"]
    assert not list(folder.rglob("*.dcm"))


def test_with_a_time_to_train_epochs_follow_from_what_a_slice_costs(folder):
    """On the same phantom."""
    said, text = climb(folder, "--rungs", "0", "--minutes", "0.05")
    assert said.count("seed 1, ") == 1
    costs = json.loads((folder / "runs/costs.json").read_text(encoding="utf-8"))
    assert len(costs) == 2
    assert all(1e-4 < seconds < 1 for seconds in costs.values())
    assert "the same time for stage 1: 0.05 CPU minutes" in text
    *_, views, first, _ = rows_of(text, "| rung | 1–5 positive slices")["published recipe"]
    assert int(views.replace(",", "")) > 0
    assert 0 < float(first) < 5
