"""AUROC, average precision and ROC curve, fast enough to be resampled thousands of times.

Also the paired comparison of two models on the same slices, by resampling; that on studies is in
`clotline.evaluation.delong`.
"""

import dataclasses

import numpy as np
from sklearn.metrics import roc_curve

from clotline.errors import ClotlineError
from clotline.evaluation.intervals import Cases, Estimate, percentile_estimate, resample

#: Grid of false positive rates on which the band around a ROC curve is drawn.
ROC_GRID = np.linspace(0, 1, 101)

#: Most points of a ROC curve that are kept.
ROC_POINTS = 2000


def roc_points(truth: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False and true positive rates from (0, 0) to (1, 1), thinned to at most `ROC_POINTS`.

    Args:
        truth: (n,) bool with both classes.
        score: (n,) float.
    """
    fpr, tpr, _ = roc_curve(truth, score)
    kept = np.unique(np.linspace(0, len(fpr) - 1, min(ROC_POINTS, len(fpr))).round().astype(int))
    return fpr[kept], tpr[kept]


class Ranking:
    """Cases sorted by falling score once; a resample then costs two cumulative sums.

    Sensitivity rises only at scores that a positive case has, so the running counts are kept for
    those scores alone: before the cases of a score, and after them.
    """

    def __init__(self, cases: Cases):
        order = np.argsort(-cases.score, kind="stable")
        score, positive = cases.score[order], cases.truth[order]
        starts = np.flatnonzero(np.r_[True, score[1:] != score[:-1]])
        positives = np.add.reduceat(positive, starts, dtype=np.intp)
        ends = np.r_[starts[1:], len(score)]
        self._study = cases.study[order]
        self._study_of_positive = self._study[positive]
        #: Numbers of cases, and of positives, before and after each score that a positive has.
        self._cases = np.column_stack([starts, ends])[positives > 0]
        behind = np.cumsum(positives)[positives > 0]
        self._positives = np.column_stack([np.r_[0, behind[:-1]], behind])

    def metrics(self, draws: np.ndarray) -> np.ndarray:
        """AUROC, average precision, and the sensitivity at each point of `ROC_GRID`.

        AUROC is the trapezoidal area (a tie counts half), average precision the sum of precision
        times gain in recall over the thresholds, as in scikit-learn.

        Args:
            draws: (studies,) how often each study is in the sample.

        Returns:
            (2 + len(ROC_GRID),); NaN where the sample lacks a class.
        """
        called = _running(draws[self._study])[self._cases]
        true = _running(draws[self._study_of_positive])[self._positives]
        false = called - true
        all_true, all_false = float(true[-1, 1]), float(draws[self._study].sum() - true[-1, 1])
        if not all_true or not all_false:
            return np.full(2 + len(ROC_GRID), np.nan)
        gain = (true[:, 1] - true[:, 0]) / all_true
        auroc = 1 - gain @ (false[:, 0] + false[:, 1]) / 2 / all_false
        precision = gain @ (true[:, 1] / np.maximum(called[:, 1], 1))
        # Where a vertical step lies at a grid point np.interp takes its upper end.
        fpr, tpr = _rates(false, all_false), _rates(true, all_true)
        return np.concatenate([[auroc, precision], np.interp(ROC_GRID, fpr, tpr)])


def _rates(counts: np.ndarray, total: float) -> np.ndarray:
    # numpy's r_ would take a third of a resample's time.
    return np.concatenate([[0], counts.ravel(), [total]]) / total


def _running(weights: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(weights)])


def paired_bootstrap(
    first: Cases, second: Cases, resamples: int, seed: int
) -> tuple[Estimate, float | None]:
    """Difference of two models' AUROC on the same slices, by resampling whole studies.

    The p value is the smallest level at which the percentile interval does not hold 0, with one
    added to both counts: Davison and Hinkley, "Bootstrap Methods and their Application", 1997,
    chapter 4.

    Args:
        first: cases of one model.
        second: cases of the other; the same slices in the same order.
        resamples: number of resamples.
        seed: of the resamples.

    Returns:
        AUROC of ``first`` minus that of ``second`` with its 95% interval, and the two-sided p
        value of no difference; None where there is none.

    Raises:
        ClotlineError: the truths or the studies differ.
    """
    same = (np.array_equal(getattr(first, n), getattr(second, n)) for n in ("truth", "study"))
    if not all(same):
        raise ClotlineError("the two models to compare were not evaluated on the same slices")
    if reason := first.one_class():
        return first.estimate("paired bootstrap of studies", reason=reason), None
    rankings = Ranking(first), Ranking(second)

    def difference(draws: np.ndarray) -> np.ndarray:
        mine, other = (ranking.metrics(draws)[:1] for ranking in rankings)
        return mine - other

    value = difference(np.ones(first.studies, dtype=int))[0]
    drawn = resample(difference, first.studies, resamples, seed)[:, 0]
    estimate = percentile_estimate(first, value, drawn)
    estimate = dataclasses.replace(estimate, method=f"paired {estimate.method}")
    if estimate.low is None:
        return estimate, None
    drawn = drawn[np.isfinite(drawn)]
    beyond = min(np.count_nonzero(drawn <= 0), np.count_nonzero(drawn >= 0))
    return estimate, min(1.0, 2 * (beyond + 1) / (len(drawn) + 1))
