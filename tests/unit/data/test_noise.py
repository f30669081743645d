import cv2
import numpy as np
import pytest
from chests import chest_picture

from clotline.data.noise import noise_of


@pytest.mark.parametrize("noise", [5, 12, 30])
def test_noise_is_found_in_a_chest_with_edges(noise):
    assert noise_of(chest_picture(noise=noise), 360) == pytest.approx(noise, rel=0.15)


def test_the_mode_is_that_of_even_tissue_not_of_texture():
    pixels = chest_picture(noise=8)
    # A third of the body is coarse, as bone and fat strands are.
    pixels[90:150] += np.random.default_rng(1).normal(0, 60, (60, 256)).astype(np.int16)
    assert noise_of(pixels, 360) == pytest.approx(8, rel=0.2)


def test_smoothing_lowers_it():
    pixels = chest_picture(noise=30)
    assert noise_of(cv2.blur(pixels, (3, 3)), 360) < 15


@pytest.mark.parametrize("hu", [-1000, 300])
def test_without_soft_tissue_it_is_not_known(hu):
    assert np.isnan(noise_of(np.full((256, 256), hu, np.int16), 360))
