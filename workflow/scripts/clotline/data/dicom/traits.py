"""What tells the scans within one series apart, as the header of each slice says it."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from clotline.data.dicom.header import Header
from clotline.data.dicom.orientation import image_axes

#: What `traits_of` looks at, beside positions.
TRAIT_KEYWORDS = (
    "ImageType", "Rows", "Columns", "PixelSpacing", "ConvolutionKernel",
    "SliceThickness", "AcquisitionNumber", "TemporalPositionIdentifier", "StackID",
    "FrameOfReferenceUID", "AcquisitionTime", "InstanceNumber", "SliceLocation",
)  # fmt: skip


@dataclass(frozen=True)
class Traits:
    """What tells the scans of a series apart, as a header says it; None or empty where it does not.

    Attributes:
        position: along the scan axis, in mm.
        location: SliceLocation, in mm.
        instance: InstanceNumber.
        time: AcquisitionTime as a number, hhmmss.
        image_type: ImageType.
        axes: the six numbers of ImageOrientationPatient, to hundredths.
        matrix: rows and columns.
        spacing: mm between rows and between columns.
        kernel: ConvolutionKernel.
        thickness: SliceThickness in mm.
        acquisition: AcquisitionNumber.
        temporal: TemporalPositionIdentifier.
        stack: StackID.
        frame: FrameOfReferenceUID.
    """

    position: float | None = None
    location: float | None = None
    instance: float | None = None
    time: float | None = None
    image_type: tuple[str, ...] = ()
    axes: tuple[float, ...] | None = None
    matrix: tuple[int, ...] = ()
    spacing: tuple[float, ...] = ()
    kernel: str = ""
    thickness: float | None = None
    acquisition: float | None = None
    temporal: float | None = None
    stack: str = ""
    frame: str = ""

    @property
    def field_mm(self) -> float | None:
        """The longer side of the picture in mm; None where it is not known."""
        if len(self.spacing) != 2 or len(self.matrix) != 2:
            return None
        return max(n * mm for n, mm in zip(self.matrix, self.spacing, strict=True))


def traits_of(header: Header, position: float | None) -> Traits:
    """The traits of a file.

    Args:
        header: with the elements of TRAIT_KEYWORDS and its ImageOrientationPatient.
        position: of `clotline.data.dicom.ct_slice.position_along_scan`.
    """
    axes = image_axes(header)
    image_type = header.get("ImageType") or ()
    image_type = (image_type,) if isinstance(image_type, str) else tuple(map(str, image_type))
    rounded = None
    if axes is not None:
        rounded = tuple(round(part, 2) + 0 for axis in axes for part in axis)
    return Traits(
        position=_rounded(position, 2),
        location=_rounded(header.number("SliceLocation"), 2),
        instance=header.number("InstanceNumber"),
        time=_time(header),
        image_type=image_type,
        axes=rounded,
        matrix=tuple(v for v in (header.get("Rows"), header.get("Columns")) if isinstance(v, int)),
        spacing=_spacing(header),
        kernel=joined(header.get("ConvolutionKernel")),
        thickness=_rounded(header.number("SliceThickness"), 2),
        acquisition=header.number("AcquisitionNumber"),
        temporal=header.number("TemporalPositionIdentifier"),
        stack=joined(header.get("StackID")),
        frame=joined(header.get("FrameOfReferenceUID")),
    )


def _rounded(value: float | None, digits: int) -> float | None:
    # Adding 0 makes 0 of -0.
    return None if value is None else round(value, digits) + 0


def _time(header: Header) -> float | None:
    try:
        return float(joined(header.get("AcquisitionTime")))
    except ValueError:
        return None


def _spacing(header: Header) -> tuple[float, ...]:
    """PixelSpacing to a thousandth of a mm, or nothing."""
    try:
        spacing = header.numbers("PixelSpacing")
    except (OverflowError, TypeError, ValueError):
        return ()
    if len(spacing) != 2 or not all(math.isfinite(mm) and mm > 0 for mm in spacing):
        return ()
    return tuple(round(mm, 3) for mm in spacing)


def joined(values: object) -> str:
    """One or several values of an element as one text."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        return "" if values is None else str(values)
    return " ".join(map(str, values))
