"""What a compressed image says of itself: the headers of its codestream.

Sources: ITU-T T.81 (JPEG), T.87 (JPEG-LS), T.800 (JPEG 2000) and T.814 (HTJ2K); JPEG XL has a
module of its own.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from clotline.data.dicom import jpeg_xl
from clotline.data.dicom.jpeg_xl import JPEGXL, JPEGXL_FAMILY, JPEGXLJPEGRecompression

#: Encodings by high-throughput JPEG 2000 (HTJ2K).
HTJ2K_SYNTAXES = (HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K)
JPEG2000_FAMILY = (JPEG2000Lossless, JPEG2000, *HTJ2K_SYNTAXES)

#: Encodings whose codestreams are of one sort.
_FAMILIES = (
    (RLELossless,),
    (JPEGBaseline8Bit, JPEGExtended12Bit),
    (JPEGLossless, JPEGLosslessSV1),
    (JPEGLSLossless, JPEGLSNearLossless),
    (JPEG2000Lossless, JPEG2000),
    HTJ2K_SYNTAXES,
    JPEGXL_FAMILY,
)


class Frame(NamedTuple):
    """What a codestream says of its image; ``precision`` is in bits."""

    rows: int
    columns: int
    components: int
    precision: int
    signed: bool


def frame_of(stream: bytes, syntax: str) -> Frame:
    """What the codestream of an encoding says of its image.

    Raises:
        ValueError, struct.error, IndexError: it is no such codestream, or one that ends early.
        SliceError: it holds no single image of integers.
    """
    if syntax in JPEGXL_FAMILY:
        image = jpeg_xl.image_of(jpeg_xl.content_of(stream).codestream)
        return Frame(*image, signed=False)
    if syntax not in JPEG2000_FAMILY:
        return jpeg_frame(stream)
    frame = _jpeg2000_frame(stream)
    if syntax in HTJ2K_SYNTAXES:
        _check_tile_parts(stream)
    return frame


def are_of_one_sort(syntax: str, other: str) -> bool:
    """Whether codestreams in two encodings are decoded alike."""
    return any({syntax, other} <= {*family} for family in _FAMILIES)


def encoding_of(stream: bytes) -> UID | None:
    """The transfer syntax that a codestream is in, as it says itself; None where it does not."""
    try:
        if b"\xff\x4f\xff\x51" in stream[:256]:
            return _jpeg2000_encoding(stream)
        if stream[:2] == b"\xff\xd8":
            return _jpeg_encoding(stream)
        if jpeg_xl.is_jpeg_xl(stream):
            # Nothing in it says surely that it is lossless.
            was_jpeg = jpeg_xl.content_of(stream).was_jpeg
            return JPEGXLJPEGRecompression if was_jpeg else JPEGXL
        count, first, *others = struct.unpack_from("<16L", stream)
    except (ValueError, struct.error, IndexError):
        return None
    used, unused = [first, *others][:count], [first, *others][count:]
    is_rle = count in (1, 2, 4) and first == 64 and not any(unused) and used == sorted(set(used))
    return RLELossless if is_rle and used[-1] < len(stream) else None


def _jpeg2000_encoding(stream: bytes) -> UID:
    offset, is_high_throughput = _start_of_jpeg2000(stream) + 2, False
    while (marker := stream[offset : offset + 2]) != b"\xff\x52":  # coding style
        (length,) = struct.unpack_from(">2xH", stream, offset)
        is_high_throughput |= marker == b"\xff\x50"  # extended capabilities
        offset += 2 + length
    reversible = stream[offset + 13] == 1
    if is_high_throughput:
        return HTJ2KLossless if reversible else HTJ2K
    return JPEG2000Lossless if reversible else JPEG2000


def _jpeg_encoding(stream: bytes) -> UID | None:
    markers = dict(_segments(stream))
    if 0xF7 in markers:  # its scan's header ends with the error allowed, and two bytes more
        return JPEGLSNearLossless if markers[0xDA][-3] else JPEGLSLossless
    encodings = {0xC0: JPEGBaseline8Bit, 0xC1: JPEGExtended12Bit, 0xC3: JPEGLossless}
    return next((uid for marker, uid in encodings.items() if marker in markers), None)


def _segments(stream: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker and content of each segment of a JPEG codestream, until compressed data follows."""
    offset, marker = 2, None
    while marker != 0xDA:  # start of scan
        # Any number of fill bytes may stand before a marker (ITU-T T.81, B.1.1.2).
        while stream[offset : offset + 2] == b"\xff\xff":
            offset += 1
        prefix, marker, length = struct.unpack_from(">BBH", stream, offset)
        if prefix != 0xFF or not 0xC0 <= marker <= 0xFE:
            raise ValueError("no marker where one must be")
        yield marker, stream[offset + 4 : offset + 2 + length]
        offset += 2 + length


def jpeg_frame(stream: bytes) -> Frame:
    """The frame header of a JPEG or JPEG-LS codestream."""
    if stream[:2] != b"\xff\xd8":
        raise ValueError("not a JPEG codestream")
    frame = None
    for marker, segment in _segments(stream):
        # Start of frame: FFC0 to FFCF but DHT, JPG and DAC; FFF7 in JPEG-LS.
        if (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)) or marker == 0xF7:
            precision, rows, columns, components = struct.unpack_from(">BHHB", segment)
            frame = Frame(rows, columns, components, precision, signed=False)
    if frame is None:
        raise ValueError("a scan without a frame header")
    return frame


def _jpeg2000_frame(stream: bytes) -> Frame:
    """The SIZ segment of a JPEG 2000 codestream, with or without JP2 boxes before it."""
    start = _start_of_jpeg2000(stream)
    width, height, left, top, tile_width, tile_height = struct.unpack_from(">6I", stream, start + 8)
    components, precision = struct.unpack_from(">HB", stream, start + 40)
    # Each tile costs memory, however small.
    if not tile_width or not tile_height or width * height > 1024 * tile_width * tile_height:
        raise ValueError(f"tiles of {tile_width} × {tile_height}")
    return Frame(
        height - top, width - left, components, (precision & 0x7F) + 1, bool(precision & 0x80)
    )


def _start_of_jpeg2000(stream: bytes) -> int:
    start = stream.find(b"\xff\x4f\xff\x51")
    if start < 0:
        raise ValueError("not a JPEG 2000 codestream")
    return start


def _check_tile_parts(stream: bytes) -> None:
    """Follows the lengths of the tile-parts, which must lead to the codestream's end.

    OpenJPH decodes what is there of a codestream that was cut, and says nothing.
    """
    offset = _start_of_jpeg2000(stream) + 2
    while (marker := stream[offset : offset + 2]) != b"\xff\xd9":
        if marker == b"\xff\x90":  # start of tile-part: its length counts from here
            (length,) = struct.unpack_from(">6xI", stream, offset)
            if length < 14:
                raise ValueError("a tile-part without a length")
            offset += length
        else:
            if marker[:1] != b"\xff" or offset > len(stream):
                raise ValueError("no marker where one must be")
            (length,) = struct.unpack_from(">2xH", stream, offset)
            offset += 2 + length
