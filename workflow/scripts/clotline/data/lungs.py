"""The box around the lungs of a scan, from thresholds and connected components.

It is one square for all slices of a scan: so neighbouring slices stay aligned, a pixel has one
size, and nothing jumps from one slice to the next. Place 1 of the RSNA-STR competition trained a
network on 29,116 boxes that were drawn by hand; lungs are so much darker than what is around them
that their box needs no training.
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from clotline.data.attenuation import USUAL_FIELD_MM, outline
from clotline.grid import PICTURE, Box

#: Slices of a scan that are searched for lungs, spread over its files.
SEARCHED = 33

#: Between these lie lungs, in HU: what is below is air, as in the stomach, or in a table's core.
_AIR_HU, _LUNG_HU = -960, -500
#: Least area of a lung in a slice, in mm²: the trachea has 400.
_LEAST_MM2 = 2000

#: Left free on each side, in mm: the slices between those that are searched reach a little further.
MARGIN_MM = 5.0
#: Least share of the searched slices that must show lungs.
_LEAST_SHARE = 0.1
#: From so many slices with lungs on, the one that reaches furthest to a side does not count: where
#: something is taken for a lung in one slice, that alone moves nothing.
_FEW = 8
#: Least side of a box in mm; the chest of an infant is 100 mm wide.
_LEAST_MM = 100.0


class Extent(NamedTuple):
    """How far the lungs reach in one slice, as shares of the picture's side.

    Attributes:
        left: from here.
        top: from here.
        right: to here.
        bottom: to here.
        middle: half of the body lies on either side of it.
    """

    left: float
    top: float
    right: float
    bottom: float
    middle: float


def lungs_in(pixels: np.ndarray, field_mm: float | None = None) -> Extent | None:
    """How far the lungs reach in one slice; None where it shows none.

    Args:
        pixels: (n, n) int16 Hounsfield units of the whole picture of an axial slice, of 1 to 2 mm.
        field_mm: side of the picture.
    """
    side = len(pixels)
    mm = (field_mm or USUAL_FIELD_MM) / side
    smooth = cv2.medianBlur(pixels, 5)
    dense = (smooth > _LUNG_HU).astype(np.uint8)
    # Not opened before: of the thin, whose ribs lie under the skin, that breaks the chest's wall.
    body = outline(dense)
    hollow = (body & (dense == 0)).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(hollow, connectivity=4)
    lungs = [
        stats[number]
        for number in range(1, count)
        if stats[number, cv2.CC_STAT_AREA] * mm * mm >= _LEAST_MM2
        and np.median(smooth[labels == number]) > _AIR_HU
    ]
    if not lungs:
        return None
    left, top, across, down = np.array(lungs)[:, : cv2.CC_STAT_AREA].T
    middle = np.searchsorted(body.sum(0).cumsum(), body.sum() / 2) + 0.5
    edges = left.min(), top.min(), (left + across).max(), (top + down).max(), middle
    return Extent(*(float(edge) / side for edge in edges))


def lung_box(found: Sequence[Extent | None], field_mm: float | None = None) -> tuple[Box, str]:
    """The square around the lungs of a scan.

    It is as wide as the lungs and their mirror image at the body's middle: where a patient has one
    lung, the heart and the vessels beside it are in it all the same.

    Args:
        found: of `lungs_in` for some of its slices, from one end to the other, in any order.
        field_mm: side of the pictures.

    Returns:
        The square with its margin, within the picture; and, where it is the whole picture because
        no box can be trusted, why.
    """
    shown = [extent for extent in found if extent is not None]
    if not shown or len(shown) < _LEAST_SHARE * len(found):
        return PICTURE, f"lungs in {len(shown)} of the {len(found)} slices searched"
    spare = int(len(shown) >= _FEW)
    left, top, right, bottom, middle = np.sort(np.array(shown), 0).T
    middle = float(np.median(middle))
    low, high = float(left[spare]), float(right[-1 - spare])
    low, high = min(low, 2 * middle - high), max(high, 2 * middle - low)
    above, below = float(top[spare]), float(bottom[-1 - spare])
    field = field_mm or USUAL_FIELD_MM
    side = max(high - low, below - above) + 2 * MARGIN_MM / field
    if side * field < _LEAST_MM:
        return PICTURE, f"a box of {side * field:.0f} mm, where {_LEAST_MM:.0f} mm is the least"
    side = min(1.0, side)
    left, top = (
        min(max(0.0, (start + stop - side) / 2), 1 - side)
        for start, stop in ((low, high), (above, below))
    )
    # So many digits that no pixel of a file differs.
    return Box(round(left, 5), round(top, 5), round(side, 5)), ""
