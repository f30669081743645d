"""One entry of ``cnn`` in the configuration: a backbone of stage 1 and how it is trained."""

from dataclasses import dataclass
from typing import Any, ClassVar

from clotline.sections.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class CNNSection(Recipe):
    """A backbone, its initial weights, its inputs and its training; keys as in `Recipe`."""

    library: str
    architecture: str
    init: str
    weights_sha256: str | None
    zero_init_residual: bool
    dropout: bool
    batch_norm_momentum: float | None
    window_level: float
    window_width: float
    further_windows: list[list[float]]
    planes: int
    plane_distance_mm: float | None
    crop: int
    shift: int | None
    input_size: int
    vertical_flip: bool
    horizontal_flip: bool
    scale: float
    rotate: float
    contrast: float
    cutout: float
    batch_size: int
    compile: bool

    BEFORE: ClassVar[dict[str, Any]] = Recipe.BEFORE | {
        "weights_sha256": None,
        "zero_init_residual": False,
        "dropout": True,
        "further_windows": [],
        "planes": 1,
        "plane_distance_mm": None,
        "shift": None,
        "horizontal_flip": False,
        "scale": 0,
        "rotate": 0,
        "contrast": 0,
        "cutout": 0,
        "compile": False,
    }

    @property
    def channels(self) -> int:
        """Channels of an input: each plane through each window."""
        return self.planes * (1 + len(self.further_windows))

    def describe_channels(self) -> str:
        """What an input has beyond one slice in one window, as the end of a sentence on it."""
        text = "".join(f", level {a:g} HU, width {b:g} HU" for a, b in self.further_windows)
        if self.planes > 1:
            apart = f"{self.plane_distance_mm:g} mm apart" if self.plane_distance_mm else "adjacent"
            text += f", of {self.planes} slices ({apart})"
        return text


def cnn_sections(config: dict) -> dict[str, CNNSection]:
    """Backbone to its section of a complete configuration."""
    return {name: CNNSection(**section) for name, section in config["cnn"].items()}
