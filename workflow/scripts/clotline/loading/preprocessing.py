"""Stored slices to the inputs of a network: augmentation, crop, window, scaling."""

import functools
from dataclasses import dataclass, field, fields

import cv2
import numpy as np
import torch
from torch import Tensor

from clotline.grid import AIR_HU, SIZE
from clotline.labels import STUDY_LABELS
from clotline.loading.scaling import MEAN, STD
from clotline.sections.cnn import CNNSection

#: What is drawn for each slice.
CUT = np.dtype(
    [
        ("corner", np.int64, 2),  # top row and left column
        ("flips", bool, 2),  # upside down, and left to right
        ("scale", np.float64),  # how much larger the slice becomes
        ("angle", np.float64),  # degrees clockwise
        ("contrast", np.float64),  # factor of differences in Hounsfield units
        ("holes", np.int64, (2, 2)),  # row and column in the cut of each square's centre
        ("side", np.int64),  # of those squares, in pixels
    ]
)

_SIDES = {"leftsided_pe": "rightsided_pe", "rightsided_pe": "leftsided_pe"}
_MIRRORED = [STUDY_LABELS.index(_SIDES.get(name, name)) for name in STUDY_LABELS]


@dataclass(frozen=True)
class View:
    """How a stored slice becomes a network's input.

    Attributes:
        window_level, window_width: intensity window in Hounsfield units, mapped to 0 to 1.
        crop: side of the square cut out, in pixels.
        input_size: side of the input, in pixels.
        vertical_flip: whether training flips half of the slices.
        shift: farthest that training moves the cut from the centre along each axis, in pixels;
            None is wherever it fits.
        horizontal_flip: whether training mirrors half of the slices.
        scale: largest share by which training makes a slice larger or smaller.
        rotate: largest angle by which training turns a slice, in degrees.
        contrast: largest share by which training raises or lowers contrast.
        cutout: side of each of the two squares that training sets to air, as a share of the cut's
            (DeVries and Taylor, arXiv 1708.04552); 0 sets none.
        planes: slices that become channels of an input, the slice itself in their middle.
        plane_distance_mm: from one plane to the next; None takes the next slices.
        further_windows: level and width of each further window that all planes are seen through.
    """

    window_level: float
    window_width: float
    crop: int
    input_size: int
    vertical_flip: bool
    shift: int | None = None
    horizontal_flip: bool = False
    scale: float = 0.0
    rotate: float = 0.0
    contrast: float = 0.0
    cutout: float = 0.0
    planes: int = 1
    plane_distance_mm: float | None = None
    further_windows: list[list[float]] = field(default_factory=list)

    @classmethod
    def of(cls, section: CNNSection) -> "View":
        """The view of one ``cnn`` entry of the configuration."""
        return cls(**{field.name: getattr(section, field.name) for field in fields(cls)})

    def cuts(self, count: int, seed: tuple[int, ...] | None, size: int = SIZE) -> np.ndarray:
        """Where each of ``count`` slices is cut, and how it is changed.

        Args:
            count: number of slices.
            seed: of everything random; None means the centre, unchanged.
            size: side of a slice, in pixels; at least the crop's.

        Returns:
            (count,) of `CUT`.
        """
        margin = size - self.crop
        cuts = np.zeros(count, CUT)
        cuts["scale"] = cuts["contrast"] = 1
        cuts["corner"] = margin // 2
        if seed is None:
            return cuts
        rng = np.random.default_rng(seed)
        reach = margin if self.shift is None else self.shift
        low, high = max(0, margin // 2 - reach), min(margin, margin // 2 + reach)
        cuts["corner"] = rng.integers(low, high, (count, 2), endpoint=True)
        cuts["flips"][:, 0] = rng.integers(0, 1, count, endpoint=True) * self.vertical_flip
        # After what the published recipe draws, and always all: a setting moves no other's draws.
        cuts["flips"][:, 1] = rng.integers(0, 1, count, endpoint=True) * self.horizontal_flip
        cuts["scale"] += self.scale * rng.uniform(-1, 1, count)
        cuts["angle"] = self.rotate * rng.uniform(-1, 1, count)
        cuts["contrast"] += self.contrast * rng.uniform(-1, 1, count)
        cuts["holes"] = rng.integers(0, self.crop, (count, 2, 2))
        cuts["side"] = round(self.cutout * self.crop)
        return cuts

    def cut(self, pixels: np.ndarray, drawn: np.void) -> np.ndarray:
        """The part of a (n, n) slice that one of `cuts` names, (c, c) int16, changed by it.

        A slice is turned and made larger about the centre of the cut. What comes from beyond it
        is air.
        """
        corner, flips, scale, angle, contrast, holes, side = drawn.item()
        top, left = corner.tolist()
        if scale != 1 or angle:
            # torchvision's affine takes six times as long (docs/decisions.md).
            middle = (self.crop - 1) / 2
            matrix = cv2.getRotationMatrix2D((left + middle, top + middle), -angle, scale)
            pixels = cv2.warpAffine(pixels, matrix, pixels.shape, borderValue=AIR_HU)
        part = pixels[top : top + self.crop, left : left + self.crop]
        part = part[::-1] if flips[0] else part
        part = part[:, ::-1] if flips[1] else part
        if contrast != 1:
            # Of the window's values, 0 being its lower end, as albumentations' RandomContrast.
            low = self.window_level - self.window_width / 2
            values = np.rint(low + (part - low) * contrast)
            part = values.clip(-(2**15), 2**15 - 1).astype(np.int16)
        if side:
            part = part.copy()
            for row, column in holes.tolist():
                top, left = row - side // 2, column - side // 2
                part[max(0, top) : top + side, max(0, left) : left + side] = AIR_HU
        return part

    def inputs(self, parts: Tensor) -> Tensor:
        """Cut slices to the network's inputs.

        Args:
            parts: (n, p, c, c) int16 Hounsfield units of p planes, on any device.

        Returns:
            (n, w p, s, s) float32 on that device: the planes from feet to head, through each of w
            windows in turn.
        """
        windows = [(self.window_level, self.window_width), *self.further_windows]
        seen = [self._windowed(parts, level, width) for level, width in windows]
        return seen[0] if len(seen) == 1 else torch.cat(seen, 1)

    def _windowed(self, parts: Tensor, level: float, width: float) -> Tensor:
        values = parts.float().sub_(level - width / 2)
        values.mul_(1 / width).clamp_(0, 1)
        if self.input_size != self.crop:
            weights = _area_weights(self.crop, self.input_size, parts.device)
            values = weights @ values @ weights.T
        return values.sub_(MEAN).mul_(1 / STD)


@functools.cache
def _area_weights(old: int, new: int, device: torch.device) -> Tensor:
    """(new, old) float32: the share that each old pixel has in a new one, along one axis."""
    ends = np.arange(new + 1)[:, None] * old / new
    pixels = np.arange(old)
    overlaps = np.minimum(ends[1:], pixels + 1) - np.maximum(ends[:-1], pixels)
    shares = np.maximum(overlaps, 0) * new / old
    return torch.from_numpy(shares.astype(np.float32)).to(device)


def mirrored(labels):
    """Study labels of mirror images: left-sided and right-sided PE have changed places.

    A network that is trained on them and on slices with `View.horizontal_flip` needs it; stage 1 is
    trained on PE in the slice alone, which has no side. (Order reversed from head to feet leaves
    left and right where they were.)

    Args:
        labels: (..., 9) array or tensor, in the order of `clotline.labels.STUDY_LABELS`.
    """
    return labels[..., _MIRRORED]
