"""Models on a cohort that they know nothing of."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit

from clotline.data.cohort import FITTED, HELD_OUT, PART
from clotline.evaluation.intervals import Cases
from clotline.evaluation.metrics import evaluate
from clotline.evaluation.validation import (
    NO_BASELINE,
    independent_difference,
    recalibrate,
    recalibrated,
    validate,
    with_truth,
)
from clotline.labels import IMAGE_LABEL, SERIES_UID, SOP_UID, STUDY_LABELS, STUDY_UID

RESAMPLES = 60


def study_table(count, seed=0, shift=0.0):
    """A model of some skill; ``shift`` is added to its logits."""
    rng = np.random.default_rng(seed)
    truth = rng.random(count) < 0.4
    score = expit(rng.normal(1.8 * truth - 1, 1) + shift)
    labels = dict.fromkeys(STUDY_LABELS, 0.2)
    unknown = dict.fromkeys((f"{name}_true" for name in STUDY_LABELS), -1)
    table = pd.DataFrame({STUDY_UID: [f"1.{n}" for n in range(count)], "pe_present": score})
    table = table.assign(**labels, **unknown, pe_present_true=truth.astype(int))
    return table.assign(**{PART: np.where(np.arange(count) % 3, HELD_OUT, FITTED)})


def internal_metrics():
    """Of the same kind of model on the data that it was trained on."""
    table = study_table(150, seed=9)
    truth = table["pe_present_true"]
    table["negative_exam_for_pe_true"], table["indeterminate_true"] = 1 - truth, 0
    table = table.assign(**{f"{n}_true": 0 for n in STUDY_LABELS if n not in
                            ("negative_exam_for_pe", "indeterminate")})  # fmt: skip
    table["split"] = np.where(np.arange(150) < 75, "valid", "test")
    return evaluate(table, "study", RESAMPLES, 0)


INTERNAL = internal_metrics()


def found_of(table, groups=None, **keys):
    return validate(table, "study", INTERNAL, groups or {}, RESAMPLES, 0, **keys)


def test_only_targets_whose_truth_is_known_are_evaluated():
    table = study_table(90)
    assert list(found_of(table)["targets"]) == ["pe_present"]
    table["central_pe_true"] = table["pe_present_true"]
    table.loc[:29, "central_pe_true"] = -1
    targets = found_of(table)["targets"]
    assert list(targets) == ["pe_present", "central_pe"]
    assert targets["pe_present"]["auroc"]["n_studies"] == 90
    assert targets["central_pe"]["auroc"]["n_studies"] == 60
    json.dumps(targets, allow_nan=False)


def test_a_study_whose_truth_is_unknown_is_never_taken_for_a_negative():
    table = study_table(90)
    known = found_of(table[:80])["targets"]["pe_present"]
    table.loc[80:, "pe_present_true"] = -1
    masked = found_of(table)["targets"]["pe_present"]
    for name in ("auroc", "brier"):
        assert masked[name]["value"] == known[name]["value"]
    assert masked["operating_points"] == known["operating_points"]


def test_studies_and_slices_are_counted_of_which_the_truth_is_known():
    table = study_table(90)
    table.loc[80:, "pe_present_true"] = -1
    assert found_of(table)["n_studies"] == 80
    slices = table.loc[table.index.repeat(4)].rename(columns={"pe_present": IMAGE_LABEL})
    slices[f"{IMAGE_LABEL}_true"] = slices["pe_present_true"].where(slices.index < 30, -1)
    slices = slices.reset_index(drop=True)
    found = validate(slices, "image", {"targets": {}}, {}, RESAMPLES, 0)
    assert (found["n_studies"], found["n_slices"]) == (30, 120)
    assert found["targets"]["pe_present_by_max"]["auroc"]["n_studies"] == 80


def test_fixed_thresholds_are_the_bundles_and_transported_ones_are_chosen_anew():
    table = study_table(300, shift=1.5)
    main = found_of(table, thresholds=[0.5])["targets"]["pe_present"]
    there = INTERNAL["targets"]["pe_present"]["operating_points"]
    assert [p["threshold"] for p in main["operating_points"][:3]] == [p["threshold"] for p in there]
    assert main["operating_points"][3]["name"] == "p ≥ 0.5"
    # All logits are 1.5 too high here, and so are thresholds that were chosen here.
    fixed, moved = main["operating_points"][0], main["transported"][0]
    assert logit(moved["threshold"]) - logit(fixed["threshold"]) == pytest.approx(1.5, abs=0.8)
    assert moved["sensitivity"]["n_studies"] == 200
    assert fixed["specificity"]["value"] < moved["specificity"]["value"]


def test_recalibration_is_fitted_on_one_part_and_judged_on_the_other():
    table = study_table(900, shift=1.5)
    told = found_of(table)["targets"]["pe_present"]["recalibration"]
    assert told["slope"]["n_studies"] == 300
    before, after = told["before"], told["after"]
    assert before["calibration"]["in_the_large"]["high"] < -0.8
    large = after["calibration"]["in_the_large"]
    assert large["low"] < 0 < large["high"]
    assert after["log_loss"]["value"] < before["log_loss"]["value"]
    assert after["log_loss"]["n_studies"] == 600


def test_recalibration_gives_the_logits_their_slope_and_intercept():
    np.testing.assert_allclose(recalibrated(expit([-1.0, 2.0]), 0.5, 2), expit([-1.5, 4.5]))


def test_where_nothing_can_be_fitted_the_reason_is_said():
    some, none = Cases.of([0, 1, 1], [0.1, 0.9, 0.4]), Cases.of([], [])
    told = recalibrate(none, some, RESAMPLES, 0)
    assert told["after"] is None and "no studies" in told["slope"]["reason"]
    assert told["before"]["brier"]["value"] > 0
    told = recalibrate(Cases.of([0, 0], [0.1, 0.2]), some, RESAMPLES, 0)
    assert told["after"] is None and "one class only" in told["slope"]["reason"]
    told = recalibrate(some, none, RESAMPLES, 0)
    assert told["before"] is None and told["after"] is None


def test_each_metric_stands_beside_the_internal_test():
    main = found_of(study_table(90))["targets"]["pe_present"]
    assert main["baseline"] == {"reason": NO_BASELINE}
    beside = main["internal"]
    assert set(beside) == {
        "auroc", "average_precision", "brier", "log_loss", "sensitivity", "specificity",
    }  # fmt: skip
    there = INTERNAL["targets"]["pe_present"]["auroc"]
    assert beside["auroc"]["internal"] == there
    difference = beside["auroc"]["difference"]
    assert difference["value"] == main["auroc"]["value"] - there["value"]
    assert difference["low"] < difference["value"] < difference["high"]


def test_the_difference_of_independent_samples_is_movers():
    """Newcombe's example of two proportions, 56/70 and 48/80 (method 10: 0.0524 to 0.3339)."""
    counts = {"n_studies": 0, "n_positive": 0, "reason": None}
    here = {"value": 56 / 70, "low": 0.6918, "high": 0.8769} | counts
    there = {"value": 48 / 80, "low": 0.4904, "high": 0.7005} | counts
    found = independent_difference(here, there)
    assert found["value"] == pytest.approx(0.2)
    assert (found["low"], found["high"]) == pytest.approx((0.0524, 0.3339), abs=2e-4)
    unknown = independent_difference(here | {"value": None, "reason": "no studies"}, there)
    assert unknown["value"] is None and unknown["reason"] == "no studies"
    lone = here | {"low": None, "high": None, "reason": "no interval: one study only"}
    unknown = independent_difference(lone, there | {"value": None, "reason": "no studies"})
    assert unknown["value"] is None and unknown["reason"] == "there: no studies"


def test_groups_are_told_but_for_those_of_few_studies():
    table = study_table(90)
    sex = pd.Series(["female"] * 50 + ["male"] * 36 + ["other"] * 4, table[STUDY_UID])
    groups = found_of(table, {"Sex": sex[:88]})["groups"]["Sex"]
    assert [(g["group"], g["n_studies"]) for g in groups] == [
        ("female", 50), ("male", 36), ("not known", 2), ("other", 2),
    ]  # fmt: skip
    women = table[:50]
    assert groups[0]["n_positive"] == women["pe_present_true"].sum()
    only = found_of(women)["targets"]["pe_present"]
    assert groups[0]["auroc"] == only["auroc"]
    assert groups[0]["sensitivity"] == only["operating_points"][0]["sensitivity"]
    assert groups[3] == {
        "group": "other", "n_studies": 2, "n_positive": None, "auroc": None, "sensitivity": None,
        "specificity": None,
    }  # fmt: skip


def test_what_decides_about_studies_is_told_of_this_cohort():
    main = found_of(study_table(90), prevalences=[0.02])["targets"]["pe_present"]
    assert main["decision_curve"]["thresholds"]
    (row,) = main["predictive_values"]["sensitivity ≥ 0.90"]
    assert row["prevalence"] == 0.02
    auroc = next(row for row in main["sample_size"] if row["metric"] == "auroc")
    assert (auroc["value"], auroc["studies"]) == (main["auroc"]["value"], 90)


def test_one_class_gives_reasons_and_no_error():
    table = study_table(40).assign(pe_present_true=0)
    main = found_of(table)["targets"]["pe_present"]
    assert "one class only: all 40 studies are negative" in main["auroc"]["reason"]
    assert main["operating_points"][0]["specificity"]["value"] is not None
    json.dumps(main, allow_nan=False)


def test_predictions_for_people_come_beside_the_truth(tmp_path):
    truth = study_table(3)[[STUDY_UID, PART]].assign(pe_present=[1, 0, 1])
    truth = truth.assign(**dict.fromkeys(STUDY_LABELS, -1))
    told = study_table(4).drop(columns=PART).assign(model="combined-study")
    told.to_csv(tmp_path / "predictions.csv", index=False)
    slices = pd.DataFrame({STUDY_UID: ["1.0", "1.0", "1.3"], SERIES_UID: "1"})
    slices = slices.assign(**{SOP_UID: ["1", "2", "3"], "position_mm": 0.0})
    slices["combined-image"] = [0.25, 0.75, 0.5]
    slices.to_csv(tmp_path / "slices.csv", index=False)
    labels = slices[[STUDY_UID, SERIES_UID, SOP_UID]].assign(**{IMAGE_LABEL: [0, 1, 0]})
    tables = with_truth(tmp_path / "predictions.csv", tmp_path / "slices.csv", truth, labels)
    assert list(tables) == ["combined-study", "combined-image"]
    study, image = tables.values()
    assert study["pe_present_true"].tolist() == [1, 0, 1]
    np.testing.assert_array_equal(study["pe_present"], told["pe_present"][:3])
    assert image[f"{IMAGE_LABEL}_true"].tolist() == [0, 1]
    internal = {"targets": {}}
    found = validate(image, "image", internal, {}, RESAMPLES, 0)
    assert list(found["targets"]) == [IMAGE_LABEL, "pe_present_by_max"]
