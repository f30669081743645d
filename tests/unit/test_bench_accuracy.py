"""The benchmark of accuracy, on a few made-up series."""

import json
import sys

import numpy as np
import pandas as pd
import pytest

from bench import accuracy
from clotline.errors import ClotlineError
from clotline.labels import IMAGE_LABEL

RNG = np.random.default_rng(0)


@pytest.fixture
def table(tmp_path):
    """24 series of which half are positive; of one the positives are unknown, of one beyond it."""
    rows = []
    for number in range(24):
        count, first = int(RNG.integers(60, 160)), int(RNG.integers(10, 30))
        indices = " ".join(map(str, range(first, first + 20))) if number % 2 else ""
        rows.append((number, 1.25, number % 2, count, "train", "central", indices))
    rows.append((98, 1.25, 1, 100, "train", "central", ""))
    rows.append((99, 1.25, 1, 100, "train", "central", "100"))
    columns = [
        "study_num",
        "slice_thickness",
        "is_positive",
        "num_slices",
        "phase",
        "type",
        "pe_idxs",
    ]
    path = tmp_path / "penet_series.csv"
    pd.DataFrame(rows, columns=columns).to_csv(path, index=False)
    return path


def test_series_have_thick_slices_that_are_positive_where_a_thin_one_is(table):
    series = accuracy.read_series(table)
    assert series["study_num"].tolist() == list(range(24))
    assert accuracy.thick_labels([7, 8, 23], 26).tolist() == [1, 1, 1, 0]
    assert series["labels"].map(max).tolist() == [0, 1] * 12
    table.write_text("study_num\n1\n")
    with pytest.raises(ClotlineError, match="is no list of series with positive slices"):
        accuracy.read_series(table)


def test_features_of_the_same_seed_are_the_same_and_show_the_clots(table, tmp_path, monkeypatch):
    monkeypatch.setattr(accuracy, "TRAIN", 8)
    monkeypatch.setattr(accuracy, "VALID", 8)
    series = accuracy.read_series(table)
    features = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        cohort = accuracy.Cohort.simulate(series, seed, tmp_path / f"{name}.h5")
        sequences = cohort.sequences("train", "image")
        (features[name], _), truth = sequences.read(np.arange(len(sequences)))
    assert features["a"].equal(features["b"])
    assert features["a"].shape != features["c"].shape or not features["a"].equal(features["c"])
    positive, negative = (features["c"][truth == value].float().mean(0) for value in (1, 0))
    assert (positive - negative).abs().max() > 0.2
    assert cohort.slices[IMAGE_LABEL].sum() == series["labels"].map(sum).sum()


def test_a_run_goes_on_where_it_was_stopped_and_writes_its_table(table, tmp_path, monkeypatch):
    short = {"precision": "32-true", "epochs": 1, "hidden_size": 4}
    monkeypatch.setattr(accuracy, "TRAIN", 8)
    monkeypatch.setattr(accuracy, "VALID", 8)
    new = short | {"pooling": ["max"], "loss": "competition", "calibrate_odds": True}
    monkeypatch.setattr(accuracy, "CONTESTANTS", {accuracy.PUBLISHED: short, "new": new})
    monkeypatch.setenv("CLOTLINE_REAL", str(table.parent))
    folder, output = tmp_path / "runs", tmp_path / "accuracy.md"
    arguments = ["accuracy", "stage2", "--folder", str(folder), "--output", str(output)]
    monkeypatch.setattr(sys, "argv", [*arguments, "--seeds", "2"])
    accuracy.main()
    text = output.read_text(encoding="utf-8")
    assert "Labels of 24 real CTPA series" in text
    assert text.count("| new | 2 |") == 1 and "[" in text

    # What is there is not run again, but for another recipe.
    path = folder / "stage2-1.json"
    kept = json.loads(path.read_text(encoding="utf-8"))
    kept["new"]["study"] = 0.125
    path.write_text(json.dumps(kept), encoding="utf-8")
    other = {accuracy.PUBLISHED: short | {"hidden_size": 5}, "new": new}
    monkeypatch.setattr(accuracy, "CONTESTANTS", other)
    accuracy.main()
    again = json.loads(path.read_text(encoding="utf-8"))
    assert again["new"] == kept["new"]
    assert again[accuracy.PUBLISHED] != kept[accuracy.PUBLISHED]


def test_without_the_real_labels_it_says_what_is_needed(monkeypatch):
    monkeypatch.delenv("CLOTLINE_REAL", raising=False)
    monkeypatch.setattr(sys, "argv", ["accuracy", "stage2"])
    with pytest.raises(SystemExit, match="set CLOTLINE_REAL to a folder with penet_series"):
        accuracy.main()


def test_intervals_are_students():
    values = np.array([0.1, 0.3, 0.2])
    mean, low, high = accuracy.interval(values)
    assert (mean, high - mean) == pytest.approx((0.2, 4.302653 * 0.1 / np.sqrt(3)), rel=1e-5)
    assert low == pytest.approx(2 * mean - high)
    assert np.isnan(accuracy.interval(values[:1])[1:]).all()
