"""Metrics of a binary classifier with 95% intervals, and a reason where there is no metric.

Slices of one study are not independent, so every interval of a metric of slices comes from a
bootstrap that resamples whole studies: Efron and Tibshirani, "An Introduction to the Bootstrap",
1993, chapter 8.3.
"""

import dataclasses
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from clotline.errors import ClotlineError

LEVEL = 0.95
TAILS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
# Not scipy's, whose import would cost every job that draws a plot an eighth of a second.
Z = NormalDist().inv_cdf(TAILS[1])

#: Probabilities are kept this far from 0 and 1 in logarithms.
EPSILON = 1e-7


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A metric with its 95% interval, or the reason why it is missing.

    Attributes:
        value: of the metric; None where it cannot be computed.
        low: lower end of the interval; None where there is no interval.
        high: upper end.
        n_studies: number of studies.
        n_positive: number of positive cases: slices where ``n_slices`` is set, else studies.
        method: how the interval is made.
        reason: why the metric or its interval is missing; None where both are there.
        n_slices: number of slices; None for metrics of studies.
    """

    value: float | None
    low: float | None
    high: float | None
    n_studies: int
    n_positive: int
    method: str
    reason: str | None = None
    n_slices: int | None = None

    def as_dict(self) -> dict:
        """The same as plain values, fit for JSON."""
        return dataclasses.asdict(self)


def describe_estimate(estimate: dict) -> str:
    """``0.912 (0.853–0.961)``, or the value and why it has no interval, or why there is none."""
    if estimate["value"] is None:
        return f"not computable: {estimate['reason']}"
    return " ".join(filter(None, estimate_parts(estimate)))


def estimate_parts(estimate: dict) -> tuple[str, str, str]:
    """A computable metric in three parts: its value, its interval, and why it has no interval.

    Each is a text of its own, so that a page can keep the first two whole and in their columns.
    """
    value, low, high = (
        None if end is None else f"{end:.3f}".replace("-", "−")
        for end in (estimate["value"], estimate["low"], estimate["high"])
    )
    if low is None:
        return value, "", f"({estimate['reason']})" if estimate["reason"] else ""
    # A dash beside a minus sign would be read as another one.
    return value, f"({low} to {high})" if "−" in low else f"({low}–{high})", ""


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
    def of(cls, truth, score, study=None, name: str = "the score") -> "Cases":
        """Checked cases from array-likes.

        Args:
            truth: (n,) 0 or 1.
            score: (n,) probabilities.
            study: (n,) study of each slice; without it each case is a study of its own.
            name: of the score, for error messages.

        Raises:
            ClotlineError: a truth is neither 0 nor 1, or a score is no probability.
        """
        truth = np.asarray(truth, dtype=np.float64)
        score = np.asarray(score, dtype=np.float64)
        if not np.isin(truth, (0, 1)).all():
            raise ClotlineError(f"the truth of {name} holds missing values or others than 0 and 1")
        if not ((score >= 0) & (score <= 1)).all():
            raise ClotlineError(f"{name} holds missing values or values outside 0 to 1")
        number = np.arange(len(truth)) if study is None else pd.factorize(np.asarray(study))[0]
        return cls(truth == 1, score, number, are_slices=study is not None)

    @property
    def studies(self) -> int:
        """Number of studies."""
        return int(self.study.max()) + 1 if len(self.study) else 0

    @property
    def unit(self) -> str:
        """What the cases are, in the plural."""
        return "slices" if self.are_slices else "studies"

    def none(self) -> str | None:
        """Why a metric that needs a case cannot be computed; None where it can."""
        return None if len(self.truth) else f"no {self.unit}"

    def one_class(self) -> str | None:
        """Why a metric that needs both classes cannot be computed; None where it can."""
        if len(self.truth) and (self.truth.all() or not self.truth.any()):
            only = "positive" if self.truth.all() else "negative"
            return f"one class only: all {len(self.truth):,} {self.unit} are {only}"
        return self.none()

    def by_study(self, values: np.ndarray) -> np.ndarray:
        """(studies,) sums of (n,) values of the cases."""
        return np.bincount(self.study, values, self.studies)

    def estimate(
        self, method: str, value=None, low=None, high=None, reason: str | None = None
    ) -> Estimate:
        """An `Estimate` with these cases' counts."""
        value, low, high = (None if v is None else float(v) for v in (value, low, high))
        slices = len(self.truth) if self.are_slices else None
        positive = int(self.truth.sum())
        return Estimate(value, low, high, self.studies, positive, method, reason, slices)


def cross_entropy(truth: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Binary cross-entropy of each element, in nats; finite even for a wrong 0 or 1."""
    p = np.clip(probability, EPSILON, 1 - EPSILON)
    return -(truth * np.log(p) + (1 - truth) * np.log1p(-p))


def resample(
    metrics: Callable[[np.ndarray], np.ndarray], studies: int, resamples: int, seed: int
) -> np.ndarray:
    """Metrics of resamples of the studies, drawn with replacement.

    Args:
        metrics: gives the (k,) metrics of a sample from the (studies,) counts of its studies.
        studies: number of studies.
        resamples: number of resamples.
        seed: the same seed draws the same studies.

    Returns:
        (resamples, k) float64; (0, k) with fewer than two studies.
    """
    if studies < 2:
        # One study is the same in every resample: there is nothing to learn from them.
        return np.empty((0, len(metrics(np.ones(studies, dtype=int)))))
    rng = np.random.default_rng(seed)
    return np.array(
        [
            metrics(np.bincount(rng.integers(0, studies, studies), minlength=studies))
            for _ in range(resamples)
        ]
    )


def percentile_estimate(cases: Cases, value: float, resampled: np.ndarray) -> Estimate:
    """A metric with the percentile interval of its resamples.

    Args:
        cases: what is evaluated.
        value: of the metric.
        resampled: (resamples,) the metric of each resample. NaN, of a resample that lacks a class,
            is left out.
    """
    usable = resampled[np.isfinite(resampled)]
    method = f"bootstrap of studies, {len(usable):,} resamples"
    if cases.studies < 2:
        return cases.estimate(method, value, reason="no interval: one study only")
    if len(usable) < max(len(resampled) / 2, 1):
        reason = "no interval: most resamples have one class only"
        return cases.estimate(method, value, reason=reason)
    # Equal but for rounding.
    if np.ptp(usable) <= 1e-9 * max(1, abs(value)):
        reason = "no interval: every resample gives the same figure"
        return cases.estimate(method, value, reason=reason)
    return cases.estimate(method, value, *np.quantile(usable, TAILS))


def ratios(numerators: np.ndarray, denominators: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Metrics for `resample`: ratios of sums over the studies; NaN where the divisor is 0.

    Args:
        numerators: (studies, k) what each study adds to the numerators.
        denominators: (studies, k) what it adds to the denominators.
    """

    def metrics(draws: np.ndarray) -> np.ndarray:
        above, below = draws @ numerators, draws @ denominators
        return np.divide(above, below, out=np.full(above.shape, np.nan), where=below != 0)

    return metrics


def wilson(successes: ArrayLike, trials: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Ends of Wilson's 95% intervals of proportions (J Am Stat Assoc 22(158), 1927).

    Args:
        successes: counts of any shape.
        trials: counts of that shape, above 0.

    Returns:
        Lower and upper ends, each of that shape.
    """
    # By hand: a library's takes a job that plots a second to import.
    successes, trials = np.asarray(successes, float), np.asarray(trials, float)
    weight = trials + Z**2
    middle = (successes + Z**2 / 2) / weight
    half = Z * np.sqrt(successes * (trials - successes) / trials + Z**2 / 4) / weight
    observed = successes / trials
    # Where all or none succeed, rounding can leave the proportion itself just outside.
    return np.minimum(middle - half, observed), np.maximum(middle + half, observed)


def proportions(
    cases: Cases,
    trials: dict[str, tuple[np.ndarray, np.ndarray, str]],
    resamples: int,
    seed: int,
) -> dict[str, Estimate]:
    """Proportions with 95% intervals: Wilson's for studies, the bootstrap's for slices.

    Where all slices or none succeed, all resamples are equal; the interval is then Wilson's with
    one trial for each study that has any, which is on the safe side.

    Args:
        cases: what is evaluated.
        trials: by name of the proportion: (n,) bool, which cases count; (n,) bool, which of all
            cases would succeed; and what is counted, for the reason.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        Name to estimate.
    """
    counted = {name: cases.by_study(tried) for name, (tried, _, _) in trials.items()}
    hits = [cases.by_study(tried & success) for tried, success, _ in trials.values()]
    metrics = ratios(np.column_stack(hits), np.column_stack(list(counted.values())))
    values = dict(zip(trials, metrics(np.ones(cases.studies)), strict=True))
    if cases.are_slices:
        drawn = resample(metrics, cases.studies, resamples, seed)
        resampled = dict(zip(trials, drawn.T, strict=True))

    def estimate(name: str) -> Estimate:
        value = values[name]
        if np.isnan(value):
            return cases.estimate("Wilson", reason=f"no {trials[name][2]}")
        if cases.are_slices and 0 < value < 1:
            return percentile_estimate(cases, value, resampled[name])
        clusters = np.count_nonzero(counted[name])
        method = "Wilson, a trial a study" if cases.are_slices else "Wilson"
        return cases.estimate(method, value, *wilson(round(value * clusters), clusters))

    return {name: estimate(name) for name in trials}
