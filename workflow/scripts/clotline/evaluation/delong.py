"""AUROC of studies with an interval that covers, and the paired comparison of two models.

The variance is DeLong's: DeLong, DeLong and Clarke-Pearson, Biometrics 44(3), 1988, in the
algorithm of Sun and Xu, IEEE Signal Processing Letters 21(11), 2014. DeLong's own interval, which
adds and subtracts 1.96 standard errors, is too narrow where positives are few or the AUROC high:
with 8 positives at an AUROC of 0.95 it covers the truth in three of four samples. Two things mend
it.

- A sample with few errors says little about their variance. It is drawn towards that of a model,
  the bi-negative-exponential one of Hanley and McNeil, Radiology 143(1), 1982, as if `PRIOR` more
  cases had been seen; a case counts by how much it can say.
- The interval of one AUROC holds the values that the observed one does not contradict, each with
  its own variance (a score interval: Newcombe, Statistics in Medicine 25(4), 2006). That of a
  difference has Student's quantile for its few degrees of freedom.

The constants were chosen by simulation: bench/coverage.py shows how often the intervals cover.
"""

import numpy as np
from scipy.optimize import brentq
from scipy.stats import rankdata
from scipy.stats import t as student

from clotline.errors import ClotlineError
from clotline.evaluation.intervals import LEVEL, Cases, Estimate, Z

METHOD = "score interval, DeLong's variance"
PAIRED_METHOD = "paired DeLong, small samples"

#: How many cases of each class the model's variance is worth: for one AUROC, for a difference.
PRIOR, PAIRED_PRIOR = 6, 2

#: The model's variance is multiplied by this: that of normal distributions is a little smaller.
PRIOR_SHARE = 0.9

#: Correlation of two models' scores that the model for a difference assumes.
PRIOR_CORRELATION = 0.7


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


def model_variances(auroc: float, sizes: np.ndarray) -> np.ndarray:
    """Variances of the structural components by Hanley and McNeil's model.

    The model has one class vary more than the other; here it is the smaller one, so that neither
    turning the scores nor swapping the classes changes an interval.

    Args:
        auroc: 0 to 1.
        sizes: (2,) numbers of positives and negatives.

    Returns:
        (2,): of the positives' components, and of the negatives'; 0 where the AUROC is 0 or 1.
    """
    both = auroc**2 * (1 - auroc) / (1 + auroc), auroc * (1 - auroc) ** 2 / (2 - auroc)
    if sizes[0] == sizes[1]:
        return np.full(2, np.mean(both))
    return np.array(sorted(both, reverse=bool(sizes[0] < sizes[1])))


def _seen(cases: np.ndarray, auroc: float) -> np.ndarray:
    """What the cases of each class are worth for the variance of their components.

    Where the AUROC is near 0 or 1 most components are equal, and few cases tell of their variance.
    """
    return (cases - 1) * min(1, 4 * auroc * (1 - auroc))


def auroc_delong(cases: Cases) -> Estimate:
    """AUROC of studies with its 95% interval.

    Where the classes are perfectly separated the AUROC itself is the outer end.
    """
    if reason := cases.one_class():
        return cases.estimate(METHOD, reason=reason)
    parts = structural_components(cases.truth, cases.score)
    value, sizes = parts[0].mean(), np.array([len(part) for part in parts])
    if np.ptp(cases.score) == 0:
        return cases.estimate(METHOD, value, reason="no interval: all scores are equal")
    if sizes.min() < 2:
        reason = f"no interval: fewer than 2 {cases.unit} in one class"
        return cases.estimate(METHOD, value, reason=reason)
    # How the observed variances compare with the model's: without an error they say nothing.
    ratios = np.full(2, PRIOR_SHARE)
    if 0 < value < 1:
        ratios = np.array([part.var(ddof=1) for part in parts]) / model_variances(value, sizes)
    seen = _seen(sizes, value)
    factors = (seen * ratios + PRIOR * PRIOR_SHARE) / (seen + PRIOR)

    def contradiction(auroc: float) -> float:
        """Above 0 where the observed AUROC is further away than the quantile allows."""
        variance = (factors * model_variances(auroc, sizes) / sizes).sum()
        return (value - auroc) ** 2 - Z**2 * variance

    low = 0.0 if value == 0 else brentq(contradiction, 0, value - _NEAR * value)
    high = 1.0 if value == 1 else brentq(contradiction, value + _NEAR * (1 - value), 1)
    return cases.estimate(METHOD, value, min(low, value), max(high, value))


#: Shift from the AUROC to the first value that is tried, as a share of its distance to 0 or 1.
_NEAR = 1e-9


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
    if reason := first.one_class():
        return first.estimate(PAIRED_METHOD, reason=reason), None
    of_both = [structural_components(c.truth, c.score) for c in (first, second)]
    aurocs = np.array([of_positive.mean() for of_positive, _ in of_both])
    parts = [a - b for a, b in zip(*of_both, strict=True)]
    value, sizes = aurocs[0] - aurocs[1], np.array([len(part) for part in parts])
    if sizes.min() < 2:
        reason = "no interval: fewer than 2 studies in one class"
        return first.estimate(PAIRED_METHOD, value, reason=reason), None
    if not any(part.any() for part in parts):
        reason = "no interval: both models rank all studies alike"
        return first.estimate(PAIRED_METHOD, value, reason=reason), None
    # Kept off 0 and 1: studies that were not seen may be ranked wrongly.
    inside = (aurocs * sizes.min() + 0.5) / (sizes.min() + 1)
    modelled = (1 - PRIOR_CORRELATION) * sum(model_variances(auroc, sizes) for auroc in inside)
    seen = np.mean([_seen(sizes, auroc) for auroc in inside], axis=0)
    observed = np.array([part.var(ddof=1) for part in parts])
    counted = seen + PAIRED_PRIOR
    of_means = (seen * observed + PAIRED_PRIOR * PRIOR_SHARE * modelled) / counted / sizes
    # Welch's degrees of freedom of a sum of two variances.
    freedom = of_means.sum() ** 2 / (of_means**2 / counted).sum()
    deviation = np.sqrt(of_means.sum())
    half = student.ppf((1 + LEVEL) / 2, freedom) * deviation
    ends = np.clip((value - half, value + half), -1, 1)
    p_value = float(2 * student.sf(abs(value) / deviation, freedom))
    return first.estimate(PAIRED_METHOD, value, *ends), p_value
