"""How a network is trained: the keys that the entries of ``cnn`` and ``lstm`` share."""

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Self

from clotline.errors import ClotlineError


@dataclass(frozen=True)
class Recipe:
    """An optimizer, its learning rate, and how long to train.

    config/README.md gives each key's unit, default and meaning. The defaults are those of
    workflow/schemas/config.schema.yaml; a section is made of a configuration that has them all.
    """

    epochs: int
    optimizer: str
    lr: float
    momentum: float
    weight_decay: float
    schedule: str
    warm_up: float
    milestones: list[int]
    clip_norm: float | None
    precision: str
    keep: str
    accumulate: int
    ema: float

    #: What checkpoints were trained with that are older than a key, by key.
    BEFORE: ClassVar[dict[str, Any]] = {
        "optimizer": "sgd",
        "warm_up": 0.3,
        "keep": "best",
        "accumulate": 1,
        "ema": 0,
    }

    @classmethod
    def of_checkpoint(cls, config: dict, path: str | Path) -> Self:
        """The section that a network was trained with.

        Args:
            config: the field of its checkpoint; keys that this version does not have are ignored.
            path: its file, for messages.

        Raises:
            ClotlineError: a key is missing.
        """
        config = cls.BEFORE | config
        names = [field.name for field in fields(cls)]
        if missing := [name for name in names if name not in config]:
            raise ClotlineError(
                f"{path} is a checkpoint without {', '.join(missing)} in its configuration: train "
                "the network again, or apply it with the Clotline that made it"
            )
        return cls(**{name: config[name] for name in names})

    def as_dict(self) -> dict[str, Any]:
        """The entry of the configuration, its keys sorted as in a rule's params."""
        return dict(sorted(asdict(self).items()))
