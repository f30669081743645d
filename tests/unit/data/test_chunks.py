from pathlib import Path

import h5py
import numpy as np
import pytest
from numcodecs import blosc

from clotline.data.chunks import Chunk, chunk_table, create_pixels, max_bytes, pack, unpack
from clotline.data.hdf5 import byte_sum


def test_what_is_packed_here_hdf5_reads_and_the_other_way_round(tmp_path):
    slices = np.random.default_rng(0).integers(-1000, 1000, (3, 256, 256)).astype(np.int16)
    slices[1] = 7
    slices[2] = np.frombuffer(np.random.default_rng(1).bytes(2**17), np.int16).reshape(256, 256)
    packed = [pack(pixels) for pixels in slices]
    with h5py.File(tmp_path / "a.h5", "w", libver="v110") as file:
        written, direct = create_pixels(file.create_group("written"), 2), create_pixels(file, 3)
        written[:] = slices[:2]
        for row, chunk in enumerate(packed):
            direct.id.write_direct_chunk((row, 0, 0), chunk.content)
    with h5py.File(tmp_path / "a.h5") as file:
        assert np.array_equal(file["pixels"], slices)
        for row, pixels in enumerate(slices[:2]):
            mask, content = file["written/pixels"].id.read_direct_chunk((row, 0, 0))
            assert mask == 0
            assert np.array_equal(unpack(Chunk(content, byte_sum(content))), pixels)
    for pixels, chunk in zip(slices, packed, strict=True):
        assert np.array_equal(unpack(chunk), pixels)
        assert unpack(chunk).dtype == np.int16
        assert chunk.checksum == byte_sum(chunk.content)
        assert len(chunk.content) <= max_bytes()


def test_no_thread_is_started():
    tasks = Path("/proc/self/task")
    before = set(tasks.iterdir())
    pixels = np.arange(256 * 256).reshape(256, 256).astype(np.int16)
    unpack(pack(pixels))
    # Of several blocks, which Blosc would divide among threads.
    blocks = blosc.compress(pixels, b"lz4", 9, blosc.BITSHUFFLE, blocksize=2**13)
    assert np.array_equal(unpack(Chunk(blocks, byte_sum(blocks))), pixels)
    assert set(tasks.iterdir()) == before


def test_a_slice_is_unpacked_from_any_memory():
    content, checksum = pack(np.arange(256 * 256).reshape(256, 256).astype(np.int16))
    expected = unpack(Chunk(content, checksum))
    for memory in (bytearray(content), memoryview(b"x" + content)[1:]):
        assert np.array_equal(unpack(Chunk(memory, checksum)), expected)


def test_a_slice_is_packed_however_it_lies_in_memory():
    pixels = np.arange(256 * 256).reshape(256, 256).astype(np.int16)
    for view in (pixels.T, pixels[::-1], pixels.astype(">i2"), pixels.astype(np.int32)):
        assert pack(view) == pack(np.array(view, np.int16, order="C"))


def test_an_unpacked_slice_stays_when_another_is():
    first, second = (np.full((256, 256), value, np.int16) for value in (1, 2))
    unpacked = unpack(pack(first))
    unpack(pack(second))
    assert np.array_equal(unpacked, first)


def blosc_of(values):
    return blosc.compress(values, b"lz4", 9, blosc.BITSHUFFLE)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"0",
        bytes(range(200)),
        blosc_of(np.zeros((128, 256), np.int16)),
        blosc_of(np.zeros((512, 256), np.int16)),
        blosc_of(np.zeros((256, 256), np.int16))[:-1],
        blosc_of(np.zeros((256, 256), np.int16))[:16],
    ],
)
def test_what_is_no_chunk_of_a_slice_is_an_error(content):
    with pytest.raises(OSError, match="is no compressed slice"):
        unpack(Chunk(content, 0))


def test_what_cannot_be_decompressed_is_an_error():
    content = bytearray(pack(np.arange(256 * 256).reshape(256, 256).astype(np.int16)).content)
    content[16:] = bytes([255]) * (len(content) - 16)
    with pytest.raises(OSError, match="cannot be decompressed"):
        unpack(Chunk(content, 0))


def test_the_table_tells_where_each_slice_is_in_whatever_order_they_were_written(tmp_path):
    slices = np.random.default_rng(0).integers(-1000, 1000, (5, 256, 256)).astype(np.int16)
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", libver="v110") as file:
        pixels = create_pixels(file, 5)
        for row in (3, 0, 4, 1, 2):
            pixels[row] = slices[row] * (row != 4)
    with h5py.File(path) as file:
        table = chunk_table(file["pixels"])
    content = path.read_bytes()
    for row, (start, size) in enumerate(zip(*table, strict=True)):
        assert content[start : start + size] == pack(slices[row] * (row != 4)).content


def test_a_file_without_slices_has_an_empty_table(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w", libver="v110") as file:
        assert [len(column) for column in chunk_table(create_pixels(file))] == [0, 0]


def test_slices_that_were_never_written_are_missed(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w", libver="v110") as file:
        pixels = create_pixels(file, 3)
        pixels[1] = 1
        with pytest.raises(ValueError, match="it has 1 of 3 slices"):
            chunk_table(pixels)


@pytest.mark.parametrize("options", [{}, {"compression": "gzip"}, {"fletcher32": True}])
def test_pixels_with_other_filters_are_refused(tmp_path, options):
    with h5py.File(tmp_path / "a.h5", "w", libver="v110") as file:
        pixels = file.create_dataset("pixels", (1, 256, 256), "i2", chunks=(1, 256, 256), **options)
        with pytest.raises(ValueError, match="not Blosc alone"):
            chunk_table(pixels)


def test_slices_that_are_larger_than_they_can_be_are_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w", libver="v110") as file:
        pixels = create_pixels(file, 1)
        pixels.id.write_direct_chunk((0, 0, 0), bytes(140_000))
        with pytest.raises(ValueError, match="row 0 takes 140,000 bytes, not compressed"):
            chunk_table(pixels)
