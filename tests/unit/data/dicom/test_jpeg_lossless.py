import imagecodecs
import numpy as np
import pytest
from builders import codestream_of, compress_dicom, write_dicom
from pydicom.uid import JPEGLosslessSV1

from clotline.data.dicom.jpeg_lossless import is_image_of


def tissue(bits=12, side=64):
    """(side, side + 3) uint16: smooth values with noise, which take up all of the bits."""
    rng = np.random.default_rng(bits)
    slope = np.linspace(0, (1 << bits) - 1, side * (side + 3)).reshape(side, side + 3)
    return np.clip(slope + rng.normal(0, 9, slope.shape), 0, (1 << bits) - 1).astype(np.uint16)


def encoded(image, bits=12, predictor=1):
    return imagecodecs.jpeg8_encode(image, lossless=True, bitspersample=bits, predictor=predictor)


@pytest.mark.parametrize("bits", [8, 9, 12, 13, 16])
@pytest.mark.parametrize("predictor", range(1, 8))
def test_a_whole_codestream_is_that_of_its_image(predictor, bits):
    image = tissue(bits).astype(np.uint8 if bits == 8 else np.uint16)
    stream = encoded(image, bits, predictor)
    assert is_image_of(stream, imagecodecs.jpeg8_decode(stream))
    assert (imagecodecs.jpeg8_decode(stream) == image).all()


def test_noise_that_needs_every_category_is_known(tmp_path):
    image = np.random.default_rng(0).integers(0, 65536, (64, 64)).astype(np.uint16)
    image[:2] = [[0], [32768]]  # the difference that has no sign
    stream = encoded(image, 16)
    assert is_image_of(stream, image)
    plain = write_dicom(tmp_path / "plain.dcm", image)
    by_gdcm = codestream_of(compress_dicom(plain, tmp_path / "packed.dcm", JPEGLosslessSV1))
    assert is_image_of(by_gdcm, image)


def test_one_pixel_that_takes_other_bits_shows():
    image = tissue()
    stream = encoded(image)
    other = image.copy()
    other[30, 30] ^= 1024
    assert not is_image_of(stream, other)


def test_a_pixel_that_takes_as_many_bits_shows_at_the_start_of_a_row_and_in_the_last_row():
    image = np.full((64, 64), 500, np.uint16)
    image[::2] += 3  # so that the first column's differences are 3 and -3
    stream = encoded(image)
    assert is_image_of(stream, image)
    for row, column in ((10, 0), (63, 20)):
        other = image.copy()
        # The pixel's own difference and that of the next keep their categories.
        other[row, column:] = image[row, column:].astype(int) + (1 if column else -1)
        assert not is_image_of(stream, other), (row, column)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.99, 0.999])
def test_what_a_decoder_makes_up_shows(part):
    stream = encoded(tissue(side=256))
    short = stream[: int(len(stream) * part)] + b"\xff\xd9"
    assert not is_image_of(short, imagecodecs.jpeg8_decode(short))


def test_bytes_too_many_show():
    image = tissue()
    stream = encoded(image)
    assert not is_image_of(stream[:-2] + b"\0" + stream[-2:], image)
    assert not is_image_of(stream[:-2] + b"\xff\0" + stream[-2:], image)
    assert not is_image_of(stream[:-2] + b"\xff\xd0" + stream[-2:], image)
    # Fill bytes before a marker, and zeros behind the end, are allowed.
    assert is_image_of(stream[:-2] + b"\xff\xff" + stream[-2:] + b"\0", image)


def test_bits_that_are_no_code_show():
    """libjpeg-turbo skips 16 of them and takes a difference of 0."""
    image = np.zeros((64, 64), np.uint16)
    stream = bytearray(encoded(image))
    data = stream.index(b"\xff\xda") + 10
    stream[data + 40 : data + 44] = b"\xff\0\xff\0"
    decoded = imagecodecs.jpeg8_decode(bytes(stream))
    assert not is_image_of(bytes(stream), decoded)


def test_of_restart_intervals_and_of_other_processes_nothing_is_known():
    image = tissue()
    stream = encoded(image)
    scan = stream.index(b"\xff\xda")
    assert not is_image_of(stream[:scan] + b"\xff\xdd\0\4\0\x43" + stream[scan:], image)
    assert is_image_of(stream[:scan] + b"\xff\xdd\0\4\0\0" + stream[scan:], image)
    lossy = imagecodecs.jpeg8_encode(image, bitspersample=12)
    assert not is_image_of(lossy, imagecodecs.jpeg8_decode(lossy))
