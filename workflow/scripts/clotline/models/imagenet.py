"""ImageNet weights: where the libraries have them, fetched and checked."""

import re
from pathlib import Path

import torch
import torchvision
from efficientnet_pytorch.utils import url_map as efficientnet_urls

from clotline.errors import ClotlineError
from clotline.job.files import atomic


def imagenet_url(library: str, architecture: str) -> str:
    """Where the library itself downloads the architecture's ImageNet weights from.

    Those of torchvision and efficientnet-pytorch are the first that the library published, from
    which the published detector started; timm's are its default ones.

    Raises:
        ClotlineError: the library has no weights of this architecture.
    """
    if library == "efficientnet-pytorch":
        return efficientnet_urls[architecture]
    if library == "torchvision":
        return torchvision.models.get_model_weights(architecture)["IMAGENET1K_V1"].url
    from clotline.models.timm_networks import weights_url

    if url := weights_url(architecture):
        return url
    raise ClotlineError(
        f"timm has no weights of {architecture} that can be used: set the backbone's init to "
        "random, or choose another architecture"
    )


def fetch_imagenet_weights(
    library: str, architecture: str, path: str | Path, checksum: str | None = None
) -> None:
    """Downloads ImageNet weights to ``path`` and checks them.

    Args:
        library: of the network.
        architecture: its name there.
        path: file to write.
        checksum: beginning of the file's SHA-256; None is the one in its name or, of a file on
            the Hugging Face Hub, the Hub's own.

    Raises:
        ClotlineError: no weights, no connection or a wrong checksum; says which file to put where.
    """
    url = imagenet_url(library, architecture)
    checksum = checksum or url_checksum(url)
    try:
        with atomic(path) as temporary:
            expected = checksum or _hub_checksum(library, url)
            torch.hub.download_url_to_file(
                url, str(temporary), hash_prefix=expected, progress=False
            )
    except (OSError, RuntimeError) as error:
        known = f"its SHA-256 begins with {checksum}"
        if not checksum:
            known = "the page there has its SHA-256, which can be named as weights_sha256"
        raise ClotlineError(
            f"the ImageNet weights could not be downloaded from {url} ({error}). On a machine "
            f"with internet download that file ({known}) and put it "
            f"at {Path(path).absolute()}; or set the backbone's init to random"
        ) from None


def url_checksum(url: str) -> str | None:
    """The beginning of the file's SHA-256, if its name has it."""
    found = re.search(r"-([0-9a-f]{8,64})\.\w+$", url)
    return found and found.group(1)


def _hub_checksum(library: str, url: str) -> str | None:
    if library != "timm":
        return None
    from clotline.models.timm_networks import hub_checksum

    return hub_checksum(url)
