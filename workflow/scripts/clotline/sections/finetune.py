"""One entry of ``finetune`` in the configuration: how a network is trained on with its backbone."""

from dataclasses import dataclass
from typing import ClassVar

from clotline.sections.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class FinetuneSection(Recipe):
    """The joint training of a backbone and a network of stage 2.

    config/README.md gives each key's unit, default and meaning.
    """

    slices: int
    augment: bool
    batch_size: int

    #: No key: averaged weights would need the statistics of batch normalisation anew, which is
    #: frozen.
    ema: ClassVar[float] = 0.0

    @property
    def slices_together(self) -> int:
        """The most slices that go through the backbone in one pass."""
        return self.slices * self.batch_size


def finetune_sections(config: dict) -> dict[str, FinetuneSection]:
    """Network of stage 2 to its section of a complete configuration."""
    return {name: FinetuneSection(**section) for name, section in config["finetune"].items()}
