"""AUROC with DeLong's interval, and the paired comparison of two models.

DeLong, DeLong and Clarke-Pearson, Biometrics 44(3), 1988, in the algorithm of Sun and Xu, IEEE
Signal Processing Letters 21(11), 2014.
"""

import numpy as np
from scipy.stats import norm, rankdata

from clotline.errors import ClotlineError
from clotline.evaluation.intervals import Cases, Estimate, Z, wilson

METHOD = "DeLong"


def structural_components(truth: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How each case ranks against the other class; the mean of either part is the AUROC.

    Args:
        truth: (n,) bool with both classes.
        score: (n,) float.

    Returns:
        For each of the m positives the share of negatives below it, and for each of the n - m
        negatives the share of positives above it; a tie counts half.
    """
    positive, negative = score[truth], score[~truth]
    m, n = len(positive), len(negative)
    ranks = rankdata(np.concatenate([positive, negative]))
    of_positive = (ranks[:m] - rankdata(positive)) / n
    of_negative = 1 - (ranks[m:] - rankdata(negative)) / m
    return of_positive, of_negative


def _variance(of_positive: np.ndarray, of_negative: np.ndarray) -> float:
    return sum(part.var(ddof=1) / len(part) for part in (of_positive, of_negative))


def auroc_delong(cases: Cases) -> Estimate:
    """AUROC of studies with DeLong's 95% interval, clipped to 0 to 1.

    The variance is 0 where the classes are perfectly separated. The inner end is then Wilson's
    for as many successes as the smaller class has cases, which does not claim certainty; the
    outer end is the AUROC itself.
    """
    if reason := cases.one_class():
        return cases.estimate(METHOD, reason=reason)
    of_positive, of_negative = structural_components(cases.truth, cases.score)
    value, smaller = of_positive.mean(), min(len(of_positive), len(of_negative))
    if np.ptp(cases.score) == 0:
        return cases.estimate(METHOD, value, reason="no interval: all scores are equal")
    if value in (0, 1):
        ends = wilson(int(value) * smaller, smaller)
        return cases.estimate("Wilson, smaller class", value, *ends)
    if smaller < 2:
        reason = f"no interval: fewer than 2 {cases.kind} in one class"
        return cases.estimate(METHOD, value, reason=reason)
    half = Z * np.sqrt(_variance(of_positive, of_negative))
    return cases.estimate(METHOD, value, max(value - half, 0), min(value + half, 1))


def paired_delong(first: Cases, second: Cases) -> tuple[Estimate, float | None]:
    """Difference of two models' AUROC on the same studies.

    Args:
        first: cases of one model.
        second: cases of the other; the same studies in the same order.

    Returns:
        AUROC of ``first`` minus that of ``second`` with its 95% interval, and the two-sided p
        value of no difference; None where there is none.

    Raises:
        ClotlineError: the truths differ.
    """
    if not np.array_equal(first.truth, second.truth):
        raise ClotlineError("the two models to compare were not evaluated on the same studies")
    method = f"paired {METHOD}"
    if reason := first.one_class():
        return first.estimate(method, reason=reason), None
    parts = [structural_components(c.truth, c.score) for c in (first, second)]
    of_positive, of_negative = (a - b for a, b in zip(*parts, strict=True))
    value = of_positive.mean()
    if min(len(of_positive), len(of_negative)) < 2:
        reason = "no interval: fewer than 2 studies in one class"
        return first.estimate(method, value, reason=reason), None
    deviation = np.sqrt(_variance(of_positive, of_negative))
    if deviation == 0:
        reason = "no interval: every study has the same difference"
        return first.estimate(method, value, reason=reason), None
    ends = np.clip((value - Z * deviation, value + Z * deviation), -1, 1)
    return first.estimate(method, value, *ends), float(2 * norm.sf(abs(value) / deviation))
