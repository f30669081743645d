"""Feature sets and how LSTMs are named after them.

Apart from the configuration, so that a new check of it retrains nothing.
"""

from pathlib import Path

#: All features together: every configuration has this set, and the others are compared with it.
REFERENCE = "combined"


def feature_sets(config: dict) -> dict[str, list[str]]:
    """Feature set name to the backbones whose features it joins, in order."""
    return {name: [name] for name in config["cnn"]} | config["features"]


def split_lstm_name(name: str) -> tuple[str, str]:
    """``combined-study`` to its feature set and level, ``("combined", "study")``."""
    features, _, level = name.rpartition("-")
    return features, level


def backbones_of(config: dict, network: str) -> list[str]:
    """The backbones whose features a network of stage 2 reads, finetuned or not, in their order."""
    return feature_sets(config)[split_lstm_name(origin_of(network))[0]]


def with_part(name: str, part: str) -> str:
    """``winner-joint`` with a part between feature set and level: ``winner-folds-joint``."""
    features, level = split_lstm_name(name)
    return f"{features}-{part}-{level}"


def without_part(name: str, part: str) -> str:
    """The inverse of `with_part`; a name without the part stays as it is."""
    features, level = split_lstm_name(name)
    return f"{features.removesuffix(f'-{part}')}-{level}"


#: What the names of models in folds, and of networks trained on with their backbone, have before
#: their level: what a name says of level and models holds for them, too.
_FOLDS, _FINETUNED = "folds", "finetuned"


def models_of(network: str) -> list[str]:
    """The models that a network of stage 2 is evaluated as: itself, or both levels of a joint one.

    ``combined-joint`` to ``["combined-joint-image", "combined-joint-study"]``.
    """
    if split_lstm_name(network)[1] != "joint":
        return [network]
    return [f"{network}-image", f"{network}-study"]


def folded_networks(config: dict) -> list[str]:
    """The networks of stage 2 that are also trained in folds."""
    split = config["data"]["split"]
    return (split["folds_of"] or list(config["lstm"])) if split["folds"] else []


def folded_backbones(config: dict) -> list[str]:
    """The backbones that these networks read, in the order of the configuration."""
    needed = {name for network in folded_networks(config) for name in backbones_of(config, network)}
    return [name for name in config["cnn"] if name in needed]


def folds_model(model: str) -> str:
    """The model made of all folds' networks: ``combined-study`` to ``combined-folds-study``."""
    return with_part(model, _FOLDS)


def unfolded_model(model: str) -> str:
    """The model whose network was trained in folds: the inverse of `folds_model`."""
    return without_part(model, _FOLDS)


def is_in_folds(model: str) -> bool:
    """Whether a model is one of `folds_model`."""
    return unfolded_model(model) != model


def finetuned_network(network: str) -> str:
    """What a network of stage 2 becomes: ``winner-joint`` to ``winner-finetuned-joint``."""
    return with_part(network, _FINETUNED)


def origin_of(network: str) -> str:
    """``winner-finetuned-joint`` to ``winner-joint``; any other network is its own origin."""
    return without_part(network, _FINETUNED)


def finetuned_networks(config: dict) -> list[str]:
    """The networks of stage 2 that are trained on together with their backbone."""
    return [finetuned_network(network) for network in config["finetune"]]


def finetuned_models(config: dict) -> list[str]:
    """The models of these networks."""
    return [model for network in finetuned_networks(config) for model in models_of(network)]


def trained_models(config: dict) -> list[str]:
    """The models of the networks of stage 2, and those of their folds."""
    return [
        *(model for network in config["lstm"] for model in models_of(network)),
        *(folds_model(m) for network in folded_networks(config) for m in models_of(network)),
    ]


def own_models(config: dict) -> list[str]:
    """All models that are made here: the trained ones, the ensembles and the finetuned ones."""
    return [*trained_models(config), *config["ensembles"], *finetuned_models(config)]


def network_of(model: str) -> str:
    """The network of stage 2 that a model is of: ``combined-joint-study`` to ``combined-joint``."""
    features = split_lstm_name(model)[0]
    return features if split_lstm_name(features)[1] == "joint" else model


def network_at(path: str | Path) -> str:
    """The network of a history or a checkpoint, with its fold: ``combined-image, fold 2``."""
    path = Path(path)
    fold = path.parts[-3]
    return f"{path.stem}, fold {fold}" if path.parts[-4:-3] == ("folds",) else path.stem


def level_pairs(models: list[str]) -> list[str]:
    """The names that have an image level and a study level among ``models``, without the level."""
    studies = [name for name in models if split_lstm_name(name)[1] == "study"]
    return [split_lstm_name(name)[0] for name in studies if image_level_of(name) in models]


def image_level_of(study_model: str) -> str:
    """``combined-study`` to its counterpart, ``combined-image``."""
    return f"{split_lstm_name(study_model)[0]}-image"
