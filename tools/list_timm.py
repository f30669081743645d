"""Writes the list of timm's networks: ``python -m tools.list_timm``, a quarter of an hour."""

import json
from contextlib import suppress
from typing import NamedTuple

import timm
import torch
from torch import nn

from clotline.models.backbones import RGB, take_channels
from clotline.workflow.architectures import TIMM_LIST


class Listed(NamedTuple):
    """What is listed of a network.

    Attributes:
        width: number of features per slice.
        side: of the only inputs that it takes, in pixels; None where it takes others, too.
    """

    width: int
    side: int | None


def timm_network(name: str) -> Listed | None:
    """What is listed of a network of timm.

    None where it does not begin with convolutions of a colour image, which are what is changed to
    take slices, or gives anything but features of each.
    """
    # Without memory for weights: some have billions.
    with torch.device("meta"):
        network = timm.create_model(name, num_classes=0)
    first = next((m for m in network.modules() if isinstance(m, nn.Conv2d)), None)
    if first is None or first.in_channels != RGB:
        return None
    width, native = network.head_hidden_size, network.default_cfg["input_size"][-1]
    take_channels(network, 1)
    if not _takes(network, native, width):
        return None
    others = (native + 32, native + 64, 2 * native)
    any_other = any(_takes(network, side, width) for side in others)
    return Listed(width, None if any_other else native)


def _takes(network: nn.Module, side: int, width: int) -> bool:
    """Whether a network in training gives so many features of inputs of so many pixels a side."""
    with suppress(Exception), torch.no_grad():  # they raise whatever comes of it
        features = network.train()(torch.zeros(2, 1, side, side, device="meta"))
        return isinstance(features, torch.Tensor) and features.shape == (2, width)
    return False


def write_list(networks: dict[str, Listed | None]) -> None:
    """Writes the file."""
    usable = {name: network for name, network in networks.items() if network is not None}
    content = {
        "timm": timm.__version__,
        "widths": {name: network.width for name, network in usable.items()},
        "sides": {n: network.side for n, network in usable.items() if network.side is not None},
    }
    TIMM_LIST.write_text(json.dumps(content, indent=0) + "\n", encoding="utf-8")


def main() -> None:
    """Lists the networks of the timm that is installed."""
    write_list({name: timm_network(name) for name in timm.list_models()})


if __name__ == "__main__":
    main()
