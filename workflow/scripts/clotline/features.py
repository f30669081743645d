"""Stage 1 to stage 2: a trained CNN's features of every stored slice.

A features file holds ``features`` (n, width) float16, rows aligned with slices.parquet, and
``checksum`` (n,) uint64, of `clotline.hdf5.byte_sums`; and in its attributes the format, the
backbone's name and the SHA-256 of the checkpoint that made them.
"""

from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import torch
from lightning.fabric import Fabric
from torch.utils.data import DataLoader

from clotline.backbones import Classifier
from clotline.errors import ClotlineError
from clotline.files import unusable
from clotline.hdf5 import NewHDF5, byte_sums, open_hdf5, read_attributes, reading
from clotline.progress import progress

FORMAT, VERSION = "clotline-features", 2

#: Rows in one chunk of a features file; a study is read whole, so chunks are about as large.
CHUNK_ROWS = 64


def features_size(rows: int, width: int) -> int:
    """Bytes that the features of ``rows`` slices take."""
    return rows * (2 * width + 8)


def create_features(
    path: str | Path, rows: int, width: int, backbone: str, checkpoint: str
) -> NewHDF5:
    """A new features file; ``checkpoint`` is the SHA-256 of the checkpoint's file."""
    file = NewHDF5(path, FORMAT, VERSION, backbone=backbone, checkpoint=checkpoint)
    chunks = (min(CHUNK_ROWS, rows), width)
    file.create_dataset("features", shape=(rows, width), dtype="f2", chunks=chunks)
    file.create_dataset("checksum", shape=(rows,), dtype="u8")
    return file


def open_features(path: str | Path) -> h5py.File:
    """Opens a features file for reading.

    Raises:
        ClotlineError: the file is missing, damaged or of another format or version.
    """
    return open_hdf5(path, FORMAT, VERSION, main="features")


def write_features(file: NewHDF5, row: int, values: np.ndarray) -> int:
    """Writes (n, width) float16 features from ``row`` on; gives the row after them."""
    end = row + len(values)
    file["features"][row:end] = values
    file["checksum"][row:end] = byte_sums(values)
    file.check()
    return end


class StoredFeatures:
    """A features file, open for reading; what is read is compared with its checksums."""

    def __init__(self, path: str | Path):
        """Opens the file.

        Raises:
            ClotlineError: as of `open_features`.
        """
        self._file = open_features(path)
        self._path = path
        with reading(path):
            self._features, self._checksums = self._file["features"], self._file["checksum"][:]

    def read(self, rows: slice) -> np.ndarray:
        """(n, width) float16 features of some rows.

        Raises:
            ClotlineError: the file is damaged; says how to make it anew.
        """
        with reading(self._path):
            values = self._features[rows]
        wrong = np.flatnonzero(byte_sums(values) != self._checksums[rows])
        if len(wrong):
            raise unusable(self._path, f"row {rows.start + wrong[0]} does not fit its checksum")
        return values

    def blocks(self) -> Iterator[np.ndarray]:
        """All features, some rows after the other, as they are stored."""
        for rows, _ in self._features.iter_chunks():
            yield self.read(rows)


def extract_features(
    model: Classifier,
    loader: DataLoader,
    path: str | Path,
    backbone: str,
    checkpoint: str,
    fabric: Fabric,
) -> None:
    """Writes the features of all slices that ``loader`` gives, in its order.

    Args:
        model: trained network, in evaluation mode afterwards.
        loader: batches of (inputs, labels).
        path: features file to write.
        backbone: the network's name in the configuration.
        checkpoint: SHA-256 of its checkpoint.
        fabric: device and precision.

    Raises:
        ClotlineError: a feature is infinite or NaN, or too large for float16.
    """
    # The channels of a pixel side by side: what convolutions on CPUs and GPUs are fastest with.
    wrapped = fabric.setup_module(model.to(memory_format=torch.channels_last))
    wrapped.mark_forward_method("features")
    wrapped.eval()
    rows = len(loader.dataset)
    with create_features(path, rows, model.width, backbone, checkpoint) as file:
        row = 0
        batches = progress(loader, rows, "features", "slices", step=lambda b: len(b[0]))
        for inputs, _ in batches:
            with torch.inference_mode():
                values = wrapped.features(fabric.to_device(inputs)).float().cpu().numpy()
            with np.errstate(over="ignore"):
                values = values.astype(np.float16)
            if not np.isfinite(values).all():
                raise ClotlineError(
                    f"{backbone} gives infinite or NaN features from row {row} on: its training "
                    "has diverged. Lower its lr"
                )
            row = write_features(file, row, values)


def merge_features(parts: list[str | Path], path: str | Path, step=iter) -> int:
    """Joins the shards' features into one file, block by block.

    Args:
        parts: features files of all shards, in order, made by the same checkpoint.
        path: features file to write.
        step: wraps the list of parts, for progress.

    Returns:
        Number of rows.

    Raises:
        ClotlineError: the parts come from different checkpoints, or one is damaged.
    """
    shapes, origins = [], set()
    for part in parts:
        with open_features(part) as file:
            shapes.append(file["features"].shape)
            about = read_attributes(file)
            origins.add((about["backbone"], about["checkpoint"]))
    if len(origins) != 1:
        raise ClotlineError(
            "the shards' features come from different checkpoints: delete "
            f"{Path(parts[0]).parent} and run the same target again"
        )
    rows = sum(shape[0] for shape in shapes)
    with create_features(path, rows, shapes[0][1], *origins.pop()) as target:
        row = 0
        for part in step(parts):
            for values in StoredFeatures(part).blocks():
                row = write_features(target, row, values)
    return rows
