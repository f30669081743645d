"""PixelData of a DICOM file to the values that it stores.

What a file claims is compared with its codestream before a decoder sees it, and one rule for all
encodings says which bits are a value and which of them is its sign.

Terms are those of DICOM PS3.5, chapter 8 and annex A.
"""

import math
import struct
import warnings

import numpy as np
from pydicom.encaps import generate_frames
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSNearLossless,
    RLELossless,
)

from clotline.data.dicom.codecs import CODECS, decode_frame
from clotline.data.dicom.codestream import Frame, are_of_one_sort, encoding_of, frame_of
from clotline.data.dicom.header import Header
from clotline.data.dicom.jpeg_xl import (
    JPEGXL,
    JPEGXL_FAMILY,
    JPEGXLJPEGRecompression,
    JPEGXLLossless,
)
from clotline.data.dicom.rejection import SliceError, one_line

#: Encodings in which nothing is compressed but, in one of them, the data set as a whole.
UNCOMPRESSED = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
)
#: All encodings that are read.
ENCODINGS = (*UNCOMPRESSED, *CODECS)

#: Encodings whose values are near to those that were there, not the same.
LOSSY = (
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSNearLossless,
    JPEG2000,
    HTJ2K,
    JPEGXLJPEGRecompression,
    JPEGXL,
)

#: Largest number of rows and of columns; the largest CT matrix in use is 2048 × 2048.
MAX_SIDE = 4096


def decode(header: Header) -> np.ndarray:
    """The stored values of a single-frame, single-channel image.

    Args:
        header: of a file in one of the `ENCODINGS`, with its PixelData.

    Returns:
        (rows, columns) integers, signed where the file's are; not always writable.

    Raises:
        SliceError: the image is larger than `MAX_SIDE`, what the
            header says and what PixelData holds differ, or the data is damaged.
        ClotlineError: the decoder is not installed, or no temporary file can be made.
    """
    shape, syntax = image_shape(header), header.syntax
    if syntax in UNCOMPRESSED and not header.is_encapsulated("PixelData"):
        return _plain(header, shape)
    stream = _codestream(header)
    found = encoding_of(stream)
    if syntax in UNCOMPRESSED and found is None:
        raise SliceError(
            f"compressed pixels declared as {syntax.name}: by which encoding is unknown"
        )
    # JPEG XL does not say of itself that it is lossless.
    hides_loss = found in LOSSY and syntax not in (*LOSSY, JPEGXLLossless)
    if found is not None and (hides_loss or not are_of_one_sort(found, syntax)):
        header.remarks.append(f"{syntax.name} in the header, {found.name} in the file")
        syntax = found
    if syntax == RLELossless:
        # It says nothing of itself.
        frame = Frame(*shape, 1, header["BitsAllocated"], bool(header["PixelRepresentation"]))
    else:
        frame = _checked_frame(stream, syntax, header, shape)
    return _stored(decode_frame(stream, frame, syntax), frame, syntax, header)


def _codestream(header: Header) -> bytes:
    """The one codestream in PixelData."""
    offsets = None
    if "ExtendedOffsetTable" in header:
        names = ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")
        offsets = tuple(header[name] for name in names)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            streams = [
                *generate_frames(header["PixelData"], number_of_frames=1, extended_offsets=offsets)
            ]
    except MemoryError:
        raise
    except Exception as error:  # pydicom raises exceptions of any class
        raise SliceError(f"the codestream is damaged: {one_line(error)}") from error
    if len(streams) != 1:
        raise SliceError(f"PixelData has another number of images than 1: {len(streams):,}")
    return streams[0]


def _stored(values: np.ndarray, frame: Frame, syntax: UID, header: Header) -> np.ndarray:
    """Decoded values as they would lie in uncompressed PixelData, with their sign.

    The bits above BitsStored are no part of a value (PS3.5, 8.1.1): an overlay may lie there, or
    nothing where a sign should go on. Where values are signed and the codestream is not, the
    sign is the highest bit that both have.

    Raises:
        SliceError: the sign is not known, or a lossy encoding has smoothed over what is no part of
            the values.
    """
    allocated, bits = header["BitsAllocated"], header["BitsStored"]
    signed = bool(header["PixelRepresentation"])
    if signed != frame.signed:
        bits = min(bits, frame.precision)
    # By way of the unsigned ones: a sign goes on as far as there are bits.
    words = values.astype(f"u{allocated // 8}", copy=False)
    stored = _masked(words.view(f"i{allocated // 8}") if signed else words, bits)
    if syntax in LOSSY and not _is_smooth(words, stored, frame, syntax, header):
        raise SliceError(
            f"lossy pixels with bits above BitsStored {header['BitsStored']}, or with a sign that "
            f"their codestream does not know: up to {int(words.max()):,}"
        )
    # Encoders write so few bits for values that need no more, as for those with a sign.
    without_sign = syntax in (JPEGLossless, JPEGLosslessSV1, JPEGXLLossless)
    if without_sign and bits < header["BitsStored"] and stored.min() < 0:
        raise SliceError(
            f"the sign of the values is not known: {frame.precision} bits in the codestream, "
            f"BitsStored {header['BitsStored']}"
        )
    return stored


def _is_smooth(
    words: np.ndarray, stored: np.ndarray, frame: Frame, syntax: UID, header: Header
) -> bool:
    """Whether a lossy encoding was given values, and no words in which values are some of the bits.

    The step from one value to the next is smoothed in words as they are: where an overlay begins,
    or from 0 to the bits of -1, values come out that nobody measured.

    Args:
        words: as decoded, unsigned.
        stored: the values in them.
        frame: what the codestream says of itself.
        syntax: its encoding.
        header: the file's.
    """
    same = np.array_equal(words, stored.view(words.dtype))
    if syntax == JPEGLSNearLossless:
        # Its error has a limit, whatever lies beside a value.
        return same or _fits(words, header["BitsStored"])
    return same and (frame.signed == header["PixelRepresentation"] or int(stored.min()) >= 0)


def _plain(header: Header, shape: tuple[int, int]) -> np.ndarray:
    """The values where nothing is encoded; pydicom's decoder takes several times as long."""
    data, allocated = header["PixelData"], header["BitsAllocated"]
    if remark := surplus_remark(header, shape, len(data)):
        header.remarks.append(remark)
    order = "<" if header.syntax.is_little_endian else ">"
    if allocated == 8 and order == ">" and header.vr("PixelData") == "OW":
        data = np.frombuffer(data, np.uint16).byteswap()  # two pixels a word, the first one last
    dtype = f"{order}{'i' if header['PixelRepresentation'] else 'u'}{allocated // 8}"
    stored = np.frombuffer(data, dtype, math.prod(shape)).reshape(shape)
    return _masked(stored, header["BitsStored"])


def _masked(stored: np.ndarray, bits: int) -> np.ndarray:
    """The values in the lowest bits of integers, with their sign where they have one."""
    unused = 8 * stored.itemsize - bits
    # Seldom is anything in them, and looking takes half as long as two shifts.
    if unused and not _fits(stored, bits):
        stored = np.left_shift(stored, unused)
        np.right_shift(stored, unused, out=stored)
    return stored


def _fits(stored: np.ndarray, bits: int) -> bool:
    """Whether ``bits`` bits hold every value."""
    if stored.dtype.kind == "u":
        return int(stored.max()) < 1 << bits
    return -(1 << bits - 1) <= int(stored.min()) and int(stored.max()) < 1 << bits - 1


def image_shape(header: Header) -> tuple[int, int]:
    """Rows and columns, after a look at what says how the pixels lie in PixelData.

    Raises:
        SliceError: they are larger than `MAX_SIDE`, or no pixels can lie so.
    """
    names = ("Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation")
    values = [header.get(name) for name in names]
    for name, value in zip(names, values, strict=True):
        if not isinstance(value, int):
            raise SliceError(f"no usable {name}")
    rows, columns, allocated, stored, representation = values
    if not (0 < rows <= MAX_SIDE and 0 < columns <= MAX_SIDE):
        raise SliceError(
            f"Rows or Columns out of range: {rows} × {columns} is not within 1 to {MAX_SIDE}"
        )
    high = header.get("HighBit", stored - 1)
    if (
        header.get("SamplesPerPixel") != 1
        or allocated not in (8, 16, 32)
        or not 0 < stored <= allocated
        or high != stored - 1
        or representation not in (0, 1)
    ):
        raise SliceError(
            f"no usable layout of pixels: SamplesPerPixel {header.get('SamplesPerPixel')}, "
            f"BitsAllocated {allocated}, BitsStored {stored}, HighBit {high}, "
            f"PixelRepresentation {representation}"
        )
    return rows, columns


def surplus_remark(header: Header, shape: tuple[int, int], length: int, images: int = 1) -> str:
    """What is to be said of uncompressed PixelData that is longer than its images; or nothing.

    Older software filled PixelData up to more than an even length, and receivers are asked to
    accept that (PS3.5, 8.1.1). Where as much is left as a row or column takes, Rows or Columns may
    be wrong, and the image askew.

    Args:
        header: of the file.
        shape: rows and columns.
        length: of PixelData in bytes.
        images: how many it must hold.

    Raises:
        SliceError: it is shorter, or a whole row or column longer.
    """
    size = header["BitsAllocated"] // 8
    expected = shape[0] * shape[1] * size * images
    surplus = length - expected
    if not 0 <= surplus < max(min(shape) * size, 2):
        several = "" if images == 1 else f"{images:,} × "
        raise SliceError(
            f"PixelData has another length than its image: {length:,} bytes, "
            f"where {several}{shape[0]} × {shape[1]} pixels of {header['BitsAllocated']} bits take "
            f"{expected:,}"
        )
    # An odd length is filled up with one byte.
    if surplus > expected % 2:
        return "PixelData is longer than its image: what follows it was left out"
    return ""


def _checked_frame(stream: bytes, syntax: UID, header: Header, shape: tuple[int, int]) -> Frame:
    """What the codestream says of itself, which the header must say too; looks for its end."""
    try:
        frame = frame_of(stream, syntax)
    except (ValueError, struct.error, IndexError) as error:
        raise SliceError(f"the codestream is damaged: {one_line(error)}") from error
    if frame[:3] != (*shape, 1) or frame.precision > header["BitsAllocated"]:
        raise SliceError(
            f"the codestream's image is not the header's: {frame.rows} × {frame.columns}, "
            f"{frame.components} components of {frame.precision} bits; the header has "
            f"{shape[0]} × {shape[1]}, 1 of {header['BitsAllocated']} bits"
        )
    # JPEG and JPEG 2000 end with the same marker, JPEG XL with none; some writers fill up to more
    # than an even length.
    if syntax not in JPEGXL_FAMILY and b"\xff\xd9" not in stream.rstrip(b"\0")[-4:]:
        raise SliceError("the codestream is damaged: it has no end")
    return frame
