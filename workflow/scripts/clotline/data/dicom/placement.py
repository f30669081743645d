"""Where the pixels of a stored slice lie in the patient.

A slice is stretched until its pixels are square, padded until it is square, cropped to a box,
averaged to the stored grid and turned (`clotline.data.dicom.ct_slice.resample`,
`clotline.data.dicom.orientation.upright`).
Here the same steps are gone back, to coordinates as of DICOM PS3.3, C.7.6.2.1.1.
"""

from dataclasses import dataclass

import numpy as np

from clotline.data.dicom.ct_slice import square_matrix
from clotline.data.dicom.orientation import AXIAL, Axes, before_upright, stored_orientation
from clotline.grid import PICTURE, SIZE, Box


@dataclass(frozen=True)
class Plane:
    """Where the pixels of a picture lie, in mm, towards the patient's left, back and head.

    Attributes:
        corner: (3,) centre of the first pixel.
        right: (3,) step from a pixel to the next of its row.
        down: (3,) step from a pixel to the next of its column.
    """

    corner: np.ndarray
    right: np.ndarray
    down: np.ndarray

    def at(self, column: float, row: float) -> np.ndarray:
        """(3,) where a point lies; pixels have their centres at whole numbers."""
        return self.corner + column * self.right + row * self.down

    @property
    def spacing(self) -> tuple[float, float]:
        """PixelSpacing: mm between rows and between columns."""
        return float(np.linalg.norm(self.down)), float(np.linalg.norm(self.right))

    @property
    def orientation(self) -> list[float]:
        """ImageOrientationPatient: directions of rows and of columns."""
        directions = (step / np.linalg.norm(step) for step in (self.right, self.down))
        return [float(part) for direction in directions for part in direction]

    def part(self, left: float, top: float, width: float, columns: int, rows: int) -> "Plane":
        """Where the cells of a grid lie that covers a square of the picture.

        Args:
            left: edge of the square, in pixels from the picture's left edge.
            top: the same from its upper edge.
            width: of the square, in pixels.
            columns: cells in a row of the grid.
            rows: cells in a column of it.
        """
        across, along = width / columns, width / rows
        corner = self.at(left + across / 2 - 0.5, top + along / 2 - 0.5)
        return Plane(corner, across * self.right, along * self.down)


def stored_plane(
    matrix: tuple[int, int],
    spacing: tuple[float, float],
    corner: list[float],
    axes: Axes,
    orientation: str,
    size: int = SIZE,
    box: Box = PICTURE,
) -> Plane:
    """Where the pixels of the slice lie that is stored of a file.

    Args:
        matrix: Rows and Columns of the file.
        spacing: its PixelSpacing.
        corner: its ImagePositionPatient.
        axes: its ImageOrientationPatient.
        orientation: `clotline.data.dicom.orientation.patient_orientation` of ``axes``.
        size: side of the stored slice, in pixels.
        box: the part of the picture that it shows, as it is turned.
    """
    # As the slice was read: its traits have thousandths of a mm.
    rows, columns = square_matrix(matrix, tuple(round(mm, 3) for mm in spacing), size, box)
    side = max(rows, columns)
    left, top, width = before_upright(box, orientation).pixels(side)
    row, column = (np.array(axis) / np.linalg.norm(axis) for axis in axes)
    # One pixel of what was averaged to the stored size, in mm.
    right = row * spacing[1] * matrix[1] / columns * width / size
    down = column * spacing[0] * matrix[0] / rows * width / size
    # From the centre of the file's first pixel to its edges, to those of the square and of the box
    # in it, and back to the centre of a stored pixel.
    first = np.array(corner) - row * spacing[1] / 2 - column * spacing[0] / 2
    first -= right * ((side - columns) // 2 - left) * size / width
    first -= down * ((side - rows) // 2 - top) * size / width
    return _turned(Plane(first + right / 2 + down / 2, right, down), orientation, size)


def _turned(plane: Plane, orientation: str, size: int) -> Plane:
    if orientation == AXIAL or stored_orientation(orientation) != AXIAL:
        return plane
    if orientation[0] in "PA":
        plane, orientation = Plane(plane.corner, plane.down, plane.right), orientation[::-1]
    if orientation[0] not in AXIAL:
        plane = Plane(plane.at(size - 1, 0), -plane.right, plane.down)
    if orientation[1] not in AXIAL:
        plane = Plane(plane.at(0, size - 1), plane.right, -plane.down)
    return plane
