import struct

import imagecodecs
import numpy as np
import pytest
from builders import write_dicom
from pydicom.encaps import encapsulate
from pydicom.uid import UID

from clotline.data.dicom.ct_slice import read_slice
from clotline.data.dicom.jpeg_xl import (
    JPEGXL_FAMILY,
    Image,
    JPEGXLLossless,
    content_of,
    image_of,
    is_jpeg_xl,
)
from clotline.data.dicom.rejection import SliceError


def encoded(shape=(16, 24), bits=12, boxes=False, **options):
    image = np.zeros(shape, np.uint8 if bits == 8 else np.uint16)
    options = {"lossless": True, "effort": 3, "bitspersample": bits} | options
    return imagecodecs.jpegxl_encode(image, usecontainer=boxes, **options)


@pytest.mark.parametrize(
    "shape",
    # Sides of 8 to 256 have codes of their own, and so have some ratios of width to height.
    [(8, 8), (256, 256), (512, 512), (8, 256), (100, 120), (90, 120), (64, 96), (90, 160), (64, 80),
     (50, 100), (1, 1), (513, 7), (7, 9000), (300, 299)],
)  # fmt: skip
@pytest.mark.parametrize("boxes", [False, True])
def test_the_header_tells_the_size(shape, boxes):
    stream = encoded(shape, boxes=boxes)
    assert stream.startswith(b"\xff\x0a") != boxes
    assert image_of(content_of(stream).codestream) == (*shape, 1, 12)


@pytest.mark.parametrize("bits", range(8, 17))
@pytest.mark.parametrize("options", [{}, {"lossless": False, "distance": 1.0}])
def test_the_header_tells_the_precision(bits, options):
    assert image_of(content_of(encoded(bits=bits, **options)).codestream).precision == bits


def test_colours_and_further_channels_are_counted():
    assert image_of(content_of(encoded((16, 24, 3), photometric="rgb")).codestream).components == 3
    assert image_of(content_of(encoded((16, 24, 2))).codestream).components == 2
    lossy = imagecodecs.jpegxl_encode(np.zeros((8, 8, 3), np.uint8), lossless=False)
    assert image_of(content_of(lossy).codestream) == (8, 8, 3, 8)


def header(*fields):
    """A codestream's header of numbers and their widths in bits."""
    value = shift = 0
    for number, width in fields:
        value |= number << shift
        shift += width
    return b"\xff\x0a" + value.to_bytes(-(-shift // 8), "little")


SMALL = ((1, 1), (1, 5), (1, 3))  # 16 rows in a square


def test_a_header_is_read_as_the_standard_says():
    grey = ((0, 1), (0, 1), (2, 2), (1, 1), (0, 2), (0, 1), (0, 1), (0, 1), (1, 2))
    assert image_of(header(*SMALL, (0, 1), *grey)) == Image(16, 16, 1, 12)
    # With a size in which it should be shown.
    shown = ((0, 1), (1, 1), (0, 3), (1, 1), *SMALL, (0, 1), (0, 1))
    assert image_of(header(*SMALL, *shown, *grey[1:])) == Image(16, 16, 1, 12)
    assert image_of(header(*SMALL, (1, 1))) == Image(16, 16, 3, 8)
    for end in range(2, 7):
        with pytest.raises(ValueError, match="the header ends early"):
            image_of(header(*SMALL, *shown, *grey[1:])[:end])


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (((0, 1), (1, 1), (5, 3), (0, 1), (0, 1), (0, 1)), "is to be turned: orientation 6"),
        (((0, 1), (1, 1), (0, 3), (0, 1), (1, 1), (0, 1)), "holds more than one image"),
        (((0, 1), (1, 1), (0, 3), (0, 1), (0, 1), (1, 1)), "holds more than one image"),
        (((0, 1), (0, 1), (1, 1)), "values are no integers"),
        (((0, 1), (0, 1), (0, 1), (3, 2), (16, 6)), "have more than 16 bits: 17"),
    ],
)
def test_what_is_no_plain_image_is_refused_with_the_reason(fields, reason):
    with pytest.raises(SliceError, match=reason):
        image_of(header(*SMALL, *fields, (0, 64)))


def test_encoders_give_such_images():
    several = imagecodecs.jpegxl_encode(np.zeros((3, 16, 16), np.uint8), photometric="gray")
    with pytest.raises(SliceError, match="more than one image"):
        image_of(content_of(several).codestream)
    fractions = imagecodecs.jpegxl_encode(np.zeros((16, 16), np.float32))
    with pytest.raises(SliceError, match="no integers"):
        image_of(content_of(fractions).codestream)


FIRST = b"\0\0\0\x0cJXL \r\n\x87\n"


def box(kind, content):
    return struct.pack(">L4s", 8 + len(content), kind) + content


def part(number, content, last=False):
    return box(b"jxlp", struct.pack(">L", number | last << 31) + content)


def test_a_codestream_is_found_in_its_boxes():
    whole = encoded()
    for boxes in (
        box(b"jxlc", whole),
        box(b"ftyp", b"jxl \0\0\0\0jxl ") + box(b"jxlc", whole) + box(b"Exif", b"\0" * 9),
        struct.pack(">L4sQ", 1, b"jxlc", 16 + len(whole)) + whole,
        struct.pack(">L4s", 0, b"jxlc") + whole,
        part(0, whole[:9]) + part(1, b"") + part(2, whole[9:], last=True),
        box(b"jxlc", whole) + b"\0",
    ):
        assert content_of(FIRST + boxes) == (whole, False)
    assert content_of(FIRST + box(b"jbrd", b"?") + box(b"jxlc", whole)) == (whole, True)
    assert is_jpeg_xl(FIRST) and is_jpeg_xl(whole) and not is_jpeg_xl(b"\xff\xd8")


@pytest.mark.parametrize(
    ("boxes", "reason"),
    [
        (box(b"jxlc", encoded())[:-1], "ends within a box"),
        (box(b"jxlc", encoded()) * 2, "another number of codestreams than one"),
        (box(b"jxlc", encoded()) + part(0, encoded(), last=True), "another number"),
        (box(b"ftyp", b""), "another number"),
        (part(0, encoded()), "parts of the codestream are missing"),
        (part(1, encoded(), last=True), "parts of the codestream are missing"),
        (part(0, b"\xff") + part(2, b"\x0a", last=True), "parts of the codestream are missing"),
        (box(b"jxlc", b"\xff\xd8"), "a box without a codestream"),
        (struct.pack(">L4s", 7, b"jxlc"), "ends within a box"),
        (struct.pack(">L4sQ", 1, b"jxlc", 15), "ends within a box"),
    ],
)
def test_boxes_that_hold_no_codestream_are_refused(boxes, reason):
    with pytest.raises(ValueError, match=reason):
        content_of(FIRST + boxes)


@pytest.mark.parametrize("effort", [1, 3])
@pytest.mark.parametrize("boxes", [False, True])
def test_a_codestream_that_goes_on_after_its_image_is_refused(tmp_path, effort, boxes):
    """At effort 1 nothing in it tells that bytes were put in but that others are left over."""
    stored = np.random.default_rng(0).normal(1000, 9, (256, 256)).astype(np.uint16)
    stream = imagecodecs.jpegxl_encode(stored, lossless=True, effort=effort, bitspersample=12)
    middle = len(stream) // 2
    longer = stream[:middle] + stream[middle - 3 : middle] + stream[middle:]
    for data, is_whole in ((stream, True), (stream + b"\0", True), (stream + b"x", False),
                           (longer, False)):  # fmt: skip
        content = FIRST + box(b"jxlc", data) if boxes else data
        pixels = encapsulate([content])
        path = write_dicom(tmp_path / "slice.dcm", stored, JPEGXLLossless, PixelData=pixels)
        if is_whole:
            assert (read_slice(path).pixels == stored).all()
        else:
            with pytest.raises(SliceError, match="pixels cannot be decoded"):
                read_slice(path)


def test_pydicom_knows_the_encodings():
    assert [UID(str(uid)).name for uid in JPEGXL_FAMILY] == [
        "JPEG XL Lossless", "JPEG XL JPEG Recompression", "JPEG XL",
    ]  # fmt: skip
    assert all(UID(str(uid)).is_encapsulated for uid in JPEGXL_FAMILY)
