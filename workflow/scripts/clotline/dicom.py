"""One CT slice from a DICOM file: Hounsfield units on the grid that the networks use.

Terms and tags are those of DICOM PS3.3, C.7.6.2 (Image Plane), C.8.2.1 (CT Image) and C.7.5.1.1.2
(Pixel Padding).
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

#: Side of a stored slice, in pixels.
SIZE = 256

#: What lies outside the scanned field of view, in Hounsfield units.
AIR_HU = -1000


class SliceError(Exception):
    """Why a file cannot be stored as a slice; the message is the reason in the list of rejects."""


@dataclass(frozen=True)
class Slice:
    """One decoded CT slice.

    Attributes:
        pixels: (256, 256) int16, Hounsfield units.
        position: along the scan axis, in mm, towards the head; None where the file has no position
            or orientation.
        location: SliceLocation in mm, or None.
        instance: InstanceNumber, or None.
    """

    pixels: np.ndarray
    position: float | None
    location: float | None
    instance: int | None


def read_slice(path: str | Path) -> Slice:
    """Reads, decodes and resamples one file; the only place where a DICOM file is opened.

    Raises:
        SliceError: the file is missing, unreadable, or no single-frame CT image.
    """
    try:
        dataset = pydicom.dcmread(path)
    except FileNotFoundError:
        raise SliceError("no such file") from None
    except InvalidDicomError:
        raise SliceError("not a DICOM file") from None
    except Exception as error:  # pydicom raises many kinds on damaged files
        raise SliceError(f"unreadable: {type(error).__name__}: {error}") from error
    _check_is_ct_slice(dataset)
    try:
        stored = dataset.pixel_array
    except Exception as error:  # as do the decoders
        raise SliceError(f"pixels cannot be decoded: {type(error).__name__}: {error}") from error
    return Slice(
        pixels=resample(hounsfield(stored, dataset)),
        position=position_along_scan(dataset),
        location=_number(dataset, "SliceLocation"),
        instance=_number(dataset, "InstanceNumber"),
    )


def _check_is_ct_slice(dataset: Dataset) -> None:
    if "PixelData" not in dataset:
        raise SliceError("no PixelData")
    if dataset.get("Modality") != "CT":
        raise SliceError(f"Modality is {dataset.get('Modality')}, not CT")
    if "LOCALIZER" in (dataset.get("ImageType") or []):
        raise SliceError("a localizer, not a slice")
    if int(dataset.get("NumberOfFrames") or 1) != 1:
        raise SliceError(f"{dataset.NumberOfFrames} frames in one file")
    if dataset.get("PhotometricInterpretation") != "MONOCHROME2":
        raise SliceError(
            f"PhotometricInterpretation is {dataset.get('PhotometricInterpretation')}, "
            "not MONOCHROME2"
        )


def hounsfield(stored: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Stored values to Hounsfield units by the file's own slope and intercept.

    Args:
        stored: (rows, columns) integers as decoded.
        dataset: the file's RescaleSlope, RescaleIntercept and, if any, PixelPaddingValue and
            PixelPaddingRangeLimit.

    Returns:
        (rows, columns) float32, padding set to air.

    Raises:
        SliceError: without a usable slope and intercept the unit is unknown.
    """
    slope = _number(dataset, "RescaleSlope")
    intercept = _number(dataset, "RescaleIntercept")
    if not slope or intercept is None:
        raise SliceError(f"no Hounsfield units: RescaleSlope {slope}, RescaleIntercept {intercept}")
    values = stored.astype(np.float32) * np.float32(slope) + np.float32(intercept)
    padding = _number(dataset, "PixelPaddingValue")
    if padding is not None:
        limit = _number(dataset, "PixelPaddingRangeLimit")
        limit = padding if limit is None else limit
        values[(stored >= min(padding, limit)) & (stored <= max(padding, limit))] = AIR_HU
    return values


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
    limits = np.iinfo(np.int16)
    return np.clip(np.rint(values), limits.min, limits.max).astype(np.int16)


def position_along_scan(dataset: Dataset) -> float | None:
    """Signed distance of the slice along its normal, in mm; None where the tags are missing.

    The normal is turned so that its largest component is positive: an axial series then runs from
    the feet to the head, however the scanner laid the patient's axes.
    """
    try:
        origin = np.array(dataset.ImagePositionPatient, dtype=float)
        row, column = np.array(dataset.ImageOrientationPatient, dtype=float).reshape(2, 3)
        normal = np.cross(row, column)
        position = float(origin @ normal)
    except (AttributeError, TypeError, ValueError):
        return None
    if not np.isfinite(position) or not normal.any():
        return None
    return position if normal[np.argmax(np.abs(normal))] > 0 else -position


def _number(dataset: Dataset, keyword: str) -> float | None:
    """A numeric tag's value; None where it is missing, empty or not a finite number."""
    try:
        value = float(dataset[keyword].value)
    except (KeyError, TypeError, ValueError):
        return None
    return value if np.isfinite(value) else None
