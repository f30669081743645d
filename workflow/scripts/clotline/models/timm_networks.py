"""Networks of timm and their weights: https://github.com/huggingface/pytorch-image-models.

Imported only where a network is timm's, for that takes seconds.
"""

import re
from pathlib import Path

import huggingface_hub
import safetensors.torch
import timm
from torch import Tensor, nn

from clotline.errors import ClotlineError
from clotline.job.files import unusable
from clotline.models.checkpoint import load_tensors
from clotline.models.imagenet import url_checksum

#: The file of weights in a repository of the Hugging Face Hub.
_HUB_FILE = "model.safetensors"
#: What timm raises of tensors that are another network's.
_MISFITS = (RuntimeError, KeyError, ValueError, TypeError, AttributeError, AssertionError)


def build_timm(architecture: str, weights: str | Path | None = None) -> nn.Module:
    """A network of timm, its classifier included, for images of three channels.

    Args:
        architecture: its name there.
        weights: file of the weights of `weights_url`; None draws random ones.

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


def weights_url(architecture: str) -> str | None:
    """Where timm has the default weights of an architecture; None where it has none.

    Of the same weights, a file whose name has a checksum is preferred to that of the Hugging Face
    Hub.
    """
    found = timm.get_pretrained_cfg(architecture)
    # Some are in formats of other frameworks, which the network itself would have to read.
    if found is None or found.custom_load:
        return None
    if found.hf_hub_id and not (found.url and url_checksum(found.url)):
        file = found.hf_hub_filename or _HUB_FILE
        return huggingface_hub.hf_hub_url(found.hf_hub_id, file)
    return found.url or None


def hub_checksum(url: str) -> str | None:
    """The SHA-256 that the Hugging Face Hub has of a file; None of what lies elsewhere.

    Raises:
        OSError: no connection, or no such file.
    """
    if not url.startswith(huggingface_hub.constants.ENDPOINT):
        return None
    try:
        checksum = huggingface_hub.get_hf_file_metadata(url).etag
    except Exception as error:
        # Its client has changed more than once, and its errors with it.
        raise OSError(f"{type(error).__name__}: {error}") from None
    return checksum if re.fullmatch("[0-9a-f]{64}", checksum or "") else None


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
