"""Fetches some studies of a data set that lies in one large ZIP file, here or on a server.

The RSNA-STR set is such a file of 534 GB. What is read of it are the list of its members, about
0.3 GB, and those of the studies that are named: by range requests, so nothing else is downloaded or
unpacked.

    python -m tools.fetch_studies ZIP FOLDER --studies LIST [--labels CSV]

ZIP is a path or an address (https). LIST is a text file with a StudyInstanceUID a line. CSV is the
labels file; without it that of the ZIP file, its member train.csv, is taken. FOLDER gets
``train/<study>/<series>/<SOP instance>.dcm`` and ``train.csv`` with the rows of these studies:
name them as data.dicom and data.labels. The same command goes on where it was stopped.
"""

import argparse
import csv
import io
import sys
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from urllib.error import URLError

from clotline.errors import ClotlineError
from clotline.job.files import atomic
from clotline.job.progress import progress
from clotline.labels import SERIES_UID, SOP_UID, STUDY_UID

#: Bytes of one request at most, and of what lies between two members that are fetched by one.
_RUN, _GAP = 64 * 2**20, 2**18

#: Bytes of a member's own header beside its name: PKWARE's APPNOTE.TXT, 4.3.7; its extra field may
#: be another than that of the list, and longer.
_LOCAL_HEADER = 30 + 2**12


class Ranges(io.RawIOBase):
    """A file on a server, read by range requests (RFC 9110, 14)."""

    def __init__(self, address: str):
        self._address, self._position = address, 0
        with self._ask("bytes=0-0") as answer:
            size = answer.headers.get("Content-Range", "").rpartition("/")[2]
            if answer.status != 206 or not size.isdecimal():
                raise ClotlineError(
                    f"{address} gives no parts of a file (no range requests): download it and name "
                    "its path"
                )
        self._size = int(size)

    def _ask(self, wanted: str):
        request = urllib.request.Request(self._address, headers={"Range": wanted})
        try:
            return urllib.request.urlopen(request, timeout=60)
        except (URLError, OSError) as error:
            raise ClotlineError(f"{self._address} cannot be read: {error}") from None

    def seekable(self) -> bool:
        """It can be read from anywhere."""
        return True

    def readable(self) -> bool:
        """It can be read."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As of a file."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(start + offset, 0)
        return self._position

    def tell(self) -> int:
        """As of a file."""
        return self._position

    def readinto(self, buffer) -> int:
        """As of a file; one request."""
        end = min(self._position + len(buffer), self._size)
        if end <= self._position:
            return 0
        with self._ask(f"bytes={self._position}-{end - 1}") as answer:
            content = answer.read()
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)


def open_large(source: str) -> io.BufferedReader:
    """A file by its path or address.

    Raises:
        ClotlineError: it cannot be opened.
    """
    if source.startswith(("http://", "https://")):
        return io.BufferedReader(Ranges(source), 2**16)
    try:
        return Path(source).open("rb")
    except OSError as error:
        raise ClotlineError(f"{source} cannot be read: {error.strerror}") from None


def runs_of(members: list[zipfile.ZipInfo]) -> Iterator[list[zipfile.ZipInfo]]:
    """Members that lie so near to each other that one request fetches them."""
    run: list[zipfile.ZipInfo] = []
    for member in sorted(members, key=lambda m: m.header_offset):
        if run and (
            member.header_offset - end_of(run[-1]) > _GAP
            or end_of(member) - run[0].header_offset > _RUN
        ):
            yield run
            run = []
        run.append(member)
    if run:
        yield run


def end_of(member: zipfile.ZipInfo) -> int:
    """Where a member ends at the latest, in bytes of the file."""
    return (
        member.header_offset + _LOCAL_HEADER + len(member.filename.encode()) + member.compress_size
    )


def fetch_studies(source: str, folder: Path, studies: list[str], labels: str | None) -> str:
    """Fetches studies.

    Args:
        source: path or address of the ZIP file.
        folder: to write to.
        studies: StudyInstanceUIDs.
        labels: path of the labels file; None for that of the ZIP file.

    Returns:
        What was done, in words.

    Raises:
        ClotlineError: a file cannot be read, a study has no labels, or a slice is not in the ZIP
        file.
    """
    file = open_large(source)
    with file:
        try:
            archive = zipfile.ZipFile(file)
        except zipfile.BadZipFile as error:
            raise ClotlineError(f"{source} is no ZIP file: {error}") from None
        header, rows = _labels(source, archive, labels, set(studies))
        wanted = {f"{row[STUDY_UID]}/{row[SERIES_UID]}/{row[SOP_UID]}.dcm" for row in rows}
        found = {
            name: member
            for member in archive.infolist()
            if (name := "/".join(PurePosixPath(member.filename).parts[-3:])) in wanted
        }
        if lacking := sorted(wanted - set(found)):
            raise ClotlineError(
                f"{source} lacks {len(lacking):,} of {len(wanted):,} slices of these studies, as "
                f"{lacking[0]}"
            )
        targets = {name: folder / "train" / name for name in found}
        missing = {
            found[name]: path
            for name, path in targets.items()
            if not path.is_file() or path.stat().st_size != found[name].file_size
        }
        runs = list(runs_of(list(missing)))
        for run in progress(runs, len(missing), "fetching", "slices", step=len):
            _fetch(source, file, archive, run, missing)
    with (
        atomic(folder / "train.csv") as path,
        path.open("w", encoding="utf-8", newline="") as table,
    ):
        writer = csv.DictWriter(table, header)
        writer.writeheader()
        writer.writerows(rows)
    return f"{len(missing):,} slices fetched, {len(found) - len(missing):,} were there"


def _labels(
    source: str, archive: zipfile.ZipFile, labels: str | None, studies: set[str]
) -> tuple[list[str], list[dict[str, str]]]:
    """The header of the labels file and the rows of some studies."""
    if labels is None:
        names = [n for n in archive.namelist() if PurePosixPath(n).name == "train.csv"]
        if len(names) != 1:
            raise ClotlineError(f"{source} has {len(names)} members train.csv: name it by --labels")
    file = open_large(labels) if labels is not None else archive.open(names[0])
    content = io.TextIOWrapper(file, "utf-8-sig", newline="")
    with content:
        reader = csv.DictReader(content)
        header = list(reader.fieldnames or [])
        if absent := {STUDY_UID, SERIES_UID, SOP_UID} - set(header):
            raise ClotlineError(f"the labels have no column {' and '.join(sorted(absent))}")
        rows = [row for row in reader if row[STUDY_UID] in studies]
    if unknown := sorted(studies - {row[STUDY_UID] for row in rows}):
        raise ClotlineError(
            f"{len(unknown):,} of {len(studies):,} studies have no labels, as {unknown[0]}"
        )
    return header, rows


def _fetch(source: str, file, archive: zipfile.ZipFile, run: list, targets: dict) -> None:
    """Fetches members that lie together by one request, and writes them."""
    first = run[0].header_offset
    file.seek(first)
    near = io.BytesIO(file.read(end_of(run[-1]) - first))
    for member in run:
        # zipfile looks for a member where the list says, and checks its CRC.
        archive.fp, whole = _Shifted(near, first), archive.fp
        try:
            content = archive.read(member)
        except (zipfile.BadZipFile, OSError, EOFError) as error:
            raise ClotlineError(f"{member.filename} in {source} is damaged: {error}") from None
        finally:
            archive.fp = whole
        with atomic(targets[member], need=len(content)) as path:
            path.write_bytes(content)


class _Shifted(io.RawIOBase):
    """Some bytes of a file, at the offsets that they have in it."""

    def __init__(self, content: io.BytesIO, start: int):
        self._content, self._start = content, start

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_SET:
            offset -= self._start
        return self._content.seek(offset, whence) + self._start

    def tell(self) -> int:
        return self._content.tell() + self._start

    def read(self, size: int = -1) -> bytes:
        return self._content.read(size)


def main(arguments: list[str] | None = None) -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("zip", help="path or address of the ZIP file")
    parser.add_argument("folder", type=Path, help="folder to write to")
    parser.add_argument("--studies", required=True, help="text file, a StudyInstanceUID a line")
    parser.add_argument("--labels", help="labels file; without it that of the ZIP file")
    given = parser.parse_args(arguments)
    try:
        studies = Path(given.studies).read_text(encoding="utf-8").split()
        if not studies:
            raise ClotlineError(f"{given.studies} names no study")
        print(fetch_studies(given.zip, given.folder, studies, given.labels))
    except (ClotlineError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
