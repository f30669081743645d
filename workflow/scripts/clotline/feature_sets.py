"""Feature sets and how LSTMs are named after them.

Apart from the configuration, so that a new check of it trains nothing anew.
"""


def feature_sets(config: dict) -> dict[str, list[str]]:
    """Feature set name to the backbones whose features it joins, in order."""
    return {name: [name] for name in config["cnn"]} | config["features"]


def split_lstm_name(name: str) -> tuple[str, str]:
    """``combined-study`` to its feature set and level, ``("combined", "study")``."""
    features, _, level = name.rpartition("-")
    return features, level


def level_pairs(models: list[str]) -> list[str]:
    """The names that have an image level and a study level among ``models``, without the level."""
    names = (name.removesuffix("-study") for name in models if name.endswith("-study"))
    return [name for name in names if f"{name}-image" in models]
