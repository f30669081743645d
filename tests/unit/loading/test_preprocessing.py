"""Where slices are cut."""

import numpy as np
import pytest
from builders import cnn_section

from clotline.loading.preprocessing import View
from clotline.sections.cnn import CNNSection

VIEW = {"window_level": 100, "window_width": 700, "crop": 128, "input_size": 56}


def cuts(**keys):
    return View(**VIEW | {"vertical_flip": False} | keys).cuts(2000, (1, 2))


def test_a_shift_bounds_how_far_from_the_centre_the_crop_moves():
    corners = cuts(shift=4)[:, :2]
    assert np.unique(corners).tolist() == list(range(60, 69))


def test_no_shift_is_the_centre():
    assert np.unique(cuts(shift=0)[:, :2]).tolist() == [64]


@pytest.mark.parametrize("shift", [None, 112])
def test_without_a_bound_the_crop_moves_as_far_as_the_slice_goes(shift):
    corners = cuts(shift=shift)[:, :2]
    assert (corners.min(), corners.max()) == (0, 128)


def test_an_odd_margin_keeps_within_the_slice():
    corners = cuts(crop=251, shift=112)[:, :2]
    assert (corners.min(), corners.max()) == (0, 5)


def test_a_view_of_an_older_checkpoint_moves_freely():
    config = cnn_section(shift=5).as_dict()
    del config["shift"]
    assert View.of(CNNSection.of_checkpoint(config, "old.pt")).shift is None
