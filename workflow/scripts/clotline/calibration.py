"""How well probabilities agree with frequencies.

Van Calster et al., "Calibration: the Achilles heel of predictive analytics", BMC Medicine 17,
2019, doi 10.1186/s12916-019-1466-7.
"""

import numpy as np
from scipy.special import logit
from statsmodels.genmod.families import Binomial
from statsmodels.genmod.generalized_linear_model import GLM

from clotline.intervals import EPSILON, TAILS, Cases, Estimate

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
    constant = np.ones_like(x)
    reason = cases.one_class() or _separated(x, cases.truth)
    intercept, slope = _regress(cases, np.column_stack([constant, x]), None, reason)
    (large,) = _regress(cases, constant[:, None], x, cases.one_class())
    found = {"slope": slope, "intercept": intercept, "in_the_large": large}
    return {name: estimate.as_dict() for name, estimate in found.items()} | {
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


def _regress(
    cases: Cases, design: np.ndarray, offset: np.ndarray | None, reason: str | None
) -> list[Estimate]:
    method = "logistic regression, Wald"
    columns = design.shape[1]
    if reason:
        return [cases.estimate(method, reason=reason)] * columns
    covariance = {}
    if cases.are_slices:
        method += ", clustered by study"
        if cases.studies > 1:
            covariance = {"cov_type": "cluster", "cov_kwds": {"groups": cases.study}}
    # Few studies can make the clustered variance 0 or negative by rounding; checked below.
    with np.errstate(all="ignore"):
        fit = GLM(cases.truth.astype(float), design, Binomial(), offset=offset).fit(**covariance)
        ends = fit.conf_int(2 * TAILS[0])
    if not fit.converged or not np.isfinite(fit.params).all():
        return [cases.estimate(method, reason="logistic regression did not converge")] * columns
    if cases.studies < 2:
        reason = "no interval: one study only"
    elif not np.isfinite(ends).all() or (ends[:, 0] == ends[:, 1]).any():
        reason = "no interval: too few studies"
    if reason:
        return [cases.estimate(method, value, reason=reason) for value in fit.params]
    return [cases.estimate(method, v, *e) for v, e in zip(fit.params, ends, strict=True)]


def reliability(cases: Cases) -> list[dict]:
    """Reliability curve: cases in up to `GROUPS` groups of similar size by probability.

    Returns:
        One dict a group: mean ``predicted`` probability, ``observed`` share of positives, ``n``
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
