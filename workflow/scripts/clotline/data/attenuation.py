"""What the pixels of a chest scan show: air, lungs, soft tissue, and whether its blood is enhanced.

Headers say what was planned, and de-identification removes that; pixels say what was done. In a CT
pulmonary angiogram the heart and large vessels are of 150 HU and more; unenhanced blood is of 30 to
70 HU (ACR–STR practice parameter for CT of the heart and chest; Wittram, Radiology 2003, doi
10.1148/rg.236035025 on attenuation of emboli and blood).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

#: Least HU of the blood in a CTPA.
ENHANCED_HU = 150
#: What is between this and `ENHANCED_HU` is enhanced weakly, or not by much more than noise.
UNENHANCED_HU = 100

#: Slices of a scan that are looked at.
LOOKED_AT = 11

#: Least fraction of the body that is lung where a slice shows lungs.
LUNG_SHARE = 0.05

#: Field of view where a file does not say: half of RSNA's are within 330 and 390 mm.
USUAL_FIELD_MM = 360.0

#: Radius in mm of the disc that blood must fill: pulmonary arteries and the aorta are 20 mm wide or
#: more, calcified lymph nodes and cartilage less.
_DISC_MM = 4.5

#: Largest difference within that disc, in HU or as a share of the lowest value: bone varies more.
_EVEN_HU, _EVEN = 60, 0.4

#: Below this is air, in HU; lung is between it and `_LUNG_HU`.
_AIR_HU, _LUNG_HU = -960, -500
#: Soft tissue.
_SOFT_HU = (-150, 300)


class Look(NamedTuple):
    """What one slice shows.

    Attributes:
        air: fraction of the picture below -500 HU.
        body: fraction of the picture within the body's outline.
        soft: median of what lies between -150 and 300 HU in the body; NaN where nothing does.
        lung: fraction of the body's outline that is lung.
        blood: mean HU of the brightest even disc of 9 mm width between the breastbone, the spine
            and the ribs; NaN where there are no lungs, or nothing but them.
    """

    air: float
    body: float
    soft: float
    lung: float
    blood: float


def look_at(pixels: np.ndarray, field_mm: float | None = None) -> Look:
    """Looks at one slice.

    Args:
        pixels: (256, 256) int16 Hounsfield units of an axial slice, turned as of
            `clotline.data.dicom.orientation.upright`.
        field_mm: side of the picture.
    """
    side = len(pixels)
    mm = (field_mm or USUAL_FIELD_MM) / side
    smooth = cv2.medianBlur(pixels, 5)
    dense = (smooth > _LUNG_HU).astype(np.uint8)
    air = 1 - float(dense.mean())
    body = outline(dense)
    inside = float(body.mean())
    if not inside:
        return Look(air, 0.0, math.nan, 0.0, math.nan)
    within = pixels[body & (pixels > _SOFT_HU[0]) & (pixels < _SOFT_HU[1])]
    soft = float(np.median(within)) if len(within) else math.nan
    lungs = _lungs(body, dense, mm)
    if not lungs.any():
        return Look(air, inside, soft, 0.0, math.nan)
    lung = float(lungs.sum() / body.sum())
    return Look(air, inside, soft, lung, _blood(smooth, body, lungs, mm))


def outline(dense: np.ndarray) -> np.ndarray:
    """The body: the largest dense component with all that it encloses.

    Args:
        dense: (rows, columns) uint8, 1 where it is dense.

    Returns:
        (rows, columns) bool.
    """
    labels, areas = components(dense)
    if len(areas) < 2:
        return np.zeros(dense.shape, bool)
    largest = (labels == 1 + int(areas[1:].argmax())).astype(np.uint8)
    contours, _ = cv2.findContours(largest, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = np.zeros_like(largest)
    cv2.drawContours(filled, contours, -1, 1, cv2.FILLED)
    return filled.astype(bool)


def components(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The parts of a mask that are connected along rows and columns.

    OpenCV's own statistics take four times as long as the components themselves.

    Args:
        mask: (rows, columns) uint8, 1 inside.

    Returns:
        (rows, columns) int32, the number of each pixel's component, 0 outside; (components + 1,)
        int64, how many pixels each number has.
    """
    count, labels = cv2.connectedComponents(mask, connectivity=4)
    return labels, np.bincount(labels.ravel(), minlength=count)


def _lungs(body: np.ndarray, dense: np.ndarray, mm: float) -> np.ndarray:
    """Air within the body in components of 20 cm² or more: no trachea, no bowel of usual width."""
    hollow = (body & (dense == 0)).astype(np.uint8)
    labels, areas = components(hollow)
    large = areas * mm * mm >= 2000
    large[0] = False
    return large[labels]


def _blood(smooth: np.ndarray, body: np.ndarray, lungs: np.ndarray, mm: float) -> float:
    rows, columns = np.flatnonzero(lungs.any(1)), np.flatnonzero(lungs.any(0))
    height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
    # Without the breastbone in front, the spine behind and the ribs at both sides.
    middle = (
        slice(rows[0] + round(0.15 * height), rows[0] + max(1, round(0.55 * height))),
        slice(columns[0] + round(0.1 * width), columns[-1] + 1 - round(0.1 * width)),
    )
    radius = max(1, round(_DISC_MM / mm))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2)
    values = cv2.blur(np.where(body, smooth, np.int16(-1000)).astype(np.float32), (3, 3))
    # The highest level that fills a disc somewhere is the maximum of a grey-scale erosion.
    lowest = cv2.erode(values, disc)[middle]
    even = cv2.dilate(values, disc)[middle] - lowest <= np.maximum(_EVEN_HU, lowest * _EVEN)
    if not even.any():
        return math.nan
    row, column = np.unravel_index(int(np.where(even, lowest, -np.inf).argmax()), lowest.shape)
    row, column = row + middle[0].start, column + middle[1].start
    part = values[row - radius : row + radius + 1, column - radius : column + radius + 1]
    blood = float(part[disc.astype(bool)].mean())
    return blood if blood > _SOFT_HU[0] else math.nan  # nothing but lung


class Chest(NamedTuple):
    """What the slices of a scan show together.

    Attributes:
        blood: HU of the blood pool; NaN where no slice shows lungs.
        lungs: fraction of the slices that show lungs.
        air: median of `Look.air`.
        body: median of `Look.body`.
        soft: median HU of soft tissue.
    """

    blood: float
    lungs: float
    air: float
    body: float
    soft: float


def summarize(looks: Sequence[Look]) -> Chest | None:
    """What several slices show; None where there is none.

    The blood pool is the upper quartile over the slices with lungs: the highest one may hold bone,
    and some show none of the vessels that are enhanced.
    """
    if not looks:
        return None
    air, body, soft, lung, blood = np.array(looks, float).T
    shown = lung >= LUNG_SHARE
    pools = blood[shown & ~np.isnan(blood)]
    return Chest(
        blood=float(np.percentile(pools, 75, method="lower")) if len(pools) else math.nan,
        lungs=float(shown.mean()),
        air=float(np.median(air)),
        body=float(np.median(body)),
        soft=float(np.nanmedian(soft)) if not np.isnan(soft).all() else math.nan,
    )


def wrong_scale(chest: Chest) -> str:
    """Why Hounsfield units cannot be right, with numbers; empty where they can."""
    if chest.air > 0.995:
        return f"{chest.air:.0%} of the picture is air"
    if chest.air < 0.02:
        return f"only {chest.air:.1%} of the picture is air"
    if math.isnan(chest.soft):
        return "nothing has the attenuation of soft tissue"
    if not -110 <= chest.soft <= 160:
        return f"soft tissue has {chest.soft:.0f} HU"
    return ""
