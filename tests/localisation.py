"""Where activation maps lie, and how well they point at what they should."""

from dataclasses import dataclass

import cv2
import numpy as np

from clotline.grid import SIZE


@dataclass(frozen=True)
class Pointing:
    """Result of a pointing game.

    Attributes:
        slices: number of slices.
        hits: share of slices whose map has its highest place on a clot.
        chance: the same for a place drawn at random.
        others: the same for the highest place of a slice of another study. As high as ``hits``,
            it says that the maps know where clots tend to be, and nothing of the slice.
    """

    slices: int
    hits: float
    chance: float
    others: float

    def __str__(self) -> str:
        """One line for people."""
        return (
            f"the peak falls on a clot in {self.hits:.1%} of slices, a random place in "
            f"{self.chance:.1%}, another study's peak in {self.others:.1%}"
        )


def pointing_game(
    maps: np.ndarray, targets: np.ndarray, studies: np.ndarray, crop: int
) -> Pointing:
    """Plays the pointing game of Zhang et al. (ECCV 2016, doi 10.1007/978-3-319-46493-0_33).

    A place of a coarse map hits where any pixel that it covers is of the target.

    Args:
        maps: (n, rows, columns) float, each of its slice's central square.
        targets: (n, 256, 256) bool.
        studies: (n,) UIDs of the slices' studies, of which there are at least two.
        crop: side of the central square, in pixels.
    """
    margin = (SIZE - crop) // 2
    square = targets[:, margin : margin + crop, margin : margin + crop]
    _, rows, columns = maps.shape
    row_of, column_of = (np.arange(crop) * count // crop for count in (rows, columns))
    covered = np.zeros(maps.shape, bool)
    for row in range(rows):
        for column in range(columns):
            block = square[:, row_of == row][:, :, column_of == column]
            covered[:, row, column] = block.any((1, 2))
    covered = covered.reshape(len(maps), -1)
    peaks = maps.reshape(len(maps), -1).argmax(1)
    # (n, n): would the peak of slice j hit on slice i?
    would_hit = covered[:, peaks]
    other = studies[:, None] != studies[None, :]
    return Pointing(
        slices=len(maps),
        hits=float(np.diagonal(would_hit).mean()),
        chance=float(covered.mean()),
        others=float(np.mean(np.average(would_hit, axis=1, weights=other))),
    )


def on_slice(activation: np.ndarray, crop: int) -> np.ndarray:
    """A map laid on the slice that it belongs to.

    Args:
        activation: (rows, columns) float, of the slice's central square.
        crop: side of that square, in pixels.

    Returns:
        (256, 256) float32; 0 outside the square, which the network does not see.
    """
    margin = (SIZE - crop) // 2
    laid = np.zeros((SIZE, SIZE), np.float32)
    laid[margin : margin + crop, margin : margin + crop] = cv2.resize(
        activation.astype(np.float32), (crop, crop), interpolation=cv2.INTER_LINEAR
    )
    return laid
