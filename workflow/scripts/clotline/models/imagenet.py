"""ImageNet weights: where the libraries have them, fetched and checked."""

from pathlib import Path

import torch
import torchvision
from efficientnet_pytorch.utils import url_map as efficientnet_urls

from clotline.errors import ClotlineError
from clotline.job.files import atomic


def imagenet_url(library: str, architecture: str) -> str:
    """Where the library itself downloads the architecture's ImageNet weights from.

    They are the first that the library published, from which the published detector started.
    """
    if library == "efficientnet-pytorch":
        return efficientnet_urls[architecture]
    return torchvision.models.get_model_weights(architecture)["IMAGENET1K_V1"].url


def fetch_imagenet_weights(library: str, architecture: str, path: str | Path) -> None:
    """Downloads ImageNet weights to ``path`` and checks them against the checksum in their name.

    Raises:
        ClotlineError: no connection or a wrong checksum; says which file to put where.
    """
    url = imagenet_url(library, architecture)
    checksum = url_checksum(url)
    try:
        with atomic(path) as temporary:
            torch.hub.download_url_to_file(
                url, str(temporary), hash_prefix=checksum, progress=False
            )
    except (OSError, RuntimeError) as error:
        raise ClotlineError(
            f"the ImageNet weights could not be downloaded from {url} ({error}). On a machine "
            f"with internet download that file (its SHA-256 begins with {checksum}) and put it "
            f"at {Path(path).absolute()}; or set the backbone's init to random"
        ) from None


def url_checksum(url: str) -> str:
    """The beginning of the file's SHA-256, which both libraries put into its name."""
    return torch.hub.HASH_REGEX.search(url).group(1)
