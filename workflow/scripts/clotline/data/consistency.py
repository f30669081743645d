"""The RSNA-STR competition's rules of label consistency.

https://www.kaggle.com/c/rsna-str-pulmonary-embolism-detection. A label is positive where its
probability is above 0.5; exactly 0.5 is negative.
"""

import numpy as np
import pandas as pd

from clotline.labels import IMAGE_LABEL, STUDY_LABELS, STUDY_UID, Role, labels_of


def _columns(*roles: Role) -> np.ndarray:
    return np.array([STUDY_LABELS.index(name) for name in labels_of(*roles)])


#: Columns of the study labels of which the rules speak: no PE; the ratio of the ventricles; where
#: the clot lies; how old it is; and all that say that there is a clot.
ABSENT, RATIO, CHRONIC = map(_columns, (Role.ABSENT, Role.RATIO, Role.AGE))
PRESENT = _columns(Role.RATIO, Role.SIDE, Role.AGE)
# Central, right, left: of sides that are equally likely, the first one is taken.
SIDE = _columns(Role.SIDE)[::-1]

#: Slices, and the study of each, where there are only study labels.
NO_SLICES = (np.empty(0), np.empty(0, dtype=int))


def consistent(
    labels: np.ndarray, slices: np.ndarray = NO_SLICES[0], study_of: np.ndarray = NO_SLICES[1]
) -> np.ndarray:
    """Which studies keep to the rules of label consistency.

    Args:
        labels: (studies, 9) probabilities.
        slices: (slices,) probabilities.
        study_of: (slices,) int, the row of ``labels`` that each slice belongs to.

    Returns:
        (studies,) bool. A study without slices may keep to the rules for studies with PE or to
        those for studies without.
    """
    called = labels > 0.5
    one_absent, one_ratio = (called[:, pair].sum(1) == 1 for pair in (ABSENT, RATIO))
    as_positive = (
        one_ratio & called[:, SIDE].any(1) & ~called[:, CHRONIC].all(1) & ~called[:, ABSENT].any(1)
    )
    as_negative = one_absent & ~called[:, PRESENT].any(1)
    count = np.bincount(study_of, minlength=len(labels))
    has_positive = np.bincount(study_of, slices > 0.5, len(labels)) > 0
    return np.where(has_positive, as_positive, as_negative | (as_positive & (count == 0)))


def inconsistent_studies(labels: pd.DataFrame) -> list[str]:
    """UIDs of the studies whose labels break the rules of label consistency.

    Args:
        labels: table of `clotline.data.labels_file.read_labels`.
    """
    study_of, uids = pd.factorize(labels[STUDY_UID])
    studies = labels.drop_duplicates(STUDY_UID)[list(STUDY_LABELS)].to_numpy()
    kept = consistent(studies, labels[IMAGE_LABEL].to_numpy(), study_of)
    return list(uids[~kept])
