"""How precise a cohort's figures can be, and how many studies a precision needs.

AUROC: standard error by Newcombe, Statistics in Medicine 25(4), 2006, doi 10.1002/sim.2324 (method
4), as Riley et al. plan external validations with it (BMJ 384, 2024, doi 10.1136/bmj-2023-074821).
Sensitivity and specificity: Wilson's interval. Both need no predictions, only what is expected.
"""

import math
from collections.abc import Callable
from fractions import Fraction

from clotline.evaluation.intervals import Z

#: Half of the width of a 95% interval that validations are planned for.
HALF_WIDTH = 0.03

#: Beyond this number of studies a plan is none.
_MOST = 10**7


def auroc_half_width(auroc: float, studies: int, prevalence: float) -> float:
    """Half of the width of the 95% interval that is to be expected of an AUROC.

    Args:
        auroc: that is expected.
        studies: of the cohort.
        prevalence: share of positive studies, between 0 and 1.
    """
    further = studies / 2 - 1
    variance = (
        auroc
        * (1 - auroc)
        * (1 + further * (1 - auroc) / (2 - auroc) + further * auroc / (1 + auroc))
        / (studies**2 * prevalence * (1 - prevalence))
    )
    return Z * math.sqrt(max(variance, 0.0))


def proportion_half_width(proportion: float, trials: int) -> float:
    """The same of a proportion, by Wilson's interval.

    Args:
        proportion: that is expected.
        trials: number of studies that it is of: of a sensitivity the positive ones.
    """
    spread = proportion * (1 - proportion) / trials + Z**2 / (4 * trials**2)
    return Z * math.sqrt(spread) / (1 + Z**2 / trials)


def studies_for_auroc(auroc: float, prevalence: float, half_width: float = HALF_WIDTH) -> int:
    """Fewest studies of which an AUROC has an interval of at most this half width.

    Args:
        auroc: that is expected, below 1.
        prevalence: share of positive studies, between 0 and 1.
        half_width: of the 95% interval.
    """
    return _fewest(lambda studies: auroc_half_width(auroc, studies, prevalence), half_width)


def studies_for_proportion(
    proportion: float, share: float | Fraction, half_width: float = HALF_WIDTH
) -> int:
    """Fewest studies of which a proportion of some has an interval of at most this half width.

    Args:
        proportion: that is expected.
        share: of the studies that it is of: of a sensitivity the share of positive ones.
        half_width: of the 95% interval.
    """
    trials = _fewest(lambda count: proportion_half_width(proportion, count), half_width)
    return math.ceil(trials / share)


def _fewest(half_width_of: Callable[[int], float], half_width: float) -> int:
    """Smallest number whose half width, which falls as it grows, is small enough."""
    low, high = 1, 2
    while half_width_of(high) > half_width:
        low, high = high, 2 * high
        if high > _MOST:
            return high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if half_width_of(middle) <= half_width else (middle, high)
    return high


def sample_size(auroc: dict, point: dict, half_width: float = HALF_WIDTH) -> list[dict]:
    """What this many studies can tell of a target, and how many an interval would need.

    Args:
        auroc: of studies, an `Estimate` dict.
        point: an operating point of `clotline.evaluation.metrics.operating_points`.
        half_width: of the 95% interval that is wished for.

    Returns:
        For AUROC, sensitivity and specificity: ``metric``, ``value`` (that was found and is taken
        as expected), ``studies`` (that it is of: of a sensitivity the positive ones),
        ``half_width`` (of the interval that was found), ``expected`` (that of the formula),
        ``wished`` and ``needed``, the number of studies at this prevalence; or the ``reason`` why
        there is none.
    """
    studies, positives = auroc["n_studies"], auroc["n_positive"]
    rows = []
    for metric, estimate, count in (
        ("auroc", auroc, studies),
        ("sensitivity", point["sensitivity"], positives),
        ("specificity", point["specificity"], studies - positives),
    ):
        value, low, high = (estimate[end] for end in ("value", "low", "high"))
        row = {"metric": metric, "value": value, "studies": count, "wished": half_width}
        row |= {"half_width": None if low is None else (high - low) / 2}
        row |= {"expected": None, "needed": None, "reason": None}
        if value is None:
            row["reason"] = estimate["reason"]
        elif metric == "auroc" and value in (0, 1):
            row["reason"] = f"an AUROC of {value:g} leaves nothing to plan with"
        elif metric == "auroc":
            prevalence = positives / studies
            row["expected"] = auroc_half_width(value, studies, prevalence)
            row["needed"] = studies_for_auroc(value, prevalence, half_width)
        else:
            row["expected"] = proportion_half_width(value, count)
            # Exact: of a float, rounding can ask for a study more.
            share = Fraction(count, studies)
            row["needed"] = studies_for_proportion(value, share, half_width)
        rows.append(row)
    return rows
