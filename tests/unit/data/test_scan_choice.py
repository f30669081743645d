import math
from dataclasses import replace
from itertools import pairwise

import pytest

from clotline.data.attenuation import Chest
from clotline.data.dicom.words import MONOENERGETIC, PROJECTION
from clotline.data.scan_choice import CRITERIA, Scan, choose

CHEST = Chest(blood=300.0, lungs=0.9, air=0.5, body=0.6, soft=30.0)
GOOD = Scan(
    "1", ("1.5",), ("good",), 100, chest=CHEST, sharp=False, thickness=1.0, agent=True,
    described=True, chest_said=True, field_mm=350.0,
)  # fmt: skip


def worse(**what):
    """A scan whose UID and files alone would be taken first."""
    return replace(GOOD, series=("1.1",), files=("worse",), **what)


def blood(hu):
    return {"chest": CHEST._replace(blood=hu)}


#: In the order of the criteria: what loses by each, though it is better in all further ones.
ROWS = [
    ("single slices", {"picture": PROJECTION}),
    ("Hounsfield units", {"chest": CHEST._replace(soft=900.0)}),
    ("lungs and contrast", {"chest": CHEST._replace(lungs=0.0, blood=math.nan)}),
    ("lungs and contrast", blood(45.0)),
    ("all energies", {"picture": MONOENERGETIC}),
    ("body part", {"chest": CHEST._replace(lungs=0.2)}),
    ("body part", {"chest_said": False}),
    ("contrast", blood(120.0)),
    ("enhancement", blood(190.0)),
    ("original or derived", {"derived": True}),
    ("contrast agent in the header", {"agent": None}),
    ("contrast agent in the header", {"agent": False}),
    ("description", {"described": False}),
    ("kernel", {"sharp": True}),
    ("kernel", {"sharp": None}),
    ("thickness", {"thickness": 5.0}),
    ("thickness", {"thickness": 0.3}),
    ("positions", {"positions": 99}),
    ("field of view", {"field_mm": 200.0}),
]


@pytest.mark.parametrize(("name", "what"), ROWS)
def test_each_row_decides_where_all_above_are_alike(name, what):
    loser = worse(**what)
    for scans in ([GOOD, loser], [loser, GOOD]):
        choice = choose(scans)
        assert choice.chosen == GOOD
        assert name in choice.reason
        (told,) = [scan.problem for scan in choice.scans if scan.files == loser.files]
        assert told.startswith(f"series 1.5 was preferred: {name} (")


@pytest.mark.parametrize(
    ("above", "below"), [(above, below) for above, below in pairwise(ROWS) if above[0] != below[0]]
)
def test_a_row_counts_more_than_those_below(above, below):
    winner = replace(GOOD, **below[1])
    assert choose([worse(**above[1]), winner]).chosen == winner


def test_every_row_has_its_case_in_the_order_of_the_criteria():
    assert list(dict.fromkeys(name for name, _ in ROWS)) == [c.name for c in CRITERIA]


def test_what_is_nearly_as_bright_is_as_good_and_unenhanced_blood_is_not_compared():
    assert choose([GOOD, worse(**blood(210.0))]).certainty == "none"
    assert choose([GOOD, worse(**blood(1100.0))]).certainty == "none"
    native = replace(GOOD, chest=CHEST._replace(blood=60.0))
    assert choose([native, worse(**blood(40.0))]).certainty == "none"


def test_without_pixels_the_words_tell_contrast():
    said = replace(GOOD, chest=None)
    assert choose([replace(worse(agent=False), chest=None), said]).chosen == said
    assert said.contrast
    assert not replace(said, agent=None, described=None).contrast
    assert replace(said, agent=None).contrast


def test_pixels_count_more_than_words():
    told_wrong = worse(**blood(45.0))
    stripped = replace(GOOD, agent=None, described=None)
    assert choose([told_wrong, stripped]).chosen == stripped
    assert not told_wrong.contrast


def test_a_choice_says_why_over_what_and_how_surely():
    choice = choose([GOOD, worse(**blood(45.0))])
    assert choice.reason == (
        "the best of 2 axial CT scans, by lungs and contrast (blood of 300 HU, not blood of 45 "
        "HU), with contrast agent (blood of 300 HU)"
    )
    assert choice.certainty == "clear"
    assert choice.doubts == []
    choice = choose([GOOD, worse(sharp=True)])
    assert choice.reason.startswith("one of 2 of equal standing, by kernel (soft, not sharp)")
    assert choice.certainty == "like"
    assert choose([GOOD]).certainty == "only one"


def test_where_nothing_tells_them_apart_the_uid_does_and_a_doubt_says_so():
    choice = choose([GOOD, worse()])
    assert choice.chosen == worse()
    assert choice.certainty == "none"
    assert choice.doubts == [
        "several scans of equal standing: series 1.1 was taken by its UID alone, before series 1.5"
    ]


def test_a_named_series_is_taken_whatever_the_order_says():
    other = worse(**blood(45.0))
    choice = choose([GOOD, other], frozenset(("1.1",)))
    assert choice.chosen == other
    assert choice.certainty == "named"
    assert choice.doubts == ["series named by the configuration: series 1.5 would have been chosen"]
    (told,) = [scan.problem for scan in choice.scans if scan.files == GOOD.files]
    assert told == "series 1.1 was named by the configuration"


def test_what_has_a_problem_is_never_taken():
    bad = worse(problem="not axial")
    assert choose([bad, GOOD]).chosen == GOOD
    assert choose([bad]).chosen is None
    assert choose([bad], frozenset(("1.1",))).chosen is None


def test_a_projection_alone_is_taken_with_a_doubt():
    choice = choose([replace(GOOD, picture=PROJECTION)])
    assert choice.chosen
    assert choice.doubts == ["no plain scan: a projection or average of several slices was taken"]


@pytest.mark.parametrize(
    "other", [blood(45.0), {"chest": CHEST._replace(lungs=0.0, blood=math.nan)}]
)
def test_monoenergetic_images_of_the_ctpa_are_taken_before_a_plain_scan_that_is_none(other):
    """As scanners that count photons make of it, beside a scan without contrast or of the head."""
    mono = replace(GOOD, picture=MONOENERGETIC)
    choice = choose([mono, worse(**other)])
    assert choice.chosen == mono
    assert choice.doubts == [
        "no plain scan that can be the CTPA: virtual monoenergetic images were taken"
    ]
    # Where no picture shows contrast agent, the plain one is taken.
    native = worse(**blood(45.0))
    assert choose([replace(mono, **blood(60.0)), native]).chosen == native


def test_of_a_picture_without_lungs_that_is_told_though_its_blood_is_bright():
    reason = choose([GOOD, worse(chest=CHEST._replace(lungs=0.0))]).reason
    assert "lungs and contrast (blood of 300 HU, not a picture without lungs)" in reason


def test_a_projection_brighter_by_noise_is_not_taken_before_its_scan():
    weak = worse(**blood(90.0))
    assert choose([replace(GOOD, picture=PROJECTION, **blood(120.0)), weak]).chosen == weak
