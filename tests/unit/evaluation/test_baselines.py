import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from clotline.evaluation.baselines import (
    Baseline,
    beside_baseline,
    count_baseline,
    position_baseline,
    relative_positions,
    summarise_slice_scores,
)
from clotline.evaluation.comparison import metrics_table
from clotline.evaluation.intervals import Cases
from clotline.evaluation.metrics import Yardstick, evaluate
from clotline.evaluation.metrics_files import describe_baseline, describe_verdict
from clotline.labels import IMAGE_LABEL, SERIES_UID, SOP_UID, STUDY_LABELS, STUDY_UID

NO_WARNINGS = pd.DataFrame(columns=["model", "from", "warning"])

REAL = os.environ.get("CLOTLINE_REAL")
needs_real = pytest.mark.skipif(
    not REAL, reason="CLOTLINE_REAL is not set to a folder with real tables"
)


def cohort(studies=90, seed=0, seen=2.0, depth=0.15):
    """slices.parquet, plan.parquet and image-level predictions; emboli lie around the middle.

    Args:
        studies: number of studies, in turn of train, valid and test.
        seed: of the draws.
        seen: how far apart the scores of positive and negative slices lie.
        depth: standard deviation of the emboli's relative position.
    """
    rng = np.random.default_rng(seed)
    rows, plan = [], []
    for number in range(studies):
        count, split = int(rng.integers(10, 20)), ("train", "valid", "test")[number % 3]
        present = bool(rng.random() < 0.5)
        position = np.arange(count) / (count - 1)
        truth = (np.abs(position - rng.normal(0.5, depth)) < 0.12) & present
        for slice_number in range(count):
            rows.append((f"s{number}", f"{number}.{slice_number}", split, truth[slice_number]))
        labels = dict.fromkeys(STUDY_LABELS, 0) | {
            "negative_exam_for_pe": int(not present),
            "leftsided_pe": int(present),
        }
        plan.append(labels | {STUDY_UID: f"s{number}", "positive_slices": int(truth.sum())})
    slices = pd.DataFrame(rows, columns=[STUDY_UID, SOP_UID, "split", IMAGE_LABEL])
    slices[SERIES_UID] = "1"
    logit = seen * slices[IMAGE_LABEL] + rng.normal(size=len(slices))
    image = slices[slices["split"] != "train"].reset_index(drop=True)
    image[f"{IMAGE_LABEL}_true"] = image[IMAGE_LABEL].astype(np.int8)
    image[IMAGE_LABEL] = (1 / (1 + np.exp(-logit[slices["split"] != "train"]))).to_numpy()
    return slices, pd.DataFrame(plan), image


def test_relative_positions_run_from_0_to_1_within_each_study():
    found = relative_positions(np.array(["a", "a", "a", "b", "c", "c"]))
    assert found.tolist() == [0, 0.5, 1, 0.5, 0, 1]


def test_the_position_baseline_ranks_test_slices_by_where_train_has_its_emboli():
    slices, _, _ = cohort()
    found = position_baseline(slices)
    test = slices[slices["split"] == "test"]
    assert found[SOP_UID].tolist() == test[SOP_UID].tolist()
    assert roc_auc_score(test[IMAGE_LABEL].astype(bool), found[IMAGE_LABEL]) > 0.75
    middle = np.abs(relative_positions(test[STUDY_UID].to_numpy()) - 0.5)
    assert found[IMAGE_LABEL][middle < 0.1].min() > found[IMAGE_LABEL][middle > 0.45].max()


def test_the_position_baseline_sees_neither_test_labels_nor_pixels():
    slices, _, _ = cohort()
    other = slices.copy()
    other.loc[other["split"] == "test", IMAGE_LABEL] = False
    assert position_baseline(slices).equals(position_baseline(other))


@pytest.mark.parametrize("kept", ["train", "test"])
def test_without_emboli_to_fit_on_or_slices_to_predict_there_is_no_position_baseline(kept):
    slices, _, _ = cohort(30)
    if kept == "train":
        slices = slices[slices["split"] == "train"]
    else:
        slices.loc[slices["split"] == "train", IMAGE_LABEL] = False
    assert position_baseline(slices).empty


def test_what_the_count_baseline_sees_of_a_study():
    study = np.array(["b"] * 4 + ["a"] * 2)
    found = summarise_slice_scores(study, np.array([0.05, 0.15, 0.25, 0.95, 0.5, 0.5]))
    assert found.index.tolist() == ["b", "a"]
    assert found["above 0.1"].tolist() == pytest.approx([np.log(4), np.log(3)])
    assert found["above 0.5"].tolist() == pytest.approx([np.log(2), 0])
    assert found["percentile 100"].tolist() == pytest.approx([np.log(0.95 / 0.05), 0])
    assert found["mean"].iloc[0] == pytest.approx(np.log(0.35 / 0.65))


def test_the_count_baseline_is_fitted_on_valid_and_predicts_test():
    _, plan, image = cohort(240)
    found = count_baseline(image, plan)
    test = image[image["split"] == "test"]
    assert found[STUDY_UID].tolist() == test[STUDY_UID].unique().tolist()
    truth = plan.set_index(STUDY_UID).loc[found[STUDY_UID], "leftsided_pe"]
    assert roc_auc_score(truth, found["leftsided_pe"]) > 0.75
    assert roc_auc_score(truth, found["pe_present"]) > 0.75
    # All valid studies are of one class of these.
    assert "central_pe" not in found and "indeterminate" not in found
    # The test studies' labels change nothing.
    blind = plan.assign(
        leftsided_pe=plan["leftsided_pe"].where(~plan[STUDY_UID].isin(found[STUDY_UID]), 0)
    )
    assert count_baseline(image, blind)["leftsided_pe"].equals(found["leftsided_pe"])


def test_the_count_baseline_of_few_studies_or_none_on_valid():
    _, plan, image = cohort(12)
    assert count_baseline(image, plan)["pe_present"].between(0, 1).all()
    found = count_baseline(image[image["split"] == "test"], plan)
    assert len(found) == 4 and list(found) == [STUDY_UID]


def yardstick(seed=0, seen=2.0):
    slices, plan, image = cohort(240, seed, seen)
    return image, Yardstick(
        Baseline("position only", position_baseline(slices)),
        Baseline("counts of m-image", count_baseline(image, plan)),
        plan.set_index(STUDY_UID)["positive_slices"],
    )


def test_each_auroc_stands_beside_its_baseline_on_the_same_cases():
    image, beside = yardstick()
    metrics = evaluate(image, "image", 50, 0, (), beside)
    json.dumps(metrics, allow_nan=False)
    on_slices, on_studies = (target["baseline"] for target in metrics["targets"].values())
    assert on_slices["name"] == "position only"
    assert on_studies["name"] == "counts of m-image"
    test = image[image["split"] == "test"]
    position = beside.slices.table[IMAGE_LABEL]
    truth = test[f"{IMAGE_LABEL}_true"]
    assert on_slices["auroc"]["value"] == pytest.approx(roc_auc_score(truth, position))
    gain = roc_auc_score(truth, test[IMAGE_LABEL]) - roc_auc_score(truth, position)
    assert on_slices["difference"]["value"] == pytest.approx(gain)
    assert on_slices["difference"]["n_slices"] == len(test)
    assert on_slices["beaten"] == (on_slices["difference"]["low"] > 0)
    (row, _) = metrics_table({"m-image": metrics}, NO_WARNINGS).itertuples()
    assert row.baseline == "position only"
    assert row.baseline_auroc == on_slices["auroc"]["value"]
    assert row.above_baseline_low == on_slices["difference"]["low"]


def test_rows_of_another_order_or_of_some_studies_meet_their_own_baseline():
    image, beside = yardstick()
    whole = evaluate(image, "image", 20, 0, (), beside)["targets"][IMAGE_LABEL]["baseline"]
    turned = image.iloc[::-1].reset_index(drop=True)
    again = evaluate(turned, "image", 20, 0, (), beside)["targets"][IMAGE_LABEL]["baseline"]
    assert again["auroc"]["value"] == pytest.approx(whole["auroc"]["value"])
    some = image[image[STUDY_UID].isin(image[STUDY_UID].unique()[:60])]
    found = evaluate(some, "image", 20, 0, (), beside)["targets"][IMAGE_LABEL]["baseline"]
    assert found["auroc"]["n_slices"] == (some["split"] == "test").sum()


def test_a_network_that_does_not_beat_its_baseline_is_said_not_to():
    truth, rng = np.arange(200) % 2, np.random.default_rng(0)
    good = 1 / (1 + np.exp(-(2.0 * truth + rng.normal(size=200))))
    poor = 1 / (1 + np.exp(-(0.2 * truth + rng.normal(size=200))))
    baseline = Baseline("counts of m-image", pd.DataFrame())
    better = beside_baseline(Cases.of(truth, good), baseline, poor, 20, 0)
    worse = beside_baseline(Cases.of(truth, poor), baseline, good, 20, 0)
    assert better["beaten"] and not worse["beaten"]
    assert describe_verdict(better).startswith("beats counts of m-image: difference 0.")
    assert describe_verdict(worse).startswith(
        "is not shown to beat counts of m-image: difference −0."
    )
    alike = beside_baseline(Cases.of(truth, good), baseline, good, 20, 0)
    assert not alike["beaten"]


def test_a_missing_baseline_says_why():
    cases = Cases.of([0, 1, 1, 0], [0.1, 0.9, 0.6, 0.4])
    nothing = beside_baseline(cases, None, None, 20, 0)
    assert "no image-level model" in describe_baseline(nothing)
    baseline = Baseline("counts of m-image", pd.DataFrame({STUDY_UID: ["s1"]}))
    unfit = beside_baseline(cases, baseline, None, 20, 0)
    assert "one class only" in unfit["reason"] and describe_verdict(unfit) == ""
    one = beside_baseline(Cases.of([1, 1], [0.1, 0.9]), baseline, np.array([0.1, 0.2]), 20, 0)
    assert one["reason"].startswith("one class only")


@needs_real
def test_position_alone_ranks_the_slices_of_real_ctpa_as_published():
    """From 1,675 real series: 0.80 on held-out ones, 0.885 within the positive ones."""
    series = pd.read_csv(Path(REAL, "penet_series.csv"))
    series = series[(series["is_positive"] == 0) | series["pe_idxs"].notna()]
    split = series["phase"].replace({"val": "valid"}).to_numpy()
    count = series["num_slices"].to_numpy()
    truth = []
    for n, indices in zip(count, series["pe_idxs"], strict=True):
        here = np.zeros(n, bool)
        if isinstance(indices, str):
            places = np.array(indices.split(), int)
            here[places[places < n]] = True
        truth.append(here)
    slices = pd.DataFrame(
        {
            STUDY_UID: np.repeat(np.arange(len(series)), count),
            SERIES_UID: "1",
            SOP_UID: np.concatenate([np.arange(n) for n in count]),
            "split": np.repeat(split, count),
            IMAGE_LABEL: np.concatenate(truth),
        }
    )
    # Enough held-out series for a figure of two decimals.
    slices["split"] = np.where(slices["split"] == "train", "train", "test")
    found = position_baseline(slices)[IMAGE_LABEL].to_numpy()
    test = slices[slices["split"] == "test"]
    on = test[IMAGE_LABEL].to_numpy()
    assert roc_auc_score(on, found) == pytest.approx(0.80, abs=0.02)
    positive = test.groupby(STUDY_UID)[IMAGE_LABEL].transform("any").to_numpy()
    assert roc_auc_score(on[positive], found[positive]) == pytest.approx(0.885, abs=0.02)


def real_studies():
    """The competition's real studies with out-of-fold predictions of its 18th place."""
    real = pd.read_csv(Path(REAL, "rsna_exam_table.csv.gz"))
    count = real["q_e"] * real["n_images_capped_400"]
    table = pd.DataFrame({STUDY_UID: real["StudyInstanceUID"], "split": "test"})
    for name in STUDY_LABELS:
        table[f"{name}_true"], table[name] = real[name], real[f"oof_{name}"]
    # 1 - p(negative), as its authors scored it.
    table["pe_present"] = 1 - table["negative_exam_for_pe"]
    # Of series with more than 400 slices it is no whole number; seven lie between two bands.
    return table, pd.Series(count.to_numpy(), table[STUDY_UID])


@needs_real
def test_real_out_of_fold_predictions_give_their_published_figures():
    table, positive_slices = real_studies()
    metrics = evaluate(table, "study", 20, 0, (), Yardstick(positive_slices=positive_slices))
    all_studies = metrics["subgroups"]["all"]
    assert (all_studies["n_studies"], all_studies["n_positive"]) == (7122, 2211)
    assert all_studies["value"] == pytest.approx(0.8362, abs=5e-5)
    assert (all_studies["low"], all_studies["high"]) == pytest.approx((0.826, 0.848), abs=2e-3)
    bands = [(band["n_positive"], round(band["value"], 3)) for band in metrics["sizes"].values()]
    assert bands == [(176, 0.635), (596, 0.715), (639, 0.845), (793, 0.966)]
    for band in metrics["sizes"].values():
        assert band["low"] < band["value"] < band["high"]


@needs_real
def test_real_out_of_fold_predictions_give_the_competitions_exam_loss():
    from clotline.evaluation.competition import loss_terms

    table, _ = real_studies()
    truth = table[[f"{name}_true" for name in STUDY_LABELS]].to_numpy(float)
    above, below = loss_terms(truth, table[list(STUDY_LABELS)].to_numpy(float))
    assert above.sum() / below.sum() == pytest.approx(0.2306, abs=5e-5)
    rates = np.tile(truth.mean(0), (len(truth), 1))
    above, below = loss_terms(truth, rates)
    assert above.sum() / below.sum() == pytest.approx(0.3183, abs=5e-5)
