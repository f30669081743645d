"""The grid of stored slices, which all networks see."""

from typing import NamedTuple

#: Sides that a stored slice can have, in pixels, and the published one.
SIZES = (256, 384, 512)
SIZE = 256

#: What a stored slice can show: the whole picture, or a square around the lungs.
WHOLE, LUNGS = "none", "lungs"

#: What lies outside the scanned field of view, in Hounsfield units.
AIR_HU = -1000


class Grid(NamedTuple):
    """The form in which slices are stored; the default is the published one.

    Attributes:
        size: side of a stored slice, in pixels; one of `SIZES`.
        crop: what it shows, `WHOLE` or `LUNGS`.
    """

    size: int = SIZE
    crop: str = WHOLE

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of a stored slice."""
        return self.size, self.size

    def __str__(self) -> str:
        around = " around the lungs" if self.crop == LUNGS else ""
        return f"{self.size} × {self.size} pixels{around}"


#: The published one.
PUBLISHED = Grid()


def grid_of(data: dict) -> Grid:
    """The grid that a configuration's section ``data`` asks for."""
    return Grid(data["size"], data["crop"])


class Box(NamedTuple):
    """A square part of a picture, which air has made square, as shares of the picture's side.

    Attributes:
        left: its left edge.
        top: its upper edge.
        side: its side; 1 is the whole picture.
    """

    left: float = 0.0
    top: float = 0.0
    side: float = 1.0

    def pixels(self, picture: int) -> tuple[int, int, int]:
        """Left edge, upper edge and side in whole pixels of a picture.

        Args:
            picture: the picture's side, in pixels.
        """
        width = min(picture, max(1, round(self.side * picture)))
        left, top = (min(round(edge * picture), picture - width) for edge in self[:2])
        return max(0, left), max(0, top), width


#: The whole picture.
PICTURE = Box()
