import json

import numpy as np
import pandas as pd
import pytest
from builders import weighted_log_loss
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    confusion_matrix,
    log_loss,
    roc_auc_score,
    roc_curve,
)

from clotline.data.consistency import consistent
from clotline.errors import ClotlineError
from clotline.evaluation.comparison import compare, metrics_table
from clotline.evaluation.competition import evaluate_competition, label_consistency, submission
from clotline.evaluation.intervals import Cases
from clotline.evaluation.learning import warnings_table
from clotline.evaluation.metrics import (
    METRICS,
    OPERATING_POINTS,
    RATES,
    SIZES,
    SUBGROUPS,
    Yardstick,
    choose_thresholds,
    evaluate,
    evaluate_sizes,
    evaluate_subgroups,
    evaluate_target,
    thresholds_from,
)
from clotline.evaluation.predictions import pe_present
from clotline.evaluation.ranking import ROC_GRID
from clotline.labels import IMAGE_LABEL, SERIES_UID, SOP_UID, STUDY_LABELS, STUDY_UID

NO_WARNINGS = warnings_table({}, {})
RESAMPLES = 100


def study_table(studies=120, seed=0, noise=1.0):
    """Predictions of a study-level model; odd studies are valid. The truth does not vary."""
    truth_rng, rng = np.random.default_rng(7), np.random.default_rng(seed)
    kind = truth_rng.choice(3, studies, p=[0.5, 0.4, 0.1])
    table = {
        STUDY_UID: [f"1.{n:03d}" for n in range(studies)],
        "split": np.where(np.arange(studies) % 2, "valid", "test"),
    }
    for name in STUDY_LABELS:
        truth = (truth_rng.random(studies) < 0.5) & (kind == 1)
        truth = {"negative_exam_for_pe": kind == 0, "indeterminate": kind == 2}.get(name, truth)
        logit = 2 * truth - 1 + noise * rng.normal(size=studies)
        table[name] = (1 / (1 + np.exp(-logit))).astype(np.float32)
        table[name + "_true"] = truth.astype(np.int8)
    return pd.DataFrame(table)


def image_table(studies=60, seed=0):
    """Predictions of an image-level model for the studies of `study_table`."""
    rng = np.random.default_rng(seed)
    base = study_table(studies)
    rows = np.repeat(np.arange(studies), rng.integers(4, 12, studies))
    present = pe_present(base, "_true")[rows] == 1
    truth = present & (rng.random(len(rows)) < 0.4)
    table = base[[STUDY_UID, "split"]].iloc[rows].reset_index(drop=True)
    table[SERIES_UID], table[SOP_UID] = "1", [f"1.{row}" for row in range(len(rows))]
    table[IMAGE_LABEL] = 1 / (1 + np.exp(-(2 * truth - 1 + rng.normal(size=len(rows)))))
    table[IMAGE_LABEL] = table[IMAGE_LABEL].astype(np.float32)
    table[IMAGE_LABEL + "_true"] = truth.astype(np.int8)
    return table


def all_estimates(tree):
    if isinstance(tree, dict):
        if "method" in tree:
            yield tree
        for branch in tree.values():
            yield from all_estimates(branch)
    elif isinstance(tree, list):
        for branch in tree:
            yield from all_estimates(branch)


def test_study_level_metrics():
    table = study_table()
    metrics = evaluate(table, "study", RESAMPLES, 0)
    json.dumps(metrics, allow_nan=False)
    assert list(metrics["targets"]) == ["pe_present", *STUDY_LABELS]
    assert metrics["n_studies"] == 60
    test = table[table["split"] == "test"]
    for name in STUDY_LABELS:
        estimates, truth, score = metrics["targets"][name], test[name + "_true"], test[name]
        score = score.astype(float)
        for metric, reference in {
            "auroc": roc_auc_score(truth, score),
            "auroc_bootstrap": roc_auc_score(truth, score),
            "average_precision": average_precision_score(truth, score),
            "brier": brier_score_loss(truth, score),
            "log_loss": log_loss(truth, score),
        }.items():
            assert estimates[metric]["value"] == pytest.approx(reference)
            assert estimates[metric]["low"] <= reference <= estimates[metric]["high"]
            assert estimates[metric]["n_positive"] == truth.sum()
        assert estimates["auroc"]["method"] == "score interval, DeLong's variance"
        assert len(estimates["roc"]["low"]) == len(estimates["roc"]["grid"])


def test_the_roc_band_is_of_the_resamples_with_both_classes():
    # Two positive studies of eight: about (3/4)^8 = 10% of the resamples have none.
    truth = np.array([1, 0, 0, 1, 0, 0, 0, 0])
    score = np.array([0.9, 0.8, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
    cases, rng, curves = Cases.of(truth, score), np.random.default_rng(3), []
    for _ in range(RESAMPLES):
        rows = rng.integers(0, 8, 8)
        if 0 < truth[rows].sum() < 8:
            fpr, tpr, _ = roc_curve(truth[rows], score[rows], drop_intermediate=False)
            curves.append(np.interp(ROC_GRID, fpr, tpr))
    assert len(curves) < RESAMPLES
    roc = evaluate_target(cases, thresholds_from(cases), RESAMPLES, 3)["roc"]
    low, high = np.quantile(curves, [0.025, 0.975], axis=0)
    assert roc["low"] == pytest.approx(low)
    assert roc["high"] == pytest.approx(high)


def test_one_class_has_losses_and_no_ranking():
    score = np.linspace(0.05, 0.6, 12)
    cases = Cases.of(np.zeros(12), score)
    found = evaluate_target(cases, thresholds_from(Cases.of([0, 1], [0.2, 0.8])), RESAMPLES, 0)
    assert found["brier"]["value"] == pytest.approx((score**2).mean())
    assert found["log_loss"]["value"] == pytest.approx(-np.log(1 - score).mean())
    for name in ("brier", "log_loss"):
        assert found[name]["low"] < found[name]["value"] < found[name]["high"]
    for name in ("auroc", "auroc_bootstrap", "average_precision"):
        assert found[name]["value"] is None
        assert "all 12 studies are negative" in found[name]["reason"]


def test_the_same_seed_gives_the_same_metrics():
    table = image_table()
    first, again, other = (evaluate(table, "image", RESAMPLES, seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_image_level_metrics():
    table = image_table()
    metrics = evaluate(table, "image", RESAMPLES, 0)
    json.dumps(metrics, allow_nan=False)
    test = table[table["split"] == "test"]
    assert list(metrics["targets"]) == [IMAGE_LABEL, "pe_present_by_max"]
    assert (metrics["n_studies"], metrics["n_slices"]) == (30, len(test))
    slices, studies = metrics["targets"].values()
    assert slices["auroc"]["n_slices"] == len(test)
    assert slices["auroc"]["method"].startswith("bootstrap of studies")
    highest = test.groupby(STUDY_UID)[[IMAGE_LABEL, IMAGE_LABEL + "_true"]].max()
    assert studies["auroc"]["value"] == pytest.approx(
        roc_auc_score(highest[IMAGE_LABEL + "_true"], highest[IMAGE_LABEL])
    )
    assert (studies["auroc"]["n_studies"], studies["auroc"]["n_slices"]) == (30, None)


def test_thresholds_are_fixed_on_valid_and_counted_on_test():
    table = study_table()
    valid, test = (table[table["split"] == split] for split in ("valid", "test"))
    points = evaluate(table, "study", RESAMPLES, 0)["targets"]["central_pe"]["operating_points"]
    thresholds = choose_thresholds(valid["central_pe_true"], valid["central_pe"])
    assert [p["name"] for p in points] == list(OPERATING_POINTS)
    assert [p["threshold"] for p in points] == list(thresholds.values())
    truth, called = test["central_pe_true"] == 1, test["central_pe"] >= points[0]["threshold"]
    expected = {
        "sensitivity": called[truth].mean(),
        "specificity": (~called)[~truth].mean(),
        "ppv": truth[called].mean(),
        "npv": (~truth)[~called].mean(),
    }
    for name, value in expected.items():
        assert points[0][name]["value"] == pytest.approx(value)
        assert points[0][name]["method"] == "Wilson"


def test_thresholds_by_hand():
    truth = np.array([1] * 10 + [0] * 4)
    score = np.r_[np.arange(10, 0, -1) / 10, 0.75, 0.15, 0.05, 0.05]
    # Nine of ten positives are at or above 0.2, which is 90% and not a bit more.
    # J: at 0.8 it is 0.3 - 0; at 0.2, 0.9 - 1/4; at 0.1, 1 - 2/4.
    assert choose_thresholds(truth, score) == dict(
        zip(OPERATING_POINTS, (0.2, 0.1, 0.2), strict=True)
    )


def test_confusion_counts_are_those_of_the_thresholds():
    table = study_table()
    target = evaluate(table, "study", RESAMPLES, 0)["targets"]["central_pe"]
    test = table[table["split"] == "test"]
    for point in target["operating_points"]:
        called = test["central_pe"] >= point["threshold"]
        expected = confusion_matrix(test["central_pe_true"], called).ravel().tolist()
        names = ("true_negative", "false_positive", "false_negative", "true_positive")
        assert [point["confusion"][name] for name in names] == expected


def test_a_submission_has_every_test_study_and_slice_and_is_consistent():
    study, image = study_table(60), image_table()
    image[SOP_UID] = [f"9.{number}" for number in range(len(image))]
    table = submission(study, image)
    studies = study[study["split"] == "test"][STUDY_UID]
    slices = image[image["split"] == "test"]
    expected = [f"{uid}_{name}" for uid in studies for name in STUDY_LABELS]
    assert table["id"].tolist() == [*expected, *slices[SOP_UID]]
    labels = table["label"][: len(expected)].to_numpy().reshape(-1, len(STUDY_LABELS))
    exam = pd.Index(studies).get_indexer(slices[STUDY_UID])
    assert consistent(labels, table["label"][len(expected) :].to_numpy(), exam).all()


def test_subgroups_set_their_positives_against_the_negative_studies():
    table = study_table()
    found = evaluate(table, "study", RESAMPLES, 0)["subgroups"]
    test = table[table["split"] == "test"]
    present, score = pe_present(test, "_true") == 1, pe_present(test)
    assert set(found) == {*SUBGROUPS, "all", "indeterminate"}
    negative = (test["negative_exam_for_pe_true"] == 1).to_numpy()
    rows = negative | (test["central_pe_true"] == 1).to_numpy()
    central = found["central_pe"]
    assert central["value"] == pytest.approx(roc_auc_score(present[rows], score[rows]))
    assert central["n_positive"] == test["central_pe_true"].sum()
    indeterminate = (test["indeterminate_true"] == 1).to_numpy()
    assert found["all"]["n_studies"] == (~indeterminate).sum()
    rows = present | indeterminate
    expected = roc_auc_score(present[rows], score[rows])
    assert found["indeterminate"]["value"] == pytest.approx(expected)


def test_an_indeterminate_study_is_in_no_subgroup_whatever_its_other_labels():
    table = study_table()
    without = evaluate_subgroups(table)
    row, *_ = np.flatnonzero(table["indeterminate_true"])
    table.loc[row, [f"{name}_true" for name in SUBGROUPS]] = 1
    assert evaluate_subgroups(table) == without


def test_bands_of_size_set_their_positives_against_the_negative_studies():
    table = study_table()
    test = table[table["split"] == "test"]
    present, score = pe_present(test, "_true") == 1, pe_present(test)
    negative = (test["negative_exam_for_pe_true"] == 1).to_numpy()
    counts = np.where(present, np.arange(len(test)) * 2 % 70, 0)
    counts[np.flatnonzero(present)[:4]] = (5, 6, 20, 21)
    found = evaluate_sizes(test, pd.Series(counts, test[STUDY_UID]))
    assert list(found)[:4] == ["1–5", "6–20", "21–50", "more than 50"]
    for band, (fewest, most) in SIZES.items():
        inside = present & (counts >= fewest) & (counts <= most)
        assert found[band]["n_positive"] == inside.sum() > 0
        assert found[band]["n_studies"] == inside.sum() + negative.sum()
        expected = roc_auc_score(present[inside | negative], score[inside | negative])
        assert found[band]["value"] == pytest.approx(expected)
    without = present & (counts == 0)
    assert without.any() == ("none" in found)
    assert sum(found[band]["n_positive"] for band in found) == present.sum()
    unknown = evaluate(table, "study", 20, 0)["sizes"]
    assert set(unknown) == set(SIZES)
    assert all("not known" in estimate["reason"] for estimate in unknown.values())
    reader = table.drop(columns=["negative_exam_for_pe", "indeterminate"])
    assert "no predictions" in evaluate_sizes(reader, None)["1–5"]["reason"]


def test_label_consistency_before_and_after():
    found = label_consistency(study_table())
    assert 0 < found["before"] < found["after"] == 1
    assert label_consistency(study_table()[:0])["reason"] == "no studies"


def test_the_cost_of_consistency_is_a_gain_where_the_correction_is_right():
    # Nothing is called, so the likeliest is raised from 0.4 to just above a half.
    probability = dict.fromkeys(STUDY_LABELS, 0.1) | {"negative_exam_for_pe": 0.4}
    table = study_table(2).assign(**probability)
    table[[f"{name}_true" for name in STUDY_LABELS]] = 0
    wrong = label_consistency(table)["cost"]
    assert wrong == pytest.approx(0.0736196319 * np.log(0.6 / 0.5), abs=1e-6)
    right = label_consistency(table.assign(negative_exam_for_pe_true=1))["cost"]
    assert right == pytest.approx(0.0736196319 * np.log(0.4 / 0.5), abs=1e-6)


def test_competition_score_of_two_tables():
    study, image = study_table(60), image_table().sample(frac=1, random_state=0)
    found = evaluate_competition(study, image, RESAMPLES, 0)
    json.dumps(found, allow_nan=False)
    study, image = (table[table["split"] == "test"] for table in (study, image))
    places = {uid: n for n, uid in enumerate(study[STUDY_UID])}
    loss = weighted_log_loss(
        study[[f"{name}_true" for name in STUDY_LABELS]].to_numpy(),
        study[list(STUDY_LABELS)].to_numpy(float),
        image[IMAGE_LABEL + "_true"].to_numpy(),
        image[IMAGE_LABEL].to_numpy(float),
        image[STUDY_UID].map(places).to_numpy(),
    )
    assert found["before"]["log_loss"]["value"] == pytest.approx(loss)
    assert found["before"]["log_loss"]["low"] < loss < found["before"]["log_loss"]["high"]
    assert found["before"]["consistent"] < found["after"]["consistent"] == 1
    assert found["cost"] == pytest.approx(found["after"]["log_loss"]["value"] - loss)
    assert found["cost"] != 0
    with pytest.raises(ClotlineError, match="different test studies"):
        submission(study[1:], image)


def test_the_competition_score_is_of_the_studies_of_both_tables():
    study, image = study_table(60), image_table()
    some = image[STUDY_UID].isin(study[STUDY_UID][10:])
    expected = evaluate_competition(study[10:], image[some], 20, 0)
    assert evaluate_competition(study[10:], image, 20, 0) == expected
    assert evaluate_competition(study, image[some], 20, 0) == expected
    lacking = evaluate_competition(study.drop(columns="central_pe"), image, 20, 0)
    assert lacking == {"reason": "no predictions of central_pe"}
    assert label_consistency(study.drop(columns="central_pe"))["reason"] == lacking["reason"]


def test_a_reader_of_some_studies_is_compared_on_these():
    model, reader = study_table(noise=0.5), study_table(noise=2)
    present = pe_present(reader)
    reader = reader[[STUDY_UID, "split", *(f"{name}_true" for name in STUDY_LABELS)]]
    reader = reader.assign(pe_present=present)[::2]
    (row,) = compare({"combined-study": model, "reader-study": reader}, "combined", 20, 0).to_dict(
        "records"
    )
    test = (reader["split"] == "test").sum()
    assert (row["target"], row["n_studies"]) == ("pe_present", test)
    aurocs = [
        evaluate(table, "study", 20, 0)["targets"]["pe_present"]["auroc"]["value"]
        for table in (model[::2], reader)
    ]
    assert row["value"] == pytest.approx(aurocs[0] - aurocs[1])


def test_a_reader_without_pe_has_subgroups_that_say_so():
    table = study_table().drop(columns=[n for n in STUDY_LABELS if n != "central_pe"])
    metrics = evaluate(table, "study", 20, 0)
    assert list(metrics["targets"]) == ["central_pe"]
    assert "no predictions of pe_present" in metrics["subgroups"]["all"]["reason"]
    json.dumps(metrics, allow_nan=False)


def test_given_thresholds_are_further_operating_points():
    table = study_table()
    target = evaluate(table, "study", 20, 0, [0.5])["targets"]["pe_present"]
    *fixed, given = target["operating_points"]
    assert [point["name"] for point in fixed] == list(OPERATING_POINTS)
    assert (given["name"], given["threshold"]) == ("p ≥ 0.5", 0.5)
    test = table[table["split"] == "test"]
    called, truth = pe_present(test) >= 0.5, pe_present(test, "_true") == 1
    assert given["confusion"]["true_positive"] == (called & truth).sum()
    assert given["sensitivity"]["value"] == pytest.approx(called[truth].mean())
    # Also where the valid split gives none.
    alone = evaluate(table[table["split"] == "test"], "study", 20, 0, [0.5])
    *fixed, again = alone["targets"]["pe_present"]["operating_points"]
    assert [point["threshold"] for point in fixed] == [None] * 3
    assert again == given


@pytest.mark.parametrize(
    ("table", "level"),
    [
        (study_table(0), "study"),
        (study_table(1), "study"),
        (study_table(2), "study"),
        (study_table().assign(split="valid"), "study"),
        (study_table().assign(split="test"), "study"),
        (study_table().assign(**{name: np.float32(0) for name in STUDY_LABELS}), "study"),
        (study_table(noise=0), "study"),
        (image_table()[:0], "image"),
        (image_table()[lambda t: t[STUDY_UID] < "1.001"], "image"),
        (image_table()[lambda t: t[STUDY_UID] < "1.004"], "image"),
        (image_table().assign(**{f"{IMAGE_LABEL}_true": 0}), "image"),
        (image_table().assign(split="valid"), "image"),
    ],
)
def test_degenerate_tables_give_reasons_and_never_nan(table, level):
    metrics = evaluate(table, level, 20, 0)
    json.dumps(metrics, allow_nan=False)
    for estimate in all_estimates(metrics):
        complete = None not in (estimate["value"], estimate["low"], estimate["high"])
        assert complete == (estimate["reason"] is None)
    for estimates in metrics["targets"].values():
        assert ("fpr" in estimates["roc"]) != ("reason" in estimates["roc"])
        assert len(estimates["operating_points"]) == len(OPERATING_POINTS)
    assert len(metrics_table({"model": metrics}, NO_WARNINGS)) == len(metrics["targets"])


def test_one_class_on_valid_leaves_the_operating_points_without_threshold():
    table = study_table()
    table.loc[table["split"] == "valid", "central_pe_true"] = 0
    point, *_ = evaluate(table, "study", 20, 0)["targets"]["central_pe"]["operating_points"]
    assert point["threshold"] is None
    for rate in RATES:
        assert point[rate]["value"] is None
        assert "valid split" in point[rate]["reason"]


def test_missing_values_name_their_column():
    for column in ("central_pe", "central_pe_true"):
        table = study_table()
        table[column] = table[column].astype(float)
        table.loc[0, column] = np.nan
        with pytest.raises(ClotlineError, match="central_pe"):
            evaluate(table, "study", 20, 0)


def test_metrics_table_has_one_row_a_model_and_target():
    table = study_table()
    table.loc[table["split"] == "test", "central_pe_true"] = 0
    metrics = {
        "combined-study": evaluate(table, "study", 20, 0),
        "combined-image": evaluate(image_table(), "image", 20, 0),
    }
    said = pd.DataFrame(
        {
            "model": ["combined-image"],
            "from": ["training"],
            "warning": ["its best epoch is the last"],
        }
    )
    found = metrics_table(metrics, said).set_index(["model", "target"])
    assert len(found) == 12
    row = found.loc["combined-study", "pe_present"]
    estimates = metrics["combined-study"]["targets"]["pe_present"]
    for name in METRICS:
        assert row[name] == estimates[name]["value"]
        assert row[f"{name}_low"] == estimates[name]["low"]
    assert row["sensitivity"] == estimates["operating_points"][0]["sensitivity"]["value"]
    assert "all 60 studies are negative" in found.loc["combined-study", "central_pe"]["note"]
    assert np.isnan(found.loc["combined-study", "central_pe"]["auroc"])
    assert found.loc["combined-image"]["warnings"].str.contains("its best epoch is the last").all()
    for target, row in found.loc["combined-study"].iterrows():
        low, high = (
            metrics["combined-study"]["targets"][target]["auroc"][k] for k in ("low", "high")
        )
        by_chance = low is not None and low <= 0.5 <= high
        assert row["warnings"].startswith("no better than chance") == by_chance
    assert list(metrics_table({}, said).columns) == list(metrics_table(metrics, said).columns)


def test_a_model_in_folds_has_the_warnings_of_its_folds_trainings():
    of_study = evaluate(study_table(), "study", 20, 0)
    metrics = dict.fromkeys(
        ("combined-study", "combined-folds-study", "w-joint-folds-study"), of_study
    )
    models = ["combined-study", "combined-study, fold 1", "w-joint, fold 0", "w-study, fold 0"]
    warnings = ["of all", "of one", "of both", "of another"]
    said = pd.DataFrame({"model": models, "from": "training", "warning": warnings})
    found = metrics_table(metrics, said).drop_duplicates("model").set_index("model")["warnings"]
    assert found.tolist() == ["of all", "fold 1: of one", "fold 0: of both"]


def test_compare_sets_every_model_against_the_reference():
    tables = {
        "combined-study": study_table(noise=0.7),
        "resnext50-study": study_table(seed=1, noise=2).sample(frac=1, random_state=0),
    }
    found = compare(tables, "combined", 20, 0)
    assert found["target"].tolist() == ["pe_present", *STUDY_LABELS]
    by_target = found.set_index("target")
    aurocs = [
        evaluate(table, "study", 2, 0)["targets"]["central_pe"]["auroc"]["value"]
        for table in tables.values()
    ]
    assert by_target.loc["central_pe", "value"] == pytest.approx(aurocs[0] - aurocs[1])
    assert 0 <= by_target.loc["pe_present", "p_value"] <= 1
    with pytest.raises(ClotlineError, match="nothing-study is not among"):
        compare(tables, "nothing", 20, 0)
    alone = compare({"combined-study": study_table()}, "combined", 20, 0)
    assert alone.empty and list(alone.columns) == list(found.columns)


def test_compare_sets_slices_against_the_same_slices():
    first, second = image_table(), image_table()
    rng = np.random.default_rng(1)
    odds = second[IMAGE_LABEL] / (1 - second[IMAGE_LABEL]) * np.exp(rng.normal(0, 2, len(second)))
    second[IMAGE_LABEL] = odds / (1 + odds)
    tables = {"combined-image": first, "worse-image": second.sample(frac=1, random_state=0)}
    found = compare(tables, "combined", 200, 0).set_index("target")
    assert found.index.tolist() == [IMAGE_LABEL, "pe_present_by_max"]
    row = found.loc[IMAGE_LABEL]
    aurocs = [
        evaluate(table, "image", 2, 0)["targets"][IMAGE_LABEL]["auroc"]["value"]
        for table in tables.values()
    ]
    assert row["value"] == pytest.approx(aurocs[0] - aurocs[1])
    assert row["low"] < row["value"] < row["high"]
    assert row["method"] == "paired bootstrap of studies, 200 resamples"
    assert found.loc["pe_present_by_max", "method"].startswith("paired DeLong")
    # Other slices, with the same truths in the same order
    tables["worse-image"] = second.assign(**{SOP_UID: "x" + second[SOP_UID]})
    with pytest.raises(ClotlineError, match="not evaluated on the same slices"):
        compare(tables, "combined", 20, 0)


def test_slices_of_a_study_are_counted_as_one_study():
    assert Cases.of([0, 1, 1], [0.1, 0.2, 0.3], ["b", "a", "b"]).studies == 2


def test_of_thresholds_with_the_same_youden_index_the_highest_is_chosen():
    # Sensitivity 0.3 and 0.9 with specificity 1 and 0.4; 0.9 - 0.6 is above 0.3 when rounded.
    truth = np.array([1] * 3 + [0] * 6 + [1] * 6 + [0] * 4 + [1], bool)
    score = np.repeat([0.9, 0.7, 0.5, 0.2, 0.1], [3, 6, 6, 4, 1])
    assert choose_thresholds(truth, score)["Youden's J"] == 0.9


@pytest.mark.parametrize(("table", "level"), [(study_table(), "study"), (image_table(), "image")])
def test_out_of_fold_the_valid_studies_are_measured_as_test_studies_are(table, level):
    counts = pd.Series(7, index=table[STUDY_UID].unique())
    options = (RESAMPLES, 3, (), Yardstick(positive_slices=counts))
    plain, folded = (evaluate(table, level, *options, in_folds=of) for of in (False, True))
    assert "out_of_fold" not in plain
    found = folded.pop("out_of_fold")
    assert folded == plain
    turned = table.assign(split=table["split"].map({"valid": "test", "test": "valid"}))
    expected = evaluate(turned, level, *options)
    for target, measured in found["targets"].items():
        assert measured == {name: expected["targets"][target][name] for name in METRICS}
    assert found.get("sizes") == expected.get("sizes")
