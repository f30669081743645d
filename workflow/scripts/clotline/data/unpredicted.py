"""Every study of the folder to predict has a prediction or a reason why it has none."""

from collections.abc import Collection

import pandas as pd

from clotline.data.rejects import REFUSED, count_reasons
from clotline.errors import ClotlineError
from clotline.job.files import atomic
from clotline.labels import STUDY_UID

#: Columns of `list_unpredicted`'s table.
UNPREDICTED_COLUMNS = (STUDY_UID, "files", "reason")

#: How a reason begins where a scan was chosen of which no slice could be decoded.
UNDECODABLE = "undecodable"

#: How it begins where a cohort is validated on and a study has no labels.
UNLABELLED = "not labelled"


def list_unpredicted(
    series: pd.DataFrame, rejects: pd.DataFrame, predicted: Collection[str]
) -> pd.DataFrame:
    """The studies without a prediction.

    Args:
        series: of `clotline.data.series.find_series`.
        rejects: slices of the chosen scans that were not stored, with the columns of
            `clotline.data.rejects.REJECT_COLUMNS`.
        predicted: StudyInstanceUIDs of the others.

    Returns:
        One row a study, by UID: how many ``files`` it has beside copies, and the ``reason``, that
        of most of them, by which studies are counted up to a colon.

    Raises:
        ClotlineError: the lists are not of one run.
    """
    if strangers := set(predicted) - set(series[STUDY_UID]):
        raise ClotlineError(
            f"predictions of {len(strangers):,} studies that are not among those of the folder, "
            f"such as {min(strangers)}: delete what the run has written and run it again"
        )
    rows = []
    for study, scans in series[~series[STUDY_UID].isin(predicted)].groupby(STUDY_UID):
        files = int(scans["slices"].sum())
        if scans["chosen"].any():
            reason = _of_rejects(rejects[rejects[STUDY_UID] == study])
        else:
            reason = scans.groupby("reason", sort=True)["slices"].sum().idxmax()
        rows.append((study, files, reason))
    return pd.DataFrame(rows, columns=list(UNPREDICTED_COLUMNS))


def _of_rejects(rejects: pd.DataFrame) -> str:
    """Why nothing is left of the scan that was chosen."""
    if rejects.empty:
        raise ClotlineError(
            "a study was chosen of which no slice was stored or rejected: delete what the run "
            "has written and run it again"
        )
    reason = rejects["reason"].value_counts().sort_index().idxmax()
    said = reason.startswith((REFUSED, UNLABELLED))
    return reason if said else f"{UNDECODABLE}: {reason}"


def describe_account(predicted: int, unpredicted: pd.DataFrame, path: str) -> str:
    """How many studies have a prediction, and why the others have none, in one line.

    Args:
        predicted: how many have one.
        unpredicted: of `list_unpredicted`.
        path: where that is listed.
    """
    text = f"{predicted:,} predicted, {len(unpredicted):,} not"
    if not len(unpredicted):
        return text
    reasons = count_reasons(unpredicted)
    told = ", ".join(f"{count:,} {reason}" for reason, count in reasons.items())
    return f"{text}: {told} (listed in {path})"


def nothing_predicted(
    error: ClotlineError, series: pd.DataFrame, rejects: pd.DataFrame, path: str
) -> ClotlineError:
    """Lists all studies where a job ends because none can be predicted.

    Args:
        error: why it ends.
        series: as for `list_unpredicted`.
        rejects: as for `list_unpredicted`.
        path: of the list. It must be no output of the job's rule: Snakemake removes those.

    Returns:
        The error with the studies counted.
    """
    unpredicted = list_unpredicted(series, rejects, [])
    with atomic(path) as file:
        unpredicted.to_csv(file, index=False)
    return ClotlineError(f"{error}\n{describe_account(0, unpredicted, path)}")
