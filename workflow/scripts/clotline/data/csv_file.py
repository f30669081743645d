"""CSV files as people have them: gzipped, zipped, or with a spreadsheet's separators."""

import csv
import gzip
import io
import sys
import zipfile
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO

from clotline.errors import ClotlineError

#: What can stand between two cells: in countries with a decimal comma Excel writes semicolons.
DELIMITERS = (",", ";", "\t", "|")

#: Bytes of a header line that are looked at.
_HEADER = 2**20

#: What opening or reading a damaged file raises.
UNREADABLE = (OSError, EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError)


def open_csv(path: str | Path) -> IO[bytes]:
    """Opens a CSV file that is plain, gzipped (.gz) or the only CSV file in a ZIP file (.zip).

    Raises:
        ClotlineError: a ZIP file with no CSV file, with several, or with a password.
        OSError: it cannot be opened, or is no gzip file.
        zipfile.BadZipFile: it is no ZIP file.
    """
    path = Path(path)
    if path.suffix == ".gz":
        return gzip.open(path)
    if path.suffix != ".zip":
        return path.open("rb")
    with zipfile.ZipFile(path) as archive:
        # macOS adds a folder with a file for each file.
        names = [name for name in archive.namelist() if not name.startswith("__MACOSX/")]
        tables = [name for name in names if name.lower().endswith(".csv")]
        if len(tables) != 1:
            there = ", ".join(tables or names[:5]) or "nothing"
            raise ClotlineError(
                f"{path} must hold one CSV file, and holds {there}: unpack it and name the file"
            )
        try:
            return archive.open(tables[0])
        except RuntimeError as error:  # a password
            raise ClotlineError(f"{path} cannot be read: {error}: unpack it") from None


def delimiter_of(path: str | Path, columns: Collection[str]) -> str:
    """What stands between a file's cells, by which most of the known columns are in its header.

    Args:
        path: CSV file, as of `open_csv`.
        columns: names that its header should have, in any case.

    Raises:
        As of `open_csv`.
    """
    with open_csv(path) as file:
        line = file.readline(_HEADER).decode("utf-8-sig", errors="replace")
    line = line.partition("\r")[0].rstrip("\n")
    known = {name.casefold() for name in columns}

    def fitting(delimiter: str) -> int:
        cells = line.casefold().split(delimiter)
        return len(known & {cell.strip().strip('"') for cell in cells})

    # Of equally good ones the first.
    return max(DELIMITERS, key=fitting)


def rows_of(path: str | Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The rows that have a cell, with the number of the line that each begins on.

    Empty lines and line ends within quotes count as lines; cells can be of any size.
    """
    # The module's own limit of 131,072 characters would refuse a long report.
    before = csv.field_size_limit(sys.maxsize)
    try:
        with open_csv(path) as file:
            reader = csv.reader(
                io.TextIOWrapper(file, "utf-8-sig", newline=""), delimiter=delimiter
            )
            line = 1
            for cells in reader:
                if cells:
                    yield line, cells
                line = reader.line_num + 1
    finally:
        csv.field_size_limit(before)
