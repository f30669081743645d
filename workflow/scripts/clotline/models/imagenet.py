"""ImageNet weights: where the libraries have them, fetched and checked."""

import re
from pathlib import Path

import torch
import torchvision
from efficientnet_pytorch.utils import url_map as efficientnet_urls

from clotline.errors import ClotlineError
from clotline.job.files import atomic

#: The first weights that torchvision had of a network; of its video networks they are of
#: Kinetics-400.
PUBLISHED_WEIGHTS = {"torchvision": "IMAGENET1K_V1", "torchvision-video": "KINETICS400_V1"}

#: The file of weights in a repository of the Hugging Face Hub.
HUB_FILE = "model.safetensors"


def imagenet_url(library: str, architecture: str) -> str:
    """Where the library itself downloads the architecture's ImageNet weights from.

    Those of torchvision and efficientnet-pytorch are the first that the library published, from
    which the published detector started; timm's are its default ones. Video networks have weights
    of Kinetics-400 instead.

    Raises:
        ClotlineError: the library has no weights of this architecture.
    """
    if library == "efficientnet-pytorch":
        return efficientnet_urls[architecture]
    if library in PUBLISHED_WEIGHTS:
        weights = torchvision.models.get_model_weights(architecture)
        url = next((w.url for w in weights if w.name == PUBLISHED_WEIGHTS[library]), None)
    else:
        url = _timm_url(architecture)
    if url:
        return url
    raise ClotlineError(
        f"{library} has no weights of {architecture} that can be used: set the backbone's init to "
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
            expected = checksum or _hub_checksum(url)
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


def _timm_url(architecture: str) -> str | None:
    """Where timm's default weights are, by preference in a file whose name has a checksum."""
    # timm takes seconds to be imported.
    import timm
    from huggingface_hub import hf_hub_url

    found = timm.get_pretrained_cfg(architecture)
    # Some are in formats of other frameworks, which the network itself would have to read.
    if found is None or found.custom_load:
        return None
    if found.hf_hub_id and not (found.url and url_checksum(found.url)):
        return hf_hub_url(found.hf_hub_id, found.hf_hub_filename or HUB_FILE)
    return found.url or None


def _hub_checksum(url: str) -> str | None:
    """The SHA-256 that the Hugging Face Hub has of a file; None of what lies elsewhere.

    Raises:
        OSError: no connection, or no such file.
    """
    from huggingface_hub import constants, get_hf_file_metadata

    if not url.startswith(constants.ENDPOINT):
        return None
    try:
        checksum = get_hf_file_metadata(url).etag
    except Exception as error:
        # Its client has changed more than once, and its errors with it.
        raise OSError(f"{type(error).__name__}: {error}") from None
    return checksum if re.fullmatch("[0-9a-f]{64}", checksum or "") else None
