"""Several models as one more: the mean of their probabilities.

Probabilities, not logits, after Lakshminarayanan et al., Simple and Scalable Predictive Uncertainty
Estimation using Deep Ensembles, NeurIPS 2017: a member that is sure beyond reason moves the mean
by 1/n at most, and a mean of logits without bound. The log loss of either is at most the mean of
the members'.
"""

import numpy as np
import pandas as pd

from clotline.errors import ClotlineError
from clotline.labels import IMAGE_LABEL, STUDY_LABELS


def mean_of(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """What an ensemble says.

    Args:
        tables: member to its predictions of the same studies or slices in the same order, of
            `clotline.models.prediction.predict_models`; the columns of the truth may be missing.

    Returns:
        A table of the same form, float64.

    Raises:
        ClotlineError: the members have other studies, slices or truths.
    """
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
