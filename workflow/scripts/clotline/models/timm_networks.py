"""Networks of timm, https://github.com/huggingface/pytorch-image-models.

Imported only where a network is timm's, for that takes seconds.
"""

from pathlib import Path

import safetensors.torch
import timm
from torch import Tensor, nn

from clotline.errors import ClotlineError
from clotline.job.files import unusable
from clotline.models.checkpoint import load_tensors

#: What timm raises of tensors that are another network's.
_MISFITS = (RuntimeError, KeyError, ValueError, TypeError, AttributeError, AssertionError)


def build_timm(architecture: str, weights: str | Path | None = None) -> nn.Module:
    """A network of timm, its classifier included, for images of three channels.

    Args:
        architecture: its name there.
        weights: file of `clotline.models.imagenet.fetch_imagenet_weights`; None draws random ones.

    Raises:
        ClotlineError: there is no such network, or the weights are another's.
    """
    if not timm.is_model(architecture):
        raise ClotlineError(
            f"timm has no network {architecture}; there are {', '.join(timm.list_models())}"
        )
    if weights is None:
        return timm.create_model(architecture)
    tensors = {"state_dict": _read_tensors(weights)}
    # With the classifier that the weights were trained with: without one, timm would leave at
    # random whatever it does not find in the file, and say nothing.
    try:
        network = timm.create_model(architecture, pretrained=True, pretrained_cfg_overlay=tensors)
    except _MISFITS as error:
        lines = "\n".join(str(error).splitlines()[:6])
        raise ClotlineError(f"{weights} does not fit this network: {lines}") from None
    del network.pretrained_cfg["state_dict"]
    return network


def _read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Tensors in safetensors' format, or in that of ``torch.save``."""
    try:
        with Path(path).open("rb") as file:
            # The length of a header in JSON, and the header.
            is_safetensors = file.read(9)[8:] == b"{"
        if not is_safetensors:
            return load_tensors(path)
        return safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise unusable(path, error) from None
