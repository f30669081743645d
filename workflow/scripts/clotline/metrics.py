"""All figures of one model on the test studies, and the table of all models."""

import numpy as np
import pandas as pd

from clotline.errors import ClotlineError
from clotline.intervals import (
    Bootstrap,
    Cases,
    Ranked,
    auroc_delong,
    bootstrapped,
    log_losses,
    mean_figure,
    wilson,
)
from clotline.labels import IMAGE_LABEL, STUDY_LABELS, STUDY_UID

TRUE = "_true"

#: Study-level target derived from the labels.
PE_PRESENT = "pe_present"

#: Study-level target of an image-level model: its highest slice.
PE_PRESENT_BY_MAX = "pe_present_by_max"

#: Points of the grid on which the band around a ROC curve is drawn.
ROC_GRID = np.linspace(0, 1, 101)

#: Most points of a ROC curve kept in the metrics file.
ROC_POINTS = 2000

#: Subgroups of positive studies, each compared with all studies without PE.
SUBGROUPS = (
    "central_pe",
    "chronic_pe",
    "acute_and_chronic_pe",
    "rv_lv_ratio_gte_1",
    "rv_lv_ratio_lt_1",
    "leftsided_pe",
    "rightsided_pe",
)


def pe_present(table: pd.DataFrame, suffix: str = "") -> np.ndarray:
    """1 - negative_exam_for_pe - indeterminate, clipped to 0 to 1: truth or probability."""
    negative = table["negative_exam_for_pe" + suffix].to_numpy(np.float64)
    return np.clip(1 - negative - table["indeterminate" + suffix].to_numpy(np.float64), 0, 1)


def cases_by_target(table: pd.DataFrame, level: str) -> dict[str, Cases]:
    """Truth and probability of every target of a model.

    Args:
        table: predictions of `clotline.studies.study_level_table` or ``image_level_table``.
        level: study or image.

    Returns:
        Target to cases. Study level: PE present, then the nine labels. Image level: the slices,
        then the studies by their highest slice.

    Raises:
        ClotlineError: a probability is missing.
    """
    columns = STUDY_LABELS if level == "study" else (IMAGE_LABEL,)
    for name in columns:
        if not np.isfinite(table[name]).all():
            raise ClotlineError(f"the predictions of {name} hold infinite or missing values")
    if level == "study":
        cases = {PE_PRESENT: Cases.of(pe_present(table, TRUE), pe_present(table))}
        return cases | {name: Cases.of(table[name + TRUE], table[name]) for name in STUDY_LABELS}
    highest = table.groupby(STUDY_UID, sort=False)[[IMAGE_LABEL, IMAGE_LABEL + TRUE]].max()
    return {
        IMAGE_LABEL: Cases.of(table[IMAGE_LABEL + TRUE], table[IMAGE_LABEL], table[STUDY_UID]),
        PE_PRESENT_BY_MAX: Cases.of(highest[IMAGE_LABEL + TRUE], highest[IMAGE_LABEL]),
    }


def evaluate(table: pd.DataFrame, level: str, resamples: int, seed: int) -> dict:
    """All figures of one model, ready for JSON.

    Args:
        table: predictions for valid and test studies, with the column ``split``.
        level: study or image.
        resamples: of each bootstrap.
        seed: of each bootstrap.

    Returns:
        ``level``, ``split`` (test), ``n_studies``, ``n_slices`` (image level) and ``targets``:
        target to ``auroc``, ``average_precision``, ``brier``, ``log_loss`` (each an
        `clotline.intervals.Estimate` as a dict), ``operating_points`` and ``roc``. At the study
        level also ``subgroups``: AUROC of PE present, the subgroup's studies against all without.
    """
    test = table[table["split"] == "test"]
    valid_cases = cases_by_target(table[table["split"] == "valid"], level)
    test_cases = cases_by_target(test, level)
    metrics = {
        "level": level,
        "split": "test",
        "n_studies": int(test[STUDY_UID].nunique()),
        "n_slices": len(test) if level == "image" else None,
        "targets": {
            target: evaluate_target(cases, valid_cases[target], resamples, seed)
            for target, cases in test_cases.items()
        },
    }
    if level == "study":
        present = test_cases[PE_PRESENT]
        metrics["subgroups"] = {
            name: auroc_delong(_subset(present, ~present.truth | (test[name + TRUE] == 1)))
            .as_dict()
            for name in SUBGROUPS
        }  # fmt: skip
    return metrics


def _subset(cases: Cases, chosen) -> Cases:
    chosen = np.asarray(chosen)
    return Cases.of(cases.truth[chosen], cases.score[chosen])


def evaluate_target(test: Cases, valid: Cases, resamples: int, seed: int) -> dict:
    """The figures of one target; see `evaluate`."""
    ranked, missing = Ranked(test), test.one_class()

    def estimate(figure, reason):
        if reason:
            return test.estimate(None, None, None, "", reason)
        return bootstrapped(test, figure, resamples, seed)

    empty = None if len(test.truth) else missing
    auroc = estimate(ranked.auroc, missing) if test.are_slices else auroc_delong(test)
    figures = {
        "auroc": auroc,
        "average_precision": estimate(ranked.average_precision, missing),
        "brier": estimate(mean_figure((test.score - test.truth) ** 2), empty),
        "log_loss": estimate(mean_figure(log_losses(test)), empty),
    }
    return {name: figure.as_dict() for name, figure in figures.items()} | {
        "operating_points": operating_points(test, valid),
        "roc": roc_curve(test, ranked, resamples, seed),
    }


def roc_curve(cases: Cases, ranked: Ranked, resamples: int, seed: int) -> dict:
    """ROC curve, and the band of its sensitivity over a grid of false positive rates.

    Returns:
        ``fpr``, ``tpr`` and, with two studies or more, ``grid``, ``low`` and ``high``; or the
        ``reason`` why there is no curve.
    """
    if reason := cases.one_class():
        return {"reason": reason}
    fpr, tpr = ranked.roc(np.ones(len(cases.truth)))
    kept = np.unique(np.linspace(0, len(fpr) - 1, min(ROC_POINTS, len(fpr))).round().astype(int))
    curve = {"fpr": fpr[kept].tolist(), "tpr": tpr[kept].tolist()}
    if cases.studies < 2:
        return curve

    def on_grid(weights):
        fpr, tpr = ranked.roc(weights)
        return np.interp(ROC_GRID, fpr, tpr)

    low, high = Bootstrap(cases, resamples, seed).quantiles(on_grid)
    return curve | {"grid": ROC_GRID.tolist(), "low": low.tolist(), "high": high.tolist()}


def choose_thresholds(valid: Cases) -> dict[str, float] | str:
    """Thresholds fixed on the valid split: a case at or above one is called positive.

    Returns:
        For 90% and 95% sensitivity the highest threshold that reaches it, and the one that
        maximises Youden's J (sensitivity + specificity - 1); or the reason why there are none.
    """
    if reason := valid.one_class():
        return reason
    ranked = Ranked(valid)
    fpr, tpr = ranked.roc(np.ones(len(valid.truth)))
    fpr, tpr = fpr[1:], tpr[1:]
    return {
        "90% sensitivity": float(ranked.thresholds[np.argmax(tpr >= 0.90)]),
        "95% sensitivity": float(ranked.thresholds[np.argmax(tpr >= 0.95)]),
        "Youden's J": float(ranked.thresholds[np.argmax(tpr - fpr)]),
    }


def operating_points(test: Cases, valid: Cases) -> list[dict]:
    """Sensitivity, specificity, PPV and NPV on test at thresholds fixed on valid.

    Returns:
        One dict a threshold: ``name``, ``threshold`` and the four as `Estimate` dicts with
        Wilson's intervals; empty where the valid split has one class only. Slices are counted as
        if they were independent, so image-level intervals are too narrow; their method says so.
    """
    thresholds = choose_thresholds(valid)
    if isinstance(thresholds, str):
        return []
    kind = "slices" if test.are_slices else "studies"
    points = []
    for name, threshold in thresholds.items():
        called, truth = test.score >= threshold, test.truth
        hits, silences = int((called & truth).sum()), int((~called & ~truth).sum())
        point = {"name": name, "threshold": threshold}
        for figure, successes, trials, what in (
            ("sensitivity", hits, truth.sum(), f"positive {kind}"),
            ("specificity", silences, (~truth).sum(), f"negative {kind}"),
            ("ppv", hits, called.sum(), f"{kind} called positive"),
            ("npv", silences, (~called).sum(), f"{kind} called negative"),
        ):
            point[figure] = wilson(test, successes, int(trials), what).as_dict()
        points.append(point)
    return points


def metrics_table(metrics: dict[str, dict]) -> pd.DataFrame:
    """One row a model and target: counts, figures with intervals, and why a figure is missing.

    Args:
        metrics: model name to the dict of `evaluate`.
    """
    rows = []
    for model, figures in metrics.items():
        for target, found in figures["targets"].items():
            auroc = found["auroc"]
            row = {"model": model, "level": figures["level"], "target": target}
            row |= {name: auroc[name] for name in ("n_studies", "n_slices", "n_positive")}
            for name in ("auroc", "average_precision", "brier", "log_loss"):
                row |= _with_interval(name, found[name])
            for point in found["operating_points"][:1]:
                for name in ("sensitivity", "specificity"):
                    row |= _with_interval(f"{name}_at_90", point[name])
            row["note"] = auroc["reason"]
            rows.append(row)
    table = pd.DataFrame(rows)
    counts = ["n_studies", "n_slices", "n_positive"]
    return table.astype(dict.fromkeys(counts, "Int64"))


def _with_interval(name: str, estimate: dict) -> dict:
    return {
        name: estimate["value"],
        f"{name}_low": estimate["low"],
        f"{name}_high": estimate["high"],
    }
