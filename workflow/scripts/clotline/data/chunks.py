"""Slices as shards store them: compressed chunks, packed and unpacked in memory.

They are packed in the process that has decoded them. They are read past HDF5, by their offsets in
the file: HDF5 cannot be told which will be wanted next. What HDF5 stores with its filter Blosc is a
buffer of Blosc 1 without anything around it
(https://github.com/Blosc/c-blosc/blob/main/README_CHUNK_FORMAT.rst), so that any reader of HDF5
with that filter can read them.
"""

import struct
from typing import NamedTuple

import h5py
import hdf5plugin
import numpy as np
from numcodecs import blosc

from clotline.data.hdf5 import byte_sum
from clotline.grid import SIZE, SIZES


class Chunk(NamedTuple):
    """One stored slice.

    Attributes:
        content: the compressed pixels.
        checksum: `clotline.data.hdf5.byte_sum` of the content.
    """

    content: bytes | memoryview
    checksum: int


# Its own threads would not survive a fork, and every core is in use already.
blosc.use_threads = False

#: Of Blosc's codecs the fastest one, at the level of the least bytes.
_CODEC, _LEVEL = "lz4", 9
#: Of the header of a Blosc buffer: the bytes of its content, and of itself.
_SIZES = struct.Struct("<4xL4xL")


def create_pixels(file: h5py.File, count: int = 0, size: int = SIZE) -> h5py.Dataset:
    """The dataset ``pixels`` of a shard: (count, size, size) int16, one chunk a slice."""
    return file.create_dataset(
        "pixels",
        shape=(count, size, size),
        maxshape=(None, size, size),
        chunks=(1, size, size),
        dtype="i2",
        **hdf5plugin.Blosc(cname=_CODEC, clevel=_LEVEL, shuffle=hdf5plugin.Blosc.BITSHUFFLE),
    )


def max_bytes(size: int = SIZE) -> int:
    """Most bytes of a chunk of (size, size) pixels: the compressor adds few of its own."""
    return 2 * size * size + 1024


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
        ValueError: it is another dataset, or not all of its chunks are there.
    """
    shape, dtype = pixels.shape[1:], pixels.dtype
    known = shape in [(size, size) for size in SIZES]
    if not known or dtype != np.int16 or pixels.chunks != (1, *shape):
        raise ValueError(f"its pixels are {shape} {dtype} in chunks {pixels.chunks}")
    plan = pixels.id.get_create_plist()
    filters = [plan.get_filter(number)[0] for number in range(plan.get_nfilters())]
    if filters != [hdf5plugin.BLOSC_ID]:
        raise ValueError(f"its pixels have the HDF5 filters {filters}, not Blosc alone")
    chunks = []

    def note(chunk) -> None:
        chunks.append((chunk.chunk_offset[0], chunk.byte_offset, chunk.size, chunk.filter_mask))

    # Asked one by one, HDF5 would look through all of them for each.
    pixels.id.chunk_iter(note)
    rows, start, size, mask = np.array(chunks, np.int64).reshape(-1, 4).T
    if not np.array_equal(rows, np.arange(len(pixels))):
        raise ValueError(f"it has {len(rows):,} of {len(pixels):,} slices")
    if (odd := np.flatnonzero((size > max_bytes(shape[0])) | (mask != 0))).size:
        raise ValueError(f"row {odd[0]} takes {size[odd[0]]:,} bytes, not compressed")
    return ChunkTable(start.copy(), size.copy())


def pack(pixels: np.ndarray) -> Chunk:
    """Compresses one slice, (size, size) int16.

    Raises:
        MemoryError: there is no room to compress in.
    """
    pixels = np.ascontiguousarray(pixels, np.int16)
    try:
        content = blosc.compress(pixels, _CODEC.encode(), _LEVEL, blosc.BITSHUFFLE, typesize=2)
    except RuntimeError as error:  # whatever is compressed, nothing else can go wrong
        raise MemoryError("a slice could not be compressed") from error
    return Chunk(content, byte_sum(content))


def unpack(chunk: Chunk, size: int = SIZE) -> np.ndarray:
    """The slice in a chunk, (size, size) int16.

    Of damaged bytes the decompressor can crash, or silently give others: see to the checksum first.

    Args:
        chunk: the chunk.
        size: side of the slice.

    Raises:
        OSError: the content cannot be decompressed, or is no slice.
    """
    content = chunk.content
    # Blosc believes the header.
    sizes = _SIZES.unpack_from(content) if len(content) >= _SIZES.size else None
    if sizes != (2 * size * size, len(content)):
        raise OSError("a chunk that is no compressed slice")
    pixels = np.empty((size, size), np.int16)
    try:
        blosc.decompress(content, pixels)
    except RuntimeError as error:
        raise OSError("a chunk that cannot be decompressed") from error
    return pixels
