"""Decision curves: what acting on a model's probabilities is worth, beside acting on none.

Net benefit is the share of true positives less that of false positives, each of which counts as the
odds of the threshold: whoever acts from a probability of 10% on takes nine false positives for one
true one. Vickers and Elkin, Medical Decision Making 26(6), 2006, doi 10.1177/0272989X06295361.
"""

import numpy as np

from clotline.evaluation.intervals import TAILS, Cases, resample

#: Threshold probabilities from which on one would act.
THRESHOLDS = np.arange(1, 100) / 100


def decision_curve(cases: Cases, resamples: int, seed: int) -> dict:
    """Net benefit over thresholds with its 95% bootstrap band, and that of treating all.

    Treating none has a net benefit of 0. What a model adds is told as ``gain``, its net benefit
    less that of the better of the two; resamples are paired, for all three change with the share
    of positives.

    Args:
        cases: of studies.
        resamples: of the studies.
        seed: of the resamples.

    Returns:
        ``thresholds``, ``net_benefit``, ``treat_all`` and ``gain``, lists of one number a
        threshold, with ``_low`` and ``_high`` of the first and the last where there are two studies
        or more; or the ``reason`` why there is no curve.
    """
    if reason := cases.one_class():
        return {"reason": reason}
    odds = THRESHOLDS / (1 - THRESHOLDS)
    # How many thresholds a case reaches, so that a resample costs two counts.
    reached = np.searchsorted(THRESHOLDS, cases.score, side="right")

    def curves(draws: np.ndarray) -> np.ndarray:
        weights = draws[cases.study]
        true, false = (
            np.bincount(reached[of], weights[of], len(THRESHOLDS) + 1)
            for of in (cases.truth, ~cases.truth)
        )
        total = weights.sum()
        # From the highest threshold down, without those who reach none.
        benefit, all_benefit = (
            (positive - odds * negative) / total
            for positive, negative in (
                (true[::-1].cumsum()[-2::-1], false[::-1].cumsum()[-2::-1]),
                (true.sum(), false.sum()),
            )
        )
        return np.stack([benefit, all_benefit, benefit - np.maximum(all_benefit, 0)])

    names = ("net_benefit", "treat_all", "gain")
    values = curves(np.ones(cases.studies, dtype=int))
    curve = {"thresholds": THRESHOLDS.tolist()}
    curve |= {name: line.tolist() for name, line in zip(names, values, strict=True)}
    resampled = resample(lambda draws: curves(draws).ravel(), cases.studies, resamples, seed)
    if len(resampled):
        ends = np.quantile(resampled, TAILS, axis=0).reshape(2, len(names), -1)
        for index in (0, 2):
            for end, line in zip(("low", "high"), ends[:, index], strict=True):
                curve[f"{names[index]}_{end}"] = line.tolist()
    return curve


def useful_thresholds(curve: dict) -> list[tuple[float, float]]:
    """Ranges of thresholds at which the interval of the gain lies above 0.

    Args:
        curve: of `decision_curve`.

    Returns:
        Lowest and highest threshold of each range; none where there is no curve or no band.
    """
    ranges: list[tuple[float, float]] = []
    last = None
    for index, (threshold, low) in enumerate(
        zip(curve.get("thresholds", []), curve.get("gain_low", []), strict=False)
    ):
        if low <= 0:
            continue
        if last is not None and index == last + 1:
            ranges[-1] = ranges[-1][0], threshold
        else:
            ranges.append((threshold, threshold))
        last = index
    return ranges
