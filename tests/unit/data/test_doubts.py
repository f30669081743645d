import math
from dataclasses import replace

import pytest

from clotline.data.attenuation import Look
from clotline.data.dicom.ct_slice import Slice
from clotline.data.dicom.traits import Traits
from clotline.data.doubts import doubts_of

TRAITS = Traits(axes=(1, 0, 0, 0, 1, 0), matrix=(512, 512), spacing=(0.7, 0.7), thickness=2.0)
SLICE = Slice(None, "LP", 0.0, 0.0, None, None, "", "", scanner="ACME One", traits=TRAITS)
CHEST = Look(blood=300.0, lung=0.3, air=0.5, body=0.6, soft=30.0)
POSITIONS = [2.0 * k for k in range(100)]


def of_chest(positions, lungs=lambda share: 0.05 < share < 0.95, **values):
    """Looks at every tenth slice, where ``lungs`` of the way along the scan tells of lungs."""
    count, looks = len(positions), [None] * len(positions)
    for k in {*range(0, count, 10), count - 1}:
        inside = lungs(k / (count - 1))
        looks[k] = CHEST._replace(**{"lung": CHEST.lung * inside} | values)
    return looks


def doubts(positions=POSITIONS, looks=None, **traits):
    slices = [replace(SLICE, traits=replace(TRAITS, **traits))] * len(positions)
    return doubts_of(slices, positions, of_chest(positions) if looks is None else looks)


def test_an_ordinary_scan_has_none():
    assert doubts() == []
    assert doubts(looks=[None] * 100) == []


def test_lungs_in_too_little_of_the_scan_are_told_with_the_most_that_they_can_take():
    positions = [2.0 * k for k in range(200)]
    assert doubts(positions, of_chest(positions, lambda share: share > 0.9)) == [
        "the scan does not hold the lungs: they are in at most 58 of its 398 mm, "
        "where 200 mm and more are usual"
    ]
    # Between two slices that were looked at they may go on.
    assert doubts(positions, of_chest(positions, lambda share: 0.32 < share < 0.68)) == []


@pytest.mark.parametrize(
    ("lungs", "told"),
    [
        (lambda share: share > 0.05, "30% of the body is lung at its upper end"),
        (lambda share: share < 0.95, "30% of the body is lung at its lower end"),
        (lambda share: 1, "30% of the body is lung at its lower end and 30% of the body is lung"
                          " at its upper end"),
    ],
)  # fmt: skip
def test_a_scan_that_ends_in_the_middle_of_the_lungs_is_told(lungs, told):
    assert doubts(looks=of_chest(POSITIONS, lungs)) == [
        f"the scan does not hold the lungs: {told}, and 30% at most"
    ]


def test_lungs_that_grow_less_towards_both_ends_are_no_doubt():
    assert doubts(looks=of_chest(POSITIONS, lambda share: 1 - 1.4 * abs(share - 0.5))) == []
    looks = of_chest(POSITIONS, lambda share: 1)
    far_from_the_ends = [look if 10 < k < 90 else None for k, look in enumerate(looks)]
    assert doubts(looks=far_from_the_ends) == []


def test_of_a_few_slices_nothing_is_said():
    assert doubts(POSITIONS[:15], thickness=10.0) == []


def test_missing_slices_are_told_with_their_number_and_place():
    positions = [position for k, position in enumerate(POSITIONS) if k not in (10, 50, 51)]
    assert doubts(positions) == [
        "missing slices: about 3 in 2 gaps; the largest is of 6 mm above 98.0 mm, "
        "where slices lie 2 mm apart"
    ]


def test_spacing_that_changes_is_told():
    positions = [2.0 * k for k in range(50)] + [98 + 2.5 * k for k in range(1, 51)]
    assert doubts(positions) == ["spacing that changes: slices lie 2 to 2.5 mm apart"]


def test_rounded_positions_have_no_spacing_that_changes():
    assert doubts([round(0.625 * k, 1) for k in range(300)]) == []


def test_a_short_scan_is_told():
    assert doubts(POSITIONS[:40]) == [
        "a short scan: 80 mm, which cannot hold the lungs (200 mm and more)"
    ]


@pytest.mark.parametrize(
    ("traits", "note"),
    [
        ({"thickness": 5.0}, "thick slices: 5 mm, where up to 3 mm is usual"),
        ({"axes": (1, 0, 0, 0, 0.98, -0.2)}, "a tilted gantry: by 12 degrees"),
        ({"spacing": (2.0, 1.0), "matrix": (180, 360)},
         "pixels that are not square: 2 × 1 mm, made square"),
        ({"spacing": (0.2, 0.2)},
         "an unusual field of view: 102 mm, where 300 to 500 mm is usual"),
    ],
)  # fmt: skip
def test_geometry_is_told(traits, note):
    assert doubts(**traits) == [note]


def test_slices_far_apart_are_told():
    assert doubts([7.5 * k for k in range(40)]) == [
        "slices far apart: 7.5 mm, where up to 3 mm is usual"
    ]


def test_several_scanners_are_told():
    slices = [SLICE] * 50 + [replace(SLICE, scanner="Other Two")] * 50
    assert doubts_of(slices, POSITIONS, of_chest(POSITIONS)) == [
        "several scanners: ACME One, Other Two"
    ]


@pytest.mark.parametrize(
    ("shown", "note"),
    [
        (
            {"blood": 48.0},
            "looks unenhanced: blood of about 48 HU, where a CTPA has 150 HU or more",
        ),
        ({"blood": math.nan}, "contrast not known: no heart or large vessel was recognised"),
        ({"lung": 0.0}, "no lungs in the picture: perhaps another part of the body"),
        ({"air": 1.0}, "Hounsfield units that cannot be: 100% of the picture is air"),
        ({"soft": 900.0}, "Hounsfield units that cannot be: soft tissue has 900 HU"),
    ],
)
def test_what_the_pixels_show_is_told(shown, note):
    assert doubts(looks=of_chest(POSITIONS, **shown)) == [note]


def test_unknown_positions_say_nothing():
    assert doubts([math.nan] * 100) == []
