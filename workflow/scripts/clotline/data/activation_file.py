"""Files of class activation maps.

A file holds ``maps`` (n, rows, columns) float16, ``logits`` (n,) float32 and the slices' three
UIDs, (n,) each, named as in the labels file; and in its attributes the format, the backbone's name
and the side of the slice's central square, in pixels, that the maps cover.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clotline.data.hdf5 import NewHDF5, open_hdf5, reading, uid_dtype, write_column
from clotline.labels import UIDS

FORMAT, VERSION = "clotline-activation", 2


@dataclass(frozen=True)
class Activation:
    """The maps of some slices by one CNN.

    Attributes:
        maps: (n, rows, columns) float, 0 or more.
        logits: (n,) float.
        uids: study, series and SOP instance UID of each slice.
        crop: side of the central square that the maps cover, in pixels of the slice.
    """

    maps: np.ndarray
    logits: np.ndarray
    uids: list[tuple[str, str, str]]
    crop: int

    def of(self, uids: list[tuple[str, str, str]]) -> "Activation":
        """The maps of these slices, in this order."""
        row_of = {slice_uids: row for row, slice_uids in enumerate(self.uids)}
        rows = [row_of[slice_uids] for slice_uids in uids]
        return Activation(self.maps[rows], self.logits[rows], list(uids), self.crop)


def write_activation(path: str | Path, activation: Activation, backbone: str) -> None:
    """Writes maps; values beyond float16 become its largest."""
    limit = np.finfo(np.float16).max
    with NewHDF5(path, FORMAT, VERSION, backbone=backbone, crop=activation.crop) as file:
        write_column(file, "maps", np.clip(activation.maps, 0, limit).astype(np.float16))
        write_column(file, "logits", activation.logits.astype(np.float32))
        columns = list(zip(*activation.uids, strict=True)) or [()] * len(UIDS)
        for name, column in zip(UIDS, columns, strict=True):
            write_column(file, name, np.array(column, uid_dtype(column)))


def read_activation(path: str | Path) -> Activation:
    """Reads what `write_activation` wrote.

    Raises:
        ClotlineError: the file is missing, damaged or of another format or version.
    """
    with open_hdf5(path, FORMAT, VERSION, main="maps") as file, reading(path):
        return Activation(
            file["maps"][:].astype(np.float32),
            file["logits"][:],
            list(zip(*(file[name].asstr()[:] for name in UIDS), strict=True)),
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
