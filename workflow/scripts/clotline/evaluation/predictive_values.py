"""What a call is worth where PE is rarer or more frequent than among the studies evaluated.

Sensitivity and specificity are taken as they are; PPV and NPV follow from them by Bayes' theorem.
Intervals: Mercaldo, Lau and Zhou, Statistics in Medicine 26(10), 2007, doi 10.1002/sim.2677, on the
logit scale; where a rate is 0 or 1 from their adjusted rates.
"""

import math
from collections.abc import Sequence

from clotline.evaluation.intervals import Z

#: Shares of CTPA that show PE, from low yield to that of selected patients.
PREVALENCES = (0.05, 0.1, 0.2, 0.3)


def predictive_values(
    confusion: dict | None, prevalences: Sequence[float] = PREVALENCES
) -> list[dict]:
    """PPV and NPV of one operating point at each prevalence.

    Args:
        confusion: numbers of studies, as of `clotline.evaluation.metrics.operating_points`; None
            where there is no threshold.
        prevalences: shares of positive studies, between 0 and 1.

    Returns:
        One dict a prevalence: ``prevalence``, ``ppv`` and ``npv``, each a dict of ``value``,
        ``low``, ``high`` and the ``reason`` why there is none (else None).
    """
    missing, rates = _rates(confusion)
    if missing:
        none = {"value": None, "low": None, "high": None, "reason": missing}
        return [{"prevalence": p, "ppv": none, "npv": none} for p in prevalences]
    sensitivity, specificity, positives, negatives = rates
    return [
        {
            "prevalence": prevalence,
            "ppv": _value(
                (sensitivity, positives), (1 - specificity, negatives), prevalence, "positive"
            ),
            "npv": _value(
                (specificity, negatives), (1 - sensitivity, positives), 1 - prevalence, "negative"
            ),
        }
        for prevalence in prevalences
    ]


def _rates(confusion: dict | None) -> tuple[str, tuple]:
    """Why there is no figure, and sensitivity, specificity and the counts that they are of."""
    if confusion is None:
        return "no threshold from the valid split", ()
    positives = confusion["true_positive"] + confusion["false_negative"]
    negatives = confusion["true_negative"] + confusion["false_positive"]
    if not positives or not negatives:
        return f"no {'positive' if not positives else 'negative'} studies", ()
    sensitivity = confusion["true_positive"] / positives
    specificity = confusion["true_negative"] / negatives
    return "", (sensitivity, specificity, positives, negatives)


def _value(right: tuple, wrong: tuple, share: float, called: str) -> dict:
    """Share of the calls that are right, with its interval.

    Args:
        right: share of those who are what they are called that are called so, and their number.
        wrong: share of the others that are called so, and their number.
        share: of those who are what they are called, of all.
        called: what they are called.
    """
    if not right[0] and not wrong[0]:
        reason = f"no studies called {called}"
        return {"value": None, "low": None, "high": None, "reason": reason}
    value = right[0] * share / (right[0] * share + wrong[0] * (1 - share))
    # Adjusted where the logarithm of a rate, or its variance, would be infinite.
    if {right[0], wrong[0]} & {0, 1}:
        right, wrong = (((p * n + Z**2 / 2) / (n + Z**2), n + Z**2) for p, n in (right, wrong))
    logit = math.log(right[0] * share) - math.log(wrong[0] * (1 - share))
    spread = Z * math.sqrt(sum((1 - p) / (p * n) for p, n in (right, wrong)))
    low, high = (1 / (1 + math.exp(-end)) for end in (logit - spread, logit + spread))
    # An adjusted interval may lie beside the figure itself.
    return {"value": value, "low": min(low, value), "high": max(high, value), "reason": None}
