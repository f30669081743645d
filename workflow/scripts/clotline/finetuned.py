"""How networks that were trained on jointly are named, and which models there are with them.

Of the network ``winner-joint`` the finetuned one is ``winner-finetuned-joint``: what a name says of
level and models holds for both.
"""

from clotline.feature_sets import models_of, own_models, with_part, without_part

_PART = "finetuned"


def finetuned_network(network: str) -> str:
    """``winner-joint`` to ``winner-finetuned-joint``, the network that it becomes."""
    return with_part(network, _PART)


def origin_of(network: str) -> str:
    """``winner-finetuned-joint`` to ``winner-joint``; any other network is its own origin."""
    return without_part(network, _PART)


def finetuned_networks(config: dict) -> list[str]:
    """The networks of stage 2 that are trained on together with their backbone."""
    return [finetuned_network(network) for network in config["finetune"]]


def finetuned_models(config: dict) -> list[str]:
    """The models of these networks."""
    return [model for network in finetuned_networks(config) for model in models_of(network)]


def made_models(config: dict) -> list[str]:
    """All models that are made here: those of `own_models`, and the finetuned ones."""
    return [*own_models(config), *finetuned_models(config)]
