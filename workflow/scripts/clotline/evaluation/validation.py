"""Models that were trained elsewhere, on a cohort of which they know nothing.

Every metric has the form that those of test studies have (`clotline.evaluation.metrics`), so that
the same figures are drawn of both. Beside them stands what only another cohort can show: what
becomes of the thresholds, of calibration and of each metric.

Recalibration fits an intercept and a slope to the logits on one part of the cohort, and is judged
on the other: Van Calster et al., "A calibration hierarchy for risk models was defined", Journal of
Clinical Epidemiology 74, 2016, doi 10.1016/j.jclinepi.2015.12.005.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from clotline.data.cohort import FITTED, HELD_OUT, PART, TARGETS
from clotline.data.shards import POSITION
from clotline.evaluation.calibration import calibration
from clotline.evaluation.delong import auroc_delong
from clotline.evaluation.intervals import (
    EPSILON,
    Cases,
    Estimate,
    cross_entropy,
    percentile_estimate,
    ratios,
    resample,
)
from clotline.evaluation.metrics import (
    METRICS,
    RATES,
    evaluate_target,
    for_decisions,
    operating_points,
    thresholds_from,
)
from clotline.evaluation.predictions import (
    PE_PRESENT,
    PE_PRESENT_BY_MAX,
    TRUE,
    cases_by_target,
)
from clotline.evaluation.predictive_values import PREVALENCES
from clotline.labels import IMAGE_LABEL, STUDY_LABELS, STUDY_UID, UIDS

#: Metrics that are compared with those of the test studies that the bundle tells of.
COMPARED = METRICS

#: Groups of fewer studies are counted, and nothing else is said of them: a figure of a few studies
#: says nothing of the model, and may say something of the patients.
FEWEST = 5

#: Why there is no baseline here.
NO_BASELINE = "baselines are fitted on the data that the models were trained on"


def with_truth(
    studies: str | Path, slices: str | Path, truth: pd.DataFrame, slice_truth: pd.DataFrame
) -> dict[str, pd.DataFrame]:
    """Predictions that were written for people, beside the truth of a cohort.

    Args:
        studies: CSV of `clotline.models.inference.predictions_by_study`.
        slices: CSV of `clotline.models.inference.predictions_by_slice`.
        truth: one row a study: StudyInstanceUID, labels and ``part``.
        slice_truth: one row a slice: UIDs and the image label.

    Returns:
        Model to its predictions of the studies that have a truth, as of
        `clotline.models.prediction.predict_models`, with ``part`` instead of the split.
    """
    of_studies = truth.rename(columns={n: f"{n}{TRUE}" for n in TARGETS})
    # A UID can look like a number, or be NA.
    texts = dict.fromkeys(UIDS, str)
    told = pd.read_csv(studies, dtype=texts, keep_default_na=False)
    tables = {
        name: table[[STUDY_UID, PE_PRESENT, *STUDY_LABELS]].merge(of_studies, on=STUDY_UID)
        for name, table in told.groupby("model", sort=False)
    }
    told = pd.read_csv(slices, dtype=texts, keep_default_na=False, na_values={POSITION: [""]})
    of_slices = slice_truth.rename(columns={IMAGE_LABEL: f"{IMAGE_LABEL}{TRUE}"})
    of_slices = of_slices.merge(of_studies[[STUDY_UID, f"{PE_PRESENT}{TRUE}", PART]], on=STUDY_UID)
    for name in [column for column in told if column not in (*UIDS, POSITION)]:
        table = told[[*UIDS, POSITION, name]].rename(columns={name: IMAGE_LABEL})
        tables[name] = table.merge(of_slices, on=list(UIDS))
    return tables


def validate(
    table: pd.DataFrame,
    level: str,
    internal: Mapping,
    groups: Mapping[str, pd.Series],
    bootstraps: int,
    seed: int,
    thresholds: Sequence[float] = (),
    prevalences: Sequence[float] = PREVALENCES,
) -> dict:
    """All metrics of one model on another cohort.

    Args:
        table: predictions with the truth, as of `clotline.models.prediction.study_level_table` or
            ``image_level_table``, where a truth may be `clotline.labels.UNKNOWN` and
            ``pe_present_true`` may stand beside or instead of the labels it follows from; and
            ``part``, which part of the cohort each study is in.
        level: study or image.
        internal: the model's metrics on the test studies of the data that it was trained on.
        groups: families of groups (scanner, sex and so on), each StudyInstanceUID to group.
        bootstraps: resamples of each bootstrap.
        seed: of each bootstrap.
        thresholds: further operating points.
        prevalences: shares of positive studies for which PPV and NPV are told.

    Returns:
        As of `clotline.evaluation.metrics.evaluate`, with the targets whose truth is known;
        ``n_studies`` and ``n_slices`` are those of which the first target's truth is. The
        operating points are those that the bundle fixed. Each target has also ``recalibration`` (of
        `recalibrate`), ``transported``, the same aims met by thresholds of the recalibration part
        and measured on the other, and ``internal`` (of `beside_internal`). ``groups`` has of each
        family `evaluate_groups`, for the first target.
    """
    cases = cases_by_target(table, level)
    parts = {
        part: cases_by_target(table[table[PART] == part], level) for part in (FITTED, HELD_OUT)
    }
    targets = {}
    for target, of_all in cases.items():
        if of_all.none():
            continue
        fitted, held_out = parts[FITTED][target], parts[HELD_OUT][target]
        fixed = fixed_thresholds(internal["targets"].get(target)) | {
            f"p ≥ {t:g}": float(t) for t in thresholds
        }
        measured = evaluate_target(of_all, fixed, bootstraps, seed)
        again = thresholds_from(fitted, called="recalibration part")
        targets[target] = measured | {
            "baseline": {"reason": NO_BASELINE},
            "recalibration": recalibrate(fitted, held_out, bootstraps, seed),
            "transported": operating_points(held_out, again, bootstraps, seed),
            "internal": beside_internal(measured, internal["targets"].get(target)),
        }
        if target in (PE_PRESENT, PE_PRESENT_BY_MAX) and fixed:
            targets[target] |= for_decisions(of_all, measured, bootstraps, seed, prevalences)
    evaluated = next(iter(targets), None)
    counts = targets[evaluated]["auroc"] if targets else {"n_studies": 0, "n_slices": None}
    return {
        "level": level,
        "split": "external",
        "n_studies": counts["n_studies"],
        "n_slices": counts["n_slices"],
        "targets": targets,
        "groups": {}
        if evaluated is None
        else {
            family: evaluate_groups(
                table, level, evaluated, of_study, targets[evaluated], bootstraps, seed
            )
            for family, of_study in groups.items()
        },
    }


def fixed_thresholds(internal: Mapping | None) -> dict[str, float | str]:
    """The operating points that a bundle fixed for a target.

    Args:
        internal: the target's metrics in the bundle; None where it has none.
    """
    if internal is None:
        return {}
    points = internal["operating_points"]
    lacking = "the bundle fixed no threshold: its valid split had one class only"
    return {
        point["name"]: lacking if point["threshold"] is None else point["threshold"]
        for point in points
    }


def recalibrate(fitted: Cases, held_out: Cases, bootstraps: int, seed: int) -> dict:
    """Calibration of one part of a cohort before and after intercept and slope of another.

    Args:
        fitted: the cases on which intercept and slope are fitted.
        held_out: the cases on which both are judged.
        bootstraps: resamples of studies, for Brier score and log loss.
        seed: of the resamples.

    Returns:
        ``intercept`` and ``slope``, `Estimate` dicts of the fit; ``before`` and ``after``, each
        with ``calibration`` (of `clotline.evaluation.calibration.calibration`), ``brier`` and
        ``log_loss``. ``after`` is None where there was nothing to fit.
    """
    fit = calibration(fitted) if not fitted.none() else None
    if fit is None:
        none = fitted.estimate(
            "logistic regression, Wald", reason="no studies in the recalibration part"
        )
        intercept = slope = none.as_dict()
    else:
        intercept, slope = fit["intercept"], fit["slope"]
    after = None
    if slope["value"] is not None and not held_out.none():
        score = recalibrated(held_out.score, intercept["value"], slope["value"])
        after = _calibrated(
            Cases(held_out.truth, score, held_out.study, held_out.are_slices), bootstraps, seed
        )
    before = None if held_out.none() else _calibrated(held_out, bootstraps, seed)
    return {"intercept": intercept, "slope": slope, "before": before, "after": after}


def recalibrated(score: np.ndarray, intercept: float, slope: float) -> np.ndarray:
    """Probabilities whose logits were multiplied by a slope and moved by an intercept."""
    return expit(intercept + slope * logit(np.clip(score, EPSILON, 1 - EPSILON)))


def _calibrated(cases: Cases, bootstraps: int, seed: int) -> dict:
    losses = (cases.score - cases.truth) ** 2, cross_entropy(cases.truth, cases.score)
    sizes = cases.by_study(np.ones(len(cases.truth)))
    means = ratios(
        np.column_stack([cases.by_study(loss) for loss in losses]), np.column_stack([sizes, sizes])
    )
    values = means(np.ones(cases.studies, dtype=int))
    drawn = resample(means, cases.studies, bootstraps, seed)
    brier, log_loss = (percentile_estimate(cases, values[k], drawn[:, k]).as_dict() for k in (0, 1))
    return {"calibration": calibration(cases), "brier": brier, "log_loss": log_loss}


def beside_internal(measured: Mapping, internal: Mapping | None) -> dict[str, dict]:
    """Metrics of a target here, in the bundle's own test, and their difference.

    Args:
        measured: of `clotline.evaluation.metrics.evaluate_target`, here.
        internal: the same there; None where the bundle has none.

    Returns:
        Metric, and rate at the first operating point, to ``internal`` and ``difference`` (here
        minus there), `Estimate` dicts. The samples are independent, so the interval is made of the
        two intervals: Zou and Donner, Statistics in Medicine 27(10), 2008 (MOVER).
    """
    if internal is None:
        return {}
    pairs = {name: (measured[name], internal[name]) for name in COMPARED}
    here, there = measured["operating_points"][0], internal["operating_points"][0]
    pairs |= {name: (here[name], there[name]) for name in RATES[:2]}
    return {
        name: {"internal": there, "difference": independent_difference(here, there)}
        for name, (here, there) in pairs.items()
    }


def independent_difference(here: Mapping, there: Mapping) -> dict:
    """The difference of two estimates of independent samples, as an `Estimate` dict.

    Args:
        here: an `Estimate` dict.
        there: another, which is subtracted.
    """
    counts = here["n_studies"], here["n_positive"]
    method = "difference of independent samples, MOVER"
    if here["value"] is None or there["value"] is None:
        reason = here["reason"] if here["value"] is None else f"there: {there['reason']}"
        return Estimate(None, None, None, *counts, method, reason).as_dict()
    value = here["value"] - there["value"]
    ends = [estimate[end] for estimate in (here, there) for end in ("low", "high")]
    if None in ends:
        return Estimate(value, None, None, *counts, method, "one has no interval").as_dict()
    low, high, low_there, high_there = ends
    below = np.hypot(here["value"] - low, high_there - there["value"])
    above = np.hypot(high - here["value"], there["value"] - low_there)
    return Estimate(value, value - float(below), value + float(above), *counts, method).as_dict()


def evaluate_groups(
    table: pd.DataFrame,
    level: str,
    target: str,
    of_study: pd.Series,
    measured: Mapping,
    bootstraps: int,
    seed: int,
) -> list[dict]:
    """One target's metrics in groups of studies.

    Args:
        table: as for `validate`.
        level: study or image.
        target: whose truth is known.
        of_study: StudyInstanceUID to group; empty where unknown.
        measured: the target's metrics on all studies, for its operating points.
        bootstraps: resamples of studies.
        seed: of the resamples.

    Returns:
        One dict a group, the largest first: ``group``, ``n_studies``, ``n_positive`` (None in a
        group of fewer than `FEWEST` studies), ``auroc`` and, at the first operating point,
        ``sensitivity`` and ``specificity``, `Estimate` dicts or None.
    """
    groups = table[STUDY_UID].map(of_study).fillna("").replace("", "not known")
    point = next(iter(measured["operating_points"]), None)
    threshold = None if point is None else point["threshold"]
    found = []
    for group, rows in table.groupby(groups):
        cases = cases_by_target(rows, level)[target]
        told = {"group": group, "n_studies": cases.studies, "n_positive": None, "auroc": None}
        told |= dict.fromkeys(RATES[:2])
        if cases.studies >= FEWEST:
            told["n_positive"] = int(cases.truth.sum())
            told["auroc"] = _auroc(cases, bootstraps, seed)
            if threshold is not None:
                (rates,) = operating_points(cases, {point["name"]: threshold}, bootstraps, seed)
                told |= {rate: rates[rate] for rate in RATES[:2]}
        found.append(told)
    return sorted(found, key=lambda told: (-told["n_studies"], told["group"]))


def _auroc(cases: Cases, bootstraps: int, seed: int) -> dict:
    if not cases.are_slices:
        return auroc_delong(cases).as_dict()
    return evaluate_target(cases, {}, bootstraps, seed)["auroc"]
