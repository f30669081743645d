import json

import numpy as np
import pandas as pd
import pytest
from builders import facts_of

from clotline.data.fact_names import NOISE, QUANTITIES
from clotline.data.rejects import count_notes
from clotline.data.shards import BLOOD, KERNEL, ORIENTATION, THICKNESS
from clotline.evaluation.shift import (
    LEAST,
    SHIFT_COLUMNS,
    TITLES,
    compare_with_training,
    distributions,
    shift_notes,
    shift_of_splits,
    written,
)
from clotline.labels import STUDY_UID

STUDIES = 1000


@pytest.fixture(scope="module")
def training():
    """Blood of 0 to 999 HU, one study each; four studies with a kernel of their own."""
    uids = [f"1.2.840.{k}" for k in range(STUDIES)]
    kernels = ["rare"] * (LEAST - 1) + ["B30f"] * 600 + ["B20f"] * 396
    return distributions(
        facts_of(uids, **{BLOOD: np.arange(float(STUDIES)), KERNEL: kernels, NOISE: np.nan})
    )


def row_of(training, fact, **columns):
    shift = compare_with_training(facts_of(["9"], **columns), training)
    assert list(shift) == list(SHIFT_COLUMNS)
    return shift.set_index("fact").loc[fact]


@pytest.mark.parametrize(
    ("blood", "outside", "share", "word"),
    [
        (19.4, True, 0.98, "more"),
        (40.0, False, 0.95, "more"),
        (499.0, False, 0.5, "more"),
        (950.0, False, 0.95, "less"),
        (985.0, True, 0.98, "less"),
    ],
)
def test_where_a_study_lies_is_told_by_the_share_of_the_training_studies(
    training, blood, outside, share, word
):
    row = row_of(training, BLOOD, **{BLOOD: blood})
    assert row["outside"] == outside
    assert row[word] == pytest.approx(share, abs=0.011)
    told = f"{row[word]:.0%} of the training studies had {word}"
    assert row["told"] == f"contrast in heart and great vessels {blood:.0f} HU; {told}"


@pytest.mark.parametrize(("blood", "word"), [(-40.0, "more"), (2000.0, "less")])
def test_beyond_all_is_told_as_that(training, blood, word):
    row = row_of(training, BLOOD, **{BLOOD: blood})
    assert row["outside"]
    assert row["told"].endswith(f"{blood:.0f} HU; all training studies had {word}")


@pytest.mark.parametrize(
    ("blood", "outside", "told"),
    [
        (299.0, True, "all training studies had more"),
        (300.0, False, "75% of the training studies had more"),
        (450.0, False, "75% of the training studies had less"),
        (451.0, True, "all training studies had less"),
    ],
)
def test_the_least_and_the_highest_of_few_training_studies_lie_within(blood, outside, told):
    few = distributions(facts_of("1234", **{BLOOD: [300.0, 350.0, 400.0, 450.0]}))
    row = row_of(few, BLOOD, **{BLOOD: blood})
    assert row["outside"] == outside
    assert row["told"].endswith(told)


def test_what_all_training_studies_have_lies_within_and_all_else_outside(training):
    same = row_of(training, THICKNESS)
    assert (same["less"], same["more"], same["outside"]) == (0, 0, False)
    assert same["told"] == "slice thickness 1.25 mm, the median of the training studies"
    assert same["training_5"] == same["training_95"] == 1.25
    assert row_of(training, THICKNESS, **{THICKNESS: 5.0})["outside"]
    # As kept, to five digits.
    assert not row_of(training, THICKNESS, **{THICKNESS: 1.2500001})["outside"]


def test_kernels_are_told_by_how_many_have_them(training):
    assert row_of(training, KERNEL)["told"] == "kernel B30f, as 60% of the training studies"
    other = row_of(training, KERNEL, **{KERNEL: "B70f"})
    assert other["outside"]
    assert other["told"] == "kernel B70f; fewer than 5 of 1,000 training studies had it"
    assert row_of(training, ORIENTATION, **{ORIENTATION: "LH"})["outside"]


def test_what_is_not_known_is_never_outside(training):
    row = row_of(training, BLOOD, **{BLOOD: np.nan})
    assert (row["value"], row["outside"]) == ("", False)
    assert row["told"] == "contrast in heart and great vessels not known"
    assert row_of(training, KERNEL, **{KERNEL: ""})["told"] == "kernel not known"
    row = row_of(training, NOISE)
    assert row["told"] == "noise 12 HU; that of the training studies is not known"
    assert not row["outside"]


def test_a_bundle_keeps_no_row_and_no_rare_word_of_a_study(training):
    text = json.dumps(training, allow_nan=False)
    assert "1.2.840" not in text and "rare" not in text
    assert training["categories"][KERNEL] == {"B20f": 0.396, "B30f": 0.6}
    assert len(training["quantities"][BLOOD]["percentiles"]) == 101
    assert training["quantities"][NOISE] == {"known": 0, "percentiles": []}
    assert len(text) < 5000


def test_notes_begin_alike_and_go_on_with_numbers(training):
    facts = facts_of(["8", "9"], **{BLOOD: [10.0, 5.0], KERNEL: ["B70f", "B30f"]})
    notes = shift_notes(compare_with_training(facts, training))
    assert notes[STUDY_UID].tolist() == ["8", "8", "9"]
    name = "contrast in heart and great vessels"
    assert notes["note"][0] == (
        f"unlike the training data in {name}: 10 HU; 98% of the training studies had more"
    )
    assert notes["note"][1] == (
        "unlike the training data in kernel: B70f; fewer than 5 of 1,000 training studies had it"
    )
    assert count_notes(notes)[f"unlike the training data in {name}"] == 2
    none = shift_notes(compare_with_training(facts_of(["1"]), training))
    assert none.empty and list(none) == [STUDY_UID, "note"]


def test_studies_like_those_trained_on_are_seldom_outside():
    rng = np.random.default_rng(0)
    drawn = {name: rng.lognormal(0, 0.3, 2000) for name in QUANTITIES}
    facts = facts_of(map(str, range(2000)), **drawn)
    shift = compare_with_training(facts[1000:], distributions(facts[:1000]))
    of_quantities = shift[shift["fact"].isin(QUANTITIES)]
    assert 0.02 < of_quantities["outside"].mean() < 0.06


def test_no_studies_can_be_compared(training):
    assert compare_with_training(facts_of([]), training).empty


def test_splits_stand_side_by_side():
    splits = pd.Series(["train"] * 50 + ["test"] * 4, index=[f"s{k}" for k in range(54)])
    thickness = [1.0, 2.0] * 25 + [1.5, 1.5, 1.5, 9.0]
    facts = facts_of(splits.index, **{THICKNESS: thickness, NOISE: np.nan})
    rows = {row["title"]: row for row in shift_of_splits(facts, splits)}
    assert "noise" not in rows
    test = rows["slice thickness"]["splits"]["test"]
    assert (test["median"], test["studies"], test["outside"]) == (1.5, 4, 1)
    assert rows["slice thickness"]["splits"]["train"]["low"] == 1
    assert rows["slice thickness"]["unit"] == "mm"


def test_numbers_have_as_many_digits_as_are_of_use():
    assert written(1.25, "mm") == "1.25 mm"
    assert written(312.4, "mm") == "312 mm"
    assert written(94.6, "HU") == "95 HU"
    assert all(len(title) for title, _ in TITLES.values())
