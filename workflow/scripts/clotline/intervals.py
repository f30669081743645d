"""Figures of a binary classifier with 95% intervals, and a reason where there is no figure.

AUROC at the study level has DeLong's interval; everything else, and every figure of slices, has a
percentile interval from a bootstrap that resamples whole studies, because slices of one study are
not independent.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from scipy.stats import norm, rankdata
from statsmodels.stats.proportion import proportion_confint

LEVEL = 0.95
_Z = norm.ppf((1 + LEVEL) / 2)

#: Probabilities are kept this far from 0 and 1 in the log loss.
EPSILON = 1e-7


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A figure with its 95% interval, or the reason why there is none.

    Attributes:
        value: the figure; None where it cannot be computed.
        low: lower end of the interval; None where there is no interval.
        high: upper end.
        n: number of cases: studies or, where ``n_slices`` is set, slices.
        n_studies: number of studies.
        n_positive: number of positive cases.
        n_slices: number of slices; None for figures of studies.
        method: how the interval was made.
        reason: why the figure or its interval is missing; None where both are there.
    """

    value: float | None
    low: float | None
    high: float | None
    n_studies: int
    n_positive: int
    n_slices: int | None
    method: str
    reason: str | None = None

    def as_dict(self) -> dict:
        """The same as plain values, fit for JSON."""
        return dataclasses.asdict(self)


def describe_estimate(estimate: dict) -> str:
    """``0.91 (0.85–0.96)``, or the value alone, or why there is none."""
    if estimate["value"] is None:
        return f"not computable: {estimate['reason']}"
    text = f"{estimate['value']:.2f}"
    if estimate["low"] is not None:
        text += f" ({estimate['low']:.2f}–{estimate['high']:.2f})"
    return text


@dataclasses.dataclass(frozen=True)
class Cases:
    """What is evaluated: truths and probabilities of studies or of their slices.

    Attributes:
        truth: (n,) bool.
        score: (n,) float64 probabilities.
        study: (n,) int, the number of the case's study, from 0 on.
        are_slices: whether a case is a slice.
    """

    truth: np.ndarray
    score: np.ndarray
    study: np.ndarray
    are_slices: bool

    @classmethod
    def of(cls, truth, score, study=None) -> "Cases":
        """Cases from array-likes; without ``study`` each case is a study of its own."""
        truth = np.asarray(truth).astype(bool)
        score = np.asarray(score, dtype=np.float64)
        if not np.isfinite(score).all():
            raise ValueError("a probability is infinite or NaN")
        if study is None:
            return cls(truth, score, np.arange(len(truth)), are_slices=False)
        return cls(truth, score, np.unique(study, return_inverse=True)[1], are_slices=True)

    @property
    def studies(self) -> int:
        """Number of studies."""
        return int(self.study.max()) + 1 if len(self.study) else 0

    def one_class(self) -> str | None:
        """Why a figure that needs both classes cannot be computed; None where it can."""
        kind = "slices" if self.are_slices else "studies"
        if not len(self.truth):
            return f"no {kind}"
        if self.truth.all() or not self.truth.any():
            only = "positive" if self.truth.all() else "negative"
            return f"one class only: all {len(self.truth):,} {kind} are {only}"
        return None

    def estimate(self, value, low, high, method: str, reason: str | None = None) -> Estimate:
        """An `Estimate` with these cases' counts."""
        value, low, high = (None if v is None else float(v) for v in (value, low, high))
        slices = len(self.truth) if self.are_slices else None
        positive = int(self.truth.sum())
        return Estimate(value, low, high, self.studies, positive, slices, method, reason)


def delong_components(truth: np.ndarray, score: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """AUROC and its structural components (DeLong 1988; by midranks as Sun and Xu 2014).

    Args:
        truth: (n,) bool with both classes.
        score: (n,) float.

    Returns:
        The AUROC; for each positive the share of negatives that it outranks; for each negative
        the share of positives that outrank it.
    """
    positive, negative = score[truth], score[~truth]
    m, n = len(positive), len(negative)
    ranks = rankdata(np.concatenate([positive, negative]))
    of_positive = (ranks[:m] - rankdata(positive)) / n
    of_negative = 1 - (ranks[m:] - rankdata(negative)) / m
    return float(of_positive.mean()), of_positive, of_negative


def auroc_delong(cases: Cases) -> Estimate:
    """AUROC with DeLong's 95% interval, clipped to 0 to 1.

    DeLong, DeLong and Clarke-Pearson, Biometrics 44(3), 1988; Sun and Xu, IEEE Signal Processing
    Letters 21(11), 2014. Where positives and negatives are perfectly separated the variance is 0;
    the inner end is then Wilson's for as many successes as the smaller class has cases.
    """
    method = "DeLong"
    if reason := cases.one_class():
        return cases.estimate(None, None, None, method, reason)
    value, of_positive, of_negative = delong_components(cases.truth, cases.score)
    smaller = min(len(of_positive), len(of_negative))
    if smaller < 2:
        reason = "no interval: fewer than 2 studies in one class"
        return cases.estimate(value, None, None, method, reason)
    variance = of_positive.var(ddof=1) / len(of_positive)
    variance += of_negative.var(ddof=1) / len(of_negative)
    if variance == 0 and value in (0.0, 1.0):
        low, high = proportion_confint(round(value * smaller), smaller, 1 - LEVEL, "wilson")
        return cases.estimate(value, low, high, f"{method}; Wilson, for it separates perfectly")
    half = _Z * np.sqrt(variance)
    return cases.estimate(value, max(value - half, 0), min(value + half, 1), method)


class Bootstrap:
    """Resamples of the studies, as the weight of each study in each resample.

    Cases are sorted by score once; a resample is then one row of weights and its AUROC, average
    precision or sensitivity a cumulative sum. Few resamples are in memory at a time.
    """

    def __init__(self, cases: Cases, resamples: int, seed: int):
        """Draws nothing yet.

        Args:
            cases: what to resample, with both classes.
            resamples: number of resamples.
            seed: the same seed draws the same studies.
        """
        self._cases = cases
        self._resamples = resamples
        self._seed = seed

    def interval(self, figure: Callable[[np.ndarray], float]) -> tuple[float, float] | None:
        """Percentile interval of ``figure`` of the cases' weights; None where there is none.

        Resamples in which the figure is NaN (one class only) do not count.
        """
        values = np.array([figure(weights) for weights in self._weights()])
        values = values[np.isfinite(values)]
        if len(values) < self._resamples / 2:
            return None
        low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return float(low), float(high)

    def quantiles(self, curve: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Pointwise 95% band, (2, points), of a curve of the cases' weights."""
        values = np.array([curve(weights) for weights in self._weights()])
        values = values[np.isfinite(values).all(1)]
        return np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)

    def _weights(self):
        studies = self._cases.studies
        rng = np.random.default_rng(self._seed)
        for _ in range(self._resamples):
            drawn = np.bincount(rng.integers(0, studies, studies), minlength=studies)
            yield drawn[self._cases.study].astype(np.float64)


class Ranked:
    """Cases sorted by falling score, for figures as functions of the cases' weights."""

    def __init__(self, cases: Cases):
        self._order = np.argsort(-cases.score, kind="stable")
        score = cases.score[self._order]
        self._positive = cases.truth[self._order].astype(np.float64)
        # A threshold lies behind the last of equal scores.
        self._last = np.flatnonzero(np.r_[score[1:] != score[:-1], True])
        self.thresholds = score[self._last]

    def counts(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weights of true and of false positives at every threshold, from the highest on."""
        weights = weights[self._order]
        true = np.cumsum(weights * self._positive)[self._last]
        return true, np.cumsum(weights)[self._last] - true

    def auroc(self, weights: np.ndarray) -> float:
        """Weighted AUROC by the trapezoidal rule; NaN where one class has no weight."""
        true, false = self.counts(weights)
        if not true[-1] or not false[-1]:
            return np.nan
        area = np.trapezoid(np.r_[0, true], np.r_[0, false])
        return float(area / (true[-1] * false[-1]))

    def average_precision(self, weights: np.ndarray) -> float:
        """Weighted mean of precision over recall steps; NaN without positives."""
        true, false = self.counts(weights)
        if not true[-1]:
            return np.nan
        precision = np.divide(true, true + false, out=np.zeros_like(true), where=true + false > 0)
        return float(np.sum(np.diff(np.r_[0, true]) * precision) / true[-1])

    def roc(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """False and true positive rates from (0, 0) to (1, 1)."""
        true, false = self.counts(weights)
        if not true[-1] or not false[-1]:
            nothing = np.array([np.nan])
            return nothing, nothing
        return np.r_[0, false / false[-1]], np.r_[0, true / true[-1]]


def bootstrapped(
    cases: Cases, figure: Callable[[np.ndarray], float], resamples: int, seed: int
) -> Estimate:
    """A figure with the percentile interval of a bootstrap of studies.

    Args:
        cases: what is evaluated.
        figure: of the cases' weights.
        resamples: number of resamples.
        seed: of the resamples.
    """
    method = f"bootstrap of studies, {resamples:,} resamples"
    value = figure(np.ones(len(cases.truth)))
    if cases.studies < 2:
        reason = "no interval: one study only"
        return cases.estimate(value, None, None, method, reason)
    ends = Bootstrap(cases, resamples, seed).interval(figure)
    if ends is None:
        reason = "no interval: most resamples have one class only"
        return cases.estimate(value, None, None, method, reason)
    return cases.estimate(value, *ends, method)


def mean_figure(values: np.ndarray) -> Callable[[np.ndarray], float]:
    """The weighted mean of one value a case, for `bootstrapped`."""
    return lambda weights: float(values @ weights / weights.sum())


def log_losses(cases: Cases) -> np.ndarray:
    """(n,) cross-entropy of each case, in nats."""
    p = np.clip(cases.score, EPSILON, 1 - EPSILON)
    return -np.where(cases.truth, np.log(p), np.log1p(-p))


def wilson(cases: Cases, successes: int, trials: int, what: str) -> Estimate:
    """A proportion with Wilson's 95% interval.

    Args:
        cases: for the counts.
        successes: number of successes.
        trials: number of trials; 0 gives no figure.
        what: what the trials are, such as ``positive studies``, for the reason.
    """
    if not trials:
        return cases.estimate(None, None, None, "Wilson", f"no {what}")
    low, high = proportion_confint(successes, trials, 1 - LEVEL, "wilson")
    return cases.estimate(successes / trials, low, high, "Wilson")
