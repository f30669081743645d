"""Every planned slice is stored or rejected, and not too many are rejected."""

from pathlib import Path

import numpy as np
import pandas as pd

from clotline.data.rejects import count_reasons, read_lists
from clotline.data.shards import read_rows
from clotline.errors import ClotlineError
from clotline.labels import STUDY_UID, UIDS


def collect_slices(
    shards: dict[str, str | Path], rejects: dict[str, str | Path], planned: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The table of all stored slices, with every planned row accounted for.

    Args:
        shards: shard name to its file, in order.
        rejects: shard name to its list of rejects.
        planned: `clotline.data.plan.planned_rows` of all shards.

    Returns:
        ``slices``: one row a stored slice, shard by shard and row by row: UIDs, ``shard``
        (name), ``row``, ``position_mm``, ``patient_orientation``, image label, ``checksum``,
        ``split``; and all ``rejects``.

    Raises:
        ClotlineError: a row of the labels file is neither stored nor rejected, or is both.
    """
    tables = []
    for name, path in shards.items():
        rows = read_rows(path)
        rows.insert(len(UIDS), "shard", name)
        rows.insert(len(UIDS) + 1, "row", np.arange(len(rows)))
        tables.append(rows)
    slices = pd.concat(tables, ignore_index=True)
    rejected = read_lists(rejects.values())
    accounted = pd.concat([slices[list(UIDS)], rejected[list(UIDS)]])
    twice = accounted.duplicated().sum()
    known = accounted.drop_duplicates().merge(planned[list(UIDS)], on=list(UIDS))
    missing = len(planned) - len(known)
    if twice or missing or len(accounted) != len(planned):
        raise ClotlineError(
            f"of {len(planned):,} rows of the labels file, {missing:,} are neither stored nor "
            f"rejected and {twice:,} are both: the shards do not belong to this labels file. "
            "Delete results/data/shards and run the same target again"
        )
    splits = planned.drop_duplicates(STUDY_UID).set_index(STUDY_UID)["split"]
    slices["split"] = slices[STUDY_UID].map(splits)
    return slices, rejected


def check_rejects(rejected: pd.DataFrame, rows: int, max_rejects: float) -> None:
    """Stops a run that lost too many slices.

    Raises:
        ClotlineError: with a summary by reason and what to do.
    """
    if len(rejected) <= max_rejects * rows:
        return
    reasons = count_reasons(rejected)
    raise ClotlineError(
        f"{len(rejected):,} of {rows:,} slices were rejected, more than data.max_rejects "
        f"({max_rejects:g}) allows:\n"
        + "\n".join(f"  {count:>9,}  {reason}" for reason, count in reasons.head(10).items())
        + "\nThe lists are results/data/shards/*.rejects.csv. Mend the files and delete their "
        "shard, or raise data.max_rejects"
    )
