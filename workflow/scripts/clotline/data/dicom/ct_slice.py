"""One CT slice from a DICOM file: Hounsfield units on the grid that the networks use.

Terms and tags are those of DICOM PS3.3, C.7.6.2 (Image Plane), C.8.2.1 (CT Image) and C.7.5.1.1.2
(Pixel Padding).
"""

import math
import re
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from pydicom.uid import UID, CTImageStorage

from clotline.data.dicom.header import Header
from clotline.data.dicom.multiframe import (
    ENHANCED,
    EnhancedFile,
    read_frames,
    read_image,
)
from clotline.data.dicom.orientation import (
    Axes,
    before_upright,
    cross,
    image_axes,
    patient_orientation,
    upright,
)
from clotline.data.dicom.pixels import decode
from clotline.data.dicom.rejection import SliceError, one_line
from clotline.data.dicom.traits import TRAIT_KEYWORDS, Traits, joined, traits_of
from clotline.data.dicom.volume import VolumeFile
from clotline.errors import ClotlineError
from clotline.grid import AIR_HU, PICTURE, SIZE, Box
from clotline.labels import FRAME_MARK

# After one large block was freed, glibc keeps what a slice frees for the next slice, instead of
# giving it back to the kernel and asking for new pages every time.
np.empty(2**24, np.uint8)

#: All that is read of a file; what could identify a patient is not among it.
KEYWORDS = (
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "Modality", "ImageType",
    "InstanceNumber", "ImagePositionPatient", "ImageOrientationPatient", "SliceLocation",
    "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "Rows", "Columns",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    "PixelPaddingValue", "PixelPaddingRangeLimit",
    "RescaleIntercept", "RescaleSlope", "RescaleType",
    "ExtendedOffsetTable", "ExtendedOffsetTableLengths", "PixelData",
    "Manufacturer", "ManufacturerModelName", *TRAIT_KEYWORDS,
)  # fmt: skip

#: RescaleType (PS3.3, C.11.1.1.2) of Hounsfield units, or where the unit is said not to be
#: specified. Every other word is another unit: scanners write that of iodine maps as they like.
_HOUNSFIELD = re.compile(r"(HU|H|H\.U\.|HOUNSFIELD\b.*|US|UNSPECIFIED)?", re.IGNORECASE)

#: Largest ratio of a pixel's sides: what is longer is no image, and would take all memory.
MAX_ASPECT = 8

#: Slope and intercept beyond this are no scale of Hounsfield units, and would overflow.
MAX_RESCALE = 1e6

_INT16 = np.iinfo(np.int16)


@dataclass(frozen=True)
class Slice:
    """One decoded CT slice.

    Attributes:
        pixels: (size, size) int16, Hounsfield units, an axial slice turned as of
            `clotline.data.dicom.orientation.upright`; None once they are stored.
        orientation: where the file's own rows and columns run, of
            `clotline.data.dicom.orientation.patient_orientation`.
        position: along the scan axis, in mm, towards the head; None where the file has no position
            or orientation.
        height: of the centre of its first pixel above the patient's origin, in mm, or None.
        location: SliceLocation in mm, or None.
        instance: InstanceNumber, or None.
        series_uid: SeriesInstanceUID of the header, or an empty text.
        sop_uid: SOPInstanceUID of the header, or an empty text.
        remarks: what is wrong with the file and was put up with, a sentence each.
        scanner: maker and model, or an empty text.
        traits: what tells the scans of a series apart.
        shown: side of what the pixels show, as a share of the whole picture's longer side.
    """

    pixels: np.ndarray | None
    orientation: str
    position: float | None
    height: float | None
    location: float | None
    instance: float | None
    series_uid: str
    sop_uid: str
    remarks: tuple[str, ...] = ()
    scanner: str = ""
    traits: Traits = field(default_factory=Traits)
    shown: float = 1.0


def read_slice(
    path: str | Path, frame: int | None = None, size: int = SIZE, box: Box = PICTURE
) -> Slice:
    """Reads, decodes and resamples one file, or one slice of an Enhanced CT file or a volume.

    The UIDs in the header are not compared with those of the path, by which the labels file knows
    a slice: de-identification often gives new ones to one of the two, or the same to all slices.

    Args:
        path: the file.
        frame: number of the frame, from 1; None where the file is one slice.
        size: side of the pixels that are made of it.
        box: the part of the picture, as it is turned, that they show.

    Raises:
        SliceError: the file is missing, unreadable or too large, is no CT image, has no such frame,
            or has several of which none is named.
    """
    image = (read_image if frame is None else read_frames)(path, KEYWORDS)
    try:
        header = image if isinstance(image, Header) else _frame_of(image, frame)
        check_is_ct_slice(header)
        stored = decode(header)
        axes, corner = image_axes(header), image_corner(header)
        orientation = patient_orientation(axes)
        position = position_along_scan(corner, axes)
        traits = traits_of(header, position)
        part = before_upright(box, orientation)
        values = resample(hounsfield(stored, header), traits.spacing, size, part)
        return Slice(
            pixels=upright(values, orientation),
            orientation=orientation,
            position=position,
            height=corner and corner[2],
            location=header.number("SliceLocation"),
            instance=header.number("InstanceNumber"),
            series_uid=str(header.get("SeriesInstanceUID", "")),
            sop_uid=str(header.get("SOPInstanceUID", "")),
            remarks=tuple(header.remarks),
            scanner=one_line(
                " ".join(
                    joined(header.get(name)) for name in ("Manufacturer", "ManufacturerModelName")
                )
            ),
            traits=traits,
            shown=shown_side(stored.shape, traits.spacing, size, part),
        )
    except (SliceError, ClotlineError, MemoryError):
        raise
    except Exception as error:  # pydicom converts values when they are asked for
        raise SliceError(f"unreadable: {one_line(error)}") from error


def _frame_of(image: EnhancedFile | VolumeFile, frame: int | None) -> Header:
    if frame is None and image.count > 1:
        raise SliceError(
            f"more than one frame: {image.count:,}; name each as SOPInstanceUID{FRAME_MARK}number"
        )
    return image.frame(frame or 1)


#: What `check_is_ct_slice` looks at.
CHECKED_KEYWORDS = (
    "Modality", "SOPClassUID", "ImageType", "NumberOfFrames", "PhotometricInterpretation",
    "PixelData",
)  # fmt: skip
#: What `rescale` looks at.
SCALE_KEYWORDS = ("RescaleSlope", "RescaleIntercept", "RescaleType")


def check_is_ct_slice(header: Header) -> None:
    """Checks that a file holds a slice of CT, by the elements CHECKED_KEYWORDS of its header.

    Raises:
        SliceError: it is no single slice of CT; the message says what it is.
    """
    if header.get("Modality") != "CT":
        raise SliceError(f"Modality is not CT: {one_line(header.get('Modality'))}")
    storage = header.get("SOPClassUID") or CTImageStorage
    if storage != CTImageStorage and storage not in ENHANCED:
        raise SliceError(f"SOPClassUID is not CT Image Storage: {one_line(UID(storage).name)}")
    if "LOCALIZER" in (header.get("ImageType") or []):
        raise SliceError("a localizer, not a slice")
    if int(header.get("NumberOfFrames") or 1) != 1:
        raise SliceError(f"more than one frame: {header['NumberOfFrames']}")
    if not header.get("PixelData"):
        raise SliceError("no PixelData")
    # PS3.3, C.8.2.1.1.2 allows both; how bright a value is shown does not change what it says.
    if header.get("PhotometricInterpretation") not in ("MONOCHROME1", "MONOCHROME2"):
        raise SliceError(
            "PhotometricInterpretation is not MONOCHROME2 or MONOCHROME1: "
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
    unit = joined(header.get("RescaleType")).strip(" \0")
    if not _HOUNSFIELD.fullmatch(unit):
        raise SliceError(f"no Hounsfield units: RescaleType {one_line(unit)}")
    return slope, intercept


def hounsfield(stored: np.ndarray, header: Header) -> np.ndarray:
    """Stored values to Hounsfield units by the file's own slope and intercept.

    Args:
        stored: (rows, columns) integers as decoded.
        header: the file's RescaleSlope, RescaleIntercept, RescaleType and, if any,
            PixelPaddingValue and PixelPaddingRangeLimit.

    Returns:
        (rows, columns) float32; declared padding set to air.

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


def resample(
    values: np.ndarray, spacing: tuple[float, ...] = (), size: int = SIZE, box: Box = PICTURE
) -> np.ndarray:
    """Area-averages a slice, or a part of it, onto the stored grid.

    Args:
        values: (rows, columns) float32, Hounsfield units; made square by air around it.
        spacing: mm between rows and between columns: pixels that are not square are stretched until
            they are. Nothing where it is not known.
        size: side of the stored grid.
        box: the part, of whole pixels of the square.

    Returns:
        (size, size) int16, Hounsfield units.

    Raises:
        SliceError: no pixel has such sides.
    """
    if len(spacing) == 2 and not _are_sides_of_squares(spacing):
        values = _stretched(values, *spacing, size, box)
    rows, columns = values.shape
    if rows != columns:
        side = max(rows, columns)
        square = np.full((side, side), AIR_HU, np.float32)
        top, left = (side - rows) // 2, (side - columns) // 2
        square[top : top + rows, left : left + columns] = values
        values = square
    left, top, width = box.pixels(len(values))
    values = values[top : top + width, left : left + width]
    if width != size:
        values = cv2.resize(values, (size, size), interpolation=cv2.INTER_AREA)
    values = np.rint(values)
    return values.clip(_INT16.min, _INT16.max, out=values).astype(np.int16)


def shown_side(
    matrix: tuple[int, int], spacing: tuple[float, ...], size: int = SIZE, box: Box = PICTURE
) -> float:
    """Side of what `resample` shows of an image, as a share of the image's longer side.

    Args:
        matrix: rows and columns of the image.
        spacing: as for `resample`.
        size: as for `resample`.
        box: as for `resample`.
    """
    side = max(square_matrix(matrix, spacing, size, box) if len(spacing) == 2 else matrix)
    return box.pixels(side)[2] / side


def square_matrix(
    matrix: tuple[int, int], spacing: tuple[float, float], size: int = SIZE, box: Box = PICTURE
) -> tuple[int, int]:
    """Rows and columns of an image once its pixels are square.

    Args:
        matrix: rows and columns that it has.
        spacing: mm between rows and between columns.
        size: side of the stored grid.
        box: the part of the image that it shows.

    Returns:
        Those that it has where its pixels are square; else the longer side is such that the part's
        is that of the stored grid.
    """
    if _are_sides_of_squares(spacing):
        return matrix
    rows, columns = (count * mm for count, mm in zip(matrix, spacing, strict=True))
    scale = round(size / box.side) / max(rows, columns)
    return max(1, round(rows * scale)), max(1, round(columns * scale))


def _are_sides_of_squares(spacing: tuple[float, float]) -> bool:
    return math.isclose(*spacing, rel_tol=0.01)


def _stretched(
    values: np.ndarray, row_mm: float, column_mm: float, size: int, box: Box
) -> np.ndarray:
    """An image of square pixels, as of `square_matrix`."""
    aspect = max(row_mm, column_mm) / min(row_mm, column_mm)
    if aspect > MAX_ASPECT:
        raise SliceError(f"PixelSpacing cannot be: pixels of {row_mm:g} × {column_mm:g} mm")
    targets = square_matrix(values.shape, (row_mm, column_mm), size, box)
    for axis, (count, target) in enumerate(zip(values.shape, targets, strict=True)):
        size = (values.shape[1], target) if axis == 0 else (target, values.shape[0])
        # Averages where there are fewer pixels afterwards, else lines between their centres.
        way = cv2.INTER_AREA if target <= count else cv2.INTER_LINEAR
        values = cv2.resize(values, size, interpolation=way)
    return values


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
        axes: of `clotline.data.dicom.orientation.image_axes`.
    """
    if corner is None or axes is None:
        return None
    normal = cross(*axes)
    along = sum(coordinate * part for coordinate, part in zip(corner, normal, strict=True))
    position = along / math.hypot(*normal)
    if not math.isfinite(position):
        return None
    return position if max(normal, key=abs) > 0 else -position
