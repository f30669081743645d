"""Where slices are cut, and how training changes them."""

import numpy as np
import pytest
import torch
from builders import cnn_section
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from clotline.grid import AIR_HU
from clotline.labels import STUDY_LABELS
from clotline.loading.preprocessing import CUT, View, mirrored
from clotline.sections.cnn import CNNSection

VIEW = {"window_level": 100, "window_width": 700, "crop": 128, "input_size": 56}


def cuts(**keys):
    return View(**VIEW | {"vertical_flip": False} | keys).cuts(2000, (1, 2))


def test_a_shift_bounds_how_far_from_the_centre_the_crop_moves():
    corners = cuts(shift=4)["corner"]
    assert np.unique(corners).tolist() == list(range(60, 69))


def test_no_shift_is_the_centre():
    assert np.unique(cuts(shift=0)["corner"]).tolist() == [64]


@pytest.mark.parametrize("shift", [None, 112])
def test_without_a_bound_the_crop_moves_as_far_as_the_slice_goes(shift):
    corners = cuts(shift=shift)["corner"]
    assert (corners.min(), corners.max()) == (0, 128)


def test_an_odd_margin_keeps_within_the_slice():
    corners = cuts(crop=251, shift=112)["corner"]
    assert (corners.min(), corners.max()) == (0, 5)


def test_a_view_of_an_older_checkpoint_moves_freely():
    config = cnn_section(shift=5).as_dict()
    del config["shift"]
    assert View.of(CNNSection.of_checkpoint(config, "old.pt")).shift is None


def changed(pixels, keys=None, **values):
    """A slice cut at the centre, with what is given in place of what would be drawn."""
    view = View(**VIEW | {"vertical_flip": False} | (keys or {}))
    cut = view.cuts(1, None)
    for name, value in values.items():
        cut[name] = value
    return view.cut(pixels, cut[0])


@pytest.fixture
def noise():
    return np.random.default_rng(0).integers(-900, 900, (256, 256)).astype(np.int16)


def test_what_the_published_recipe_draws_is_what_it_always_drew():
    rng = np.random.default_rng((1, 2))
    corners = rng.integers(0, 128, (2000, 2), endpoint=True)
    flips = rng.integers(0, 1, (2000, 1), endpoint=True)
    for further in ({}, {"horizontal_flip": True, "rotate": 20, "scale": 0.2, "cutout": 0.4}):
        found = cuts(vertical_flip=True, **further)
        assert np.array_equal(found["corner"], corners)
        assert np.array_equal(found["flips"][:, :1], flips)


def test_each_slice_has_its_own_amounts_uniform_up_to_the_largest():
    found = cuts(horizontal_flip=True, scale=0.2, rotate=20, contrast=0.3, cutout=0.4)
    assert 900 < found["flips"][:, 1].sum() < 1100
    assert not found["flips"][:, 0].any()
    for name, middle, largest in (("scale", 1, 0.2), ("angle", 0, 20), ("contrast", 1, 0.3)):
        share = (found[name] - middle) / largest
        assert len(np.unique(share)) == 2000
        assert np.abs(share).max() <= 1
        # Uniform: in each tenth of the range a tenth of the slices, but for chance.
        assert np.histogram(share, 10, (-1, 1))[0] == pytest.approx(200, abs=60)
    assert np.unique(found["holes"]).tolist() == list(range(128))


@pytest.mark.parametrize("key", ["horizontal_flip", "scale", "rotate", "contrast", "cutout"])
def test_a_setting_moves_no_others_draws(key):
    others = {"horizontal_flip": True, "scale": 0.2, "rotate": 20, "contrast": 0.3, "cutout": 0.4}
    field = {"horizontal_flip": "flips", "rotate": "angle", "cutout": "side"}.get(key, key)
    both = cuts(**others), cuts(**{k: v for k, v in others.items() if k != key})
    for name in set(CUT.names) - {field}:
        assert np.array_equal(both[0][name], both[1][name])


def test_with_none_of_them_training_sees_stored_values_alone(noise):
    view = View(**VIEW, vertical_flip=False)
    for cut in view.cuts(20, (0,)):
        (top, left), found = cut["corner"], view.cut(noise, cut)
        assert np.array_equal(found, noise[top : top + 128, left : left + 128])


def test_elsewhere_than_in_training_nothing_is_changed(noise):
    keys = {"scale": 0.2, "rotate": 20, "contrast": 0.3, "horizontal_flip": True, "cutout": 0.4}
    assert np.array_equal(changed(noise, keys), noise[64:192, 64:192])


def test_flips_turn_the_cut_over(noise):
    part = noise[64:192, 64:192]
    assert np.array_equal(changed(noise, flips=(True, False)), part[::-1])
    assert np.array_equal(changed(noise, flips=(False, True)), part[:, ::-1])
    assert np.array_equal(changed(noise, flips=(True, True)), part[::-1, ::-1])


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_quarter_turn_is_about_the_centre_of_the_cut_clockwise(noise, turns):
    expected = np.rot90(noise[64:192, 64:192], -turns)
    assert np.array_equal(changed(noise, angle=90 * turns), expected)


def test_a_slice_made_twice_as_large_shows_its_middle():
    rows, columns = np.indices((256, 256))
    ramp = (4 * rows + 2 * columns).astype(np.int16)
    found = changed(ramp, scale=2)
    # Pixel k of the cut is 64.25 + k / 2 + 31.75 of the slice.
    places = 95.75 + np.arange(128) / 2
    assert found == pytest.approx(4 * places[:, None] + 2 * places, abs=1)


def test_what_comes_from_beyond_the_slice_is_air(noise):
    found = changed(noise, {"crop": 256}, scale=0.5)
    assert np.array_equal(found[:63], np.full((63, 256), AIR_HU))
    assert (found[65:191, 65:191] != AIR_HU).all()


def test_contrast_multiplies_the_windows_values(noise):
    # The window of level 100 and width 700 begins at -250.
    found = changed(noise, contrast=1.2)
    assert found == pytest.approx(-250 + 1.2 * (noise[64:192, 64:192] + 250.0), abs=0.51)
    extreme = np.full((256, 256), 32767, np.int16)
    assert (changed(extreme, contrast=1.2) == 32767).all()


def test_two_squares_are_set_to_air_and_the_rest_stays(noise):
    stored = noise.copy()
    # 0.25 of 128 pixels: the second lies half beyond the edge.
    holes = [(40, 30), (127, 0)]
    view = View(**VIEW, vertical_flip=False, cutout=0.25)
    cut = view.cuts(1, (0,))
    cut["holes"] = [holes]
    top, left = cut[0]["corner"]
    expected = noise[top : top + 128, left : left + 128].copy()
    expected[24:56, 14:46] = AIR_HU
    expected[111:, :16] = AIR_HU
    assert np.array_equal(view.cut(noise, cut[0]), expected)
    assert np.array_equal(noise, stored)


LABELS = arrays(
    np.float32, st.tuples(st.integers(0, 4), st.just(9)), elements=st.floats(0, 1, width=32)
)


@given(LABELS)
def test_a_mirror_image_swaps_the_side_labels_and_no_other(labels):
    found = mirrored(labels)
    left, right = map(STUDY_LABELS.index, ("leftsided_pe", "rightsided_pe"))
    assert np.array_equal(found[:, left], labels[:, right])
    assert np.array_equal(found[:, right], labels[:, left])
    others = [k for k in range(9) if k not in (left, right)]
    assert np.array_equal(found[:, others], labels[:, others])
    assert np.array_equal(mirrored(found), labels)
    assert np.array_equal(mirrored(torch.from_numpy(labels)).numpy(), found)
