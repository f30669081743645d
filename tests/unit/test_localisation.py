import numpy as np
import pytest
from localisation import on_slice, pointing_game

CROP = 240  # of 256: places of a 3 x 3 map are 80 pixels wide, from pixel 8 on


def maps_with_peaks(*places):
    maps = np.zeros((len(places), 3, 3))
    for number, place in enumerate(places):
        maps[number][place] = 1
    return maps


def targets_at(*pixels):
    targets = np.zeros((len(pixels), 256, 256), bool)
    for number, pixel in enumerate(pixels):
        targets[number][pixel] = True
    return targets


def play(peaks, pixels, studies="ab"):
    return pointing_game(
        maps_with_peaks(*peaks), targets_at(*pixels), np.array(list(studies)), CROP
    )


def test_a_peak_on_the_target_hits_and_another_misses():
    # Pixel 87 is the last of the first place, pixel 88 the first of the second.
    assert play([(0, 0), (1, 2)], [(87, 8), (88, 247)]).hits == 1
    assert play([(0, 0), (1, 2)], [(88, 8), (88, 247)]).hits == 0.5
    assert play([(0, 0), (0, 0)], [(88, 88), (200, 200)]).hits == 0


def test_chance_is_the_share_of_places_that_cover_a_target():
    assert play([(0, 0), (0, 0)], [(100, 100), (200, 20)]).chance == pytest.approx(1 / 9)


def test_a_target_outside_the_square_is_never_hit():
    found = play([(0, 0), (0, 0)], [(0, 0), (7, 255)])
    assert (found.hits, found.chance, found.others) == (0, 0, 0)


def test_other_studies_peaks_tell_a_habit_from_a_look():
    # Each map finds its own target, which no other map would.
    looked = play([(0, 0), (1, 1), (2, 2)], [(20, 20), (120, 120), (220, 220)], "abc")
    assert (looked.hits, looked.others) == (1, 0)
    # All peaks lie where all targets lie.
    habit = play([(0, 0)] * 3, [(20, 20)] * 3, "abc")
    assert (habit.hits, habit.others) == (1, 1)
    # Of slice a, only the slices of b count: one of two hits.
    mixed = play([(2, 2), (2, 2), (0, 0), (1, 1)], [(20, 20)] * 4, "aabb")
    assert mixed.others == pytest.approx((0.5 + 0.5 + 0 + 0) / 4)


def test_the_result_reads_as_a_sentence():
    assert "falls on a clot in 100.0% of slices" in str(play([(0, 0)] * 2, [(20, 20)] * 2))


@pytest.mark.parametrize("crop", [224, 256, 192])
def test_a_map_lies_on_the_square_that_the_network_sees(crop):
    activation = np.zeros((7, 7))
    activation[2, 5] = 1
    laid = on_slice(activation, crop)
    margin = (256 - crop) // 2
    highest = np.argwhere(laid == laid.max()).mean(0)
    centre = np.array([2.5, 5.5]) * crop / 7 - 0.5
    assert highest == pytest.approx(margin + centre, abs=1)
    inside = laid[margin : margin + crop, margin : margin + crop]
    assert np.count_nonzero(laid) == np.count_nonzero(inside)
