"""Real predictions of 7,279 exams through all that a report makes of predictions."""

import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from builders import NO_PATIENTS, facts_of

from clotline.data.rejects import NOTE_COLUMNS, REJECT_COLUMNS
from clotline.evaluation.comparison import compare
from clotline.evaluation.external import read_external
from clotline.evaluation.learning import warnings_table
from clotline.evaluation.metrics import Yardstick, evaluate
from clotline.labels import IMAGE_LABEL, SERIES_UID, SOP_UID, STUDY_LABELS, STUDY_UID
from clotline.reporting.plots import EVALUATION_PLOTS, save_figure
from clotline.reporting.report import render_report
from clotline.workflow.config import load_config

REAL = os.environ.get("CLOTLINE_REAL")
NAME = "elsewhere-study"


@pytest.mark.skipif(not REAL, reason="CLOTLINE_REAL is not set to a folder with real tables")
def test_real_predictions_go_through_the_report_within_a_minute(tmp_path, recwarn):
    real = pd.read_csv(Path(REAL, "rsna_exam_table.csv.gz")).assign(split="test", shard=0)
    slices = real["n_images_capped_400"].to_numpy()
    plan = real[[STUDY_UID, "split", "shard", *STUDY_LABELS]].assign(slices=slices)
    plan["positive_slices"] = (real["q_e"] * slices).round().astype(int)
    stored = pd.DataFrame({STUDY_UID: np.repeat(real[STUDY_UID].to_numpy(), slices)})
    stored = stored.assign(**{SERIES_UID: "s", SOP_UID: "1", "split": "test", IMAGE_LABEL: 0})
    names = {f"oof_{name}": name for name in STUDY_LABELS}
    long = real.rename(columns={n: f"{n}_true" for n in STUDY_LABELS}).rename(columns=names)
    long.melt([STUDY_UID], list(STUDY_LABELS), "label", "probability").to_csv(
        tmp_path / "predictions.csv", index=False
    )
    # Of the processor: what else a machine does is not its fault.
    start = time.process_time()
    table, notes = read_external(tmp_path / "predictions.csv", "study", stored, plan)
    yardstick = Yardstick(positive_slices=plan.set_index(STUDY_UID)["positive_slices"])
    metrics = {NAME: evaluate(table, "study", 2000, 0, [0.5], yardstick)}
    figures = {}
    for kind, plot in EVALUATION_PLOTS.items():
        for ending in ("png", "svg"):
            save_figure(plot(metrics[NAME], NAME), tmp_path / f"{kind}.{ending}")
        figures[kind] = {NAME: tmp_path / f"{kind}.svg"}
    compare({"combined-study": table, NAME: table}, "combined", 2000, 0).to_csv(
        tmp_path / "comparisons.csv", index=False
    )
    page = render_report(
        metrics,
        plan,
        stored,
        pd.DataFrame(columns=list(REJECT_COLUMNS)),
        pd.DataFrame(columns=list(NOTE_COLUMNS)),
        pd.read_csv(tmp_path / "comparisons.csv"),
        {},
        warnings_table({}, metrics),
        figures,
        load_config({}),
        {},
        pd.DataFrame(columns=["rule"]),
        "2026-01-01",
        facts_of(plan[STUDY_UID]),
        NO_PATIENTS,
    )
    assert time.process_time() - start < 60
    # Published: 0.8362 against negative exams, and 0.966 where many slices are positive.
    assert notes == []
    assert "7,122" in page
    for value, interval in (("0.836", "0.825–0.847"), ("0.966", "0.957–0.973")):
        assert f">{value}</span> ({interval})" in page
    # Nothing was squeezed out of a figure.
    assert [str(w.message) for w in recwarn if "constrained_layout" in str(w.message)] == []
