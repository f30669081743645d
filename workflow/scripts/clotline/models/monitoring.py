"""What is watched while training: AUROC of the targets that matter at each level."""

import numpy as np

from clotline.labels import NO_PE_LABELS, STUDY_LABELS, pe_probability

_ABSENT = [STUDY_LABELS.index(name) for name in NO_PE_LABELS]


def auroc(targets: np.ndarray, scores: np.ndarray) -> float | None:
    """AUROC of (n,) 0/1 targets by (n,) scores; None where only one class occurs."""
    # Imported here: scikit-learn and SciPy take a seventh of a training's start-up.
    from sklearn.metrics import roc_auc_score

    if targets.min() == targets.max():
        return None
    return float(roc_auc_score(targets, scores))


def joint_auroc(targets: np.ndarray, logits: np.ndarray) -> float | None:
    """AUROC of the slices from a joint network's (n, 10) targets and logits."""
    return auroc(targets[:, -1], logits[:, -1])


def pe_present_auroc(targets: np.ndarray, logits: np.ndarray) -> float | None:
    """AUROC of "PE present" by study from (n, 9) targets and logits of the study labels.

    PE is present where the study is labelled neither negative nor indeterminate.
    """
    from scipy.special import expit

    absent = expit(logits[:, _ABSENT].astype(np.float64))
    # In a labels file a study may have both labels.
    return auroc(1 - targets[:, _ABSENT].max(1), pe_probability(*absent.T))
