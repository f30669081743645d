"""The report of models on another cohort."""

import re

import numpy as np
import pandas as pd
import pytest
from builders import NO_PATIENTS

from clotline.data.cohort import FITTED, HELD_OUT, PART, TARGETS
from clotline.evaluation.metrics import evaluate
from clotline.evaluation.validation import validate
from clotline.labels import IMAGE_LABEL, SERIES_UID, SOP_UID, STUDY_LABELS, STUDY_UID
from clotline.reporting import claim
from clotline.reporting.plots import plot_calibration, save_figure
from clotline.reporting.validation import flow_of, recalibrated_metrics, render_validation
from clotline.sections.cnn import CNNSection
from clotline.sections.lstm import LSTMSection
from clotline.workflow.config import load_config

COUNT = 60
NO_NOTES = pd.DataFrame(columns=[STUDY_UID, "note"], dtype=object)


def predictions(seed):
    rng = np.random.default_rng(seed)
    truth = rng.random(COUNT) < 0.4
    table = pd.DataFrame({STUDY_UID: [f"1.{n}" for n in range(COUNT)]})
    table = table.assign(**dict.fromkeys(STUDY_LABELS, 0.1))
    table["negative_exam_for_pe"] = np.clip(0.7 - 0.4 * truth + rng.normal(0, 0.15, COUNT), 0, 1)
    table = table.assign(**{f"{name}_true": 0 for name in STUDY_LABELS})
    table["negative_exam_for_pe_true"] = (~truth).astype(int)
    return table


IN_BUNDLE = ("seed", "phantom", "cnn", "features", "lstm", "ensembles")


@pytest.fixture(scope="module")
def content():
    split = np.where(np.arange(COUNT) % 2, "valid", "test")
    internal = evaluate(predictions(1).assign(split=split), "study", 100, 0)
    table = predictions(2).assign(**{PART: np.where(np.arange(COUNT) % 3, HELD_OUT, FITTED)})
    sex = pd.Series(["female"] * 40 + ["male"] * 17 + ["other"] * 3, table[STUDY_UID])
    model = validate(table, "study", internal, {"Sex": sex}, 100, 0)
    return {
        "about": {
            "title": "Cohort <b>",
            "notes": ["a note & more"],
            "digests": {"bundle": "f" * 64},
        },
        # What the rule bundle puts into one.
        "trained": {key: load_config({"phantom": {}})[key] for key in IN_BUNDLE},
        "folds": [],
        "models": {"combined-study": model},
        "chosen": {"model": "combined-study", "why": "the best study-level model of the report"},
    }


@pytest.fixture(scope="module")
def flow(content):
    known = predictions(2)
    truth = known[[STUDY_UID]].assign(**dict.fromkeys(TARGETS, -1), **{PART: HELD_OUT})
    truth["pe_present"] = 1 - known["negative_exam_for_pe_true"]
    slices = truth[[STUDY_UID]].assign(**{SERIES_UID: "s", SOP_UID: "1", IMAGE_LABEL: -1})
    excluded = pd.DataFrame(
        [("1.99", "labels.csv, line 7", "trained on: its StudyInstanceUID is one of the data"),
         ("", "labels.csv, line 8", "no scan of it is in the folder")],
        columns=[STUDY_UID, "labels", "reason"],
    )  # fmt: skip
    unpredicted = pd.DataFrame({STUDY_UID: ["1.98"], "reason": ["too few slices: 3"]})
    left_out = pd.DataFrame({"path": ["a.txt"], "reason": ["not a DICOM file"]})
    return flow_of(content, truth, slices, excluded, unpredicted, left_out)


def test_the_flow_accounts_for_every_study(flow):
    assert flow["studies"] == COUNT
    assert flow["known"] == {"PE present": COUNT}
    assert flow["excluded"] == {"trained on": 1, "no scan of it is in the folder": 1}
    assert flow["unpredicted"] == {"too few slices": 1}
    assert flow["overlap"].startswith("1 studies that the models were trained on")


def page_of(content, flow, tmp_path):
    path = tmp_path / "a.svg"
    save_figure(plot_calibration(content["models"]["combined-study"], "combined-study"), path)
    notes = pd.DataFrame({STUDY_UID: ["1.1"], "note": ["thick slices: 5 mm"]})
    figures = {"calibration": {"Reliability": path}}
    return render_validation(content, flow, notes, figures, 0.3, 100, "2026-01-01")


def text_of(page):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))


def test_the_page_says_how_the_model_does_here_and_there(content, flow, tmp_path):
    page = page_of(content, flow, tmp_path)
    text = text_of(page)
    main = content["models"]["combined-study"]["targets"]["pe_present"]
    here, there = main["auroc"], main["internal"]["auroc"]["internal"]
    assert (
        f"AUROC for PE present {here['value']:.3f} ({here['low']:.3f}–{here['high']:.3f})" in text
    )
    assert f"in the internal test {there['value']:.3f}" in text
    assert "Nothing was trained on these studies" in text
    for title in (
        "Beside the internal test", "Operating points", "Calibration", "Subgroups",
        "Decision curves", "Predictive values at other prevalences", "Sample size",
    ):  # fmt: skip
        assert f">{title}</h2>" in page
    assert text.count("transported") >= 3 and text.count("fixed") >= 3
    # From outside, and escaped.
    assert "Cohort &lt;b&gt;" in page and "a note &amp; more" in page
    # Of three studies of a group nothing is told but that they are there.
    assert re.search(r"other 3 too few studies", text)


def test_the_page_shows_the_model_that_was_chosen_whatever_the_cohort_tells(content, flow):
    # Its labels may not tell of PE, by which the bundle's metrics rank the models.
    model = content["models"]["combined-study"]
    central = model | {"targets": {"central_pe": model["targets"]["pe_present"]}}
    models = {"combined-study": central, "resnext50-study": central}
    chosen = content["chosen"] | {"model": "resnext50-study"}
    other = content | {"models": models, "chosen": chosen}
    text = text_of(render_validation(other, flow, NO_NOTES, {}, 0.3, 100, "2026-01-01"))
    assert "resnext50-study : AUROC for Central PE" in text
    assert "by the internal test (the best study-level model of the report), not" in text


def test_items_of_an_external_test_are_filled_in(content, flow, tmp_path):
    text = text_of(page_of(content, flow, tmp_path))
    assert f"This is one: {COUNT} studies, {flow['positive']} of them with a PE" in text
    assert "27 of 42 items are filled in" in text


def flow_with(content, unknown=0):
    """Of a cohort of which PE is unknown in so many studies, and of a bundle without digests."""
    truth = predictions(2)[[STUDY_UID]].assign(**dict.fromkeys(TARGETS, -1), **{PART: HELD_OUT})
    truth["pe_present"] = np.where(np.arange(COUNT) < unknown, -1, np.arange(COUNT) % 2)
    slices = truth[[STUDY_UID]].assign(**{SERIES_UID: "s", SOP_UID: "1", IMAGE_LABEL: -1})
    none = pd.DataFrame(columns=[STUDY_UID, "path", "reason"], dtype=object)
    notes = ["the bundle, made by Clotline 0.8.0, has no digests of its training data"]
    content = content | {"about": content["about"] | {"notes": notes}}
    return flow_of(content, truth, slices, none, none, none)


def test_the_share_of_positives_is_of_the_studies_of_which_it_is_known(content, tmp_path):
    text = text_of(page_of(content, flow_with(content, unknown=40), tmp_path))
    assert "share of positives, 50.0% of the studies here of which it is known. " in text
    text = text_of(page_of(content, flow_with(content), tmp_path))
    assert "share of positives, 50.0% of the studies here. " in text


def test_without_digests_nothing_says_that_no_study_was_trained_on(content, tmp_path):
    text = text_of(page_of(content, flow_with(content), tmp_path))
    assert "Whether studies were trained on is not known." in text
    assert "; whether the models were trained on some of them is not known. Beside it" in text
    assert "none of which" not in text and "Nothing was trained on these" not in text


def test_calibration_before_and_after_is_that_of_the_rest(content):
    model = content["models"]["combined-study"]
    told = model["targets"]["pe_present"]["recalibration"]
    for moment in ("before", "after"):
        changed = recalibrated_metrics(model, moment)
        main = changed["targets"]["pe_present"]
        assert main["calibration"] == told[moment]["calibration"]
        assert changed["n_studies"] == COUNT * 2 // 3
    assert model["targets"]["pe_present"]["calibration"] != told["before"]["calibration"]


def claimed(content, flow, **changes):
    trained = content["trained"] | changes.pop("trained", {})
    return claim.fill_in_validation(trained, changes.pop("folds", []), flow, 0.3, 100)


def test_claim_names_ensembles_and_folds_of_the_bundle(content, flow):
    assert claimed(content, flow)[27].startswith("None; ")
    ensembles = {"all-study": ["combined-study", "resnext50-study"]}
    told = claimed(content, flow, trained={"ensembles": ensembles}, folds=["combined-joint"])[27]
    assert "all-study: combined-study, resnext50-study; folds:" in told
    assert "of each of combined-joint" in told


def test_claim_names_every_interval_and_measure_of_the_page(content, flow):
    of_training = claim.fill_in(load_config({}), 1, 0, 0, NO_PATIENTS)
    of_validation = claimed(content, flow)
    for said in (of_training, of_validation):
        assert "decision curves, predictive values by prevalence" in said[28]
        assert "logit intervals for predictive values by prevalence" in said[29]
        assert "for rates of slices of 0 or 1 (a trial a study)" in said[29]


def test_claim_names_the_slices_that_the_models_want(content, flow):
    trained = {key: value for key, value in content["trained"].items() if key != "data"}
    old = claim.fill_in_validation(trained, [], flow, 0.3, 100)[9]
    assert "256 × 256 pixels by area averaging" in old
    lungs = claimed(content, flow, trained={"data": {"size": 512, "crop": "lungs"}})[9]
    assert "512 × 512 pixels around the lungs by area averaging" in lungs


def test_claim_of_an_older_bundle_says_what_its_keys_meant(content, flow):
    old = {
        stage: {
            name: {key: value for key, value in entry.items() if key not in section.BEFORE}
            for name, entry in content["trained"][stage].items()
        }
        for stage, section in (("cnn", CNNSection), ("lstm", LSTMSection))
    }
    trained = {key: value for key, value in content["trained"].items() if key != "ensembles"}
    before = claim.fill_in_validation(trained | old, [], flow, 0.3, 100)
    assert before[25] == claimed(content, flow)[25]
    assert before[27].startswith("None; ")
