"""Enhanced CT: a file of many frames, each read as if it were a file of its own.

What a frame has to say stands in functional groups, of its own or shared by all. They are put where
a file of one slice has the same, so that all else reads both alike. Only the header and one frame
are in memory at a time.

Terms and tags are those of DICOM PS3.3, A.38 and A.70 (Enhanced and Legacy Converted Enhanced CT),
C.7.6.16 (Multi-frame Functional Groups) and C.8.15 (Enhanced CT), and of PS3.5, A.4 (encapsulated
pixels).
"""

import os
import struct
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

from pydicom.datadict import keyword_dict
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.encaps import parse_basic_offsets, parse_fragments
from pydicom.tag import BaseTag
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    RLELossless,
)
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32

from clotline.data.dicom.header import UNDEFINED_LENGTH, Header, put_element
from clotline.data.dicom.pixels import image_shape, surplus_remark
from clotline.data.dicom.reader import (
    MAX_BYTES,
    NOT_DICOM,
    file_size,
    file_version,
    inflate,
    opened,
    read_elements,
    read_header,
    read_part,
    start_of_data_set,
)
from clotline.data.dicom.rejection import SliceError, one_line
from clotline.data.dicom.volume import VolumeFile, is_volume, volume_file
from clotline.labels import FRAME_MARK

#: Storage classes of files whose frames are slices of CT.
ENHANCED = (EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)

#: What is read beside the elements that are asked for.
_OWN_KEYWORDS = (
    "SOPClassUID", "SOPInstanceUID", "NumberOfFrames", "InstanceNumber", "Rows", "Columns",
    "SamplesPerPixel", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
    "ConcatenationUID", "InConcatenationNumber", "InConcatenationTotalNumber",
    "ExtendedOffsetTable", "ExtendedOffsetTableLengths",
)  # fmt: skip

#: Of them what a file of one slice does not have.
_OF_MANY = frozenset(
    keyword_dict[keyword]
    for keyword in (
        "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
        "ExtendedOffsetTable", "ExtendedOffsetTableLengths",
    )
)  # fmt: skip

#: Functional groups, and what is taken of each; where a file of one slice has it under another
#: name, or as another VR, with these.
_GROUPS: dict[str, dict[str, tuple[str, str] | None]] = {
    "PlanePositionSequence": {"ImagePositionPatient": None},
    "PlaneOrientationSequence": {"ImageOrientationPatient": None},
    "PixelMeasuresSequence": {"PixelSpacing": None, "SliceThickness": None},
    "PixelValueTransformationSequence": {
        "RescaleSlope": None, "RescaleIntercept": None, "RescaleType": None,
    },
    "CTImageFrameTypeSequence": {
        "FrameType": ("ImageType", "CS"), "VolumeBasedCalculationTechnique": None,
    },
    "CTReconstructionSequence": {"ConvolutionKernel": None},
    "FrameContentSequence": {
        "StackID": None,
        "FrameAcquisitionNumber": ("AcquisitionNumber", "IS"),
        "TemporalPositionIndex": ("TemporalPositionIdentifier", "IS"),
        "FrameAcquisitionDateTime": None,
    },
    "FrameAnatomySequence": {"AnatomicRegionSequence": None},
    # Where software that converts files of one slice puts all that has no group of its own.
    "UnassignedSharedConvertedAttributesSequence": {},
    "UnassignedPerFrameConvertedAttributesSequence": {},
}  # fmt: skip
_UNASSIGNED = (
    "UnassignedSharedConvertedAttributesSequence",
    "UnassignedPerFrameConvertedAttributesSequence",
)

#: Techniques that make no picture of another type.
_PLAIN_TECHNIQUES = ("", "NONE", "MPR")

#: Fragments of a frame, on average: beyond, a file is made to take long.
_MAX_FRAGMENTS = 1024

_PIXEL_DATA = keyword_dict["PixelData"]
_NO_OFFSETS = b"\xfe\xff\x00\xe0" + bytes(4)


class EnhancedFile:
    """One Enhanced CT file.

    Attributes:
        count: of its frames.
    """

    def __init__(self, path: str | Path, keywords: Sequence[str]):
        """Reads the header and looks where each frame lies.

        Args:
            path: the file.
            keywords: of the elements that `frame` gives.

        Raises:
            SliceError: the file is unreadable, ends early, is a part of a concatenation, has no
                groups for each of its frames, or is no Enhanced CT and larger than a file of one
                slice may be.
        """
        self._path = path
        self._wanted = frozenset(keyword_dict[keyword] for keyword in keywords)
        size = file_size(path)
        head = read_part(path, 0, min(size, MAX_BYTES))
        self._inflated: bytes | None = None
        try:
            declared, start = start_of_data_set(head)
            if declared == DeflatedExplicitVRLittleEndian:
                head = self._inflated = inflate(memoryview(head)[start:])
                start, size = 0, len(head)
            tags = (*keywords, *_OWN_KEYWORDS)
            self._header, end = read_elements(head, start, declared, tags, _is_pixel_data)
            self._check_class(size)
            if len(head) < end + 12:
                if size > len(head):
                    raise SliceError(f"too large: a header of more than {MAX_BYTES:,} bytes")
                raise SliceError("no PixelData")
            self.count = self._count()
            shared = self._header.get("SharedFunctionalGroupsSequence")
            self._shared: Dataset | None = shared[0] if shared else None
            self._frames = self._header.get("PerFrameFunctionalGroupsSequence") or []
            self._check_groups()
            self._locate(head, end, size)
        except (SliceError, MemoryError):
            raise
        except Exception as error:  # pydicom raises many types on damaged files
            raise SliceError(f"unreadable: {one_line(error)}") from error

    def frame(self, number: int) -> Header:
        """What a file of this frame alone would hold.

        Args:
            number: from 1.

        Raises:
            SliceError: there is no such frame, or it cannot be read.
        """
        if not 1 <= number <= self.count:
            raise SliceError(f"no such frame: {number}; the file has {self.count:,}")
        elements = {
            tag: element
            for tag, element in self._header.elements.items()
            if tag not in _OF_MANY and tag in self._wanted
        }
        own = self._frames[number - 1]
        elements |= self._of_all | _flattened(own)
        elements |= self._named(number)
        if _without_agent(own) or (_without_agent(self._shared) and not _usage(own)):
            elements.pop(keyword_dict["ContrastBolusAgentSequence"], None)
            _put(elements, "ContrastBolusAgent", "LO", "NONE")
        pixels, length, vr = self._pixels(number)
        elements[_PIXEL_DATA] = RawDataElement(
            BaseTag(_PIXEL_DATA), vr, length, pixels, 0, False, True
        )
        kept = {tag: element for tag, element in elements.items() if tag in self._wanted}
        header = Header(kept, self._header.syntax, self._header.charset)
        header.remarks += self._header.remarks
        return header

    @cached_property
    def _of_all(self) -> dict[int, DataElement | RawDataElement]:
        return _flattened(self._shared)

    def _named(self, number: int) -> dict[int, RawDataElement]:
        """What tells this frame from the file's others."""
        elements: dict[int, RawDataElement] = {}
        uid = str(self._header.get("SOPInstanceUID") or "")
        if uid and self.count > 1:
            uid = f"{uid}{FRAME_MARK}{number}"
        _put(elements, "SOPInstanceUID", "UI", uid)
        _put(elements, "NumberOfFrames", "IS", "1")
        # Frames count on within their file, which stays before the next one of its series.
        instance = (self._header.number("InstanceNumber") or 0.0) + (number - 1) / self.count
        _put(elements, "InstanceNumber", "DS", repr(instance))
        return elements

    def _check_class(self, size: int) -> None:
        storage = self._header.get("SOPClassUID")
        if storage not in ENHANCED:
            # What is of another class is named by that, of any size.
            if size > MAX_BYTES and storage in (None, "", CTImageStorage):
                raise SliceError(f"too large: {size:,} bytes, the limit is {MAX_BYTES:,}")
            name = one_line(UID(storage).name) if storage else "none"
            raise SliceError(f"SOPClassUID is not Enhanced CT Image Storage: {name}")

    def _count(self) -> int:
        total = self._header.number("InConcatenationTotalNumber")
        if self._header.get("ConcatenationUID") and total != 1:
            part = self._header.get("InConcatenationNumber") or "?"
            of = f" of {total:g}" if total else ""
            raise SliceError(f"a part of a concatenation: {part}{of}")
        count = self._header.number("NumberOfFrames")
        if not count or count < 1 or count != int(count):
            raise SliceError(f"no usable NumberOfFrames: {count}")
        return int(count)

    def _check_groups(self) -> None:
        if not self._frames and self._shared is None:
            raise SliceError("no functional groups: nothing says where its frames lie")
        if len(self._frames) != self.count:
            raise SliceError(
                f"functional groups are missing: {self.count:,} frames, "
                f"{len(self._frames):,} items in PerFrameFunctionalGroupsSequence"
            )

    def _locate(self, head: bytes, end: int, size: int) -> None:
        """Where each frame's pixels lie: start and length in the file, or fragments of that."""
        order = "<" if self._header.syntax.is_little_endian else ">"
        self._vr = "OW"
        (length,) = struct.unpack_from(f"{order}L", head, end + 4)
        start = end + 8
        if not self._header.syntax.is_implicit_VR:
            vr = head[end + 4 : end + 6].decode("ascii", "replace")
            if vr not in EXPLICIT_VR_LENGTH_32:
                raise SliceError(f"no usable PixelData: of VR {one_line(vr)}")
            self._vr = "OB" if vr == "OB" else "OW"
            (length,) = struct.unpack_from(f"{order}L", head, end + 8)
            start = end + 12
        if length != UNDEFINED_LENGTH:
            self._locate_native(start, length, size)
            return
        with self._content() as file:
            self._spans = _fragments_by_frame(file, start, size, self._header, self.count)
        self._encapsulated = True

    def _locate_native(self, start: int, length: int, size: int) -> None:
        if start + length > size:
            raise SliceError(
                f"unreadable: PixelData ends {start + length - size:,} bytes after the file"
            )
        shape = image_shape(self._header)
        each = shape[0] * shape[1] * self._header["BitsAllocated"] // 8
        if remark := surplus_remark(self._header, shape, length, self.count):
            self._header.remarks.append(remark)
        self._encapsulated = False
        self._spans = [[(start + k * each, each)] for k in range(self.count)]

    def _content(self) -> BinaryIO:
        """The file, or what was inflated of it."""
        return BytesIO(self._inflated) if self._inflated is not None else _buffered(self._path)

    def _read(self, start: int, length: int) -> bytes:
        if self._inflated is not None:
            return self._inflated[start : start + length]
        content = read_part(self._path, start, length)
        if len(content) != length:
            raise SliceError("unreadable: the file ends within a frame")
        return content

    def _pixels(self, number: int) -> tuple[bytes, int, str]:
        """One frame's PixelData, its length and VR."""
        spans = self._spans[number - 1]
        if sum(length for _, length in spans) > MAX_BYTES:
            raise SliceError(f"too large: a frame of more than {MAX_BYTES:,} bytes")
        content = b"".join(self._read(*span) for span in spans)
        if self._encapsulated:
            return _NO_OFFSETS + content, UNDEFINED_LENGTH, "OB"
        return content, len(content), self._vr


def read_image(path: str | Path, keywords: Sequence[str]) -> Header | EnhancedFile | VolumeFile:
    """The header of a file of one slice, or a file of many.

    Args:
        path: the file.
        keywords: of the elements to read, SOPClassUID among them.

    Raises:
        SliceError: it is missing, unreadable or too large, or neither a DICOM file nor a volume.
    """
    try:
        header = read_header(path, keywords)
    except SliceError as error:
        if file_size(path) > MAX_BYTES:
            return read_frames(path, keywords)
        if str(error) == NOT_DICOM and is_volume(path):
            return volume_file(path)
        raise
    try:
        storage = header.get("SOPClassUID")
    except Exception as error:  # pydicom converts values when they are asked for
        raise SliceError(f"unreadable: {one_line(error)}") from error
    return header if storage not in ENHANCED else enhanced_file(path, keywords)


def read_frames(path: str | Path, keywords: Sequence[str]) -> EnhancedFile | VolumeFile:
    """A file of many slices.

    Raises:
        SliceError: as of `EnhancedFile` and `VolumeFile`.
    """
    return volume_file(path) if is_volume(path) else enhanced_file(path, keywords)


def enhanced_file(path: str | Path, keywords: Sequence[str]) -> EnhancedFile:
    """An Enhanced CT file; the last ones that were asked for are at hand.

    Raises:
        SliceError: as of `EnhancedFile`.
    """
    return _remembered(str(path), tuple(keywords), file_version(path))


@lru_cache(2)
def _remembered(path: str, keywords: tuple[str, ...], _version: tuple) -> EnhancedFile:
    return EnhancedFile(path, keywords)


def _buffered(path: str | Path) -> BinaryIO:
    with opened(path, limit=None) as (file, _):
        return os.fdopen(os.dup(file), "rb")


def _is_pixel_data(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return int(tag) == _PIXEL_DATA


def _put(elements: dict, keyword: str, vr: str, text: str) -> None:
    put_element(elements, keyword, vr, text.encode())


def _flattened(groups: Dataset | None) -> dict[int, DataElement | RawDataElement]:
    """The elements in functional groups, by the tags that files of one slice have for them."""
    elements: dict[int, DataElement | RawDataElement] = {}
    for group, members in _GROUPS.items():
        item = _first_item(groups, group)
        if item is None:
            continue
        if group in _UNASSIGNED:
            # What a group of its own says counts more.
            elements = {int(tag): item.get_item(tag) for tag in item.keys()} | elements  # noqa: SIM118
            continue
        for keyword, renamed in members.items():
            if keyword not in item:
                continue
            if renamed is None:
                elements[keyword_dict[keyword]] = item.get_item(keyword)
            else:
                value = item.get(keyword)
                _put(elements, *renamed, _text(value))
    _put_time(elements)
    _put_technique(elements)
    _put_region(elements)
    return elements


def _first_item(groups: Dataset | None, keyword: str) -> Dataset | None:
    if groups is None or keyword not in groups:
        return None
    sequence = groups[keyword].value
    return sequence[0] if sequence else None


def _text(value: object) -> str:
    """One or several values as an element has them."""
    if value is None:
        return ""
    several = not isinstance(value, str) and isinstance(value, Sequence)
    return "\\".join(map(str, value)) if several else str(value)


def _value(elements: dict, keyword: str) -> object:
    element = elements.pop(keyword_dict[keyword], None)
    if isinstance(element, RawDataElement):
        return Dataset({element.tag: element})[element.tag].value
    return None if element is None else element.value


def _put_time(elements: dict) -> None:
    """AcquisitionTime of FrameAcquisitionDateTime: the eight digits before are a date."""
    if (told := str(_value(elements, "FrameAcquisitionDateTime") or "")) and len(told) > 8:
        _put(elements, "AcquisitionTime", "TM", told[8:].partition("+")[0].partition("-")[0])


def _put_technique(elements: dict) -> None:
    """A technique by which a picture was made of a volume, as a further value of ImageType."""
    technique = str(_value(elements, "VolumeBasedCalculationTechnique") or "")
    tag = keyword_dict["ImageType"]
    if technique not in _PLAIN_TECHNIQUES and tag in elements:
        _put(elements, "ImageType", "CS", f"{elements[tag].value.decode()}\\{technique}")


def _put_region(elements: dict) -> None:
    """BodyPartExamined of AnatomicRegionSequence, whose codes have words."""
    regions = _value(elements, "AnatomicRegionSequence")
    if regions and (meaning := str(regions[0].get("CodeMeaning") or "")):
        _put(elements, "BodyPartExamined", "LO", meaning)


def _usage(groups: Dataset | None) -> Sequence[Dataset]:
    if groups is None or "ContrastBolusUsageSequence" not in groups:
        return ()
    return groups["ContrastBolusUsageSequence"].value or ()


def _without_agent(groups: Dataset | None) -> bool:
    """Whether a frame is said to have been made before any agent was given."""
    usage = _usage(groups)
    return bool(usage) and all(
        str(item.get("ContrastBolusAgentAdministered") or "") == "NO" for item in usage
    )


def _fragments_by_frame(
    file: BinaryIO, start: int, size: int, header: Header, count: int
) -> list[list[tuple[int, int]]]:
    """Start and length of each frame's fragments, with the heads of their items.

    Raises:
        SliceError: the file ends early, or what says where frames begin cannot be.
    """
    file.seek(start)
    basic = parse_basic_offsets(file)
    first = file.tell()
    _, items = parse_fragments(file)
    if not items:
        raise SliceError("unreadable: the file ends before its PixelData does")
    if len(items) > _MAX_FRAGMENTS * count:
        raise SliceError(f"the fragments of PixelData cannot be: {len(items):,} of {count} frames")
    end = _end_of_items(file, items[-1], size)
    edges = [*items, end]
    spans = {a: (a, b - a) for a, b in pairwise(edges)}
    extended = _extended_offsets(header)
    begins = [first + offset for offset in extended or basic]
    if begins:
        if len(begins) != count or begins != sorted(set(begins)) or not spans.keys() >= {*begins}:
            raise SliceError(
                f"the offset table of PixelData cannot be: {len(begins):,} offsets of {count:,} "
                "frames, or some that are not where a fragment begins"
            )
    elif len(items) == count:
        begins = items
    else:
        begins = list(_begins_by_end_marks(file, spans, header.syntax))
        if len(begins) != count:
            raise SliceError(
                f"PixelData has another number of images than {count:,}: {len(begins):,}"
            )
    if begins[0] != items[0]:
        raise SliceError("PixelData has fragments before its first frame")
    frames: list[list[tuple[int, int]]] = []
    at = set(begins)
    for item in items:
        if item in at:
            frames.append([])
        frames[-1].append(spans[item])
    return frames


def _end_of_items(file: BinaryIO, last: int, size: int) -> int:
    """Where the last fragment ends; after it stands what says that no more come."""
    file.seek(last + 4)
    end = last + 8 + int.from_bytes(file.read(4), "little")
    file.seek(end)
    if end > size or file.read(4) != b"\xfe\xff\xdd\xe0":
        raise SliceError("unreadable: the file ends before its PixelData does")
    return end


def _extended_offsets(header: Header) -> list[int]:
    table = header.get("ExtendedOffsetTable")
    if not table:
        return []
    return list(struct.unpack(f"<{len(table) // 8}Q", bytes(table)))


def _begins_by_end_marks(file: BinaryIO, spans: dict, syntax: UID) -> Iterator[int]:
    """Where frames begin for want of an offset table: after a fragment with an end mark.

    JPEG and its relatives end with FFD9. A frame in RLE is one fragment.
    """
    begin = None
    for start, length in spans.values():
        begin = start if begin is None else begin
        file.seek(start + max(8, length - 10))
        is_end = b"\xff\xd9" in file.read(min(10, length - 8))
        if is_end or syntax == RLELossless:
            yield begin
            begin = None
    if begin is not None:
        yield begin
