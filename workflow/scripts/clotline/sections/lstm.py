"""One entry of ``lstm`` in the configuration: an LSTM of stage 2 and how it is trained."""

from dataclasses import dataclass
from typing import Any, ClassVar

from clotline.sections.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class LSTMSection(Recipe):
    """An LSTM, its initial weights and its training; keys as in `Recipe`."""

    init: str
    hidden_size: int
    forget_bias: float
    standardize: bool
    dropout: float
    target_replication: float
    batch_size: int

    BEFORE: ClassVar[dict[str, Any]] = Recipe.BEFORE | {
        "forget_bias": 0,
        "standardize": False,
        "dropout": 0,
        "target_replication": 0,
    }


def lstm_sections(config: dict) -> dict[str, LSTMSection]:
    """LSTM to its section of a complete configuration."""
    return {name: LSTMSection(**section) for name, section in config["lstm"].items()}
