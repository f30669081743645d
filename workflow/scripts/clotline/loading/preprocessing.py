"""Stored slices to the inputs of a network: window, crop, flip, scaling."""

import functools
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from clotline.grid import SIZE
from clotline.sections.cnn import CNNSection

#: Mean and standard deviation of ImageNet images, averaged over the channels (torchvision's
#: values), for pixels in 0 to 1.
MEAN, STD = 0.449, 0.226


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
    """

    window_level: float
    window_width: float
    crop: int
    input_size: int
    vertical_flip: bool
    shift: int | None = None

    @classmethod
    def of(cls, section: CNNSection) -> "View":
        """The view of one ``cnn`` entry of the configuration."""
        return cls(**{field.name: getattr(section, field.name) for field in fields(cls)})

    def cuts(self, count: int, seed: tuple[int, ...] | None) -> np.ndarray:
        """Where each of ``count`` slices is cut.

        Args:
            count: number of slices.
            seed: of random positions and flips; None means the centre.

        Returns:
            (count, 3) int: top row, left column, and whether the cut is turned upside down.
        """
        margin = SIZE - self.crop
        if seed is None:
            return np.tile((margin // 2, margin // 2, 0), (count, 1))
        rng = np.random.default_rng(seed)
        reach = margin if self.shift is None else self.shift
        low, high = max(0, margin // 2 - reach), min(margin, margin // 2 + reach)
        corners = rng.integers(low, high, (count, 2), endpoint=True)
        flips = rng.integers(0, 1, (count, 1), endpoint=True) * self.vertical_flip
        return np.hstack([corners, flips])

    def cut(self, pixels: np.ndarray, top: int, left: int, flip: bool) -> np.ndarray:
        """The part of a (256, 256) slice that one row of `cuts` names, (c, c)."""
        part = pixels[top : top + self.crop, left : left + self.crop]
        return part[::-1] if flip else part

    def inputs(self, parts: Tensor) -> Tensor:
        """Cut slices to the network's inputs.

        Args:
            parts: (n, 1, c, c) int16 Hounsfield units, on any device.

        Returns:
            (n, 1, s, s) float32 on that device.
        """
        values = parts.float().sub_(self.window_level - self.window_width / 2)
        values.mul_(1 / self.window_width).clamp_(0, 1)
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
