"""One CT slice from a DICOM file: Hounsfield units on the grid that the networks use.

Terms and tags are those of DICOM PS3.3, C.7.6.2 (Image Plane), C.8.2.1 (CT Image) and C.7.5.1.1.2
(Pixel Padding).
"""

import errno
import math
import os
import stat
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, lru_cache
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pydicom
from pydicom.charset import convert_encodings, default_encoding
from pydicom.dataelem import RawDataElement, convert_raw_data_element
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag, Tag
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
)
from pydicom.valuerep import EXPLICIT_VR_LENGTH_16, EXPLICIT_VR_LENGTH_32

from clotline.errors import ClotlineError
from clotline.grid import AIR_HU, SIZE
from clotline.header import Header
from clotline.orientation import Axes, cross, image_axes, patient_orientation, upright
from clotline.pixeldata import DECODERS, SliceError, decode, one_line

# Its warnings quote the values of a header, and those do not belong into a log.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
warnings.filterwarnings("ignore", module="pydicom")

# After one large block was freed, glibc keeps what a slice frees for the next slice, instead of
# giving it back to the kernel and asking for new pages every time.
np.empty(2**24, np.uint8)

#: Largest file, and largest inflated data set, in bytes: a slice of 4096 × 4096 pixels of 16 bits
#: takes 32 MiB, and its header little.
MAX_BYTES = 64 * 2**20

#: All that is read of a file; what could identify a patient is not among it.
KEYWORDS = (
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "Modality", "ImageType",
    "InstanceNumber", "ImagePositionPatient", "ImageOrientationPatient", "SliceLocation",
    "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "Rows", "Columns",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    "PixelPaddingValue", "PixelPaddingRangeLimit",
    "RescaleIntercept", "RescaleSlope", "RescaleType",
    "ExtendedOffsetTable", "ExtendedOffsetTableLengths", "PixelData",
)  # fmt: skip

#: All that is read of a file's meta information.
META_KEYWORDS = ("TransferSyntaxUID",)

CHARSET = Tag("SpecificCharacterSet")

#: Tag, VR and length of an element in Explicit VR Little Endian; some VRs have a longer length.
_ELEMENT, _LONG_LENGTH = struct.Struct("<L2sH"), struct.Struct("<L")
_LONG_VRS = frozenset(vr.encode() for vr in EXPLICIT_VR_LENGTH_32)
_SHORT_VRS = frozenset(vr.encode() for vr in EXPLICIT_VR_LENGTH_16)

#: Values of RescaleType (PS3.3, C.11.1.1.2) for a scale other than Hounsfield units.
OTHER_SCALES = frozenset(("OD", "HU_MOD", "MGML", "Z_EFF", "ED", "EDW", "PCT"))

#: Slope and intercept beyond this are no scale of Hounsfield units, and would overflow.
MAX_RESCALE = 1e6

_INT16 = np.iinfo(np.int16)


@dataclass(frozen=True)
class Slice:
    """One decoded CT slice.

    Attributes:
        pixels: (256, 256) int16, Hounsfield units, an axial slice turned as of
            `clotline.orientation.upright`; None once they are stored.
        orientation: where the file's own rows and columns run, of
            `clotline.orientation.patient_orientation`.
        position: along the scan axis, in mm, towards the head; None where the file has no position
            or orientation.
        height: of the centre of its first pixel above the patient's origin, in mm, or None.
        location: SliceLocation in mm, or None.
        instance: InstanceNumber, or None.
        series_uid: SeriesInstanceUID of the header, or an empty text.
        sop_uid: SOPInstanceUID of the header, or an empty text.
    """

    pixels: np.ndarray | None
    orientation: str
    position: float | None
    height: float | None
    location: float | None
    instance: float | None
    series_uid: str
    sop_uid: str


def read_slice(path: str | Path) -> Slice:
    """Reads, decodes and resamples one file.

    The UIDs in the header are not compared with those of the path, by which the labels file knows
    a slice: de-identification often gives new ones to one of the two, or the same to all slices.

    Raises:
        SliceError: the file is missing, unreadable, too large, or no single-frame CT image.
    """
    header = _read_header(_read_bytes(path), KEYWORDS)
    try:
        check_is_ct_slice(header)
        stored = decode(header)
        axes, corner = image_axes(header), image_corner(header)
        orientation = patient_orientation(axes)
        return Slice(
            pixels=upright(resample(hounsfield(stored, header)), orientation),
            orientation=orientation,
            position=position_along_scan(corner, axes),
            height=corner and corner[2],
            location=header.number("SliceLocation"),
            instance=header.number("InstanceNumber"),
            series_uid=str(header.get("SeriesInstanceUID", "")),
            sop_uid=str(header.get("SOPInstanceUID", "")),
        )
    except (SliceError, ClotlineError, MemoryError):
        raise
    except Exception as error:  # pydicom converts values when they are asked for
        raise SliceError(f"unreadable: {one_line(error)}") from error


def read_header(path: str | Path, keywords: Sequence[str]) -> Header:
    """Some elements of a file's header, read with the same care as the pixels.

    Args:
        path: the file.
        keywords: of the elements.

    Raises:
        SliceError: the file is missing, unreadable, too large, or no DICOM file.
    """
    return _read_header(_read_bytes(path), tuple(keywords))


def fetch(path: str) -> None:
    """Asks the system to fetch a file that is soon to be read, and does not wait for it."""
    # What is wrong with a file is told when it is read.
    with suppress(OSError, SliceError), _opened(path) as (file, size):
        os.posix_fadvise(file, 0, size, os.POSIX_FADV_WILLNEED)


#: What is no fault of the file that is read: the job fails, and can be tried again.
_OF_THE_MACHINE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE)


def _read_bytes(path: str | Path) -> bytes:
    try:
        with _opened(path) as (file, size):
            content = os.read(file, size)
            # Some network file systems give less at a time.
            while len(content) < size and (more := os.read(file, size - len(content))):
                content += more
            return content
    except FileNotFoundError:
        raise SliceError("no such file") from None
    except OSError as error:
        if error.errno in _OF_THE_MACHINE:
            raise
        raise SliceError(f"unreadable: {error.strerror}") from error


@contextmanager
def _opened(path: str | Path) -> Iterator[tuple[int, int]]:
    """The descriptor and size of a file that may be read.

    Raises:
        SliceError: it is no regular file, or too large.
        OSError: it cannot be opened.
    """
    status = os.stat(path)  # noqa: PTH116
    # Opening a pipe or a device could wait for ever.
    if not stat.S_ISREG(status.st_mode):
        raise SliceError("not a regular file")
    if status.st_size > MAX_BYTES:
        raise SliceError(f"too large: {status.st_size:,} bytes, the limit is {MAX_BYTES:,}")
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield file, status.st_size
    finally:
        os.close(file)


def _read_header(data: bytes, keywords: tuple[str, ...]) -> Header:
    """What ``keywords`` name; pydicom's dcmread does the same, but inflates without a limit."""
    if not data:
        raise SliceError("an empty file")
    try:
        if data[128:132] != b"DICM":
            raise SliceError("not a DICOM file")
        syntax, start = _transfer_syntax(data, 132)
        if syntax == DeflatedExplicitVRLittleEndian:
            data, start = _inflate(memoryview(data)[start:]), 0
        plain = syntax == ExplicitVRLittleEndian and _read_plain(data, start, keywords)
        header, _ = plain or _read_any(data, start, syntax, specific_tags=[*map(Tag, keywords)])
        return header
    except (SliceError, MemoryError):
        raise
    except Exception as error:  # pydicom raises many kinds on damaged files
        raise SliceError(f"unreadable: {one_line(error)}") from error


def _read_any(data: bytes, start: int, syntax: UID, **options) -> tuple[Header, int]:
    """What pydicom's read_dataset gives of the data set that starts there, and where it ended."""
    file = BytesIO(data)
    file.seek(start)
    dataset = read_dataset(file, syntax.is_implicit_VR, syntax.is_little_endian, **options)
    elements = {int(tag): element for tag, element in dataset.items()}
    return Header(elements, syntax, dataset.original_character_set), file.tell()


def _read_plain(
    data: bytes, start: int, keywords: tuple[str, ...], group: int | None = None
) -> tuple[Header, int] | None:
    """What `_read_any` gives of Explicit VR Little Endian, in a quarter of the time.

    Args:
        data: the file.
        start: where its data set starts.
        keywords: what to read.
        group: the data set ends before the first element of another one.

    Returns:
        None where anything is unusual: an unknown VR, an undefined length, an empty element among
        ``keywords``, or one that ends beyond the file.
    """
    wanted = _wanted(keywords)
    found = {}
    place, end = start, len(data)
    while place + 8 <= end:
        number, vr, length = _ELEMENT.unpack_from(data, place)
        if group and group != number & 0xFFFF:
            break
        place += 8
        if vr not in _SHORT_VRS:
            if vr not in _LONG_VRS or place + 4 > end:
                return None
            (length,) = _LONG_LENGTH.unpack_from(data, place)
            place += 4
        content, place = place, place + length
        if place > end or number & 0xFFFF == 0xFFFE:
            return None
        if tag := wanted.get(number):
            if not length:
                return None
            # Pixels are not copied.
            value = memoryview(data)[content:place] if vr == b"OW" else data[content:place]
            found[int(tag)] = RawDataElement(tag, vr.decode(), length, value, content, False, True)
    charset = default_encoding
    if element := found.get(CHARSET):
        charset = _charset(element.VR, element.value)
    return Header(found, ExplicitVRLittleEndian, charset), place


@cache
def _wanted(keywords: tuple[str, ...]) -> dict[int, BaseTag]:
    """Their tags and the character set's, by the number that a tag's four bytes are read as."""
    tags = [*map(Tag, keywords), CHARSET]
    return {tag.element << 16 | tag.group: tag for tag in tags}


@lru_cache(64)
def _charset(vr: str, value: bytes) -> str | list[str]:
    """The names that pydicom has for a SpecificCharacterSet."""
    element = RawDataElement(CHARSET, vr, len(value), value, 0, False, True)
    return convert_encodings(convert_raw_data_element(element).value)


def _transfer_syntax(data: bytes, start: int) -> tuple[UID, int]:
    """The encoding of what follows the file's meta information, and where that starts."""
    meta, end = _read_plain(data, start, META_KEYWORDS, 2) or _read_any(
        data, start, ExplicitVRLittleEndian, stop_when=_is_beyond_file_meta
    )
    syntax = meta.get("TransferSyntaxUID")
    if not syntax:
        raise SliceError("no TransferSyntaxUID")
    if syntax not in DECODERS:
        raise SliceError(f"no decoder for this encoding: {one_line(UID(syntax).name)}")
    return UID(syntax), end


def _is_beyond_file_meta(tag, _vr, _length) -> bool:
    return tag.group != 2


def _inflate(deflated: bytes) -> bytes:
    inflating = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = inflating.decompress(deflated, MAX_BYTES + 1)
    if len(inflated) > MAX_BYTES:
        raise SliceError(f"too large: more than {MAX_BYTES:,} bytes when inflated")
    if not inflating.eof:
        raise SliceError("unreadable: the deflated data ends early")
    return inflated


#: What `check_is_ct_slice` looks at.
KIND_KEYWORDS = (
    "Modality", "SOPClassUID", "ImageType", "NumberOfFrames", "PhotometricInterpretation",
    "PixelData",
)  # fmt: skip
#: What `rescale` looks at.
SCALE_KEYWORDS = ("RescaleSlope", "RescaleIntercept", "RescaleType")


def check_is_ct_slice(header: Header) -> None:
    """Checks what kind of image a file holds, by the elements KIND_KEYWORDS of its header.

    Raises:
        SliceError: it is no single slice of CT; the message says what it is.
    """
    if header.get("Modality") != "CT":
        raise SliceError(f"Modality is not CT: {one_line(header.get('Modality'))}")
    storage = header.get("SOPClassUID") or CTImageStorage
    if storage != CTImageStorage:
        raise SliceError(f"SOPClassUID is not CT Image Storage: {one_line(UID(storage).name)}")
    if "LOCALIZER" in (header.get("ImageType") or []):
        raise SliceError("a localizer, not a slice")
    if int(header.get("NumberOfFrames") or 1) != 1:
        raise SliceError(f"more than one frame: {header['NumberOfFrames']}")
    if not header.get("PixelData"):
        raise SliceError("no PixelData")
    if header.get("PhotometricInterpretation") != "MONOCHROME2":
        raise SliceError(
            "PhotometricInterpretation is not MONOCHROME2: "
            + one_line(header.get("PhotometricInterpretation"))
        )


def rescale(header: Header) -> tuple[float, float]:
    """Slope and intercept from stored values to Hounsfield units, of the elements SCALE_KEYWORDS.

    Raises:
        SliceError: without usable ones the unit is unknown.
    """
    slope = header.number("RescaleSlope")
    intercept = header.number("RescaleIntercept")
    if not slope or intercept is None or max(abs(slope), abs(intercept)) > MAX_RESCALE:
        raise SliceError(f"no Hounsfield units: RescaleSlope {slope}, RescaleIntercept {intercept}")
    if header.get("RescaleType") in OTHER_SCALES:
        raise SliceError(f"no Hounsfield units: RescaleType {header['RescaleType']}")
    return slope, intercept


def hounsfield(stored: np.ndarray, header: Header) -> np.ndarray:
    """Stored values to Hounsfield units by the file's own slope and intercept.

    Args:
        stored: (rows, columns) integers as decoded.
        header: the file's RescaleSlope, RescaleIntercept, RescaleType and, if any,
            PixelPaddingValue and PixelPaddingRangeLimit.

    Returns:
        (rows, columns) float32, padding set to air.

    Raises:
        SliceError: without a usable slope and intercept the unit is unknown.
    """
    slope, intercept = rescale(header)
    values = stored.astype(np.float32)
    if slope != 1:
        values *= np.float32(slope)
    values += np.float32(intercept)
    ends = [
        _as_stored(header.number(keyword), stored.dtype)
        for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit")
    ]
    if ends[0] is not None:
        padding, limit = ends[0], ends[0] if ends[1] is None else ends[1]
        # As integers, which are compared six times as fast.
        low, high = math.ceil(min(padding, limit)), math.floor(max(padding, limit))
        padded = stored == low if low == high else (stored >= low) & (stored <= high)
        np.copyto(values, AIR_HU, where=padded)
    return values


def _as_stored(padding: float | None, dtype: np.dtype) -> float | None:
    """A padding value as it lies among the pixels.

    Scanners write it with the other sign: 63536 beside signed pixels has the bits of −2000.
    """
    if padding is None or dtype.itemsize != 2:
        return padding
    limits = np.iinfo(dtype)
    if limits.min <= padding <= limits.max:
        return padding
    return float(np.array(int(padding) & 0xFFFF, np.uint16).view(dtype.newbyteorder("=")))


def resample(values: np.ndarray) -> np.ndarray:
    """Area-averages a slice onto the stored grid.

    Args:
        values: (rows, columns) float32, Hounsfield units; made square by air around it.

    Returns:
        (256, 256) int16, Hounsfield units.
    """
    rows, columns = values.shape
    if rows != columns:
        side = max(rows, columns)
        square = np.full((side, side), AIR_HU, np.float32)
        top, left = (side - rows) // 2, (side - columns) // 2
        square[top : top + rows, left : left + columns] = values
        values = square
    if len(values) != SIZE:
        values = cv2.resize(values, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    values = np.rint(values)
    return values.clip(_INT16.min, _INT16.max, out=values).astype(np.int16)


def image_corner(header: Header) -> list[float] | None:
    """ImagePositionPatient, three numbers in mm; None where it is missing or not that."""
    try:
        corner = header.numbers("ImagePositionPatient")
    except (OverflowError, TypeError, ValueError):
        return None
    return corner if len(corner) == 3 and all(map(math.isfinite, corner)) else None


def position_along_scan(corner: list[float] | None, axes: Axes | None) -> float | None:
    """Signed distance of the slice along its normal, in mm; None without one of the arguments.

    The normal is turned so that its largest component is positive: an axial series then runs from
    the feet to the head, however the scanner laid the patient's axes.

    Args:
        corner: of `image_corner`.
        axes: of `clotline.orientation.image_axes`.
    """
    if corner is None or axes is None:
        return None
    normal = cross(*axes)
    along = sum(place * part for place, part in zip(corner, normal, strict=True))
    position = along / math.hypot(*normal)
    if not math.isfinite(position):
        return None
    return position if max(normal, key=abs) > 0 else -position
