"""Feature sets and how LSTMs are named after them.

Apart from the configuration, so that a new check of it retrains nothing.
"""

#: All features together: every configuration has this set, and the others are compared with it.
REFERENCE = "combined"


def feature_sets(config: dict) -> dict[str, list[str]]:
    """Feature set name to the backbones whose features it joins, in order."""
    return {name: [name] for name in config["cnn"]} | config["features"]


def split_lstm_name(name: str) -> tuple[str, str]:
    """``combined-study`` to its feature set and level, ``("combined", "study")``."""
    features, _, level = name.rpartition("-")
    return features, level


def level_pairs(models: list[str]) -> list[str]:
    """The names that have an image level and a study level among ``models``, without the level."""
    studies = [name for name in models if split_lstm_name(name)[1] == "study"]
    return [split_lstm_name(name)[0] for name in studies if image_level_of(name) in models]


def image_level_of(study_model: str) -> str:
    """``combined-study`` to its counterpart, ``combined-image``."""
    return f"{split_lstm_name(study_model)[0]}-image"
