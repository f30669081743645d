"""Models side by side: the table of all metrics, and paired comparisons."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import pandas as pd

from clotline.errors import ClotlineError
from clotline.evaluation.delong import paired_delong
from clotline.evaluation.intervals import Estimate
from clotline.evaluation.learning import chance_warning
from clotline.evaluation.metrics import METRICS
from clotline.evaluation.predictions import cases_by_target
from clotline.evaluation.ranking import paired_bootstrap
from clotline.feature_sets import is_in_folds, network_of, split_lstm_name, unfolded_model
from clotline.labels import STUDY_UID, UIDS

#: The columns that identify a row of predictions, by level.
_KEYS = {"study": [STUDY_UID], "image": list(UIDS)}


def metrics_table(metrics: dict[str, dict], warnings: pd.DataFrame) -> pd.DataFrame:
    """One row per model and target: counts, metrics with intervals, and why a metric is missing.

    Args:
        metrics: model name to the dict of `clotline.evaluation.metrics.evaluate`.
        warnings: of `clotline.evaluation.learning.warnings_table`.

    Returns:
        ``model``, ``level``, ``target``, ``n_studies``, ``n_slices``, ``n_positive``; each of
        `METRICS` and, at the operating point for 90% sensitivity, ``sensitivity`` and
        ``specificity``, with ``_low`` and ``_high``; what the AUROC has to beat, ``baseline``
        (its name), ``baseline_auroc`` and ``above_baseline`` (the difference), with ``_low`` and
        ``_high``; ``note``, why a metric is missing; and ``warnings``: that of
        `clotline.evaluation.learning.chance_warning` and, for a model that was trained here, those
        of its training.
    """
    counts = ("n_studies", "n_slices", "n_positive")
    names = (*METRICS, "sensitivity", "specificity")
    of_baseline = {"baseline_auroc": "auroc", "above_baseline": "difference"}
    floats, beside = (
        [name + end for name in group for end in ("", "_low", "_high")]
        for group in (names, of_baseline)
    )
    rows = []
    for model, model_metrics in metrics.items():
        for target, target_metrics in model_metrics["targets"].items():
            estimates = target_metrics | target_metrics["operating_points"][0]
            row = {"model": model, "level": model_metrics["level"], "target": target}
            row |= {name: target_metrics["auroc"][name] for name in counts}
            for name in names:
                row |= _columns(name, estimates[name])
            row["baseline"] = target_metrics["baseline"].get("name", "")
            for name, key in of_baseline.items():
                row |= _columns(name, target_metrics["baseline"].get(key, {}))
            reasons = (estimates[name]["reason"] for name in names)
            row["note"] = "; ".join(dict.fromkeys(filter(None, reasons)))
            doubts = [chance_warning(target_metrics["auroc"]), *_of_training(model, warnings)]
            row["warnings"] = "; ".join(filter(None, doubts))
            rows.append(row)
    columns = [
        "model",
        "level",
        "target",
        *counts,
        *floats,
        "baseline",
        *beside,
        "note",
        "warnings",
    ]
    table = pd.DataFrame(rows, columns=columns)
    numbers = dict.fromkeys([*floats, *beside], "float64")
    return table.astype(dict.fromkeys(counts, "Int64") | numbers)


def _of_training(model: str, warnings: pd.DataFrame) -> Iterator[str]:
    """What speaks against the training of a model, or of each of its folds."""
    in_folds = is_in_folds(model)
    network = network_of(unfolded_model(model) if in_folds else model)
    for name, warning in warnings.loc[warnings["from"] == "training", ["model", "warning"]].values:
        of, _, fold = name.partition(", ")
        if of == network and bool(fold) == in_folds:
            yield f"{fold}: {warning}" if fold else warning


def _columns(name: str, estimate: dict) -> dict:
    ends = {"": "value", "_low": "low", "_high": "high"}
    return {name + end: estimate.get(key) for end, key in ends.items()}


def compare(
    tables: dict[str, pd.DataFrame], reference: str, bootstraps: int, seed: int
) -> pd.DataFrame:
    """Paired comparison of the models of one feature set with every other of their level.

    Args:
        tables: model name, ``<features>-<level>``, to its predictions, of
            `clotline.models.prediction.study_level_table` or ``image_level_table``.
        reference: feature set that the others are compared with.
        bootstraps: resamples of studies, for the difference on slices.
        seed: of the resamples.

    Returns:
        One row per model and target: ``reference``, ``model``, ``target``, the fields of `Estimate`
        for the AUROC of the reference minus that of the model on their common test studies
        (DeLong for studies, bootstrap for slices), and ``p_value``.

    Raises:
        ClotlineError: the reference is missing, or the models have different slices of a study.
    """
    rows = []
    for level in ("study", "image"):
        test = {
            name: table[table["split"] == "test"].sort_values(_KEYS[level], ignore_index=True)
            for name, table in tables.items()
            if split_lstm_name(name)[1] == level
        }
        if not test:
            continue
        against = f"{reference}-{level}"
        if against not in test:
            raise ClotlineError(f"{against} is not among the models to compare: {', '.join(test)}")
        base = test.pop(against)
        for name, table in test.items():
            both = set(table[STUDY_UID]) & set(base[STUDY_UID])
            base_rows, table = (
                rows[rows[STUDY_UID].isin(both)].reset_index(drop=True) for rows in (base, table)
            )
            if not all(np.array_equal(table[key], base_rows[key]) for key in _KEYS[level]):
                raise ClotlineError(f"{against} and {name} were not evaluated on the same slices")
            base_cases = cases_by_target(base_rows, level)
            for target, cases in cases_by_target(table, level).items():
                if cases.are_slices:
                    difference, p_value = paired_bootstrap(
                        base_cases[target], cases, bootstraps, seed
                    )
                else:
                    difference, p_value = paired_delong(base_cases[target], cases)
                row = {"reference": against, "model": name, "target": target}
                rows.append(row | difference.as_dict() | {"p_value": p_value})
    fields = [field.name for field in dataclasses.fields(Estimate)]
    return pd.DataFrame(rows, columns=["reference", "model", "target", *fields, "p_value"])
