"""The lists of slices that were not taken and of notes on studies, and how many there may be."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from clotline.labels import STUDY_UID, UIDS

REJECT_COLUMNS = (*UIDS, "path", "reason")
NOTE_COLUMNS = (STUDY_UID, "note")


def read_lists(paths: Iterable[str | Path]) -> pd.DataFrame:
    """Several lists of rejected slices, or of notes, one after the other; all as text."""
    # A UID may be NA or null.
    lists = [pd.read_csv(path, dtype=str, keep_default_na=False) for path in paths]
    return pd.concat(lists, ignore_index=True)


def count_reasons(rejected: pd.DataFrame) -> pd.Series:
    """How many slices were rejected for each kind of reason, the most frequent first.

    Args:
        rejected: table with the columns of ``REJECT_COLUMNS``.
    """
    return rejected["reason"].str.split(":").str[0].value_counts()
