"""One entry of ``finetune`` in the configuration: how a network is trained on with its backbone."""

from dataclasses import asdict, dataclass, fields
from typing import Any

from clotline.sections.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class FinetuneSection:
    """The joint training of a backbone and a network of stage 2.

    config/README.md gives each key's unit, default and meaning. Weights are not averaged: batch
    normalisation, whose statistics averaged weights would need anew, is frozen.
    """

    slices: int
    augment: bool
    batch_size: int
    epochs: int
    optimizer: str
    lr: float
    momentum: float
    weight_decay: float
    schedule: str
    warm_up: float
    milestones: list[int]
    clip_norm: float | None
    keep: str
    accumulate: int
    precision: str

    @property
    def slices_together(self) -> int:
        """The most slices that go through the backbone in one pass."""
        return self.slices * self.batch_size

    @property
    def recipe(self) -> Recipe:
        """What of it says how to train."""
        shared = {field.name for field in fields(Recipe)} - {"ema"}
        return Recipe(**{name: getattr(self, name) for name in shared}, ema=0.0)

    def as_dict(self) -> dict[str, Any]:
        """The entry of the configuration, its keys sorted as in a rule's params."""
        return dict(sorted(asdict(self).items()))


def finetune_sections(config: dict) -> dict[str, FinetuneSection]:
    """Network of stage 2 to its section of a complete configuration."""
    return {name: FinetuneSection(**section) for name, section in config["finetune"].items()}
