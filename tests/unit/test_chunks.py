import h5py
import numpy as np

from clotline.chunks import create_pixels, pack
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
            assert (chunk.mask, chunk.content) == stored
            assert chunk.checksum == byte_sum(chunk.content)


def test_a_slice_is_packed_however_it_lies_in_memory():
    pixels = np.arange(256 * 256).reshape(256, 256).astype(np.int16)
    for view in (pixels.T, pixels[::-1], pixels.astype(">i2"), pixels.astype(np.int32)):
        assert pack(view) == pack(np.array(view, np.int16, order="C"))
