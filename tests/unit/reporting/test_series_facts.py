import math

import pandas as pd
import pytest
from builders import facts_of

from clotline.data.rejects import read_lists
from clotline.data.shards import BLOOD, KERNEL, PIXEL, POSITION, THICKNESS
from clotline.evaluation.shift import compare_with_training, distributions
from clotline.labels import SERIES_UID, STUDY_UID
from clotline.reporting.series_facts import describe_series, series_facts, shift_facts
from clotline.reporting.viewer import NO_NOTES, NO_SHIFT

NAN = math.nan
NOT_CHOSEN = pd.DataFrame(columns=[STUDY_UID, "chosen", "reason", "certainty"]).astype(
    {"chosen": bool}
)


def slices_of(count=40, **columns):
    known = {
        STUDY_UID: "1",
        SERIES_UID: "1.1",
        POSITION: [1.25 * number - 100 for number in range(count)],
        PIXEL: 1.3671875,
        THICKNESS: 1.5,
        KERNEL: "B30f",
        BLOOD: 312.4,
    }
    return pd.DataFrame(known | columns, index=range(count))


def test_what_is_known_of_a_series_is_told_with_units():
    assert series_facts(slices_of(), NOT_CHOSEN) == [
        ("Slices", "40 slices, 1.25 mm apart"),
        ("Slice thickness", "1.5 mm"),
        ("Pixel size", "1.37 mm; field of view 350 mm"),
        ("Kernel", "B30f"),
        ("Contrast", "enhanced: blood of about 312 HU"),
        ("Series", "1.1"),
    ]


def test_what_is_not_known_is_told_too():
    unknown = slices_of(2, **{POSITION: NAN, PIXEL: NAN, THICKNESS: NAN, KERNEL: "", BLOOD: NAN})
    assert dict(series_facts(unknown, NOT_CHOSEN)) == {
        "Slices": "2 slices",
        "Slice thickness": "not known",
        "Pixel size": "not known",
        "Kernel": "not known",
        "Contrast": "not known",
        "Series": "1.1",
    }


@pytest.mark.parametrize(
    ("blood", "text"),
    [(149.0, "weakly enhanced: blood of about 149 HU"), (99.0, "unenhanced: blood of about 99 HU")],
)
def test_contrast_is_told_by_the_blood(blood, text):
    assert dict(series_facts(slices_of(**{BLOOD: blood}), NOT_CHOSEN))["Contrast"] == text


def test_of_several_series_all_are_told():
    both = slices_of(2, **{SERIES_UID: ["1.1", "1.2"], KERNEL: ["B30f", "B70f"], THICKNESS: [1, 5]})
    facts = dict(series_facts(both, NOT_CHOSEN))
    assert (facts["Series"], facts["Kernel"]) == ("1.1, 1.2", "B30f, B70f")
    assert facts["Slice thickness"] == "1 to 5 mm"


def test_one_slice_is_no_slices():
    assert dict(series_facts(slices_of(1), NOT_CHOSEN))["Slices"] == "1 slice"


def test_the_choice_and_the_notes_are_those_of_the_study_alone():
    reason = "one of 2 of equal standing, by kernel (soft, not sharp)"
    series = pd.DataFrame(
        [
            ("1", False, "series 1.1 was preferred", ""),
            ("1", True, reason, "like"),
            ("2", True, "the only axial CT scan", "only one"),
        ],
        columns=[STUDY_UID, "chosen", "reason", "certainty"],
    )
    notes = pd.DataFrame({STUDY_UID: ["1", "2"], "note": ["thick slices: 5 mm", "tilted"]})
    told = describe_series(slices_of(), series, notes, NO_SHIFT)
    assert dict(told["facts"])["Chosen"] == f"{reason}; scans of equal standing"
    assert told["notes"] == ["thick slices: 5 mm"]
    other = describe_series(slices_of(**{STUDY_UID: "2"}), series, notes, NO_SHIFT)
    assert dict(other["facts"])["Chosen"] == "the only axial CT scan"
    assert describe_series(slices_of(), NOT_CHOSEN, notes[1:], NO_SHIFT)["notes"] == []


def test_where_a_study_lies_in_the_training_data_is_told_as_shift_csv_has_it(tmp_path):
    training = distributions(facts_of(map(str, range(50))))
    facts = facts_of(["1", "2"], **{THICKNESS: [5.0, NAN], KERNEL: ["B70f", ""]})
    shift = compare_with_training(facts, training)
    shift.to_csv(tmp_path / "shift.csv", index=False)
    told = describe_series(slices_of(), NOT_CHOSEN, NO_NOTES, read_lists([tmp_path / "shift.csv"]))[
        "shift"
    ]
    rows = {row["fact"]: row for row in told}
    assert len(rows) == 7
    assert rows["slice thickness"] == {
        "fact": "slice thickness", "value": "5 mm", "training": "1.25", "outside": True,
        "told": "slice thickness 5 mm; all training studies had less",
    }  # fmt: skip
    assert rows["kernel"]["outside"] and rows["kernel"]["training"] == ""
    assert not rows["noise"]["outside"]
    other = shift_facts(read_lists([tmp_path / "shift.csv"]).iloc[7:])
    assert "slice thickness" not in [row["fact"] for row in other]
