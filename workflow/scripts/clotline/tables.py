"""Parquet tables whose every page has a checksum, so that damage is found when they are read."""

from pathlib import Path

import pandas as pd
import pyarrow.parquet

from clotline.files import atomic, unusable


def write_table(table: pd.DataFrame, path: str | Path) -> None:
    """Writes ``table``, without its index."""
    # In memory a table is larger than compressed on disk.
    with atomic(path, need=int(table.memory_usage(index=False, deep=True).sum())) as temporary:
        table.to_parquet(temporary, index=False, write_page_checksum=True)


def read_table(path: str | Path) -> pd.DataFrame:
    """Reads what `write_table` wrote.

    Raises:
        ClotlineError: the file is damaged; says how to make it anew.
    """
    try:
        stored = pyarrow.parquet.read_table(path, page_checksum_verification=True)
        # Names have no checksum, but stand in the file twice.
        described = [column["name"] for column in stored.schema.pandas_metadata["columns"]]
        if described != stored.column_names:
            raise ValueError("its columns' names contradict each other")
        return stored.to_pandas()
    except FileNotFoundError:
        raise
    except Exception as error:
        # Of damaged bytes, the reader raises nearly every kind of exception there is.
        raise unusable(path, error) from None
