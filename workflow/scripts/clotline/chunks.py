"""Slices as shards store them: compressed chunks, made in the process that has the pixels."""

from functools import cache
from typing import NamedTuple

import h5py
import hdf5plugin
import numpy as np

from clotline.dicom import SIZE
from clotline.hdf5 import byte_sum


class Chunk(NamedTuple):
    """One stored slice.

    Attributes:
        content: the compressed pixels.
        mask: HDF5's filter mask.
        checksum: `clotline.hdf5.byte_sum` of the content.
    """

    content: bytes
    mask: int
    checksum: int


def create_pixels(file: h5py.File, count: int = 0) -> h5py.Dataset:
    """The dataset ``pixels`` of a shard: (count, 256, 256) int16, one chunk a slice."""
    return file.create_dataset(
        "pixels",
        shape=(count, SIZE, SIZE),
        maxshape=(None, SIZE, SIZE),
        chunks=(1, SIZE, SIZE),
        dtype="i2",
        **hdf5plugin.Bitshuffle(cname="lz4"),
    )


def pack(pixels: np.ndarray) -> Chunk:
    """Compresses one slice, (256, 256) int16."""
    dataset = _in_memory().id
    # h5py's indexing would take half as long again.
    dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, np.ascontiguousarray(pixels, np.int16))
    mask, content = dataset.read_direct_chunk((0, 0, 0))
    return Chunk(content, mask, byte_sum(content))


@cache
def _in_memory() -> h5py.Dataset:
    """Space for one slice in a file that never gets to a disk: HDF5 compresses only into files."""
    file = h5py.File("chunk", "w", driver="core", backing_store=False, libver="v110")
    return create_pixels(file, 1)
