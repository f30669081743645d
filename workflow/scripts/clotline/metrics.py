"""All figures of one model on the test studies, and the tables that set models side by side."""

import dataclasses

import numpy as np
import pandas as pd
from sklearn.metrics import roc_curve

from clotline import competition
from clotline.calibration import calibration
from clotline.consistency import consistent
from clotline.delong import auroc_delong, paired_delong
from clotline.errors import ClotlineError
from clotline.feature_sets import split_lstm_name
from clotline.intervals import (
    TAILS,
    Cases,
    Estimate,
    cross_entropy,
    percentile_estimate,
    proportions,
    ratios,
    resample,
)
from clotline.labels import IMAGE_LABEL, SOP_UID, STUDY_LABELS, STUDY_UID, UIDS
from clotline.ranking import ROC_GRID, Ranking, paired_bootstrap, roc_points

TRUE = "_true"

#: Study-level target derived from the labels.
PE_PRESENT = "pe_present"

#: Study-level target of an image-level model: its highest slice.
PE_PRESENT_BY_MAX = "pe_present_by_max"

#: Subgroups of positive studies, each compared with all negative studies.
SUBGROUPS = (
    "central_pe",
    "chronic_pe",
    "acute_and_chronic_pe",
    "rv_lv_ratio_gte_1",
    "rv_lv_ratio_lt_1",
    "leftsided_pe",
    "rightsided_pe",
)

#: Names of the operating points, in the order in which they are reported.
OPERATING_POINTS = ("sensitivity ≥ 0.90", "sensitivity ≥ 0.95", "Youden's J")

#: What a row of a level's predictions is of.
_KEYS = {"study": [STUDY_UID], "image": list(UIDS)}

FIGURES = ("auroc", "average_precision", "brier", "log_loss")
RATES = ("sensitivity", "specificity", "ppv", "npv")


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
        ClotlineError: a column holds something else than truths or probabilities.
    """
    if level == "image":
        slices = _cases(table, IMAGE_LABEL, table[STUDY_UID])
        highest = table.groupby(STUDY_UID, sort=False)[[IMAGE_LABEL, IMAGE_LABEL + TRUE]].max()
        return {IMAGE_LABEL: slices, PE_PRESENT_BY_MAX: _cases(highest, IMAGE_LABEL)}
    labels = {name: _cases(table, name) for name in STUDY_LABELS}
    return {PE_PRESENT: Cases.of(pe_present(table, TRUE), pe_present(table))} | labels


def _cases(table: pd.DataFrame, name: str, study=None) -> Cases:
    return Cases.of(table[name + TRUE], table[name], study, name)


def evaluate(table: pd.DataFrame, level: str, bootstraps: int, seed: int) -> dict:
    """All figures of one model, ready for JSON.

    Args:
        table: predictions for valid and test studies, with the column ``split``.
        level: study or image.
        bootstraps: resamples of each bootstrap.
        seed: of each bootstrap.

    Returns:
        ``level``, ``split`` (test), ``n_studies``, ``n_slices`` (None at the study level) and
        ``targets``: target to the figures of `evaluate_target`. At the study level also
        ``subgroups`` and ``label_consistency``.

    Raises:
        ClotlineError: a column holds something else than truths or probabilities.
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
            target: evaluate_target(cases, valid_cases[target], bootstraps, seed)
            for target, cases in test_cases.items()
        },
    }
    if level == "study":
        metrics["subgroups"] = evaluate_subgroups(test)
        metrics["label_consistency"] = label_consistency(test)
    return metrics


def evaluate_target(test: Cases, valid: Cases, bootstraps: int, seed: int) -> dict:
    """The figures of one target.

    Args:
        test: cases to evaluate.
        valid: cases on which the operating points are fixed.
        bootstraps: number of resamples.
        seed: of the resamples.

    Returns:
        ``auroc`` (studies: DeLong; slices: bootstrap), ``auroc_bootstrap``, ``average_precision``,
        ``brier``, ``log_loss`` (nats), each an `Estimate` dict; ``calibration``;
        ``operating_points``; and ``roc``: ``fpr`` and ``tpr`` of the curve and, with two studies
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

    def figures(draws):
        if one_class:
            return means(draws)
        return np.concatenate([means(draws), ranking.figures(draws)])

    names = ("brier", "log_loss", "auroc_bootstrap", "average_precision")
    values = figures(np.ones(test.studies, dtype=int))
    resampled = resample(figures, test.studies, bootstraps, seed)
    estimates = {
        name: test.estimate("bootstrap of studies", reason=reason)
        if (reason := test.none() if place < 2 else one_class)
        else percentile_estimate(test, values[place], resampled[:, place])
        for place, name in enumerate(names)
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
    return {name: estimates[name].as_dict() for name in (*FIGURES, "auroc_bootstrap")} | {
        "calibration": calibration(test),
        "operating_points": operating_points(test, valid, bootstraps, seed),
        "roc": roc,
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
    # In whole numbers: by rounding one of equal differences would seem the largest.
    youden = np.rint(tpr * positive) * negative - np.rint(fpr * negative) * positive
    places = (np.argmax(tpr >= 0.90), np.argmax(tpr >= 0.95), np.argmax(youden))
    return {name: float(thresholds[p]) for name, p in zip(OPERATING_POINTS, places, strict=True)}


def operating_points(test: Cases, valid: Cases, bootstraps: int, seed: int) -> list[dict]:
    """Sensitivity, specificity, PPV and NPV on test at thresholds fixed on valid.

    Returns:
        One dict a threshold: ``name``, ``threshold``, ``confusion`` (numbers of cases), both None
        where the valid split lacks a class, and the four rates as `Estimate` dicts.
    """
    if missing := valid.one_class():
        rate = test.estimate("Wilson", reason=f"no threshold from the valid split: {missing}")
        rates = dict.fromkeys(RATES, rate.as_dict())
        return [
            {"name": name, "threshold": None, "confusion": None} | rates
            for name in OPERATING_POINTS
        ]
    points = []
    for name, threshold in choose_thresholds(valid.truth, valid.score).items():
        called, truth = test.score >= threshold, test.truth
        trials = {
            "sensitivity": (truth, called, f"positive {test.kind}"),
            "specificity": (~truth, ~called, f"negative {test.kind}"),
            "ppv": (called, truth, f"{test.kind} called positive"),
            "npv": (~called, ~truth, f"{test.kind} called negative"),
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
        table: predictions of `clotline.studies.study_level_table`.

    Returns:
        Subgroup to `Estimate` dict. Indeterminate studies, which are neither, are left out, but
        for ``indeterminate``: all positive studies against the indeterminate ones. ``all`` sets
        all positive studies against the negative ones.
    """
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


def label_consistency(table: pd.DataFrame) -> dict:
    """Share of studies whose nine labels do not contradict one another.

    Args:
        table: predictions of `clotline.studies.study_level_table`.

    Returns:
        ``n_studies``, share of consistent studies ``before`` and ``after`` the correction, and
        its ``cost``: by how much the weighted log loss of the study labels grows, in nats. A study
        is consistent if there are slice predictions with which it would be. Without studies
        ``reason`` instead.
    """
    if not len(table):
        return {"n_studies": 0, "reason": "no studies"}
    truth, labels = _label_arrays(table)
    corrected, _ = competition.make_consistent(labels)
    losses = [np.divide(*competition.loss_terms(truth, p)).mean() for p in (labels, corrected)]
    return {
        "n_studies": len(table),
        "before": float(consistent(labels).mean()),
        "after": float(consistent(corrected).mean()),
        "cost": float(losses[1] - losses[0]),
    }


def _label_arrays(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """(studies, 9) truths and probabilities."""
    truth = table[[name + TRUE for name in STUDY_LABELS]].to_numpy(np.float64)
    return truth, table[list(STUDY_LABELS)].to_numpy(np.float64)


def evaluate_competition(
    study: pd.DataFrame, image: pd.DataFrame, bootstraps: int, seed: int
) -> dict:
    """The competition's score of a study-level and an image-level model together.

    Args:
        study: predictions of `clotline.studies.study_level_table`.
        image: predictions of `clotline.studies.image_level_table` for the same studies.
        bootstraps: number of resamples.
        seed: of the resamples.

    Returns:
        ``before`` and ``after`` the correction: each with ``log_loss`` (weighted, an `Estimate`
        dict) and ``consistent`` (share of studies); and ``cost``, the growth of the log loss. With
        no test studies ``reason`` instead.

    Raises:
        ClotlineError: the two models were not evaluated on the same studies.
    """
    study, image, exam = _paired_test_studies(study, image)
    if not len(study):
        return {"reason": "no studies"}
    present = cases_by_target(study, "study")[PE_PRESENT]
    on_image = cases_by_target(image, "image")[IMAGE_LABEL]
    truth, labels = _label_arrays(study)
    result = {}
    for name, (p_labels, p_slices) in {
        "before": (labels, on_image.score),
        "after": competition.make_consistent(labels, on_image.score, exam),
    }.items():
        above, below = competition.loss_terms(truth, p_labels, on_image.truth, p_slices, exam)
        loss = ratios(above[:, None], below[:, None])
        (value,) = loss(np.ones(len(study)))
        resampled = resample(loss, len(study), bootstraps, seed)[:, 0]
        result[name] = {
            "log_loss": percentile_estimate(present, value, resampled).as_dict(),
            "consistent": float(consistent(p_labels, p_slices, exam).mean()),
        }
    before, after = (result[name]["log_loss"]["value"] for name in ("before", "after"))
    return result | {"cost": after - before}


def submission(study: pd.DataFrame, image: pd.DataFrame) -> pd.DataFrame:
    """The test studies' predictions in the competition's format, made consistent.

    Args:
        study: predictions of `clotline.studies.study_level_table`.
        image: predictions of `clotline.studies.image_level_table` for the same studies.

    Returns:
        ``id`` (``<StudyInstanceUID>_<label>``, or a slice's SOPInstanceUID) and ``label`` (the
        probability): first the studies, then the stored slices.

    Raises:
        ClotlineError: the two tables have different test studies.
    """
    study, image, exam = _paired_test_studies(study, image)
    _, labels = _label_arrays(study)
    labels, slices = competition.make_consistent(labels, image[IMAGE_LABEL].to_numpy(), exam)
    ids = [f"{uid}_{name}" for uid in study[STUDY_UID] for name in STUDY_LABELS]
    return pd.DataFrame(
        {"id": [*ids, *image[SOP_UID]], "label": np.concatenate([labels.ravel(), slices])}
    )


def _paired_test_studies(
    study: pd.DataFrame, image: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame, np.ndarray]:
    """The test rows of both tables, and for each slice the row of its study."""
    study, image = (table[table["split"] == "test"] for table in (study, image))
    exam = pd.Index(study[STUDY_UID]).get_indexer(image[STUDY_UID])
    if (exam < 0).any() or image[STUDY_UID].nunique() != len(study):
        raise ClotlineError("the study-level and image-level models have different test studies")
    return study, image, exam


def metrics_table(metrics: dict[str, dict]) -> pd.DataFrame:
    """One row a model and target: counts, figures with intervals, and why a figure is missing.

    Args:
        metrics: model name to the dict of `evaluate`.

    Returns:
        ``model``, ``level``, ``target``, ``n_studies``, ``n_slices``, ``n_positive``; each of
        `FIGURES` and, at the operating point for 90% sensitivity, ``sensitivity`` and
        ``specificity``, with ``_low`` and ``_high``; and ``note``.
    """
    counts = ("n_studies", "n_slices", "n_positive")
    names = (*FIGURES, "sensitivity", "specificity")
    floats = [name + end for name in names for end in ("", "_low", "_high")]
    rows = []
    for model, figures in metrics.items():
        for target, found in figures["targets"].items():
            estimates = found | found["operating_points"][0]
            row = {"model": model, "level": figures["level"], "target": target}
            row |= {name: found["auroc"][name] for name in counts}
            for name in names:
                value, low, high = (estimates[name][key] for key in ("value", "low", "high"))
                row |= {name: value, f"{name}_low": low, f"{name}_high": high}
            reasons = (estimates[name]["reason"] for name in names)
            row["note"] = "; ".join(dict.fromkeys(filter(None, reasons)))
            rows.append(row)
    table = pd.DataFrame(rows, columns=["model", "level", "target", *counts, *floats, "note"])
    return table.astype(dict.fromkeys(counts, "Int64") | dict.fromkeys(floats, "float64"))


def compare(
    tables: dict[str, pd.DataFrame], reference: str, bootstraps: int, seed: int
) -> pd.DataFrame:
    """Paired comparison of the models of one feature set with every other of their level.

    Args:
        tables: model name, ``<features>-<level>``, to its predictions, of
            `clotline.studies.study_level_table` or ``image_level_table``.
        reference: feature set that the others are compared with.
        bootstraps: resamples of studies, for the difference on slices.
        seed: of the resamples.

    Returns:
        One row a model and target: ``reference``, ``model``, ``target``, the fields of `Estimate`
        for the AUROC of the reference minus that of the model (studies: DeLong; slices:
        bootstrap), and ``p_value``.

    Raises:
        ClotlineError: the reference is missing, or the models have different test cases.
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
        base_cases = cases_by_target(base, level)
        for name, table in test.items():
            if not all(np.array_equal(table[key], base[key]) for key in _KEYS[level]):
                kind = {"study": "studies", "image": "slices"}[level]
                raise ClotlineError(f"{against} and {name} were not evaluated on the same {kind}")
            for target, cases in cases_by_target(table, level).items():
                if cases.are_slices:
                    found = paired_bootstrap(base_cases[target], cases, bootstraps, seed)
                else:
                    found = paired_delong(base_cases[target], cases)
                row = {"reference": against, "model": name, "target": target}
                rows.append(row | found[0].as_dict() | {"p_value": found[1]})
    fields = [field.name for field in dataclasses.fields(Estimate)]
    return pd.DataFrame(rows, columns=["reference", "model", "target", *fields, "p_value"])
