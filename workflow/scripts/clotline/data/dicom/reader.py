"""The elements of a DICOM file, read with the care that unknown files need.

Terms and tags are those of DICOM PS3.5, chapter 7, and PS3.10, chapter 7.
"""

import errno
import os
import stat
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache, lru_cache
from io import BytesIO
from pathlib import Path

import pydicom
from pydicom.charset import convert_encodings, default_encoding
from pydicom.dataelem import (
    RawDataElement,
    convert_raw_data_element,
    empty_value_for_VR,
)
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag, Tag
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pydicom.valuerep import EXPLICIT_VR_LENGTH_16, EXPLICIT_VR_LENGTH_32

from clotline.data.dicom.header import UNDEFINED_LENGTH, Header
from clotline.data.dicom.pixels import ENCODINGS
from clotline.data.dicom.rejection import SliceError, one_line
from clotline.job import files

# Its warnings quote the values of a header, and those do not belong into a log.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
warnings.filterwarnings("ignore", module="pydicom")

#: Largest file, and largest inflated data set, in bytes: a slice of 4096 × 4096 pixels of 16 bits
#: takes 32 MiB, and its header little.
MAX_BYTES = 64 * 2**20

#: All that is read of a file's meta information.
META_KEYWORDS = ("TransferSyntaxUID",)

CHARSET = Tag("SpecificCharacterSet")

#: Reason of a reject.
NOT_DICOM = "not a DICOM file"

#: Tag, VR and length of an element in Explicit VR Little Endian; some VRs have a longer length.
_ELEMENT, _LONG_LENGTH = struct.Struct("<L2sH"), struct.Struct("<L")
_LONG_VRS = frozenset(vr.encode() for vr in EXPLICIT_VR_LENGTH_32)
_SHORT_VRS = frozenset(vr.encode() for vr in EXPLICIT_VR_LENGTH_16)

#: PixelData and SpecificCharacterSet, as `_ELEMENT` reads their tags; the tag of a fragment or of a
#: sequence's item, and what ends all of them, and one item.
_PIXEL_DATA, _CHARSET = 0x00107FE0, 0x00050008
_ITEM, _END_OF_ITEMS = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0" + bytes(4)
_END_OF_ITEM = b"\xfe\xff\x0d\xe0" + bytes(4)

#: Sequences within sequences that are looked through.
_MAX_DEPTH = 8


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
    with suppress(OSError, SliceError), opened(path) as (file, size):
        os.posix_fadvise(file, 0, size, os.POSIX_FADV_WILLNEED)


#: What is no fault of the file that is read: the job fails, and can be tried again.
_OF_THE_MACHINE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE)


def _read_bytes(path: str | Path) -> bytes:
    with _refusals(), opened(path) as (file, size):
        content = os.read(file, size)
        # Some network file systems give less at a time.
        while len(content) < size and (more := os.read(file, size - len(content))):
            content += more
        return content


def read_part(path: str | Path, start: int, length: int) -> bytes:
    """Some bytes of a file of any size, fewer where it ends before.

    Raises:
        SliceError: the file is missing or unreadable.
    """
    with _refusals(), opened(path, limit=None) as (file, _):
        content = os.pread(file, length, start)
        while len(content) < length and (
            more := os.pread(file, length - len(content), start + len(content))
        ):
            content += more
        return content


def file_size(path: str | Path) -> int:
    """A file's bytes.

    Raises:
        SliceError: the file is missing, or cannot be looked at.
    """
    with _refusals():
        return os.stat(path).st_size  # noqa: PTH116


def file_version(path: str | Path) -> tuple[int, ...]:
    """That of `clotline.job.files.file_version`.

    Raises:
        SliceError: the file is missing, or cannot be looked at.
    """
    with _refusals():
        return files.file_version(path)


@contextmanager
def _refusals() -> Iterator[None]:
    """What the system refuses, as the reason of a reject where it is the file's own fault."""
    try:
        yield
    except FileNotFoundError as error:
        linked = error.filename and Path(error.filename).is_symlink()
        raise SliceError("a link to no file" if linked else "no such file") from None
    except OSError as error:
        if error.errno in _OF_THE_MACHINE:
            raise
        raise SliceError(f"unreadable: {error.strerror}") from error


@contextmanager
def opened(path: str | Path, limit: int | None = MAX_BYTES) -> Iterator[tuple[int, int]]:
    """The descriptor and size of a file that may be read.

    Args:
        path: the file.
        limit: of its bytes; None for any number.

    Raises:
        SliceError: it is no regular file, or too large.
        OSError: it cannot be opened.
    """
    status = os.stat(path)  # noqa: PTH116
    # Opening a pipe or a device could wait for ever.
    if not stat.S_ISREG(status.st_mode):
        raise SliceError("not a regular file")
    if limit is not None and status.st_size > limit:
        raise SliceError(f"too large: {status.st_size:,} bytes, the limit is {limit:,}")
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
        start = 132 if data[128:132] == b"DICM" else 0
        if data[start : start + 2] == _DATA_SET:
            return _read_bare(data, start, keywords)
        if not start and data[:2] != _FILE_META:
            raise SliceError(NOT_DICOM)
        declared, start = _transfer_syntax(data, start)
        if declared == DeflatedExplicitVRLittleEndian:
            data, start = inflate(memoryview(data)[start:]), 0
        syntax = _with_or_without_vr(data, start, declared)
        is_plain = syntax.is_little_endian and not syntax.is_implicit_VR and not syntax.is_deflated
        plain = is_plain and _read_plain(data, start, keywords, syntax)
        header, _ = plain or _read_any(data, start, syntax, specific_tags=[*map(Tag, keywords)])
        if syntax != declared:
            header.remarks.append(f"{declared.name} in the header, {syntax.name} in the file")
        return header
    except (SliceError, MemoryError):
        raise
    except Exception as error:  # pydicom raises many types on damaged files
        raise SliceError(f"unreadable: {one_line(error)}") from error


#: The first bytes of the groups 0002 and 0008, little endian.
_FILE_META, _DATA_SET = b"\x02\x00", b"\x08\x00"


def _with_or_without_vr(data: bytes, start: int, declared: UID) -> UID:
    """Whether the data set that starts there is in explicit or implicit VR, where one is declared.

    The first element says it: a length of two capital letters would be one of 16 KiB or more.
    """
    others = {
        ImplicitVRLittleEndian: ExplicitVRLittleEndian,
        ExplicitVRLittleEndian: ImplicitVRLittleEndian,
    }
    letters = data[start + 4 : start + 6]
    if declared not in others or data[start : start + 2] != _DATA_SET or len(letters) < 2:
        return declared
    is_implicit = not (letters.isalpha() and letters.isupper())
    return declared if is_implicit == declared.is_implicit_VR else others[declared]


def _read_bare(data: bytes, start: int, keywords: tuple[str, ...]) -> Header:
    """A data set without file meta information, as it goes over a network.

    Raises:
        SliceError: it is not certain that it is one, whole and in little endian.
    """
    syntax = _with_or_without_vr(data, start, ImplicitVRLittleEndian)
    whole, end = _read_any(data, start, syntax)
    tags = whole.tags
    storage = whole.get("SOPClassUID")
    if not (storage and UID(storage).is_valid and tags == sorted(tags) and end == len(data)):
        raise SliceError("not a DICOM file: no file meta information, and no whole data set")
    header, _ = _read_any(data, start, syntax, specific_tags=[*map(Tag, keywords)])
    header.remarks.append(f"no file meta information: read as {syntax.name}")
    return header


def _read_any(data: bytes, start: int, syntax: UID, **options) -> tuple[Header, int]:
    """What pydicom's read_dataset gives of the data set that starts there, and where it ended."""
    file = BytesIO(data)
    file.seek(start)
    dataset = read_dataset(file, syntax.is_implicit_VR, syntax.is_little_endian, **options)
    elements = {int(tag): element for tag, element in dataset.items()}
    return Header(elements, syntax, dataset.original_character_set), file.tell()


def _read_plain(
    data: bytes,
    start: int,
    keywords: tuple[str, ...],
    syntax: UID = ExplicitVRLittleEndian,
    group: int | None = None,
) -> tuple[Header, int] | None:
    """What `_read_any` gives of explicit VR in little endian, in a quarter of the time.

    Args:
        data: the file.
        start: where its data set starts.
        keywords: what to read.
        syntax: the file's encoding.
        group: the data set ends before the first element of another one.

    Returns:
        None where anything is unusual: an unknown VR, an undefined length but of PixelData or of a
        sequence that is not wanted, or an element that ends beyond the file.
    """
    wanted = _wanted(keywords)
    elements = {}
    offset, end = start, len(data)
    while offset + 8 <= end:
        number, vr, length = _ELEMENT.unpack_from(data, offset)
        if group and group != number & 0xFFFF:
            break
        offset += 8
        if vr not in _SHORT_VRS:
            if vr not in _LONG_VRS or offset + 4 > end:
                return None
            (length,) = _LONG_LENGTH.unpack_from(data, offset)
            offset += 4
            if length == UNDEFINED_LENGTH and number == _PIXEL_DATA and number in wanted:
                content, offset = offset, _end_of_fragments(data, offset)
                if offset is None:
                    return None
                tag, value = wanted[number], data[content : offset - 8]
                elements[int(tag)] = RawDataElement(
                    tag, vr.decode(), length, value, content, False, True
                )
                continue
            if length == UNDEFINED_LENGTH and vr == b"SQ" and number not in wanted:
                offset = _end_of_sequence(data, offset)
                if offset is None:
                    return None
                continue
        content, offset = offset, offset + length
        if offset > end or number & 0xFFFF == 0xFFFE:
            return None
        if tag := wanted.get(number):
            if not length:
                value = empty_value_for_VR(vr.decode(), raw=True)
            elif vr == b"OW":
                value = memoryview(data)[content:offset]  # pixels are not copied
            else:
                value = data[content:offset]
            elements[int(tag)] = RawDataElement(
                tag, vr.decode(), length, value, content, False, True
            )
    charset = default_encoding
    if (element := elements.get(CHARSET)) and element.value:
        charset = _charset(element.VR, element.value)
    return Header(elements, syntax, charset), offset


def _end_of_fragments(data: bytes, offset: int) -> int | None:
    """Where PixelData ends, its fragments starting at ``offset``; None if one leaves the file."""
    while (head := data[offset : offset + 8])[:4] == _ITEM:
        offset += 8 + int.from_bytes(head[4:], "little")
    return offset + 8 if head == _END_OF_ITEMS else None


def _end_of_sequence(data: bytes, offset: int, depth: int = 0) -> int | None:
    """Where a sequence of undefined length ends, its items starting at ``offset``.

    None where pydicom, which reads what is in the items, might find another end or none.
    """
    while (head := data[offset : offset + 8])[:4] == _ITEM and len(head) == 8:
        length = int.from_bytes(head[4:], "little")
        offset += 8
        item_end = None if length == UNDEFINED_LENGTH else offset + length
        if (offset := _end_of_item(data, offset, item_end, depth)) is None:
            return None
    return offset + 8 if head == _END_OF_ITEMS else None


def _end_of_item(data: bytes, offset: int, item_end: int | None, depth: int) -> int | None:
    """Where an item ends: at ``item_end``, or else at its delimiter; None as above."""
    end = len(data)
    while offset != item_end:
        if item_end is None and data[offset : offset + 8] == _END_OF_ITEM:
            return offset + 8
        if offset + 8 > end:
            return None
        number, vr, length = _ELEMENT.unpack_from(data, offset)
        # A character set of its own is pydicom's business.
        if number & 0xFFFF == 0xFFFE or number == _CHARSET:
            return None
        offset += 8
        if vr not in _SHORT_VRS:
            if vr not in _LONG_VRS or offset + 4 > end:
                return None
            (length,) = _LONG_LENGTH.unpack_from(data, offset)
            offset += 4
        if length == UNDEFINED_LENGTH:
            nested = vr == b"SQ" and depth < _MAX_DEPTH
            offset = _end_of_sequence(data, offset, depth + 1) if nested else None
        else:
            offset += length
        # An element that leaves its item never comes to the item's end, but to the file's.
        if offset is None or offset > end:
            return None
    return offset


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
    meta, end = _read_plain(data, start, META_KEYWORDS, group=2) or _read_any(
        data, start, ExplicitVRLittleEndian, stop_when=_is_beyond_file_meta
    )
    syntax = meta.get("TransferSyntaxUID")
    if not syntax:
        raise SliceError("no TransferSyntaxUID")
    if syntax not in ENCODINGS:
        raise SliceError(f"no decoder for this encoding: {one_line(UID(syntax).name)}")
    return UID(syntax), end


def start_of_data_set(data: bytes) -> tuple[UID, int]:
    """The encoding of a file's data set, and where that starts.

    Raises:
        SliceError: it is no DICOM file with file meta information.
    """
    start = 132 if data[128:132] == b"DICM" else 0
    if data[start : start + 2] != _FILE_META:
        raise SliceError(NOT_DICOM)
    return _transfer_syntax(data, start)


def read_elements(
    data: bytes,
    start: int,
    declared: UID,
    keywords: Sequence[str],
    stop_when: Callable[[BaseTag, str | None, int], bool],
) -> tuple[Header, int]:
    """Some elements of the data set that starts there, up to one of its elements.

    Args:
        data: the file, or its start.
        start: of the data set.
        declared: how it is said to be encoded.
        keywords: of the elements.
        stop_when: whether an element of this tag, VR and length is the one to stop before.

    Returns:
        The elements, and where that one begins.
    """
    syntax = _with_or_without_vr(data, start, declared)
    tags = [*map(Tag, keywords), CHARSET]
    header, end = _read_any(data, start, syntax, specific_tags=tags, stop_when=stop_when)
    if syntax != declared:
        header.remarks.append(f"{declared.name} in the header, {syntax.name} in the file")
    return header, end


def _is_beyond_file_meta(tag, _vr, _length) -> bool:
    return tag.group != 2


def inflate(deflated: bytes | memoryview) -> bytes:
    """What a deflated data set holds.

    Raises:
        SliceError: more than `MAX_BYTES`, or the data ends early.
    """
    inflating = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = inflating.decompress(deflated, MAX_BYTES + 1)
    if len(inflated) > MAX_BYTES:
        raise SliceError(f"too large: more than {MAX_BYTES:,} bytes when inflated")
    if not inflating.eof:
        raise SliceError("unreadable: the deflated data ends early")
    return inflated
