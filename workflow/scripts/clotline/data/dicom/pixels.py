"""PixelData of a DICOM file to the values that it stores: which decoder reads which encoding.

Each encoding has one decoder, named here and pinned in requirements.lock, so that the same file
gives the same pixels on every machine. Decoders are native code that trusts what it is given:
what a file claims is compared with its codestream first, and whatever a decoder or pydicom
complains of makes the slice unusable, for pixels that only look right are worse than none.

Terms are those of DICOM PS3.5, chapter 8 and annex A.
"""

import math
import os
import struct
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, NamedTuple

import numpy as np
from pydicom.encaps import get_frame
from pydicom.pixels import get_decoder
from pydicom.uid import (
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEG2000TransferSyntaxes,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from clotline.data.dicom.header import Header
from clotline.data.dicom.rejection import SliceError, one_line
from clotline.errors import ClotlineError

#: Transfer syntax to the plugin of pydicom that decodes it; None where nothing is encoded.
DECODERS = {
    ImplicitVRLittleEndian: None,
    ExplicitVRLittleEndian: None,
    ExplicitVRBigEndian: None,
    DeflatedExplicitVRLittleEndian: None,
    RLELossless: "pydicom",
    JPEGBaseline8Bit: "gdcm",
    JPEGExtended12Bit: "pylibjpeg",  # GDCM cannot: values above 4095 wrap around
    JPEGLossless: "gdcm",
    JPEGLosslessSV1: "gdcm",
    JPEGLSLossless: "gdcm",
    JPEGLSNearLossless: "gdcm",
    JPEG2000Lossless: "gdcm",
    JPEG2000: "gdcm",
}

#: Largest number of rows and of columns; the largest CT matrix in use is 2048 × 2048.
MAX_SIDE = 4096


#: What pydicom's decoders must know of an image, by its names for them.
OPTIONS = {
    "samples_per_pixel": "SamplesPerPixel",
    "photometric_interpretation": "PhotometricInterpretation",
    "number_of_frames": "NumberOfFrames",
    "rows": "Rows",
    "columns": "Columns",
    "bits_allocated": "BitsAllocated",
    "bits_stored": "BitsStored",
    "pixel_representation": "PixelRepresentation",
}


def decode(header: Header) -> np.ndarray:
    """The stored values of a single-frame, single-channel image.

    Args:
        header: of a file in one of the encodings of `DECODERS`, with its PixelData.

    Returns:
        (rows, columns) integers, signed where the file's are; not always writable.

    Raises:
        SliceError: the image is larger than `MAX_SIDE`, what the
            header says and what PixelData holds differ, or the data is damaged.
        ClotlineError: the decoder is not installed, or there is no place for temporary files.
    """
    shape = _check_layout(header)
    if DECODERS[header.syntax] is None:
        return _plain(header, shape)
    if header.syntax != RLELossless:
        _check_codestream(header, shape)
    decoder, plugin = get_decoder(header.syntax), DECODERS[header.syntax]
    if plugin not in decoder.available_plugins:
        raise ClotlineError(
            f"{header.syntax.name} is decoded by {plugin}, which is not installed here: install "
            "what requirements.lock names"
        )
    # Outside of the try: that no temporary file can be made is no fault of these pixels.
    with warnings.catch_warnings(), _complaints() as complaints:
        warnings.simplefilter("error")
        try:
            stored, _ = decoder.as_array(
                header["PixelData"], decoding_plugin=plugin, **_options(header)
            )
        except MemoryError:
            raise
        except Exception as error:  # decoders raise many kinds
            raise SliceError(f"pixels cannot be decoded: {one_line(error)}") from error
    if complaints:
        raise SliceError(f"pixels cannot be decoded: {one_line(complaints[0])}")
    if stored.shape != shape:
        raise SliceError(f"pixels cannot be decoded: an image of {stored.shape}, not {shape}")
    return stored


def _plain(header: Header, shape: tuple[int, int]) -> np.ndarray:
    """The values where nothing is encoded; pydicom's decoder takes several times as long."""
    _check_length(header, shape)
    data, allocated = header["PixelData"], header["BitsAllocated"]
    order = "<" if header.syntax.is_little_endian else ">"
    if allocated == 8 and order == ">" and header.vr("PixelData") == "OW":
        data = np.frombuffer(data, np.uint16).byteswap()  # two pixels a word, the first one last
    kind = f"{order}{'i' if header['PixelRepresentation'] else 'u'}{allocated // 8}"
    stored = np.frombuffer(data, kind, math.prod(shape)).reshape(shape)
    unused = allocated - header["BitsStored"]
    # Seldom is anything in them, and looking takes half as long as two shifts.
    if unused and not _fits(stored, header["BitsStored"]):
        stored = np.left_shift(stored, unused)
        np.right_shift(stored, unused, out=stored)
    return stored


def _fits(stored: np.ndarray, bits: int) -> bool:
    """Whether so many bits hold every value."""
    if stored.dtype.kind == "u":
        return int(stored.max()) < 1 << bits
    return -(1 << bits - 1) <= int(stored.min()) and int(stored.max()) < 1 << bits - 1


def _options(header: Header) -> dict:
    """What pydicom's decoders must know of the image."""
    options = {name: header[keyword] for name, keyword in OPTIONS.items() if keyword in header}
    options.setdefault("number_of_frames", 1)
    if "ExtendedOffsetTable" in header:
        names = ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")
        options["extended_offsets"] = tuple(header[name] for name in names)
    return options


def _check_layout(header: Header) -> tuple[int, int]:
    """Rows and columns, after a look at what says how the pixels lie in PixelData."""
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


def _check_length(header: Header, shape: tuple[int, int]) -> None:
    expected = shape[0] * shape[1] * header["BitsAllocated"] // 8
    # An odd length is filled up with one byte.
    if len(header["PixelData"]) != expected + expected % 2:
        raise SliceError(
            f"PixelData has another length than its image: {len(header['PixelData']):,} bytes, "
            f"where {shape[0]} × {shape[1]} pixels of {header['BitsAllocated']} bits take "
            f"{expected:,}"
        )


class _Frame(NamedTuple):
    """What a codestream says of its image; ``precision`` is in bits."""

    rows: int
    columns: int
    components: int
    precision: int


def _check_codestream(header: Header, shape: tuple[int, int]) -> None:
    """Compares what the codestream says of itself with the header, and looks for its end."""
    try:
        stream = get_frame(header["PixelData"], 0, number_of_frames=1)
        if header.syntax in JPEG2000TransferSyntaxes:
            frame = _jpeg2000_frame(stream)
        else:
            frame = _jpeg_frame(stream)
    except (ValueError, struct.error, IndexError) as error:
        raise SliceError(f"the codestream is damaged: {one_line(error)}") from error
    if frame[:3] != (*shape, 1) or frame.precision > header["BitsAllocated"]:
        raise SliceError(
            f"the codestream's image is not the header's: {frame.rows} × {frame.columns}, "
            f"{frame.components} components of {frame.precision} bits; the header has "
            f"{shape[0]} × {shape[1]}, 1 of {header['BitsAllocated']} bits"
        )
    # JPEG and JPEG 2000 end with the same marker; some writers fill up to more than an even length.
    if b"\xff\xd9" not in stream.rstrip(b"\0")[-4:]:
        raise SliceError("the codestream is damaged: it has no end")


def _jpeg_frame(stream: bytes) -> _Frame:
    """The frame header of a JPEG or JPEG-LS codestream."""
    if stream[:2] != b"\xff\xd8":
        raise ValueError("not a JPEG codestream")
    place, frame, marker = 2, None, None
    while marker != 0xDA:  # start of scan: compressed data follows its segment
        # Any number of fill bytes may stand before a marker (ITU-T T.81, B.1.1.2).
        while stream[place : place + 2] == b"\xff\xff":
            place += 1
        prefix, marker, length = struct.unpack_from(">BBH", stream, place)
        if prefix != 0xFF or not 0xC0 <= marker <= 0xFE:
            raise ValueError("no marker where one must be")
        # Start of frame: FFC0 to FFCF but DHT, JPG and DAC; FFF7 in JPEG-LS.
        if (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)) or marker == 0xF7:
            precision, rows, columns, components = struct.unpack_from(">BHHB", stream, place + 4)
            frame = _Frame(rows, columns, components, precision)
        place += 2 + length
    if frame is None:
        raise ValueError("a scan without a frame header")
    return frame


def _jpeg2000_frame(stream: bytes) -> _Frame:
    """The SIZ segment of a JPEG 2000 codestream, with or without JP2 boxes before it."""
    start = stream.find(b"\xff\x4f\xff\x51")
    if start < 0:
        raise ValueError("not a JPEG 2000 codestream")
    width, height, left, top, tile_width, tile_height = struct.unpack_from(">6I", stream, start + 8)
    components, precision = struct.unpack_from(">HB", stream, start + 40)
    # Each tile costs memory, however small.
    if not tile_width or not tile_height or width * height > 1024 * tile_width * tile_height:
        raise ValueError(f"tiles of {tile_width} × {tile_height}")
    return _Frame(height - top, width - left, components, (precision & 0x7F) + 1)


@contextmanager
def _complaints() -> Iterator[list[str]]:
    """The lines that native code writes to file descriptor 2 meanwhile, known at the end.

    libjpeg fills what is missing with values of its own, and says so nowhere else.
    """
    lines: list[str] = []
    try:
        captured = tempfile.TemporaryFile()  # noqa: SIM115 - closed below
    except OSError as error:
        raise ClotlineError(
            f"no temporary file can be made: {error}. Set TMPDIR to a folder with free space"
        ) from error
    with captured as file:
        with _descriptor_2_to(file):
            yield lines
        file.seek(0)
        lines.extend(file.read().decode(errors="replace").splitlines())


@contextmanager
def _descriptor_2_to(file: BinaryIO) -> Iterator[None]:
    kept = os.dup(2)
    os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
