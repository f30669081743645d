"""How the rows and columns of a slice lie in the patient, and how slices are stored.

Most axial slices show the patient's left on the right and the back below. Those of a patient who
lies prone, and of some archives, do not; and two labels of a study are of a side.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import permutations

import numpy as np

from clotline.data.dicom.header import Header
from clotline.grid import Box

#: Letters of the patient's axes, along them and against them: DICOM PS3.3, C.7.6.1.1.1.
_LETTERS = ("LR", "PA", "HF")
#: As axial slices are stored: rows run to the patient's left, columns to the back.
AXIAL = "LP"
#: Where it is not known.
UNKNOWN_ORIENTATION = ""

#: Directions of rows and columns in the patient's coordinates: towards the left, back and head.
Axes = tuple[tuple[float, float, float], tuple[float, float, float]]


def image_axes(header: Header) -> Axes | None:
    """Directions of the rows and of the columns, of ImageOrientationPatient.

    Returns:
        None where the element is missing or does not give two directions.
    """
    try:
        axes = tuple(header.numbers("ImageOrientationPatient"))
    except (OverflowError, TypeError, ValueError):
        return None
    if len(axes) != 6 or not all(map(math.isfinite, axes)):
        return None
    row, column = axes[:3], axes[3:]
    return (row, column) if any(cross(row, column)) else None


def cross(a: Sequence[float], b: Sequence[float]) -> tuple[float, float, float]:
    """The cross product of two vectors."""
    # numpy takes ten times as long for a single one.
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


# Most slices of a study have the same.
@lru_cache(64)
def patient_orientation(axes: Axes | None) -> str:
    """Where rows and columns run, each by one of the patient's axes, which together are nearest.

    Args:
        axes: of `image_axes`.

    Returns:
        Two letters as of DICOM's PatientOrientation, such as LP for an axial slice of a patient
        who lies supine; empty without ``axes``.
    """
    if axes is None:
        return UNKNOWN_ORIENTATION
    row, column = axes
    first, second = max(
        permutations(range(3), 2), key=lambda pair: abs(row[pair[0]]) * abs(column[pair[1]])
    )
    return _LETTERS[first][row[first] < 0] + _LETTERS[second][column[second] < 0]


def stored_orientation(orientation: str) -> str:
    """Where rows and columns run after `upright`.

    Args:
        orientation: of `patient_orientation`, where they ran before.
    """
    return AXIAL if set(orientation) & {"L", "R"} and set(orientation) & {"P", "A"} else orientation


def upright(pixels: np.ndarray, orientation: str) -> np.ndarray:
    """A slice as it is stored: an axial one with rows to the left and columns to the back.

    Args:
        pixels: (n, n) of any type.
        orientation: of `patient_orientation`; what is not axial or unknown stays as it is.

    Returns:
        (n, n), the same values; of an axial slice in another order.
    """
    if orientation == AXIAL or stored_orientation(orientation) != AXIAL:
        return pixels
    if orientation[0] in "PA":
        pixels, orientation = pixels.T, orientation[::-1]
    rows, columns = (1 if letter in AXIAL else -1 for letter in orientation[::-1])
    return np.ascontiguousarray(pixels[::rows, ::columns])


def before_upright(box: Box, orientation: str) -> Box:
    """A part of a slice as it is stored, in the slice as it was before `upright`.

    Args:
        box: the part.
        orientation: as for `upright`.
    """
    if orientation == AXIAL or stored_orientation(orientation) != AXIAL:
        return box
    transposed = orientation[0] in "PA"
    letters = orientation[::-1] if transposed else orientation
    left, top = (
        edge if letter in AXIAL else 1 - edge - box.side
        for edge, letter in zip(box[:2], letters, strict=True)
    )
    return Box(top, left, box.side) if transposed else Box(left, top, box.side)
