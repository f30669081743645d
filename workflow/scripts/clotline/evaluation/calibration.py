"""How well probabilities agree with frequencies.

Van Calster et al., "Calibration: the Achilles heel of predictive analytics", BMC Medicine 17,
2019, doi 10.1186/s12916-019-1466-7.
"""

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, logit
from statsmodels.genmod.families import Binomial
from statsmodels.genmod.generalized_linear_model import GLM

from clotline.evaluation.intervals import EPSILON, Cases, Estimate, Z

#: Groups of the reliability curve.
GROUPS = 10


def calibration(cases: Cases) -> dict:
    """Calibration of probabilities.

    Returns:
        ``slope`` and ``intercept`` of the unpenalised logistic regression of the truth on the
        logit of the probability (1 and 0 where calibration is perfect; a slope below 1 means
        overconfidence), ``in_the_large`` (the intercept where the slope is held at 1; below 0 the
        probabilities are too high on average), each an `Estimate` dict with Wald's interval,
        robust to the correlation within a study for slices; and ``reliability``.
    """
    x = logit(np.clip(cases.score, EPSILON, 1 - EPSILON))
    reason = cases.one_class() or _separated(x, cases.truth)
    intercept, slope = _regress(cases, x, reason)
    estimates = {"slope": slope, "intercept": intercept, "in_the_large": _in_the_large(cases, x)}
    return {name: estimate.as_dict() for name, estimate in estimates.items()} | {
        "reliability": reliability(cases)
    }


def _separated(x: np.ndarray, truth: np.ndarray) -> str | None:
    """Why the likelihood has no single maximum: with one covariate, classes must overlap in it."""
    positive, negative = x[truth], x[~truth]
    if x.min() == x.max():
        return "all probabilities are equal: logistic regression has no single solution"
    if positive.min() >= negative.max() or positive.max() <= negative.min():
        return "the probabilities separate the classes: logistic regression has no solution"
    return None


def _regress(cases: Cases, x: np.ndarray, reason: str | None) -> tuple[Estimate, Estimate]:
    """Intercept and slope of the logistic regression of the truth on x."""
    method = _method(cases)
    if reason:
        return (cases.estimate(method, reason=reason),) * 2
    design = np.column_stack([np.ones_like(x), x])
    # Overflow shows in the coefficients, which are checked below.
    with np.errstate(all="ignore"):
        fit = GLM(cases.truth.astype(float), design, Binomial()).fit()
    if not fit.converged or not np.isfinite(fit.params).all():
        return (cases.estimate(method, reason="logistic regression did not converge"),) * 2
    intercept, slope = _with_wald(cases, design, fit.params, expit(design @ fit.params))
    return intercept, slope


def _in_the_large(cases: Cases, x: np.ndarray) -> Estimate:
    """The intercept where the slope is held at 1.

    By bisection, because statsmodels' iterations diverge where most probabilities are near 0 and 1.
    """
    if reason := cases.one_class():
        return cases.estimate(_method(cases), reason=reason)

    def surplus(intercept: float) -> float:
        return float((expit(x + intercept) - cases.truth).sum())

    # Beyond these ends all probabilities are 0 or all are 1.
    intercept = brentq(surplus, -x.max() - 40, 40 - x.min())
    design = np.ones((len(x), 1))
    (large,) = _with_wald(cases, design, np.array([intercept]), expit(x + intercept))
    return large


def _method(cases: Cases) -> str:
    return "logistic regression, Wald" + (", clustered by study" if cases.are_slices else "")


def _with_wald(
    cases: Cases, design: np.ndarray, coefficients: np.ndarray, fitted: np.ndarray
) -> list[Estimate]:
    """Coefficients of a logistic regression with Wald's intervals.

    For slices the variance is the sandwich of Liang and Zeger, Biometrika 73(1), 1986, with
    Stata's factors for few clusters. It is computed here because statsmodels' version loses all
    precision where probabilities lie below 1e-16.

    Args:
        cases: what is evaluated.
        design: (n, k).
        coefficients: (k,).
        fitted: (n,) probabilities.
    """
    method = _method(cases)
    if cases.studies < 2:
        reason = "no interval: one study only"
        return [cases.estimate(method, value, reason=reason) for value in coefficients]
    # Few studies can make the clustered variance 0 or negative by rounding; checked below.
    with np.errstate(all="ignore"):
        covariance = np.linalg.pinv(design.T @ (design * (fitted * (1 - fitted))[:, None]))
        if cases.are_slices:
            scores = (cases.truth - fitted)[:, None] * design
            scores = np.column_stack([cases.by_study(score) for score in scores.T])
            (n, k), studies = design.shape, cases.studies
            factor = studies / (studies - 1) * (n - 1) / (n - k)
            covariance = factor * covariance @ (scores.T @ scores) @ covariance
        half = Z * np.sqrt(np.diag(covariance))
    if not np.isfinite(half).all() or not half.all():
        reason = "no interval: too few studies"
        return [cases.estimate(method, value, reason=reason) for value in coefficients]
    return [
        cases.estimate(method, value, value - h, value + h)
        for value, h in zip(coefficients, half, strict=True)
    ]


def reliability(cases: Cases) -> list[dict]:
    """Reliability curve: cases in up to `GROUPS` groups of similar size by probability.

    Returns:
        One dict per group: mean ``predicted`` probability, ``observed`` share of positives, ``n``
        cases and ``n_positive`` among them. Equal probabilities are in one group.
    """
    if cases.none():
        return []
    edges = np.unique(np.quantile(cases.score, np.linspace(0, 1, GROUPS + 1)[1:-1]))
    group = np.searchsorted(edges, cases.score, side="left")
    n, positive, total = (np.bincount(group, w) for w in (None, cases.truth, cases.score))
    return [
        {
            "predicted": float(total[g] / n[g]),
            "observed": float(positive[g] / n[g]),
            "n": int(n[g]),
            "n_positive": int(positive[g]),
        }
        for g in np.flatnonzero(n)
    ]
