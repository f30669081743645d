"""NIfTI and NRRD volumes: each slice is read as if it were a DICOM file of its own.

They have no UIDs and no unit of their values, and their axes may run anywhere. So a volume is cut
across the axis that is nearest to the patient's long one, and what its geometry says is put where a
DICOM file has the same: all else reads both alike. Values must be Hounsfield units.

Formats: NIfTI-1 and -2 (https://nifti.nimh.nih.gov), whose coordinates rise to the right, front and
head; NRRD (https://teem.sourceforge.net/nrrd/format.html), which says where they rise.
"""

import bz2
import gzip
import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import permutations, product
from pathlib import Path

import numpy as np
from pydicom.dataelem import RawDataElement
from pydicom.uid import ExplicitVRLittleEndian

from clotline.data.dicom.header import Header, put_element
from clotline.data.dicom.pixels import MAX_SIDE
from clotline.data.dicom.reader import file_size, file_version, read_part
from clotline.data.dicom.rejection import SliceError, one_line
from clotline.grid import AIR_HU

#: Largest volume that is packed within its file, which must be in memory as a whole, in bytes.
MAX_PACKED = 4 * 2**30

#: A volume without any value below this in HU holds no air, so its values are something else.
_AIR_AT_MOST = -500

#: How far a volume may lie apart by the two forms of a NIfTI, in mm, before it is remarked on.
MAX_APART_MM = 1.0

#: Steps of a stored value in one HU: more than any use of it can tell apart.
_STEPS = 256

_INT16 = np.iinfo(np.int16)

#: mm in a unit of length, by NIfTI's names and NRRD's.
_MM = {"unknown": 1, "": 1, "mm": 1, "meter": 1000, "m": 1000, "micron": 0.001, "um": 0.001}

#: NRRD's names of types, by numpy's codes.
_NRRD_TYPES = {
    "i1": ("signed char", "int8"),
    "u1": ("uchar", "unsigned char", "uint8"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16"),
    "i4": ("int", "signed int", "int32"),
    "u4": ("uint", "unsigned int", "uint32"),
    "i8": ("longlong", "long long", "long long int", "signed long long", "int64"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64"),
    "f4": ("float",),
    "f8": ("double",),
}

#: Whether coordinates rise to the left, back and head, as DICOM's do, by NRRD's names of spaces.
_SPACES = {
    "left-posterior-superior": (1, 1, 1), "lps": (1, 1, 1),
    "right-anterior-superior": (-1, -1, 1), "ras": (-1, -1, 1),
    "left-anterior-superior": (1, -1, 1), "las": (1, -1, 1),
}  # fmt: skip


class VolumeFile:
    """One volume.

    Attributes:
        count: of its slices.
    """

    def __init__(self, path: str | Path):
        """Reads the header, and looks whether the values can be Hounsfield units.

        Raises:
            SliceError: it is no NIfTI or NRRD volume, one that is damaged or not of three
                dimensions, one that does not say where it lies, or one of other values.
        """
        try:
            self._remarks: list[str] = []
            is_nrrd = read_part(path, 0, 4) == b"NRRD"
            array, affine = (_read_nrrd if is_nrrd else _read_nifti)(path, self._remarks)
            self._slope, self._intercept, array = array
            self._cut(array, affine)
        except (SliceError, MemoryError):
            raise
        except Exception as error:  # readers raise many types on damaged files
            raise SliceError(f"unreadable: {one_line(error)}") from error
        self._check_values()

    def frame(self, number: int) -> Header:
        """What a DICOM file of one slice would hold.

        Args:
            number: from 1.

        Raises:
            SliceError: there is no such slice.
        """
        if not 1 <= number <= self.count:
            raise SliceError(f"no such slice: {number}; the volume has {self.count:,}")
        hu = self._values(number - 1)
        lacking = np.isnan(hu)
        hu[lacking] = AIR_HU
        stored = np.rint(hu.clip(_INT16.min, _INT16.max) * _STEPS).astype("<i4")
        corner = self._affine[:3, 2] * (number - 1) + self._affine[:3, 3]
        rows, columns = stored.shape
        # Of the two axes the one along a row comes first in orientation, and last in spacing.
        elements: dict[int, RawDataElement] = {}
        for keyword, vr, value in (
            ("SOPInstanceUID", "UI", str(number)),
            ("Modality", "CS", "CT"),
            ("InstanceNumber", "IS", str(number)),
            ("ImagePositionPatient", "DS", _numbers(corner)),
            ("ImageOrientationPatient", "DS", _numbers(self._directions[:2].ravel())),
            ("PixelSpacing", "DS", _numbers(self._spacing[1::-1])),
            ("PhotometricInterpretation", "CS", "MONOCHROME2"),
            ("RescaleSlope", "DS", repr(1 / _STEPS)),
            ("RescaleIntercept", "DS", "0"),
        ):  # fmt: skip
            put_element(elements, keyword, vr, value.encode())
        for keyword, count in (
            ("SamplesPerPixel", 1),
            ("Rows", rows),
            ("Columns", columns),
            ("BitsAllocated", 32),
            ("BitsStored", 32),
            ("HighBit", 31),
            ("PixelRepresentation", 1),
        ):
            put_element(elements, keyword, "US", count.to_bytes(2, "little"))
        put_element(elements, "PixelData", "OW", stored.tobytes())
        header = Header(elements, ExplicitVRLittleEndian, "iso8859")
        header.remarks += self._remarks
        if lacking.any():
            header.remarks.append("values that are not a number: taken as air")
        return header

    def _cut(self, array: np.ndarray, affine: np.ndarray) -> None:
        """Puts the axes in the order columns, rows, slices, and keeps where they lead."""
        if array.ndim < 3 or any(n != 1 for n in array.shape[3:]):
            sizes = " × ".join(map(str, array.shape))
            raise SliceError(f"a volume of {array.ndim} dimensions ({sizes}): three are needed")
        if array.dtype.kind not in "iuf":
            raise SliceError(f"values that are no numbers: {array.dtype}")
        array = array[(slice(None),) * 3 + (0,) * (array.ndim - 3)]
        steps = affine[:3, :3]
        if not np.isfinite(affine).all() or abs(np.linalg.det(steps)) < 1e-9:
            raise SliceError("no usable geometry: its axes do not span a space")
        # Which axis is the patient's left-right, front-back and feet-head one, all three together.
        lengths = np.linalg.norm(steps, axis=0)
        along = np.abs(steps / lengths)
        order = max(
            permutations(range(3)), key=lambda axes: math.prod(along[k, axes[k]] for k in range(3))
        )
        self._array = array.transpose(order)
        self._affine = affine[:, [*order, 3]]
        self._spacing = lengths[list(order)]
        self._directions = (self._affine[:3, :3] / self._spacing).T
        self.count = int(self._array.shape[2])
        if not self.count or max(self._array.shape[:2]) > MAX_SIDE:
            raise SliceError(
                f"Rows or Columns out of range: {self._array.shape[1]} × {self._array.shape[0]} is "
                f"not within 1 to {MAX_SIDE}"
            )

    def _values(self, number: int, step: int = 1) -> np.ndarray:
        """One slice in Hounsfield units, (rows, columns) float64."""
        values = self._array[::step, ::step, number].T.astype(np.float64)
        return values * self._slope + self._intercept

    def _check_values(self) -> None:
        looked_at = np.linspace(0, self.count - 1, min(9, self.count)).round().astype(int)
        values = np.stack([self._values(number, 4) for number in looked_at])
        if np.isnan(values).all():
            raise SliceError("no Hounsfield units: no value is a number")
        low, high = float(np.nanmin(values)), float(np.nanmax(values))
        if low > _AIR_AT_MOST:
            raise SliceError(
                f"no Hounsfield units: values of {low:g} to {high:g}, where air has -1000"
            )


def is_volume(path: str | Path) -> bool:
    """Whether a file begins like a NIfTI or NRRD volume.

    Raises:
        SliceError: it is missing or unreadable.
    """
    start = read_part(path, 0, 352)
    return start.startswith(b"NRRD") or start[344:348] in (b"n+1\0", b"ni1\0") or (
        start[4:8] in (b"n+2\0", b"ni2\0")
    )  # fmt: skip


def volume_file(path: str | Path) -> VolumeFile:
    """A volume; the last one that was asked for is at hand.

    Raises:
        SliceError: as of `VolumeFile`.
    """
    return _remembered(str(path), file_version(path))


@lru_cache(1)
def _remembered(path: str, _version: tuple) -> VolumeFile:
    return VolumeFile(path)


#: Slope and intercept of stored values, and these, in the order of their axes.
_Scaled = tuple[float, float, np.ndarray]


def _read_nifti(path: str | Path, remarks: list[str]) -> tuple[_Scaled, np.ndarray]:
    # Imported here: it takes half a second, and few folders hold a volume.
    from nibabel import Nifti1Image, Nifti2Image
    from nibabel.fileholders import FileHolder

    start = read_part(path, 0, 348)
    if b"ni1\0" in start[344:348] or start[4:8] == b"ni2\0":
        raise SliceError("a volume in two files (hdr and img): convert it to one, .nii")
    image_class = Nifti1Image if start[344:347] == b"n+1" else Nifti2Image
    image = image_class.from_file_map({"image": FileHolder(filename=str(path))}, mmap="r")
    header = image.header
    if not header["qform_code"] and not header["sform_code"]:
        remarks.append("no orientation (qform and sform are 0): left and right are not known")
    length, _ = header.get_xyzt_units()
    apart = _forms_apart(image) * _mm(length)
    if apart > MAX_APART_MM:
        remarks.append(
            f"qform and sform lay it up to {apart:.0f} mm apart: the sform is taken, and programs "
            "that take the qform (ITK's, mostly) put it and its masks elsewhere"
        )
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.affine
    affine[:3] *= _mm(length)
    data = image.dataobj
    if data.offset < image_class.header_class.sizeof_hdr:
        raise SliceError(f"unreadable: its values begin within its header, at {data.offset} bytes")
    return (float(data.slope), float(data.inter), data.get_unscaled()), affine


def _forms_apart(image) -> float:
    """How far a corner of a NIfTI's outermost voxels lies apart by its two forms, in its units."""
    try:
        forms = image.get_qform(coded=True)[0], image.get_sform(coded=True)[0]
    except ValueError:  # no rotation has such a quaternion; the sform is taken anyway
        return 0.0
    if any(form is None for form in forms):
        return 0.0
    ends = [(0, count - 1) for count in (*image.shape, 1, 1, 1)[:3]]
    corners = np.array([(*corner, 1) for corner in product(*ends)])
    return float(np.linalg.norm((corners @ (forms[0] - forms[1]).T)[:, :3], axis=1).max())


def _read_nrrd(path: str | Path, _remarks: list[str]) -> tuple[_Scaled, np.ndarray]:
    import nrrd

    with Path(path).open("rb") as file:
        header = nrrd.read_header(file)
        if "data file" in header or "datafile" in header:
            raise SliceError("a volume in two files (a detached NRRD header): convert it to one")
        if int(header.get("byte skip", 0)) or int(header.get("line skip", 0)):
            raise SliceError("an NRRD with a skip before its data: convert it to one without")
        sizes = tuple(int(size) for size in header["sizes"])
        dtype = _nrrd_dtype(header)
        needed = math.prod(sizes) * dtype.itemsize
        start, encoding = file.tell(), header["encoding"].lower()
        if encoding == "raw":
            if start + needed > file_size(path):
                raise SliceError("unreadable: the file ends before its values do")
            array = np.memmap(path, dtype, "r", start, sizes, order="F")
        else:
            array = np.frombuffer(_unpacked(file, encoding, needed), dtype)
            array = array.reshape(sizes, order="F")
    return (1.0, 0.0, array), _nrrd_affine(header)


def _nrrd_dtype(header: dict) -> np.dtype:
    name = " ".join(str(header["type"]).lower().removesuffix("_t").split())
    code = next((code for code, names in _NRRD_TYPES.items() if name in names), None)
    if code is None:
        raise SliceError(f"an NRRD of a type that is not read: {one_line(name)}")
    order = ">" if str(header.get("endian", "little")).lower() == "big" else "<"
    return np.dtype(f"{order}{code}")


def _unpacked(file, encoding: str, needed: int) -> bytes:
    """The values of an NRRD that are packed within it: no more than there must be."""
    opener = {"gzip": gzip.open, "gz": gzip.open, "bzip2": bz2.open, "bz2": bz2.open}.get(encoding)
    if opener is None:
        raise SliceError(f"an NRRD in an encoding that is not read: {one_line(encoding)}")
    if needed > MAX_PACKED:
        raise SliceError(
            f"too large: {needed:,} bytes of packed values, the limit is {MAX_PACKED:,}"
        )
    with opener(file) as content:
        values = content.read(needed)
    if len(values) != needed:
        raise SliceError("unreadable: the file ends before its values do")
    return values


def _nrrd_affine(header: dict) -> np.ndarray:
    """Where an NRRD's axes lead in DICOM's coordinates, in mm."""
    space = str(header.get("space", "")).lower()
    if space not in _SPACES or "space directions" not in header:
        raise SliceError(f"no orientation: the NRRD's space is {one_line(space) or 'not named'}")
    directions = np.asarray(header["space directions"], float)[:3]
    if directions.shape != (3, 3) or not np.isfinite(directions).all():
        raise SliceError("a volume whose first three axes are not all of space: convert it")
    affine = np.eye(4)
    affine[:3, :3] = directions.T
    affine[:3, 3] = np.asarray(header.get("space origin", (0, 0, 0)), float)
    units = header.get("space units") or [""]
    affine[:3] *= _mm(str(units[0]))
    return np.diag([*map(float, _SPACES[space]), 1.0]) @ affine


def _mm(unit: str) -> float:
    try:
        return _MM[unit.strip('"').lower()]
    except KeyError:
        raise SliceError(f"an unknown unit of length: {one_line(unit)}") from None


def _numbers(values: Sequence[float]) -> str:
    return "\\".join(repr(float(value)) for value in values)
