"""The decoders of compressed images: one codestream to the values in it.

Each encoding has one decoder, so that the same file gives the same pixels on every machine; all
are pinned in requirements.lock. They are native code that trusts what it is given: whatever one
complains of makes the image unusable, for pixels that only look right are worse than none.
"""

import os
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from types import ModuleType
from typing import BinaryIO

import cv2
import numpy as np
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
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

from clotline.data.dicom import jpeg_lossless, jpeg_xl
from clotline.data.dicom.codestream import Frame, jpeg_frame
from clotline.data.dicom.jpeg_xl import JPEGXL, JPEGXLJPEGRecompression, JPEGXLLossless
from clotline.data.dicom.rejection import SliceError, one_line
from clotline.errors import ClotlineError


def decode_frame(stream: bytes, frame: Frame, syntax: str) -> np.ndarray:
    """The values of a compressed image.

    Args:
        stream: the codestream.
        frame: what it says of its image; of RLE, which says nothing, what the header says.
        syntax: one of `CODECS`.

    Returns:
        (rows, columns) integers as they are encoded: unsigned where the codestream knows no sign.

    Raises:
        SliceError: the codestream is damaged.
        ClotlineError: a decoder is not installed, or no temporary file can be made.
    """
    try:
        values = CODECS[syntax](stream, frame, syntax)
    except (SliceError, ClotlineError, MemoryError):
        raise
    except Exception as error:  # decoders raise exceptions of any class
        raise SliceError(f"pixels cannot be decoded: {one_line(error)}") from error
    if values.shape != frame[:2]:
        raise SliceError(f"pixels cannot be decoded: an image of {values.shape}, not {frame[:2]}")
    return values


def _library(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ImportError as error:
        raise ClotlineError(
            f"{name}, which decodes compressed images, is not installed here: install what "
            "requirements.lock names"
        ) from error


#: What GDCM says of JPEG Extended of 12 bits, and then takes another build of libjpeg.
_SECOND_TRY = "Unsupported JPEG data precision 12"


def _by_gdcm(stream: bytes, frame: Frame, syntax: str) -> np.ndarray:
    """By GDCM: libjpeg, and OpenJPEG."""
    gdcm = _library("gdcm")
    bits = next(size for size in (8, 16, 32) if frame.precision <= size)
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(stream)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((frame.columns, frame.rows, 1))
    image.SetDataElement(element)
    image.SetPhotometricInterpretation(
        gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2)
    )
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(syntax))))
    image.SetPixelFormat(
        gdcm.PixelFormat(1, bits, frame.precision, frame.precision - 1, int(frame.signed))
    )
    with _no_complaints(but=_SECOND_TRY):
        # GDCM's char* comes as text.
        content = image.GetBuffer().encode("utf-8", "surrogateescape")
    dtype = f"<{'i' if frame.signed else 'u'}{bits // 8}"
    return np.frombuffer(content, dtype).reshape(frame[:2])


def _jpeg_lossless(stream: bytes, frame: Frame, syntax: str) -> np.ndarray:
    """By libjpeg-turbo, in a third of GDCM's time.

    Where a codestream ends early or is damaged, libjpeg-turbo makes up what is missing and says
    so only to those who can ask. So its image is compared with the codestream; where they differ,
    or where the codestream has what is seldom, GDCM decodes, which complains.
    """
    imagecodecs = _library("imagecodecs")
    try:
        values = imagecodecs.jpeg8_decode(stream)
    except imagecodecs.Jpeg8Error:
        values = None
    if values is not None and jpeg_lossless.is_image_of(stream, values):
        return values
    return _by_gdcm(stream, frame, syntax)


def _jpeg_extended(stream: bytes, frame: Frame, syntax: str) -> np.ndarray:
    """By libjpeg-turbo; GDCM, whose values above 4095 wrap around, says whether it is whole."""
    checked = _by_gdcm(stream, frame, syntax)
    if frame.precision <= 8:
        return checked
    return _library("imagecodecs").jpeg8_decode(stream)


def _jpeg_ls(stream: bytes, _frame: Frame, _syntax: str) -> np.ndarray:
    """By CharLS, which refuses a scan that ends early or late."""
    return _library("imagecodecs").jpegls_decode(stream)


def _htj2k(stream: bytes, _frame: Frame, _syntax: str) -> np.ndarray:
    """By OpenJPH."""
    with _no_complaints():
        return _library("imagecodecs").htj2k_decode(stream)


def _jpeg_xl(stream: bytes, frame: Frame, _syntax: str) -> np.ndarray:
    """By libjxl, which refuses a codestream that ends early.

    What was a JPEG becomes that again, bit by bit, and is decoded as such: libjxl's own values
    differ from those of libjpeg by some steps of its quantization.
    """
    imagecodecs = _library("imagecodecs")
    codestream, was_jpeg = jpeg_xl.content_of(stream)
    values = imagecodecs.jpegxl_decode(codestream, numthreads=1)
    # libjxl does not look at what is left over, and bytes that were put in push others there.
    with suppress(imagecodecs.JpegxlError):
        imagecodecs.jpegxl_decode(codestream.rstrip(b"\0")[:-1], numthreads=1)
        raise ValueError("the codestream goes on after its image")
    if was_jpeg:
        jpeg = imagecodecs.jpegxl_decode_jpeg(stream, numthreads=1)
        if jpeg_frame(jpeg) != frame:
            raise ValueError("its JPEG is of another image")
        return _by_gdcm(jpeg, frame, JPEGBaseline8Bit)
    return values


def _rle(stream: bytes, frame: Frame, _syntax: str) -> np.ndarray:
    """RLE of PS3.5, annex G: each byte of the values is a segment, the highest one first."""
    unpack, pixels = _library("imagecodecs").packbits_decode, frame.rows * frame.columns
    count, *starts = struct.unpack_from("<16L", stream)
    size = frame.precision // 8
    if count != size:
        raise ValueError(f"{count} segments, where {frame.precision} bits take {size}")
    segments = []
    for start, stop in zip(starts[:size], [*starts[1:size], len(stream)], strict=True):
        segment = np.frombuffer(unpack(stream[start:stop]), np.uint8)
        if len(segment) != pixels:
            raise ValueError(f"a segment of {len(segment):,} bytes, not {pixels:,}")
        segments.append(segment.reshape(frame.rows, frame.columns))
    # NumPy takes several times as long to write every second byte.
    values = cv2.merge(segments[::-1])
    return values.view(f"<u{size}").reshape(frame.rows, frame.columns)


#: Transfer syntax to what decodes it.
CODECS = {
    RLELossless: _rle,
    JPEGBaseline8Bit: _by_gdcm,
    JPEGExtended12Bit: _jpeg_extended,
    JPEGLossless: _jpeg_lossless,
    JPEGLosslessSV1: _jpeg_lossless,
    JPEGLSLossless: _jpeg_ls,
    JPEGLSNearLossless: _jpeg_ls,
    JPEG2000Lossless: _by_gdcm,
    JPEG2000: _by_gdcm,
    HTJ2KLossless: _htj2k,
    HTJ2KLosslessRPCL: _htj2k,
    HTJ2K: _htj2k,
    JPEGXLLossless: _jpeg_xl,
    JPEGXLJPEGRecompression: _jpeg_xl,
    JPEGXL: _jpeg_xl,
}


@contextmanager
def _no_complaints(but: str = "") -> Iterator[None]:
    """Refuses the image if native code writes to file descriptor 2 meanwhile, but one line.

    libjpeg fills what is missing with values of its own, and says so nowhere else.
    """
    try:
        captured = tempfile.TemporaryFile()  # noqa: SIM115 - closed below
    except OSError as error:
        raise ClotlineError(
            f"no temporary file can be made: {error}. Set TMPDIR to a folder with free space"
        ) from error
    with captured as file:
        with _descriptor_2_to(file):
            yield
        file.seek(0)
        lines = file.read().decode(errors="replace").splitlines()
    complaints = [line for line in lines if line != but]
    if complaints:
        raise SliceError(f"pixels cannot be decoded: {one_line(complaints[0])}")


@contextmanager
def _descriptor_2_to(file: BinaryIO) -> Iterator[None]:
    kept = os.dup(2)
    os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
