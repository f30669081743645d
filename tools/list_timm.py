"""Writes the list of timm's networks: ``python -m tools.list_timm``, within four minutes."""

import json

import timm
import torch
from torch import nn

from clotline.workflow.architectures import TIMM_LIST

#: Channels of a colour image.
RGB = 3


def timm_width(name: str) -> int | None:
    """Number of features per slice of a network of timm.

    None where it does not begin with a convolution of a colour image, which is what is changed to
    take slices.
    """
    # Without memory for weights: some have billions.
    with torch.device("meta"):
        network = timm.create_model(name, num_classes=0)
    first = next((m for m in network.modules() if isinstance(m, nn.Conv2d)), None)
    if first is None or first.in_channels != RGB:
        return None
    return network.head_hidden_size


def write_list(widths: dict[str, int | None]) -> None:
    """Writes the file from the widths of all networks."""
    usable = {name: width for name, width in widths.items() if width is not None}
    content = {"timm": timm.__version__, "widths": usable}
    TIMM_LIST.write_text(json.dumps(content, indent=0) + "\n", encoding="utf-8")


def main() -> None:
    """Lists the networks of the timm that is installed."""
    write_list({name: timm_width(name) for name in timm.list_models()})


if __name__ == "__main__":
    main()
