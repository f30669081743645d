"""Predictions made elsewhere, really evaluated: one more model in every table, plot and page."""

import json

import numpy as np
import pandas as pd
import pytest
import yaml

from clotline.evaluation.predictions import PE_PRESENT
from clotline.labels import IMAGE_LABEL, STUDY_LABELS, STUDY_UID


@pytest.fixture
def run(copy):
    """The demo with a reader who says what the combined model says, a little less surely."""
    table = pd.read_parquet(copy.folder / "results/predictions/combined-study.parquet")
    rng = np.random.default_rng(0)
    for name in STUDY_LABELS:
        table[name] = np.clip(table[name] + rng.normal(0, 0.1, len(table)), 0, 1)
    long = table.melt(STUDY_UID, list(STUDY_LABELS), "label", "probability")
    long.to_csv(copy.folder / "reader.csv", index=False)
    path = copy.folder / "config/config.yaml"
    config = yaml.safe_load(path.read_text())
    config["evaluation"] = {"external": {"reader-study": "reader.csv"}}
    path.unlink()
    path.write_text(yaml.safe_dump(config))
    copy.build("all")
    return copy


def test_a_reader_is_one_more_model_everywhere(run):
    results = run.folder / "results"
    reader, combined = (
        json.loads((results / f"metrics/{name}-study.json").read_text())["targets"][PE_PRESENT]
        for name in ("reader", "combined")
    )
    assert 0.5 < reader["auroc"]["value"] < 1
    assert reader["auroc"]["value"] != combined["auroc"]["value"]
    assert reader["auroc"]["n_studies"] == combined["auroc"]["n_studies"]
    assert "reader-study" in set(pd.read_csv(results / "metrics.csv")["model"])
    compared = pd.read_csv(results / "comparisons.csv").query("target == @PE_PRESENT")
    row = compared.set_index("model").loc["reader-study"]
    difference = combined["auroc"]["value"] - reader["auroc"]["value"]
    assert row["value"] == pytest.approx(difference, abs=1e-6)
    assert row["low"] <= row["value"] <= row["high"]
    # Slices too, of the models that there are.
    metrics = {
        name: json.loads((results / f"metrics/{name}-image.json").read_text())
        for name in ("combined", "resnext50", "efficientnet_b0")
    }
    aurocs = {name: m["targets"][IMAGE_LABEL]["auroc"]["value"] for name, m in metrics.items()}
    compared = pd.read_csv(results / "comparisons.csv").query("target == @IMAGE_LABEL")
    assert set(compared["model"]) == {"resnext50-image", "efficientnet_b0-image"}
    for row in compared.itertuples():
        difference = aurocs["combined"] - aurocs[row.model.removesuffix("-image")]
        assert row.reference == "combined-image"
        assert row.value == pytest.approx(difference, abs=1e-6)
        assert row.low < row.value < row.high
    for plot in ("roc", "precision_recall", "calibration", "confusion", "decision"):
        assert (results / f"{plot}/reader-study.svg").is_file()
    assert "reader-study" in (results / "report.html").read_text()
