"""Slices as shards store them: compressed chunks, packed and unpacked in memory.

They are packed in the process that has decoded them. They are read past HDF5, by their places in
the file: HDF5 takes twice as long for one, and cannot be told which will be wanted next.
"""

from functools import cache
from typing import NamedTuple

import h5py
import hdf5plugin
import numpy as np

from clotline.grid import SIZE
from clotline.hdf5 import byte_sum


class Chunk(NamedTuple):
    """One stored slice.

    Attributes:
        content: the compressed pixels.
        checksum: `clotline.hdf5.byte_sum` of the content.
    """

    content: bytes | memoryview
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


#: A chunk that is larger than its pixels' bytes by more than the compressor's few is none of ours.
MAX_BYTES = 2 * SIZE * SIZE + 1024


class ChunkTable(NamedTuple):
    """Where a file has its chunks, one row a slice.

    Attributes:
        start: (n,) int64, bytes from the file's beginning.
        size: (n,) int64, in bytes.
    """

    start: np.ndarray
    size: np.ndarray


def chunk_table(pixels: h5py.Dataset) -> ChunkTable:
    """Where the chunks of a dataset of `create_pixels` are.

    Raises:
        ValueError: it is another kind of dataset, or not all of its chunks are there.
    """
    shape, kind = pixels.shape[1:], pixels.dtype
    if shape != (SIZE, SIZE) or kind != np.int16 or pixels.chunks != (1, SIZE, SIZE):
        raise ValueError(f"its pixels are {shape} {kind} in chunks {pixels.chunks}")
    plan = pixels.id.get_create_plist()
    filters = [plan.get_filter(number)[0] for number in range(plan.get_nfilters())]
    if filters != [hdf5plugin.BSHUF_ID]:
        raise ValueError(f"its pixels have the HDF5 filters {filters}, not Bitshuffle alone")
    found = []

    def note(chunk) -> None:
        found.append((chunk.chunk_offset[0], chunk.byte_offset, chunk.size, chunk.filter_mask))

    # Asked one by one, HDF5 would look through all of them for each.
    pixels.id.chunk_iter(note)
    rows, start, size, mask = np.array(found, np.int64).reshape(-1, 4).T
    if not np.array_equal(rows, np.arange(len(pixels))):
        raise ValueError(f"it has {len(rows):,} of {len(pixels):,} slices")
    if (odd := np.flatnonzero((size > MAX_BYTES) | (mask != 0))).size:
        raise ValueError(f"row {odd[0]} takes {size[odd[0]]:,} bytes, not compressed")
    return ChunkTable(start.copy(), size.copy())


#: All of the file's data set, and all of the memory.
_WHOLE = h5py.h5s.ALL, h5py.h5s.ALL
#: Of a slice in memory: for h5py to find that out takes a tenth of unpacking it.
_TYPE = h5py.h5t.NATIVE_INT16


def pack(pixels: np.ndarray) -> Chunk:
    """Compresses one slice, (256, 256) int16.

    Raises:
        MemoryError: there is no room to compress in.
    """
    dataset = _in_memory().id
    # h5py's indexing would take half as long again.
    dataset.write(*_WHOLE, np.ascontiguousarray(pixels, np.int16), _TYPE)
    mask, content = dataset.read_direct_chunk((0, 0, 0))
    # HDF5 stores what a filter fails at as it is.
    if mask:
        raise MemoryError("a slice could not be compressed")
    return Chunk(content, byte_sum(content))


def unpack(chunk: Chunk) -> np.ndarray:
    """The slice in a chunk, (256, 256) int16.

    Of damaged bytes the decompressor can crash, or silently give others: see to the checksum first.

    Raises:
        OSError: the content cannot be decompressed.
    """
    dataset = _in_memory().id
    dataset.write_direct_chunk((0, 0, 0), chunk.content)
    pixels = np.empty((SIZE, SIZE), np.int16)
    dataset.read(*_WHOLE, pixels, _TYPE)
    return pixels


@cache
def _in_memory() -> h5py.Dataset:
    """Space for one slice in a file that never gets to a disk: HDF5 compresses only into files."""
    file = h5py.File("chunk", "w", driver="core", backing_store=False, libver="v110")
    return create_pixels(file, 1)
