"""All metrics of one model on the test studies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.metrics import roc_curve

from clotline.evaluation.baselines import Baseline, beside_baseline
from clotline.evaluation.calibration import calibration
from clotline.evaluation.competition import label_consistency
from clotline.evaluation.decision_curves import decision_curve
from clotline.evaluation.delong import METHOD, auroc_delong
from clotline.evaluation.intervals import (
    TAILS,
    Cases,
    cross_entropy,
    percentile_estimate,
    proportions,
    ratios,
    resample,
)
from clotline.evaluation.predictions import (
    PE_PRESENT,
    PE_PRESENT_BY_MAX,
    TRUE,
    cases_by_target,
    pe_present,
    says_pe_present,
)
from clotline.evaluation.predictive_values import PREVALENCES, predictive_values
from clotline.evaluation.ranking import ROC_GRID, Ranking, roc_points
from clotline.evaluation.sample_size import sample_size
from clotline.labels import IMAGE_LABEL, PE_LABELS, STUDY_UID

#: The published labels that describe a PE, in the order in which they are reported.
_DESCRIBING = (
    "central_pe",
    "chronic_pe",
    "acute_and_chronic_pe",
    "rv_lv_ratio_gte_1",
    "rv_lv_ratio_lt_1",
    "leftsided_pe",
    "rightsided_pe",
)
#: Subgroups of positive studies, each compared with all negative studies.
SUBGROUPS = (
    *_DESCRIBING,
    *(name for name in PE_LABELS if name not in _DESCRIBING),
)

#: Bands of a positive study's number of positive slices, which stands for the emboli's size.
SIZES = {"1–5": (1, 5), "6–20": (6, 20), "21–50": (21, 50), "more than 50": (51, np.inf)}

#: Names of the operating points, in the order in which they are reported.
OPERATING_POINTS = ("sensitivity ≥ 0.90", "sensitivity ≥ 0.95", "Youden's J")

METRICS = ("auroc", "average_precision", "brier", "log_loss")
RATES = ("sensitivity", "specificity", "ppv", "npv")


@dataclass(frozen=True)
class Yardstick:
    """What a model's metrics are read against.

    Attributes:
        slices: baseline of the slices; None at the study level.
        studies: baseline of the studies; None where there is none.
        positive_slices: number of positive slices by study UID; None where it is not known.
    """

    slices: Baseline | None = None
    studies: Baseline | None = None
    positive_slices: pd.Series | None = None


def evaluate(
    table: pd.DataFrame,
    level: str,
    bootstraps: int,
    seed: int,
    thresholds: Sequence[float] = (),
    yardstick: Yardstick = Yardstick(),
    prevalences: Sequence[float] = PREVALENCES,
    in_folds: bool = False,
) -> dict:
    """All metrics of one model, ready for JSON.

    Args:
        table: predictions for valid and test studies, with the column ``split``.
        level: study or image.
        bootstraps: resamples of each bootstrap.
        seed: of each bootstrap.
        thresholds: further operating points, beside those fixed on the valid split.
        yardstick: what the metrics are read against.
        prevalences: shares of positive studies for which PPV and NPV are told.
        in_folds: whether the valid studies are predicted out of fold, by networks that never saw
            them, as by `clotline.evaluation.ensembles.join_folds`.

    Returns:
        ``level``, ``split`` (test), ``n_studies``, ``n_slices`` (None at the study level) and
        ``targets``: target to the metrics of `evaluate_target` and, as ``baseline``, those of
        `clotline.evaluation.baselines.beside_baseline`; that of PE in the study also has
        ``decision_curve``, ``predictive_values`` and ``sample_size``, of `for_decisions`. At the
        study level also ``subgroups``, ``sizes`` and ``label_consistency``. In folds
        ``out_of_fold``: of the valid studies, ``targets`` with each of `METRICS`, and at the study
        level ``sizes``.

    Raises:
        ClotlineError: a column holds something else than truths or probabilities.
    """
    test, valid = (table[table["split"] == split] for split in ("test", "valid"))
    valid_cases = cases_by_target(valid, level)
    test_cases = cases_by_target(test, level)
    metrics = {
        "level": level,
        "split": "test",
        "n_studies": int(test[STUDY_UID].nunique()),
        "n_slices": len(test) if level == "image" else None,
        "targets": {
            target: evaluate_target(
                cases, thresholds_from(valid_cases[target], thresholds), bootstraps, seed
            )
            for target, cases in test_cases.items()
        },
    }
    for target, cases in test_cases.items():
        baseline = yardstick.slices if target == IMAGE_LABEL else yardstick.studies
        score = baseline.column(test, target) if baseline else None
        metrics["targets"][target]["baseline"] = beside_baseline(
            cases, baseline, score, bootstraps, seed
        )
        if target in (PE_PRESENT, PE_PRESENT_BY_MAX):
            metrics["targets"][target] |= for_decisions(
                cases, metrics["targets"][target], bootstraps, seed, prevalences
            )
    if level == "study":
        metrics["subgroups"] = evaluate_subgroups(test)
        metrics["sizes"] = evaluate_sizes(test, yardstick.positive_slices)
        metrics["label_consistency"] = label_consistency(test)
    if in_folds:
        found = {
            target: evaluate_target(cases, thresholds_from(cases), bootstraps, seed)
            for target, cases in valid_cases.items()
        }
        metrics["out_of_fold"] = {
            "targets": {
                target: {name: of[name] for name in METRICS} for target, of in found.items()
            }
        }
        if level == "study":
            metrics["out_of_fold"]["sizes"] = evaluate_sizes(valid, yardstick.positive_slices)
    return metrics


def evaluate_target(
    test: Cases, thresholds: Mapping[str, float | str], bootstraps: int, seed: int
) -> dict:
    """The metrics of one target.

    Args:
        test: cases to evaluate.
        thresholds: of `thresholds_from`.
        bootstraps: number of resamples.
        seed: of the resamples.

    Returns:
        ``auroc`` (for slices the same as ``auroc_bootstrap``), ``auroc_bootstrap``,
        ``average_precision``, ``brier``, ``log_loss`` (nats), each an `Estimate` dict;
        ``calibration``; ``operating_points``; ``roc``: ``fpr`` and ``tpr`` and, with two studies
        or more, ``low`` and ``high``, the pointwise 95% band of the sensitivity at the false
        positive rates ``grid``; or the ``reason`` why there is no curve.
    """
    one_class = test.one_class()
    losses = np.column_stack(
        [(test.score - test.truth) ** 2, cross_entropy(test.truth, test.score)]
    )
    means = ratios(
        np.column_stack([test.by_study(loss) for loss in losses.T]),
        np.repeat(test.by_study(np.ones(len(losses)))[:, None], 2, axis=1),
    )
    ranking = None if one_class else Ranking(test)

    def metrics(draws):
        if one_class:
            return means(draws)
        return np.concatenate([means(draws), ranking.metrics(draws)])

    names = ("brier", "log_loss", "auroc_bootstrap", "average_precision")
    values = metrics(np.ones(test.studies, dtype=int))
    resampled = resample(metrics, test.studies, bootstraps, seed)
    estimates = {
        name: test.estimate("bootstrap of studies", reason=reason)
        if (reason := test.none() if index < 2 else one_class)
        else percentile_estimate(test, values[index], resampled[:, index])
        for index, name in enumerate(names)
    }
    bootstrapped = estimates["auroc_bootstrap"]
    estimates["auroc"] = bootstrapped if test.are_slices else auroc_delong(test)
    roc = {"reason": one_class}
    if not one_class:
        fpr, tpr = roc_points(test.truth, test.score)
        roc = {"fpr": fpr.tolist(), "tpr": tpr.tolist()}
        curves = resampled[:, len(names) :]
        curves = curves[np.isfinite(curves).all(1)]
        if len(curves):
            low, high = np.quantile(curves, TAILS, axis=0)
            roc |= {"grid": ROC_GRID.tolist(), "low": low.tolist(), "high": high.tolist()}
    return {name: estimates[name].as_dict() for name in (*METRICS, "auroc_bootstrap")} | {
        "calibration": calibration(test),
        "operating_points": operating_points(test, thresholds, bootstraps, seed),
        "roc": roc,
    }


def for_decisions(
    cases: Cases,
    measured: dict,
    bootstraps: int,
    seed: int,
    prevalences: Sequence[float] = PREVALENCES,
) -> dict:
    """What whoever decides about studies asks of a target beyond its metrics.

    Args:
        cases: of studies.
        measured: of `evaluate_target`, of these cases.
        bootstraps: number of resamples.
        seed: of the resamples.
        prevalences: shares of positive studies.

    Returns:
        ``decision_curve`` (of `clotline.evaluation.decision_curves`); ``predictive_values``, those
        of each operating point by its name (`clotline.evaluation.predictive_values`); and
        ``sample_size`` (`clotline.evaluation.sample_size`, at the first operating point).
    """
    points = measured["operating_points"]
    return {
        "decision_curve": decision_curve(cases, bootstraps, seed),
        "predictive_values": {
            point["name"]: predictive_values(point["confusion"], prevalences) for point in points
        },
        "sample_size": sample_size(measured["auroc"], points[0]),
    }


def choose_thresholds(truth: np.ndarray, score: np.ndarray) -> dict[str, float]:
    """Thresholds to be fixed on the valid split: a case at or above one is called positive.

    Args:
        truth: (n,) bool with both classes.
        score: (n,) float.

    Returns:
        `OPERATING_POINTS` to thresholds: the highest that reaches the sensitivity, and the highest
        that maximises Youden's J = sensitivity + specificity - 1 (Cancer 3(1), 1950).
    """
    fpr, tpr, thresholds = roc_curve(truth, score, drop_intermediate=False)
    # The first point calls nothing positive and its threshold is infinite.
    fpr, tpr, thresholds = fpr[1:], tpr[1:], thresholds[1:]
    positive, negative = np.count_nonzero(truth), np.count_nonzero(~truth)
    # In integers: in floats, rounding would break ties.
    youden = np.rint(tpr * positive) * negative - np.rint(fpr * negative) * positive
    indices = (np.argmax(tpr >= 0.90), np.argmax(tpr >= 0.95), np.argmax(youden))
    return {name: float(thresholds[i]) for name, i in zip(OPERATING_POINTS, indices, strict=True)}


def thresholds_from(
    valid: Cases, further: Sequence[float] = (), called: str = "valid split"
) -> dict[str, float | str]:
    """The operating points that a split fixes, and others.

    Args:
        valid: cases of that split.
        further: thresholds of further operating points.
        called: what the split is called, for reasons.

    Returns:
        `OPERATING_POINTS` and the others to their thresholds, or to the reason why there is none.
    """
    if missing := valid.one_class():
        fixed = dict.fromkeys(OPERATING_POINTS, f"no threshold from the {called}: {missing}")
    else:
        fixed = choose_thresholds(valid.truth, valid.score)
    return fixed | {f"p ≥ {t:g}": float(t) for t in further}


def operating_points(
    test: Cases, thresholds: Mapping[str, float | str], bootstraps: int, seed: int
) -> list[dict]:
    """Sensitivity, specificity, PPV and NPV at given thresholds.

    Args:
        test: cases to evaluate.
        thresholds: of `thresholds_from`.
        bootstraps: number of resamples.
        seed: of the resamples.

    Returns:
        One dict per threshold: ``name``, ``threshold``, ``confusion`` (numbers of cases), both None
        where there is no threshold, and the four rates as `Estimate` dicts.
    """
    points = []
    for name, threshold in thresholds.items():
        if isinstance(threshold, str):
            rate = test.estimate("Wilson", reason=threshold)
            rates = dict.fromkeys(RATES, rate.as_dict())
            points.append({"name": name, "threshold": None, "confusion": None} | rates)
            continue
        called, truth = test.score >= threshold, test.truth
        trials = {
            "sensitivity": (truth, called, f"positive {test.unit}"),
            "specificity": (~truth, ~called, f"negative {test.unit}"),
            "ppv": (called, truth, f"{test.unit} called positive"),
            "npv": (~called, ~truth, f"{test.unit} called negative"),
        }
        rates = proportions(test, trials, bootstraps, seed)
        confusion = {
            "true_positive": int((called & truth).sum()),
            "false_positive": int((called & ~truth).sum()),
            "false_negative": int((~called & truth).sum()),
            "true_negative": int((~called & ~truth).sum()),
        }
        points.append(
            {"name": name, "threshold": threshold, "confusion": confusion}
            | {rate: estimate.as_dict() for rate, estimate in rates.items()}
        )
    return points


def evaluate_subgroups(table: pd.DataFrame) -> dict[str, dict]:
    """AUROC of PE present, a subgroup's positive studies against all negative studies.

    Args:
        table: predictions of `clotline.models.prediction.study_level_table`.

    Returns:
        Subgroup to `Estimate` dict. ``all`` sets all positive studies against the negative ones,
        ``indeterminate`` all positive studies against the indeterminate ones, which count
        nowhere else. Without predictions of PE each estimate says so.
    """
    if not says_pe_present(table):
        return dict.fromkeys(("all", *SUBGROUPS, "indeterminate"), _without_pe_present(table))
    truth, score = pe_present(table, TRUE) == 1, pe_present(table)
    negative, indeterminate = (
        (table[name + TRUE] == 1).to_numpy() for name in ("negative_exam_for_pe", "indeterminate")
    )
    chosen = {"all": truth | negative}
    chosen |= {n: negative | (truth & (table[n + TRUE] == 1).to_numpy()) for n in SUBGROUPS}
    chosen["indeterminate"] = truth | indeterminate
    return {
        name: auroc_delong(Cases.of(truth[rows], score[rows])).as_dict()
        for name, rows in chosen.items()
    }


def evaluate_sizes(table: pd.DataFrame, positive_slices: pd.Series | None) -> dict[str, dict]:
    """AUROC of PE present by size: positive studies of each band against all negative studies.

    Args:
        table: predictions of `clotline.models.prediction.study_level_table`.
        positive_slices: number of positive slices by study UID; None where it is not known.

    Returns:
        Band of `SIZES` to `Estimate` dict; indeterminate studies are left out. Positive studies
        without a positive slice, if there are any, are the band ``none``.
    """
    if not says_pe_present(table):
        return dict.fromkeys(SIZES, _without_pe_present(table))
    truth, score = pe_present(table, TRUE) == 1, pe_present(table)
    negative = (table["negative_exam_for_pe" + TRUE] == 1).to_numpy()
    if positive_slices is None:
        reason = "the numbers of positive slices are not known"
        none = Cases.of(truth, score).estimate(METHOD, reason=reason).as_dict()
        return dict.fromkeys(SIZES, none)
    count = positive_slices.loc[table[STUDY_UID]].to_numpy()
    bands = dict(SIZES) | ({"none": (0, 0)} if (truth & (count == 0)).any() else {})
    chosen = {
        name: negative | (truth & (count >= fewest) & (count <= most))
        for name, (fewest, most) in bands.items()
    }
    return {
        name: auroc_delong(Cases.of(truth[rows], score[rows])).as_dict()
        for name, rows in chosen.items()
    }


def _without_pe_present(table: pd.DataFrame) -> dict:
    present = pe_present(table, TRUE)
    reason = "no predictions of pe_present, or of negative_exam_for_pe and indeterminate"
    return Cases.of(present, present).estimate(METHOD, reason=reason).as_dict()
