"""Files of class activation maps.

A file holds ``maps`` (n, rows, columns) float16, ``logits`` (n,) float32 and the slices'
``SOPInstanceUID`` (n,); and in its attributes the format, the backbone's name and the side of the
slice's central square, in pixels, that the maps cover.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from clotline.errors import ClotlineError
from clotline.labels import SOP_UID

FORMAT, VERSION = "clotline-activation", 1


@dataclass(frozen=True)
class Activation:
    """The maps of some slices by one CNN.

    Attributes:
        maps: (n, rows, columns) float, 0 or more.
        logits: (n,) float.
        sop_uids: n UIDs of the slices.
        crop: side of the central square that the maps cover, in pixels of the slice.
    """

    maps: np.ndarray
    logits: np.ndarray
    sop_uids: list[str]
    crop: int

    def of(self, sop_uids: list[str]) -> "Activation":
        """The maps of these slices, in this order."""
        places = {uid: place for place, uid in enumerate(self.sop_uids)}
        rows = [places[uid] for uid in sop_uids]
        return Activation(self.maps[rows], self.logits[rows], list(sop_uids), self.crop)


def write_activation(path: str | Path, activation: Activation, backbone: str) -> None:
    """Writes maps; values beyond float16 become its largest."""
    limit = np.finfo(np.float16).max
    with h5py.File(path, "w", libver="v110") as file:
        file.attrs.update(format=FORMAT, version=VERSION, backbone=backbone, crop=activation.crop)
        file["maps"] = np.clip(activation.maps, 0, limit).astype(np.float16)
        file["logits"] = activation.logits.astype(np.float32)
        file[SOP_UID] = np.array(activation.sop_uids, "S64")


def read_activation(path: str | Path) -> Activation:
    """Reads what `write_activation` wrote.

    Raises:
        ClotlineError: the file is missing, damaged or of another format or version.
    """
    advice = "delete it and run the same target again"
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ClotlineError(f"{path} cannot be read ({error}): {advice}") from None
    with file:
        if (file.attrs.get("format"), file.attrs.get("version")) != (FORMAT, VERSION):
            raise ClotlineError(f"{path} is no {FORMAT} of version {VERSION}: {advice}")
        return Activation(
            file["maps"][:].astype(np.float32),
            file["logits"][:],
            list(file[SOP_UID].asstr()[:]),
            int(file.attrs["crop"]),
        )


def read_activations(paths: Iterable[str | Path]) -> dict[str, Activation]:
    """Backbone (the file's stem) to its maps.

    Args:
        paths: files, or folders of them.
    """
    files = [
        file
        for path in map(Path, paths)
        for file in (sorted(path.glob("*.h5")) if path.is_dir() else [path])
    ]
    return {file.stem: read_activation(file) for file in files}
