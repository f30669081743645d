import h5py
import numpy as np
import pytest

from clotline.chunks import Chunk, chunk_table, create_pixels, pack, unpack
from clotline.hdf5 import byte_sum


def test_a_packed_slice_is_what_hdf5_stores_of_it(tmp_path):
    slices = np.random.default_rng(0).integers(-1000, 1000, (3, 256, 256)).astype(np.int16)
    slices[1] = 7
    packed = [pack(pixels) for pixels in slices]
    with h5py.File(tmp_path / "a.h5", "w", libver="v110") as file:
        create_pixels(file, 3)[:] = slices
    with h5py.File(tmp_path / "a.h5") as file:
        for row, chunk in enumerate(packed):
            stored = file["pixels"].id.read_direct_chunk((row, 0, 0))
            assert (0, chunk.content) == stored
            assert chunk.checksum == byte_sum(chunk.content)
    for pixels, chunk in zip(slices, packed, strict=True):
        assert np.array_equal(unpack(chunk), pixels)
        assert unpack(chunk).dtype == np.int16


def test_a_slice_is_packed_however_it_lies_in_memory():
    pixels = np.arange(256 * 256).reshape(256, 256).astype(np.int16)
    for view in (pixels.T, pixels[::-1], pixels.astype(">i2"), pixels.astype(np.int32)):
        assert pack(view) == pack(np.array(view, np.int16, order="C"))


def test_an_unpacked_slice_stays_when_another_is():
    first, second = (np.full((256, 256), value, np.int16) for value in (1, 2))
    unpacked = unpack(pack(first))
    unpack(pack(second))
    assert np.array_equal(unpacked, first)


@pytest.mark.parametrize("content", [b"0", bytes(range(200))])
def test_what_is_no_chunk_is_an_error(content):
    with pytest.raises(OSError, match="filter"):
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
        with pytest.raises(ValueError, match="not Bitshuffle alone"):
            chunk_table(pixels)


def test_slices_that_are_larger_than_they_can_be_are_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w", libver="v110") as file:
        pixels = create_pixels(file, 1)
        pixels.id.write_direct_chunk((0, 0, 0), bytes(140_000))
        with pytest.raises(ValueError, match="row 0 takes 140,000 bytes, not compressed"):
            chunk_table(pixels)
