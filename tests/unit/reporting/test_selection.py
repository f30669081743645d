import pandas as pd
import pytest

from clotline.labels import IMAGE_LABEL, SERIES_UID, SOP_UID, STUDY_LABELS, STUDY_UID
from clotline.reporting.selection import (
    best_study_models,
    choose_model,
    choose_studies,
    describe_studies,
    fixed_thresholds,
    select,
    unranked_study_models,
)

THRESHOLDS = {"pe_present": 0.5, "indeterminate": 0.3}


def predictions(rows, truth=True):
    """A table of studies of (uid, probability of PE, truth: pe, none or unclear)."""
    table = []
    for uid, probability, said in rows:
        row = {STUDY_UID: uid, "split": "test"} | dict.fromkeys(STUDY_LABELS, 0.0)
        row["negative_exam_for_pe"] = 1 - probability
        if truth:
            row |= {f"{name}_true": 0 for name in STUDY_LABELS}
            row["negative_exam_for_pe_true"] = int(said == "none")
            row["indeterminate_true"] = int(said == "unclear")
        table.append(row)
    return pd.DataFrame(table)


def groups(rows, thresholds=THRESHOLDS, **arguments):
    described = describe_studies(predictions(rows, **arguments), thresholds)
    return {study["uid"]: study["groups"] for study in described}


def test_studies_are_grouped_by_what_was_called_and_what_is_true():
    assert groups(
        [
            ("hit", 0.9, "pe"),
            ("missed", 0.2, "pe"),
            ("alarm", 0.5, "none"),
            ("calm", 0.1, "none"),
            ("unclear", 0.1, "unclear"),
            ("unclear alarm", 0.6, "unclear"),
        ]
    ) == {
        "hit": ["positive"],
        "missed": ["false_negative", "negative"],
        "alarm": ["false_positive", "positive"],
        "calm": ["negative"],
        "unclear": ["indeterminate", "negative"],
        "unclear alarm": ["false_positive", "indeterminate", "positive"],
    }


def test_without_truth_only_the_models_word_groups():
    rows = [("a", 0.9, "pe"), ("b", 0.1, "pe")]
    assert groups(rows, truth=False) == {"a": ["positive"], "b": ["negative"]}
    (study, _) = describe_studies(predictions(rows, truth=False), THRESHOLDS)
    assert study["targets"]["pe_present"]["truth"] is None
    table = predictions(rows, truth=False).assign(indeterminate=[0.4, 0.0])
    # Only the truth says that a study is indeterminate: the model's own word of it is one of nine.
    assert describe_studies(table, THRESHOLDS)[0]["groups"] == ["positive"]


def test_without_a_threshold_nothing_is_called():
    assert groups([("a", 0.9, "pe"), ("b", 0.1, "none")], {"pe_present": None}) == {
        "a": [],
        "b": [],
    }


def test_each_target_has_its_probability_threshold_and_truth():
    (study,) = describe_studies(predictions([("a", 0.75, "pe")]), THRESHOLDS)
    assert list(study["targets"]) == ["pe_present", *STUDY_LABELS]
    assert study["targets"]["pe_present"] == {
        "probability": pytest.approx(0.75),
        "threshold": 0.5,
        "called": True,
        "truth": True,
    }
    assert study["targets"]["central_pe"]["called"] is None


def chosen(rows, count):
    chosen = choose_studies(describe_studies(predictions(rows), THRESHOLDS), count)
    return [study["uid"] for study in chosen]


MANY = [
    *((f"hit{i}", 0.9 - i / 100, "pe") for i in range(10)),
    *((f"missed{i}", 0.4 - i / 100, "pe") for i in range(10)),
    *((f"alarm{i}", 0.7 - i / 100, "none") for i in range(10)),
    *((f"unclear{i}", 0.3 - i / 100, "unclear") for i in range(10)),
]


def test_errors_come_first_and_each_group_gets_a_quarter():
    assert chosen(MANY, 8) == [
        *("hit0", "hit1", "alarm0", "alarm1"),
        *("missed8", "missed9", "unclear0", "unclear1"),
    ]


def test_a_quarter_that_is_no_whole_number_is_rounded_up():
    assert chosen(MANY, 6) == ["alarm0", "alarm1", "missed8", "missed9", "unclear0", "unclear1"]


def test_places_that_errors_do_not_need_go_to_the_most_suspicious():
    rows = [("a", 0.9, "pe"), ("b", 0.8, "pe"), ("c", 0.2, "none"), ("missed", 0.1, "pe")]
    assert chosen(rows, 3) == ["a", "b", "missed"]
    assert chosen(rows, 99) == ["a", "b", "c", "missed"]
    assert chosen(rows, 1) == ["missed"]
    assert choose_studies([], 5) == []


def test_the_choice_does_not_depend_on_the_order_of_the_studies():
    ties = [(f"s{i}", 0.9, "pe") for i in range(9)]
    for rows in (MANY, ties):
        assert chosen(rows, 6) == chosen(rows[::-1], 6)


def model(level, auroc, studies=60):
    target = {"auroc": {"value": auroc}}
    targets = {"pe_present": target} if level == "study" else {}
    return {"level": level, "n_studies": studies, "targets": targets}


def models(**aurocs):
    metrics = {f"{name}-study": model("study", auroc) for name, auroc in aurocs.items()}
    return metrics | {f"{name}-image": model("image", None) for name in aurocs}


def test_the_best_model_is_shown_if_it_can_be():
    metrics = models(combined=0.8, a=0.9)
    assert best_study_models(metrics) == ["a-study"]
    assert choose_model(metrics, metrics) == ("a-study", "the best study-level model of the report")
    reader = metrics | {"reader-study": model("study", 0.95)}
    shown, why = choose_model(reader, metrics)
    assert shown == "combined-study"
    assert "reader-study, was made elsewhere" in why
    of_studies = metrics | {"all-study": model("study", 0.95)}
    shown, why = choose_model(of_studies, of_studies)
    assert (shown, why) == (
        "combined-study",
        "the best of the report, all-study, has no image level",
    )
    both = models(combined=0.8, all=0.9, **{"a-joint": 0.7, "a-joint-folds": 0.7})
    assert choose_model(both, both)[0] == "all-study"
    nothing = models(combined=None)
    assert best_study_models(nothing) == []
    assert choose_model(nothing, nothing)[0] == "combined-study"


def test_of_tied_models_the_combined_features_are_shown():
    metrics = models(a=0.90004, combined=0.89996, b=0.8)
    assert best_study_models(metrics) == ["a-study", "combined-study"]
    shown, why = choose_model(metrics, metrics)
    assert shown == "combined-study"
    assert "a-study and combined-study are tied" in why


def test_a_model_of_fewer_studies_is_not_ranked():
    metrics = models(combined=0.8) | {"reader-study": model("study", 0.9, studies=20)}
    assert best_study_models(metrics) == ["combined-study"]
    assert unranked_study_models(metrics) == {"reader-study": 20}


def test_thresholds_are_those_of_the_first_operating_point():
    points = [{"threshold": 0.25}, {"threshold": 0.75}]
    metrics = {"targets": {"a": {"operating_points": points}}}
    assert fixed_thresholds(metrics) == {"a": 0.25}


def test_the_viewer_gets_the_slices_of_the_chosen_studies_and_their_probabilities():
    slices = pd.DataFrame(
        {
            STUDY_UID: ["a", "a", "b"],
            SERIES_UID: "s",
            SOP_UID: ["1", "2", "1"],
            "shard": "000",
            "row": [0, 1, 2],
            "checksum": [7, 8, 9],
            "position_mm": [0.0, 1.0, 0.0],
            "patient_orientation": ["LP", "", "LP"],
            "pixel_mm": 1.25,
            "thickness_mm": 1.0,
            "kernel": ["B30f", "B70f", "B30f"],
            "blood_hu": 300.0,
            IMAGE_LABEL: [0, 1, 0],
            "split": "test",
        }
    )
    probabilities = pd.Series({("b", "s", "1"): 0.3, ("a", "s", "2"): 0.2, ("a", "s", "1"): 0.1})
    metrics = {"targets": {"pe_present": {"operating_points": [{"threshold": 0.5}]}}}
    images = {"targets": {IMAGE_LABEL: {"operating_points": [{"threshold": 0.25}]}}}
    selection, table = select(
        predictions([("a", 0.9, "pe"), ("b", 0.1, "none")]),
        *(slices, probabilities, metrics, images, 1),
    )
    assert [study["uid"] for study in selection["studies"]] == ["a"]
    assert (selection["of"], selection["slice_threshold"]) == (2, 0.25)
    assert table[SOP_UID].tolist() == ["1", "2"]
    assert table["probability"].tolist() == pytest.approx([0.1, 0.2])
    assert table[IMAGE_LABEL].tolist() == [0, 1]
    assert table["patient_orientation"].tolist() == ["LP", ""]
    assert table["kernel"].tolist() == ["B30f", "B70f"]


def test_a_truth_that_is_known_in_part_is_told_in_part():
    table = predictions([("a", 0.9, "none"), ("b", 0.1, "pe")], truth=False)
    table = table.assign(**{f"{name}_true": -1 for name in STUDY_LABELS}, pe_present_true=[0, 1])
    studies = describe_studies(table, THRESHOLDS)
    assert [study["groups"] for study in studies] == [
        ["false_positive", "positive"],
        ["false_negative", "negative"],
    ]
    truths = {name: target["truth"] for name, target in studies[0]["targets"].items()}
    assert truths.pop("pe_present") is False
    assert set(truths.values()) == {None}
