"""One entry of ``lstm`` in the configuration: a network of stage 2 and how it is trained."""

from dataclasses import dataclass
from typing import Any, ClassVar

from clotline.sections.recipe import Recipe

#: The keys that give a network another form, and the values that leave it the published one: an
#: LSTM layer whose last state is read.
PUBLISHED_FORM = {
    "cell": "lstm",
    "bidirectional": False,
    "layers": 1,
    "pooling": ["last"],
    "neighbour_differences": False,
    "layer_norm": False,
    "projection": None,
    "max_steps": None,
}


@dataclass(frozen=True, kw_only=True)
class LSTMSection(Recipe):
    """A network of stage 2, its initial weights and its training; keys as in `Recipe`."""

    init: str
    hidden_size: int
    cell: str
    bidirectional: bool
    layers: int
    pooling: list[str]
    neighbour_differences: bool
    layer_norm: bool
    projection: int | None
    max_steps: int | None
    forget_bias: float
    standardize: bool
    dropout: float
    reversal: bool
    loss: str
    q_floor: float
    calibrate_odds: bool
    target_replication: float
    batch_size: int

    BEFORE: ClassVar[dict[str, Any]] = Recipe.BEFORE | {
        "forget_bias": 0,
        "standardize": False,
        "dropout": 0,
        "target_replication": 0,
        "reversal": False,
        "loss": "cross_entropy",
        "q_floor": 0,
        "calibrate_odds": False,
        **PUBLISHED_FORM,
    }

    @property
    def differing_keys(self) -> list[str]:
        """The keys that give the network another form than the published one."""
        return [key for key, value in PUBLISHED_FORM.items() if getattr(self, key) != value]

    def has_published_form(self, level: str) -> bool:
        """Whether the network of a level, image, study or joint, is one of the published ones."""
        return level != "joint" and not self.differing_keys

    def describe_form(self) -> str:
        """The network in a few words, such as "bidirectional GRU of 2 layers of 64 units"."""
        layers = f"of {self.layers} layers " if self.layers > 1 else ""
        direction = "bidirectional " if self.bidirectional else ""
        words = [f"{direction}{self.cell.upper()} {layers}of {self.hidden_size} units"]
        if self.pooling != PUBLISHED_FORM["pooling"]:
            words.append(f"pooled by {' and '.join(self.pooling)}")
        if self.neighbour_differences:
            words.append("with neighbours' differences")
        if self.layer_norm:
            words.append("with LayerNorm")
        if self.projection:
            words.append(f"on a projection to {self.projection} features")
        if self.max_steps:
            words.append(f"in at most {self.max_steps} steps")
        return ", ".join(words)


def lstm_sections(config: dict) -> dict[str, LSTMSection]:
    """LSTM to its section of a complete configuration."""
    return {name: LSTMSection(**section) for name, section in config["lstm"].items()}
