"""Noise of a CT slice, from its pixels.

The most frequent standard deviation within small windows of soft tissue: windows with an edge in
them have others. Christianson et al., AJR 205(1), 2015, doi 10.2214/AJR.14.13613.
"""

import math

import cv2
import numpy as np

from clotline.data.attenuation import USUAL_FIELD_MM

#: Side of a window in mm, and mean HU of one that lies in soft tissue.
_WINDOW_MM, _SOFT_HU = 7.0, (0, 100)
#: Fewest windows of which a frequency is told.
_FEWEST = 200
#: Width of a bin in HU, the largest deviation, and bins that are averaged.
_BIN_HU, _MOST_HU, _SMOOTH = 0.5, 120.0, 5


def noise_of(pixels: np.ndarray, field_mm: float | None = None) -> float:
    """Standard deviation in HU of what is even; NaN where there is too little soft tissue.

    It is of the pixels as stored, averages over those of the file, and so is less than on the
    scanner.

    Args:
        pixels: (n, n) int16 Hounsfield units.
        field_mm: side of the picture.
    """
    side = max(3, round(_WINDOW_MM * len(pixels) / (field_mm or USUAL_FIELD_MM)))
    values = pixels.astype(np.float32)
    mean = cv2.blur(values, (side, side))
    square = cv2.blur(values * values, (side, side))
    soft = (mean >= _SOFT_HU[0]) & (mean <= _SOFT_HU[1])
    if np.count_nonzero(soft) < _FEWEST:
        return math.nan
    count = side * side
    variance = np.maximum(square - mean * mean, 0)[soft] * (count / (count - 1))
    bins = np.arange(0, _MOST_HU + _BIN_HU, _BIN_HU)
    found, _ = np.histogram(np.sqrt(variance), bins)
    smooth = np.convolve(found, np.ones(_SMOOTH), mode="same")
    return float(bins[int(smooth.argmax())] + _BIN_HU / 2)
