"""Tables of text as people have them, each row with its line number."""

import re
from collections.abc import Collection
from pathlib import Path

import pandas as pd

from clotline.data.csv_file import delimiter_of, open_csv

_LINE_END = r"\r\n|\r|\n"


def read_cells(path: str | Path, columns: Collection[str]) -> pd.DataFrame:
    """All rows that have a cell, as text, with the ``line`` that each begins on.

    Args:
        path: CSV file, as of `clotline.data.csv_file.open_csv`.
        columns: names by which the delimiter is told, as of
            `clotline.data.csv_file.delimiter_of`.

    Raises:
        ValueError: rows have more cells than the header.
        As of `clotline.data.csv_file.open_csv`.
    """
    delimiter = delimiter_of(path, columns)
    with open_csv(path) as file:
        table = pd.read_csv(
            file, sep=delimiter, dtype=str, keep_default_na=False, skip_blank_lines=False
        ).fillna("")
    # pandas would take the first column for an index, and shift every column name by one.
    if not isinstance(table.index, pd.RangeIndex):
        raise ValueError("its rows have more cells than its header")
    filled = (table != "").any(axis=1)
    # Line ends within quotes are lines too.
    lines = 1 + sum(table[name].str.count(_LINE_END) for name in table)
    header = 1 + sum(len(re.findall(_LINE_END, str(name))) for name in table)
    return table.assign(line=1 + header + lines.cumsum() - lines)[filled]
