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
    epoch_slices: int | None
    positive_share: float
    study_slices: int | None
    compile: bool

    #: The library of video networks.
    VIDEO: ClassVar[str] = "torchvision-video"

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
        "epoch_slices": None,
        "positive_share": 0.5,
        "study_slices": None,
        "compile": False,
    }

    @property
    def windows(self) -> int:
        """How many windows each plane is seen through."""
        return 1 + len(self.further_windows)

    @property
    def channels(self) -> int:
        """Channels of an input: each plane through each window."""
        return self.planes * self.windows

    @property
    def is_video(self) -> bool:
        """Whether planes are a video network's frames, and no channels."""
        return self.library == self.VIDEO

    def epoch_counts(self, positives: int) -> tuple[int, int]:
        """Positive and negative slices of an epoch that does not go by studies.

        Args:
            positives: of all training studies.
        """
        if self.epoch_slices is None:
            return positives, round(positives * (1 - self.positive_share) / self.positive_share)
        positive = round(self.epoch_slices * self.positive_share)
        positive = min(max(positive, 1), self.epoch_slices - 1)
        return positive, self.epoch_slices - positive

    def describe_epochs(self) -> str:
        """Which slices an epoch has, to stand after a colon."""
        if self.study_slices is not None:
            return f"epochs of {self.study_slices} slices of each study, rotating through them"
        if self.epoch_slices is not None:
            return (
                f"epochs of {self.epoch_slices:,} slices, {self.positive_share:.0%} of them "
                "positive, rotating through the positives and the negatives"
            )
        if self.positive_share != 0.5:
            return (
                f"epochs of all positive slices and negative ones, {self.positive_share:.0%} "
                "positive, rotating through the negatives"
            )
        return (
            "balanced epochs of all positive slices and as many negative ones, rotating through "
            "the negatives"
        )

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
