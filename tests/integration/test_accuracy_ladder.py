"""The ladder of recipes at a size that a test can train, as CI runs it."""

import os
import subprocess
import sys

import pytest
from workflow_run import PROJECT


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("ladder")


def climb(folder, *arguments):
    command = [sys.executable, "-m", "bench.accuracy", "phantom", "--tiny", *arguments]
    command += ["--folder", folder / "runs", "--output", folder / "accuracy.md"]
    done = subprocess.run(
        command, cwd=PROJECT, env=os.environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, (folder / "accuracy.md").read_text(encoding="utf-8")


def test_rungs_are_trained_and_written_and_it_goes_on_where_it_was_stopped(folder):
    said, text = climb(folder, "--rungs", "1", "2")
    assert said.count("seed 1, ") == 3
    assert "## The ladder, on the hard phantom" in text
    assert "By the slices' position alone: study AUROC" in text
    rows = [line for line in text.splitlines() if line.startswith("| + ")]
    assert [row.split("|")[1].strip() for row in rows] == [
        "+ optimiser: AdamW, one cycle",
        "+ neighbours as channels",
    ]
    # Each has two differences a level, with intervals.
    assert all(row.count("[") == 4 for row in rows)

    said, text = climb(folder, "--rungs", "1", "2", "8", "9")
    assert said.count("seed 1, ") == 2
    assert "| + one joint network | 1 |" in text
    assert "| + EfficientNet-B0 as well: the mean of two | 1 |" in text

    # No DICOM file and no features stay behind.
    assert not list(folder.rglob("*.dcm"))
    assert not list(folder.rglob("features.h5"))
