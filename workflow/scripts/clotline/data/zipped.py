"""Slices that lie in one large ZIP file, here or on a server.

The RSNA-STR set is such a file of 534 GB. What is read of it are the list of its members, about
0.3 GB, and those that are asked for: by range requests, so that nothing else is downloaded, and
nothing is unpacked for longer than it takes to decode a study.
"""

import http.client
import io
import logging
import os
import struct
import time
import urllib.request
import zipfile
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import chain
from pathlib import Path, PurePosixPath
from urllib.error import HTTPError, URLError

import pandas as pd

from clotline.data.folder import DataFolder, is_address
from clotline.errors import ClotlineError
from clotline.job.disk import is_full
from clotline.job.scratch import scratch_folder
from clotline.labels import UIDS, slice_path

log = logging.getLogger("clotline")

#: Column of the members that hold the slices of rows.
MEMBER = "member"

#: Bytes of one request at most, and of what lies between two members that are fetched by one.
_RUN, _GAP = 64 * 2**20, 2**18

#: Bytes of a member's own header beside its name: PKWARE's APPNOTE.TXT, 4.3.7; its extra field may
#: be another than that of the list, and longer.
_HEADER = struct.Struct("<4s5H3L2H")
_LONGEST_HEADER = _HEADER.size + 2**12

#: Largest slice, in bytes; what says that it is larger is taken for damaged.
_LARGEST = 2**31

#: Seconds to wait before a server is asked again that did not answer, or not with all.
_WAITS = (1, 4, 15, 60)

#: Answers of a server that another try may change (RFC 9110, 15).
_PASSING = (408, 425, 429, 500, 502, 503, 504)


class RangedFile(io.RawIOBase):
    """A file of which any part can be read."""

    def __init__(self, name: str):
        self.name, self._position = name, 0

    @property
    def size(self) -> int:
        """Its bytes."""
        raise NotImplementedError

    def part(self, start: int, stop: int) -> bytes:
        """The bytes from ``start`` to ``stop``, fewer at its end."""
        raise NotImplementedError

    def seekable(self) -> bool:
        """It can be read from anywhere."""
        return True

    def readable(self) -> bool:
        """It can be read."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As of a file."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        self._position = max(start + offset, 0)
        return self._position

    def tell(self) -> int:
        """As of a file."""
        return self._position

    def readinto(self, buffer) -> int:
        """As of a file; one part."""
        content = self.part(self._position, min(self._position + len(buffer), self.size))
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)


class _OnServer(RangedFile):
    """A file on a server, read by range requests (RFC 9110, 14)."""

    @cached_property
    def size(self) -> int:
        # Asked for the list of members alone; each study's slices are fetched without it.
        return int(self._ask(0, 1)[1])

    def part(self, start: int, stop: int) -> bytes:
        return self._ask(start, stop)[0] if stop > start else b""

    def _ask(self, start: int, stop: int) -> tuple[bytes, str]:
        """A part, and the size of the whole."""
        wanted = {"Range": f"bytes={start}-{stop - 1}"}
        for wait in (*_WAITS, None):
            try:
                request = urllib.request.Request(self.name, headers=wanted)
                with urllib.request.urlopen(request, timeout=60) as answer:
                    size = answer.headers.get("Content-Range", "").rpartition("/")[2]
                    if answer.status != 206 or not size.isdecimal():
                        raise ClotlineError(
                            f"{self.name} gives no parts of a file (no range requests): download "
                            "it and name its path"
                        )
                    content = answer.read()
                # A part may be asked for that reaches beyond the file's end.
                if len(content) != min(stop, int(size)) - start:
                    raise http.client.IncompleteRead(content)
                return content, size
            except (URLError, OSError, http.client.HTTPException) as error:
                lasting = isinstance(error, HTTPError) and error.code not in _PASSING
                if wait is None or lasting:
                    raise ClotlineError(f"{self.name} cannot be read: {error}") from None
                log.warning("%s: %s; asked again in %d s", self.name, error, wait)
                time.sleep(wait)
        raise AssertionError  # the last try returned or raised


class _Here(RangedFile):
    """A file of this machine."""

    def __init__(self, path: str):
        try:
            self._file = Path(path).open("rb")  # noqa: SIM115 (closed with this one)
        except OSError as error:
            raise ClotlineError(f"{path} cannot be read: {error.strerror}") from None
        super().__init__(path)

    @cached_property
    def size(self) -> int:
        return os.fstat(self._file.fileno()).st_size

    def part(self, start: int, stop: int) -> bytes:
        # By Python's buffered reader: the system may give less at a time than is asked for.
        self._file.seek(start)
        return self._file.read(max(stop - start, 0))

    def close(self) -> None:
        self._file.close()
        super().close()


def open_ranged(source: str) -> RangedFile:
    """A file by its path or address.

    Raises:
        ClotlineError: it cannot be opened, or its server gives no parts of it.
    """
    return _OnServer(source) if is_address(source) else _Here(source)


@contextmanager
def opened_zip(file: RangedFile) -> Iterator[zipfile.ZipFile]:
    """A ZIP file with the list of its members, for as long as that is of use: it is large.

    Raises:
        ClotlineError: it is no ZIP file.
    """
    try:
        archive = zipfile.ZipFile(io.BufferedReader(file, 2**16))
    except zipfile.BadZipFile as error:
        raise ClotlineError(f"{file.name} is no ZIP file: {error}") from None
    try:
        yield archive
    finally:
        # Not closed, for the file is read further.
        archive.fp.detach()


def slice_paths(rows: pd.DataFrame) -> list[str]:
    """`slice_path` of each of some rows with UIDs."""
    return [slice_path(*uids) for uids in rows[list(UIDS)].itertuples(index=False)]


def find_members(archive: zipfile.ZipFile, wanted: Collection[str]) -> dict[str, zipfile.ZipInfo]:
    """The members that hold wanted slices, in whatever folder of the ZIP file they lie.

    Args:
        archive: the ZIP file.
        wanted: paths as of `slice_path`.
    """
    return {
        path: member
        for member in archive.infolist()
        if (path := "/".join(PurePosixPath(member.filename).parts[-3:])) in wanted
    }


def runs_of(members: Iterable[zipfile.ZipInfo]) -> Iterator[list[zipfile.ZipInfo]]:
    """Members that lie so near to each other that one request fetches them."""
    run: list[zipfile.ZipInfo] = []
    for member in sorted(members, key=lambda m: m.header_offset):
        if run and (
            member.header_offset - _end_of(run[-1]) > _GAP
            or _end_of(member) - run[0].header_offset > _RUN
        ):
            yield run
            run = []
        run.append(member)
    if run:
        yield run


def _end_of(member: zipfile.ZipInfo) -> int:
    """Where a member ends at the latest, in bytes of the file."""
    name = len(member.filename.encode())
    return member.header_offset + _LONGEST_HEADER + name + member.compress_size


def read_run(
    file: RangedFile, run: Sequence[zipfile.ZipInfo]
) -> Iterator[tuple[zipfile.ZipInfo, bytes | str]]:
    """What members hold that lie near to each other, fetched at once.

    Args:
        file: the ZIP file.
        run: members, as of `runs_of`.

    Yields:
        Each member, and its bytes or, as a text, why it has none.
    """
    first = run[0].header_offset
    near = memoryview(file.part(first, _end_of(run[-1])))
    for member in run:
        try:
            yield member, _content(near[member.header_offset - first :], member)
        except (ValueError, struct.error, zlib.error) as error:
            yield member, f"damaged in the ZIP file: {error}"


def _content(start: memoryview, member: zipfile.ZipInfo) -> bytes:
    """A member's bytes; ``start`` begins at its header.

    Not by zipfile, which would need the list of all members again, for each study.
    """
    signature, *_, name, extra = _HEADER.unpack(start[: _HEADER.size])
    if signature != b"PK\x03\x04":
        raise ValueError("no member begins there")
    if member.flag_bits & 1:
        raise ValueError("it has a password")
    if member.file_size > _LARGEST:
        raise ValueError(f"it is said to have {member.file_size:,} bytes")
    begin = _HEADER.size + name + extra
    packed = start[begin : begin + member.compress_size]
    if member.compress_type == zipfile.ZIP_STORED:
        content = bytes(packed)
    elif member.compress_type == zipfile.ZIP_DEFLATED:
        content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, member.file_size + 1)
    else:
        raise ValueError(f"packed by method {member.compress_type}, not by deflate")
    if len(content) != member.file_size or zlib.crc32(content) != member.CRC:
        raise ValueError("its checksum is another")
    return content


def with_members(studies: Iterable[pd.DataFrame], source: str) -> list[pd.DataFrame]:
    """Studies with the members that hold their slices, as `unzipped` needs them.

    Args:
        studies: the rows of each, with the UIDs.
        source: path or address of the ZIP file.

    Returns:
        The same with a column `MEMBER`: `zipfile.ZipInfo`, or None where it has no such slice.

    Raises:
        ClotlineError: the ZIP file cannot be read.
    """
    paths = [slice_paths(rows) for rows in studies]
    log.info("reading the list of members of %s", source)
    with open_ranged(source) as file, opened_zip(file) as archive:
        members = find_members(archive, set(chain.from_iterable(paths)))
    log.info("%s of the slices are in it", f"{len(members):,}")
    return [
        rows.assign(**{MEMBER: [members.get(path) for path in of_rows]})
        for rows, of_rows in zip(studies, paths, strict=True)
    ]


@contextmanager
def unzipped(rows: pd.DataFrame, source: str) -> Iterator[tuple[DataFolder, dict[str, str]]]:
    """A folder with a study's slices, which is removed afterwards.

    Args:
        rows: the study's, as of `with_members`.
        source: path or address of the ZIP file.

    Yields:
        The folder, and why slices are not in it, by their paths.

    Raises:
        ClotlineError: the ZIP file cannot be read, or the disk has no room for one study.
    """
    reasons: dict[str, str] = {}
    paths: dict[zipfile.ZipInfo, str] = {}
    for path, member in zip(slice_paths(rows), rows[MEMBER], strict=True):
        if member is None:
            reasons[path] = f"not in {source}"
        else:
            paths[member] = path
    with scratch_folder() as scratch:
        with open_ranged(source) as file:
            for run in runs_of(paths):
                for member, content in read_run(file, run):
                    if isinstance(content, str):
                        reasons[paths[member]] = content
                    else:
                        _write(scratch, paths[member], content, source)
        yield DataFolder(str(scratch)), reasons


def _write(scratch: Path, path: str, content: bytes, source: str) -> None:
    target = scratch / path
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    except OSError as error:
        if not is_full(error):
            raise
        raise ClotlineError(
            f"the disk of {scratch.parent} has no room for studies of {source}: name one that has "
            "in CLOTLINE_SCRATCH"
        ) from error
