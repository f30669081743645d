"""Folds: the studies beside the test split in k parts, each once kept from all training."""

import hashlib

import pandas as pd

from clotline.data.plan import GROUP, check_plan
from clotline.errors import ClotlineError
from clotline.labels import STUDY_UID


def fold_of(key: str, folds: int) -> int:
    """The fold of a study, from 0, by a hash: it never changes when other studies come.

    Args:
        key: the study's UID, or what studies have in common that are to stay together.
        folds: number of folds.
    """
    # Other bytes than those that divide train, valid and test: the two are independent.
    digest = hashlib.sha256(key.encode()).digest()[8:16]
    return int.from_bytes(digest, "big") * folds >> 64


def plan_of_fold(plan: pd.DataFrame, fold: int, folds: int) -> pd.DataFrame:
    """The plan for the networks that never see one fold.

    Args:
        plan: plan.parquet; studies with the same ``group``, where ``data.split.group`` gave them
            one, are in the same fold.
        fold: number of the fold, from 0.
        folds: number of folds, 3 or more.

    Returns:
        The plan with other splits: test are the fold's studies and those of the test split, valid
        those of the next fold, and train all others. So not even the choice of the epoch sees
        what the networks are tested on.

    Raises:
        ClotlineError: as of `clotline.data.plan.check_plan`.
    """
    keys = plan[GROUP if GROUP in plan else STUDY_UID]
    number = keys.map(lambda key: fold_of(str(key), folds))
    splits = number.map({fold: "test", (fold + 1) % folds: "valid"}).fillna("train")
    divided = plan.assign(split=splits.where(plan["split"] != "test", "test"))
    try:
        check_plan(divided)
    except ClotlineError as error:
        raise ClotlineError(f"fold {fold} of {folds} (data.split.folds): {error}") from None
    return divided
