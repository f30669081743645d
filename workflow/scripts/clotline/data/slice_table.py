"""What slices.parquet says of where slices and studies lie."""

import numpy as np
import pandas as pd

from clotline.errors import ClotlineError
from clotline.labels import IMAGE_LABEL, STUDY_LABELS, STUDY_UID


def positive_slices(slices: pd.DataFrame) -> pd.DataFrame:
    """The rows of positives.h5: positive slices of train and valid, in the order of ``slices``."""
    kept = (slices[IMAGE_LABEL] == 1) & slices["split"].isin(("train", "valid"))
    return slices[kept].reset_index(drop=True)


def locate_studies(slices: pd.DataFrame, plan: pd.DataFrame) -> pd.DataFrame:
    """Where each stored study lies in the features files.

    Args:
        slices: slices.parquet.
        plan: plan.parquet.

    Returns:
        One row a study with at least one stored slice, in the order of ``slices``: UID, ``split``,
        ``first`` row and ``count`` of rows, and the nine study labels.

    Raises:
        ClotlineError: a study's rows do not lie together.
    """
    uids = slices[STUDY_UID].to_numpy()
    first = np.flatnonzero(np.r_[True, uids[1:] != uids[:-1]])
    studies = pd.DataFrame(
        {STUDY_UID: uids[first], "first": first, "count": np.diff(np.r_[first, len(uids)])}
    )
    if studies[STUDY_UID].duplicated().any():
        raise ClotlineError("slices.parquet is not grouped by study: rebuild results/data")
    columns = [STUDY_UID, "split", *STUDY_LABELS]
    return studies.merge(plan[columns], on=STUDY_UID, how="left", validate="one_to_one")
