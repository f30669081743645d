"""The lists of slices that were not taken and of notes on studies, and how many there may be."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from clotline.labels import STUDY_UID, UIDS

#: How the reason begins of slices that ``predict_strict`` refused with their study.
REFUSED = "refused by predict_strict"

REJECT_COLUMNS = (*UIDS, "path", "reason")
NOTE_COLUMNS = (STUDY_UID, "note")


def read_lists(paths: Iterable[str | Path]) -> pd.DataFrame:
    """Several lists of rejected slices, or of notes, one after the other; all as text."""
    # A UID may be NA or null.
    lists = [pd.read_csv(path, dtype=str, keep_default_na=False) for path in paths]
    return pd.concat(lists, ignore_index=True)


def read_series(path: str | Path) -> pd.DataFrame:
    """The table of `clotline.data.series.find_series` that series.csv holds."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    # Numbers are for people; an empty text is one that is not known.
    return table.assign(slices=table["slices"].astype(int), chosen=table["chosen"] == "True")


def count_reasons(rejected: pd.DataFrame) -> pd.Series:
    """How many slices were rejected for each type of reason, the most frequent first.

    Args:
        rejected: table with the columns of ``REJECT_COLUMNS``.
    """
    return rejected["reason"].str.split(":").str[0].value_counts()


def count_notes(notes: pd.DataFrame) -> pd.Series:
    """How many studies have each sort of note, the most frequent first.

    Notes of one sort begin alike, up to a colon, and go on with numbers of their own. A sort that
    one study alone has stands with its numbers.

    Args:
        notes: table with the columns of ``NOTE_COLUMNS``.
    """
    sort = notes["note"].str.split(":").str[0]
    same = notes["note"].groupby(sort).transform("nunique") == 1
    # A study may have several of one sort, as where two of its series are thick.
    told = notes.assign(note=notes["note"].where(same, sort))
    return told[[STUDY_UID, "note"]].drop_duplicates()["note"].value_counts()
