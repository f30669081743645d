"""Parquet tables with a checksum, so that damage anywhere in one is detected when it is read.

Parquet itself has checksums of its pages alone, not of its footer, where a flipped bit can change a
column's name, its type or the number of rows unseen. So a SHA-256 of all else stands before the
footer, where readers of Parquet, who go by offsets from both ends, do not look.
"""

import hashlib
import io
from pathlib import Path

import pandas as pd

from clotline.job.files import atomic, unusable
from clotline.labels import UIDS

#: Bytes of the checksum, and of the end that gives the footer's length: that, and ``PAR1``.
_CHECKSUM, _END = hashlib.sha256().digest_size, 8


def write_table(table: pd.DataFrame, path: str | Path) -> None:
    """Writes ``table``, without its index."""
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    content = buffer.getvalue()
    footer = _footer_size(content)
    pages, footer = content[:-footer], content[-footer:]
    with atomic(path, need=len(content) + _CHECKSUM) as temporary:
        temporary.write_bytes(pages + hashlib.sha256(content).digest() + footer)


def read_table(path: str | Path) -> pd.DataFrame:
    """Reads what `write_table` wrote.

    Raises:
        FileNotFoundError: there is no file.
        ClotlineError: the system does not let it be read, or it is damaged; says what to do.
    """
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise unusable(path, error) from None
    footer = _footer_size(content)
    pages, checksum = content[: -footer - _CHECKSUM], content[-footer - _CHECKSUM : -footer]
    if hashlib.sha256(pages + content[-footer:]).digest() != checksum:
        raise unusable(path, "it does not fit its checksum")
    return pd.read_parquet(io.BytesIO(content))


def uid_triples(table: pd.DataFrame) -> list[tuple[str, str, str]]:
    """Study, series and SOP instance UID of each slice: only together are they its own.

    Labels files of other origin number the slices of each study from 1.
    """
    return list(table[list(UIDS)].itertuples(index=False, name=None))


def _footer_size(content: bytes) -> int:
    return int.from_bytes(content[-_END:-4], "little") + _END
