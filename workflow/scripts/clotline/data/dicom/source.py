"""The instances that results refer to, with what a result in the same study must repeat of them.

Here alone a patient's name and number are read. They go into DICOM results, which an archive could
not file without them, and nowhere else: no table, log or page, and no error tells them.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.valuerep import DA, TM

from clotline.data.dicom.ct_slice import image_corner
from clotline.data.dicom.header import Header
from clotline.data.dicom.multiframe import read_frames, read_image
from clotline.data.dicom.orientation import image_axes, patient_orientation
from clotline.data.dicom.placement import Plane, stored_plane
from clotline.data.dicom.rejection import SliceError
from clotline.data.dicom.volume import VolumeFile
from clotline.grid import PICTURE, SIZE, Box
from clotline.labels import FRAME_MARK

#: What is the same in all of a patient and of a study: PS3.3, C.7.1.1 and C.7.2.1, types 1 and 2.
_PATIENT_KEYWORDS = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex")
_STUDY_KEYWORDS = (
    "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "StudyID",
)  # fmt: skip
#: Strict enough to be written, and no stricter: scanners write components that begin with 0.
_UID = re.compile(r"[0-9.]{1,64}")
#: Without these nothing can refer to an instance.
_UID_KEYWORDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")

_KEYWORDS = (
    "SOPClassUID", *_UID_KEYWORDS, "FrameOfReferenceUID", "PositionReferenceIndicator", "Modality",
    "Rows", "Columns", "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient",
    "SliceThickness", *_PATIENT_KEYWORDS, *_STUDY_KEYWORDS,
)  # fmt: skip

#: What reads an element that is no free text; what it cannot read no result may have.
_READ = {"PatientBirthDate": DA, "StudyDate": DA, "StudyTime": TM, "PatientSex": "MFO".index}


@dataclass(frozen=True)
class Source:
    """One slice's source instance.

    Attributes:
        dataset: the elements that results repeat or refer to; text as UTF-8.
        frame: number of the frame in it; 0 where it is one slice.
        plane: where the stored slice lies; None where the file does not say.
        size: side of the stored slice, in pixels.
    """

    dataset: Dataset
    frame: int
    plane: Plane | None
    size: int = SIZE

    @property
    def file(self) -> str:
        """The file of many frames that one map is of; empty of all files of one slice together."""
        return self.dataset.SOPInstanceUID if self.frame else ""


def read_source(path: str | Path, frame: int = 0, size: int = SIZE, box: Box = PICTURE) -> Source:
    """The source instance of a slice.

    Args:
        path: its file.
        frame: number of the frame in it, from 1; 0 where the file is one slice.
        size: side of the stored slice, in pixels.
        box: the part of the picture that it shows.

    Raises:
        SliceError: the file cannot be read, or is no DICOM instance that can be referred to.
    """
    image = (read_frames if frame else read_image)(path, _KEYWORDS)
    if isinstance(image, VolumeFile):
        raise SliceError("a NIfTI or NRRD volume: there are no DICOM instances to refer to")
    header = image if isinstance(image, Header) else image.frame(frame or 1)
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    for keyword in ("SOPClassUID", *_UID_KEYWORDS):
        uid = str(header.get(keyword) or "").partition(FRAME_MARK)[0]
        if not _UID.fullmatch(uid):
            raise SliceError(f"no valid {keyword} in the files to refer to")
        setattr(dataset, keyword, uid)
    reference = str(header.get("FrameOfReferenceUID") or "")
    if _UID.fullmatch(reference):
        dataset.FrameOfReferenceUID = reference
    for keyword in (*_PATIENT_KEYWORDS, *_STUDY_KEYWORDS):
        setattr(dataset, keyword, _text(header, keyword))
    dataset.Modality = "CT"
    dataset.PositionReferenceIndicator = ""
    dataset.Rows, dataset.Columns = int(header["Rows"]), int(header["Columns"])
    return Source(dataset, frame, _plane(header, size, box), size)


def _text(header: Header, keyword: str) -> str:
    """An element's one value; empty where it has none, or one that no result may have."""
    try:
        value = header.get(keyword)
        text = "" if value is None or _is_several(value) else str(value).strip(" \0")
        if text and keyword in _READ:
            read = _READ[keyword](text)
            # Old files have dots in their dates, which results may not have.
            return read.strftime("%Y%m%d") if isinstance(read, DA) else text
        return text
    except Exception:  # pydicom converts values when they are asked for
        return ""


def _is_several(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _plane(header: Header, size: int, box: Box) -> Plane | None:
    corner, axes = image_corner(header), image_axes(header)
    try:
        spacing = [float(mm) for mm in header.numbers("PixelSpacing")]
    except (OverflowError, TypeError, ValueError):
        return None
    if corner is None or axes is None or len(spacing) != 2 or min(spacing) <= 0:
        return None
    matrix = int(header["Rows"]), int(header["Columns"])
    orientation = patient_orientation(axes)
    return stored_plane(matrix, tuple(spacing), corner, axes, orientation, size, box)
