"""Files of features: what a trained CNN gives for every stored slice.

A features file holds ``features`` (n, width) float16, rows aligned with slices.parquet, and
``checksum`` (n,) uint64, of `clotline.data.hdf5.byte_sums`; and in its attributes the format, the
backbone's name and the SHA-256 of the checkpoint that made them. The features lie in the file one
row after the other: of chunks, HDF5 would copy each before it takes a study's rows out of them.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from clotline.data.hdf5 import NewHDF5, byte_sums, open_hdf5, read_attributes, reading
from clotline.errors import ClotlineError
from clotline.job.files import unusable

FORMAT, VERSION = "clotline-features", 4

#: Rows that are read at a time where all are.
BLOCK_ROWS = 256


def features_size(rows: int, width: int) -> int:
    """Bytes that the features of ``rows`` slices take."""
    return rows * (2 * width + 8)


def create_features(
    path: str | Path, rows: int, width: int, backbone: str, checkpoint: str
) -> NewHDF5:
    """A new features file; ``checkpoint`` is the SHA-256 of the checkpoint's file."""
    file = NewHDF5(path, FORMAT, VERSION, backbone=backbone, checkpoint=checkpoint)
    file.create_dataset("features", shape=(rows, width), dtype="f2")
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
            self._start = self._features.id.get_offset()
            if self._start is None:
                raise ValueError("its features do not lie row after row")

    def fetch(self, rows: slice) -> None:
        """Asks the system to fetch rows that are soon to be read, and does not wait for them."""
        row_bytes = self._features.shape[1] * self._features.dtype.itemsize
        start, size = rows.start * row_bytes, (rows.stop - rows.start) * row_bytes
        file = self._file.id.get_vfd_handle()
        os.posix_fadvise(file, self._start + start, size, os.POSIX_FADV_WILLNEED)

    def read(self, rows: slice) -> np.ndarray:
        """(n, width) float16 features of some rows.

        Raises:
            ClotlineError: the file is damaged; says how to make it again.
        """
        with reading(self._path):
            values = self._features[rows]
        wrong = np.flatnonzero(byte_sums(values) != self._checksums[rows])
        if len(wrong):
            raise unusable(self._path, f"row {rows.start + wrong[0]} does not fit its checksum")
        return values

    def blocks(self) -> Iterator[np.ndarray]:
        """All features, some rows at a time."""
        for first in range(0, len(self._features), BLOCK_ROWS):
            yield self.read(slice(first, first + BLOCK_ROWS))


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
