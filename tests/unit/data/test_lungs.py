"""The box around the lungs: safe with arms, table, tilt, prone patients and one lung."""

import os
from pathlib import Path

import numpy as np
import pytest

from clotline.data.dicom.ct_slice import read_slice
from clotline.data.lungs import MARGIN_MM, SEARCHED, lung_box, lungs_in
from clotline.grid import PICTURE, Box

SIDE, FIELD_MM = 256, 460.0
LUNGS = (-72, 72)
#: What one pixel and half of the filter that removes noise may move an edge, in mm.
SLACK_MM = 4.0

#: xmin, ymin, xmax and ymax of boxes drawn by hand on RSNA's slices: 1st and 99th percentile of
#: 29,116 boxes, those of place 1.
BY_HAND = {"left": (0.025, 0.236), "top": (0.068, 0.354), "right": (0.775, 0.986),
           "bottom": (0.662, 0.920)}  # fmt: skip


def scene(
    lungs=LUNGS,
    size=1.0,
    arms=None,
    table=False,
    turn=0,
    prone=False,
    at=(0, 0),
    noise=20,
    gas=None,
):
    """A slice of a chest, (256, 256) int16 HU of a field of 460 mm, and where its lungs are.

    Args:
        lungs: mm from the middle of the chest to each lung's.
        size: of the lungs; 1 is their largest.
        arms: ``down`` beside the body with air between, or ``touching`` it.
        table: whether it lies on one, whose shell touches it.
        turn: degrees that the patient is turned by.
        prone: whether the patient lies on the belly.
        at: mm from the middle of the picture to that of the chest, to the right and down.
        noise: standard deviation in HU.
        gas: HU of gas in the belly, at the left edge of the body; None has none.
    """
    y, x = (np.mgrid[:SIDE, :SIDE] + 0.5) * FIELD_MM / SIDE - FIELD_MM / 2
    x, y = x - at[0], y - at[1]
    hu = np.full((SIDE, SIDE), -1000.0)
    if table:
        hu[(y > 104) & (y < 150)] = -980
        hu[((y > 100) & (y <= 104)) | ((y >= 150) & (y < 154))] = -100
    if prone:
        x, y = -x, -y
    angle = np.deg2rad(turn)
    x, y = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    hu[np.hypot(y / 105, x / 160) < 1] = 40
    for side in (-1, 1) if arms else ():
        middle = side * {"down": 200, "touching": 186}[arms]
        hu[np.hypot((y - 20) / 60, (x - middle) / 30) < 1] = 40
        if arms == "touching":
            # Above and below as well, so that air is enclosed between arm and body.
            hu[(np.abs(y - 60) < 12) & (np.abs(x - side * 158) < 20)] = 40
            hu[(np.abs(y + 20) < 12) & (np.abs(x - side * 165) < 20)] = 40
    shown = np.zeros((SIDE, SIDE), bool)
    for middle in lungs:
        shown |= np.hypot(y / 80 / size, (x - middle) / 55 / size) < 1
    hu[shown] = -850
    if gas is not None:
        hu[np.hypot(y / 60, (x + 100) / 50) < 1] = gas
    hu[np.hypot((y + 5) / 38, (x - 10) / 30) < 1] = 300
    shown &= hu == -850
    hu += np.random.default_rng(0).normal(0, noise, hu.shape)
    return np.rint(hu).astype(np.int16), shown


def scan(count=25, **keys):
    """Slices from base to apex, and where their lungs are in any."""
    sizes = np.sqrt(np.clip(1 - np.linspace(-0.9, 0.95, count) ** 2, 0, 1))
    scenes = [scene(size=size, **keys) for size in sizes]
    return [pixels for pixels, _ in scenes], np.any([shown for _, shown in scenes], 0)


def box_of(slices, field_mm=FIELD_MM):
    return lung_box([lungs_in(pixels, field_mm) for pixels in slices], field_mm)


def edges(shown):
    """Left, top, right and bottom of what is true, as shares of the picture."""
    rows, columns = np.flatnonzero(shown.any(1)), np.flatnonzero(shown.any(0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) / SIDE


def part_of(box):
    left, top, side = box.pixels(SIDE)
    inside = np.zeros((SIDE, SIDE), bool)
    inside[top : top + side, left : left + side] = True
    return inside


CHESTS = {
    "plain": {},
    "arms beside the body": {"arms": "down"},
    "arms that touch the body": {"arms": "touching"},
    "on a table": {"table": True},
    "prone on a table": {"table": True, "prone": True},
    "turned by 15 degrees": {"turn": 15},
    "turned, with arms, on a table": {"turn": -10, "arms": "down", "table": True},
    "high and to the left": {"at": (-35, -60)},
    "much noise": {"noise": 60},
    "none": {"noise": 0},
}


@pytest.mark.parametrize("keys", CHESTS.values(), ids=CHESTS)
def test_a_slices_lungs_are_found_to_the_pixel(keys):
    pixels, shown = scene(**keys)
    found = lungs_in(pixels, FIELD_MM)
    assert np.array(found[:4]) == pytest.approx(edges(shown), abs=SLACK_MM / FIELD_MM)


@pytest.mark.parametrize("keys", CHESTS.values(), ids=CHESTS)
def test_the_box_holds_all_lungs_and_little_more(keys):
    slices, shown = scan(**keys)
    box, why = box_of(slices)
    assert not why
    assert not (shown & ~part_of(box)).any()
    left, top, right, bottom = edges(shown)
    largest = max(right - left, bottom - top)
    # Arms that touch move what is taken for the body's middle.
    spare = 2 * MARGIN_MM + 2 * SLACK_MM + (10 if keys.get("turn") else 0)
    assert largest < box.side < largest + spare / FIELD_MM


def test_the_box_is_the_same_for_the_slices_in_any_order():
    slices, _ = scan()
    assert box_of(slices[::-1]) == box_of(slices)


def test_a_prone_patients_box_is_the_supine_ones_upside_down():
    (supine, _), (prone, _) = (box_of(scan(prone=prone, noise=0)[0]) for prone in (False, True))
    assert prone.side == pytest.approx(supine.side, abs=2 / SIDE)
    assert prone.top == pytest.approx(1 - supine.top - supine.side, abs=2 / SIDE)


@pytest.mark.parametrize("lung", LUNGS)
def test_with_one_lung_the_box_still_holds_the_heart_and_the_other_side(lung):
    slices, shown = scan(lungs=[lung])
    box, why = box_of(slices)
    assert not why
    both, _ = box_of(scan()[0])
    assert box == pytest.approx(both, abs=2 * SLACK_MM / FIELD_MM)
    assert not (shown & ~part_of(box)).any()


def test_gas_in_the_stomach_is_no_lung():
    assert lungs_in(scene(lungs=(), gas=-1000)[0], FIELD_MM) is None
    # What partial volume makes of it is; but a single slice moves nothing.
    odd, _ = scene(lungs=(), gas=-800)
    assert lungs_in(odd, FIELD_MM).left < edges(scene()[1])[0]
    slices, _ = scan()
    assert box_of([*slices, odd]) == box_of(slices)


def test_air_between_arm_and_body_is_no_lung():
    pixels, shown = scene(arms="touching")
    assert lungs_in(pixels, FIELD_MM)[:4] == pytest.approx(edges(shown), abs=SLACK_MM / FIELD_MM)


def test_slices_without_lungs_do_not_count_as_long_as_some_show_them():
    slices, _ = scan()
    belly = [scene(lungs=())[0]] * 40
    assert box_of([*slices, *belly]) == box_of(slices)
    assert box_of([*slices[10:12], *belly]) == (PICTURE, "lungs in 2 of the 42 slices searched")


@pytest.mark.parametrize(
    "pixels",
    [
        np.full((SIDE, SIDE), -1000, np.int16),
        np.full((SIDE, SIDE), 40, np.int16),
        np.full((SIDE, SIDE), -700, np.int16),
        scene(lungs=())[0],
    ],
    ids=["air", "water", "lung to the edges", "a belly"],
)
def test_where_there_are_no_lungs_the_picture_stays_whole(pixels):
    assert lungs_in(pixels, FIELD_MM) is None
    assert box_of([pixels] * 9) == (PICTURE, "lungs in 0 of the 9 slices searched")


def test_a_box_too_small_for_a_chest_is_not_trusted():
    small = lungs_in(scene()[0], FIELD_MM)._replace(left=0.41, right=0.59, top=0.45, bottom=0.55)
    box, why = lung_box([small._replace(middle=0.5)] * 9, FIELD_MM)
    assert box == PICTURE
    assert why == "a box of 93 mm, where 100 mm is the least"


def test_lungs_that_fill_the_picture_leave_it_whole():
    wide = lungs_in(scene()[0], FIELD_MM)._replace(left=0.0, right=1.0)
    assert lung_box([wide] * 9, FIELD_MM) == (PICTURE, "")


def test_a_box_lies_within_the_picture():
    rng = np.random.default_rng(0)
    some = lungs_in(scene()[0], FIELD_MM)
    for _ in range(200):
        left, right = np.sort(rng.uniform(0, 1, 2))
        top, bottom = np.sort(rng.uniform(0, 1, 2))
        extents = [some._replace(left=left, right=right, top=top, bottom=bottom)] * 9
        box, _ = lung_box(extents, FIELD_MM)
        assert box.side <= 1
        for size in (256, 300, 512, 777):
            edge, upper, side = box.pixels(size)
            assert min(edge, upper) >= 0
            assert max(edge, upper) + side <= size


def test_a_box_of_no_known_field_is_that_of_the_usual_one():
    slices, shown = scan()
    box, why = box_of(slices, field_mm=None)
    assert not why
    assert not (shown & ~part_of(box)).any()


def test_the_whole_picture_is_all_of_its_pixels():
    assert Box().pixels(333) == (0, 0, 333)


REAL = os.environ.get("CLOTLINE_REALCT")


@pytest.mark.skipif(
    not REAL, reason="CLOTLINE_REALCT is not set to a folder with data in the competition's layout"
)
def test_boxes_of_real_chests_are_like_those_drawn_by_hand():
    studies = sorted(Path(REAL, "train").iterdir())
    assert studies
    for study in studies:
        slices = [read_slice(path) for path in sorted(study.rglob("*.dcm"))]
        field = slices[0].traits.field_mm
        extents = [lungs_in(read.pixels, field) for read in slices]
        shown = [extent for extent in extents if extent is not None]
        assert 0.4 < len(shown) / len(slices) <= 1
        reach = np.array(shown)
        drawn = {"left": reach[:, 0].min(), "top": reach[:, 1].min(),
                 "right": reach[:, 2].max(), "bottom": reach[:, 3].max()}  # fmt: skip
        for edge, (low, high) in BY_HAND.items():
            assert low <= drawn[edge] <= high, (study.name, edge)
        picks = np.linspace(0, len(slices) - 1, SEARCHED).round().astype(int)
        box, why = lung_box([extents[pick] for pick in picks], field)
        assert not why
        # Also of the slices that were not searched.
        assert (reach[:, :2] >= box[:2]).all()
        assert (reach[:, 2:4] <= np.array(box[:2]) + box.side).all()
        assert box.side < 0.95
        # From one slice to the next the lungs change by little: nothing else was taken for them.
        order = np.argsort([read.location for read in slices])
        along = np.array([extents[k][:4] for k in order if extents[k] is not None])
        assert np.quantile(np.abs(np.diff(along, axis=0)), 0.95) < 0.1
