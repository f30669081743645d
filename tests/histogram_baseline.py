"""What a classifier reaches that sees how much there is of each attenuation, but not where.

The embedded cohort is a fair task only if this stays near chance: tests hold it to an AUROC of at
most 0.70 on the studies' question, whether there is an embolism.
"""

import warnings

import numpy as np

#: Bin edges in HU; the outer bins take what lies beyond.
EDGES = np.linspace(-1024, 1000, 65)


def histogram_features(slices_hu: np.ndarray) -> np.ndarray:
    """Mean, maximum and spread over a study's slices of each bin's share of the pixels.

    Args:
        slices_hu: (n, rows, columns) integers, Hounsfield units.

    Returns:
        (192,) float64.
    """
    bins = len(EDGES) - 1
    # A table from HU to bin is much faster than np.histogram on thousands of slices.
    table = np.digitize(np.arange(-1024, 1001), EDGES[1:-1])
    shares = np.stack(
        [
            np.bincount(table[np.clip(s, -1024, 1000) + 1024].ravel(), minlength=bins)
            for s in slices_hu
        ]
    ) / (slices_hu.shape[1] * slices_hu.shape[2])
    return np.concatenate([shares.mean(axis=0), shares.max(axis=0), shares.std(axis=0)])


def auroc_of_features(
    train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray
) -> float:
    """The best AUROC over a few strengths of regularisation, so that the bar is a hard one.

    Args:
        train: (studies, features).
        train_labels: (studies,) 0 or 1.
        test: (studies, features).
        test_labels: (studies,) 0 or 1.
    """
    # Here, for tests that start many processes have a part of this module too.
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    scores = []
    for strength in (0.001, 0.01, 0.1, 1.0):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(train, train_labels)
        scores.append(roc_auc_score(test_labels, model.decision_function(test)))
    return max(scores)


def histogram_baseline_auroc(
    train: list[np.ndarray], train_labels, test: list[np.ndarray], test_labels
) -> float:
    """AUROC for PE present on the test studies.

    Args:
        train: one (n, rows, columns) array of Hounsfield units per study.
        train_labels: 1 for a study with an embolism, else 0, in the same order.
        test: as train.
        test_labels: as train_labels.
    """
    return auroc_of_features(
        np.stack([histogram_features(s) for s in train]),
        np.asarray(train_labels),
        np.stack([histogram_features(s) for s in test]),
        np.asarray(test_labels),
    )
