"""Several models as one more: the mean of their probabilities, and a model in folds.

Probabilities, not logits, after Lakshminarayanan et al., Simple and Scalable Predictive Uncertainty
Estimation using Deep Ensembles, NeurIPS 2017: a member that is sure beyond reason moves the mean
by 1/n at most, and a mean of logits without bound. The log loss of either is at most the mean of
the members'.
"""

import numpy as np
import pandas as pd

from clotline.errors import ClotlineError
from clotline.labels import IMAGE_LABEL, STUDY_LABELS, STUDY_UID


def mean_of(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """What an ensemble says.

    Args:
        tables: member to its predictions, of `clotline.models.prediction.predict_models`, with
            studies and slices in the same order; the columns of the truth may be missing.

    Returns:
        A table of the same form, float64, with the studies that all members predicted.

    Raises:
        ClotlineError: the members have other studies, slices or truths.
    """
    common = set.intersection(*(set(table[STUDY_UID]) for table in tables.values()))
    tables = {
        name: table[table[STUDY_UID].isin(common)].reset_index(drop=True)
        for name, table in tables.items()
    }
    name, first = next(iter(tables.items()))
    outputs = [column for column in (*STUDY_LABELS, IMAGE_LABEL) if column in first]
    for other, table in tables.items():
        if not table.drop(columns=outputs).equals(first.drop(columns=outputs)):
            raise ClotlineError(
                f"{name} and {other} were not evaluated on the same cases, so that they have no "
                "mean: delete results/predictions and run the same command again"
            )
    mean = np.mean([table[outputs].to_numpy(np.float64) for table in tables.values()], axis=0)
    return first.assign(**dict(zip(outputs, mean.T, strict=True)))


def join_folds(tables: list[pd.DataFrame], splits: pd.Series) -> pd.DataFrame:
    """One model of the networks of all folds: every study by networks that never saw it.

    Args:
        tables: of each fold, what its networks say of its valid and test studies by
            `clotline.data.folds.plan_of_fold`.
        splits: study UID to its split of plan.parquet, in that file's order.

    Returns:
        As valid studies, all that are not of the test split, each as predicted out of fold: it is
        on these that operating points are fixed. As test studies those of the test split, by
        `mean_of` all folds.

    Raises:
        ClotlineError: a study was held out by two folds.
    """
    out_of_fold, tested = [], {}
    for fold, table in enumerate(tables):
        held_out = table[table["split"] == "test"]
        in_test = held_out[STUDY_UID].map(splits) == "test"
        out_of_fold.append(held_out[~in_test])
        tested[f"fold {fold}"] = held_out[in_test]
    studies = pd.concat([held_out[STUDY_UID].drop_duplicates() for held_out in out_of_fold])
    if studies.duplicated().any():
        raise ClotlineError(
            f"{studies[studies.duplicated()].iloc[0]} was held out by two folds: delete "
            "results/folds and run the same command again"
        )
    joined = pd.concat([pd.concat(out_of_fold).assign(split="valid"), mean_of(tested)])
    order = splits.index.get_indexer(joined[STUDY_UID]).argsort(kind="stable")
    return joined.iloc[order].reset_index(drop=True)
