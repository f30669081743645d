"""What a JPEG XL codestream says of its image, and where it lies in its boxes.

Sources: ISO/IEC 18181-1 (image header) and 18181-2 (boxes); DICOM PS3.5, A.4.12.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from pydicom.uid import UID, UID_dictionary

from clotline.data.dicom.rejection import SliceError

# pydicom 3.0.2 does not know them, and could then not tell how their data sets are encoded.
for _uid, _name, _keyword in (
    ("1.2.840.10008.1.2.4.110", "JPEG XL Lossless", "JPEGXLLossless"),
    ("1.2.840.10008.1.2.4.111", "JPEG XL JPEG Recompression", "JPEGXLJPEGRecompression"),
    ("1.2.840.10008.1.2.4.112", "JPEG XL", "JPEGXL"),
):
    UID_dictionary.setdefault(_uid, (_name, "Transfer Syntax", "", "", _keyword))

JPEGXLLossless = UID("1.2.840.10008.1.2.4.110")
JPEGXLJPEGRecompression = UID("1.2.840.10008.1.2.4.111")
JPEGXL = UID("1.2.840.10008.1.2.4.112")
#: Encodings by JPEG XL.
JPEGXL_FAMILY = (JPEGXLLossless, JPEGXLJPEGRecompression, JPEGXL)

#: How a codestream begins, and a file of boxes with one in it.
_CODESTREAM, _BOXES = b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"

#: Width to height of an image, by the number in its header; 0: the width stands there, too.
_RATIOS = ((0, 0), (1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))

#: How a number is coded, by its first two bits: a width in bits, and what is added to it.
_SIZE = ((9, 1), (13, 1), (18, 1), (30, 1))
_PRECISION = ((0, 8), (0, 10), (0, 12), (6, 1))
_EXTRA_CHANNELS = ((0, 0), (0, 1), (4, 2), (12, 1))
_ENUMERATED = ((0, 0), (0, 1), (4, 2), (6, 18))

_GREY = 1


class Content(NamedTuple):
    """What lies in the boxes: the codestream, and whether the JPEG can be had that it was."""

    codestream: bytes
    was_jpeg: bool


def is_jpeg_xl(stream: bytes) -> bool:
    """Whether data begins like a JPEG XL codestream, in boxes or not."""
    return stream.startswith((_CODESTREAM, _BOXES))


def content_of(stream: bytes) -> Content:
    """The codestream, out of its boxes if it is in any.

    libjxl puts one of more than 12 bits into boxes by itself.

    Raises:
        ValueError: it is no JPEG XL, ends early, or has not one codestream.
    """
    if stream.startswith(_CODESTREAM):
        return Content(stream, was_jpeg=False)
    if not stream.startswith(_BOXES):
        raise ValueError("not a JPEG XL codestream")
    boxes = list(_boxes(stream))
    whole = [content for kind, content in boxes if kind == b"jxlc"]
    parts = [content for kind, content in boxes if kind == b"jxlp"]
    if len(whole) + bool(parts) != 1:
        raise ValueError("another number of codestreams than one")
    if parts:
        # Each begins with its number, the last one with the highest bit set as well.
        numbers = [struct.unpack_from(">L", part)[0] for part in parts]
        if numbers != [*range(len(parts) - 1), len(parts) - 1 | 1 << 31]:
            raise ValueError("parts of the codestream are missing")
        whole = [b"".join(part[4:] for part in parts)]
    if not whole[0].startswith(_CODESTREAM):
        raise ValueError("a box without a codestream")
    return Content(whole[0], was_jpeg=any(kind == b"jbrd" for kind, _ in boxes))


def _boxes(stream: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and content of each box."""
    offset = 0
    # Some writers fill up to an even length.
    while stream[offset:].strip(b"\0"):
        length, kind = struct.unpack_from(">L4s", stream, offset)
        start = offset + 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", stream, start)
            start += 8
        stop = offset + length if length else len(stream)
        if not start <= stop <= len(stream):
            raise ValueError("it ends within a box")
        yield kind, stream[start:stop]
        offset = stop


class Image(NamedTuple):
    """What a codestream says of its image.

    Attributes:
        rows: of its pixels.
        columns: of its pixels.
        components: channels, of which those that are no colour are counted as beside one.
        precision: bits of a value.
    """

    rows: int
    columns: int
    components: int
    precision: int


def image_of(codestream: bytes) -> Image:
    """What a codestream says of its image.

    Args:
        codestream: without boxes.

    Raises:
        ValueError: it ends early.
        SliceError: an animation, an image that is to be turned, or values that are no integers of
            at most 16 bits, as which alone libjxl gives them unchanged.
    """
    bits = _Bits(codestream[2:])
    rows, columns = _size(bits)
    if bits.take(1):  # all that follows is as usual, which is colour
        return Image(rows, columns, 3, 8)
    if bits.take(1):
        orientation = 1 + bits.take(3)
        if bits.take(1):
            _size(bits)  # in which it should be shown
        has_preview, is_animation = bits.take(1), bits.take(1)
        if has_preview or is_animation:
            raise SliceError("the codestream holds more than one image")
        if orientation != 1:
            raise SliceError(f"the codestream's image is to be turned: orientation {orientation}")
    if bits.take(1):
        raise SliceError("the codestream's values are no integers")
    precision = bits.number(_PRECISION)
    if precision > 16:
        raise SliceError(f"the codestream's values have more than 16 bits: {precision}")
    bits.take(1)  # whether 16 bits are enough to decode it
    if extra := bits.number(_EXTRA_CHANNELS):
        return Image(rows, columns, 1 + extra, precision)
    bits.take(1)  # whether its colours are encoded as the eye sees them
    if bits.take(1):
        return Image(rows, columns, 3, precision)
    bits.take(1)  # whether a profile of its colours follows
    is_grey = bits.number(_ENUMERATED) == _GREY
    return Image(rows, columns, 1 if is_grey else 3, precision)


def _size(bits: "_Bits") -> tuple[int, int]:
    """Rows and columns."""
    is_small = bits.take(1)

    def side() -> int:
        return 8 * (1 + bits.take(5)) if is_small else bits.number(_SIZE)

    rows = side()
    if ratio := bits.take(3):
        width, height = _RATIOS[ratio]
        return rows, rows * width // height
    return rows, side()


class _Bits:
    """Bits of a header, the lowest one of each byte first."""

    def __init__(self, header: bytes):
        header = header[:64]  # all fields that are read here take less
        self._value, self._count = int.from_bytes(header, "little"), 8 * len(header)

    def take(self, count: int) -> int:
        """The next bits as a number."""
        if count > self._count:
            raise ValueError("the header ends early")
        taken = self._value & (1 << count) - 1
        self._value >>= count
        self._count -= count
        return taken

    def number(self, ways: tuple[tuple[int, int], ...]) -> int:
        """The next number, coded in one of four ways."""
        count, offset = ways[self.take(2)]
        return self.take(count) + offset
