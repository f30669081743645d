"""The report of models on another cohort: one self-contained HTML page."""

import copy
from collections.abc import Mapping

import pandas as pd
import yaml

from clotline.data.cohort import FITTED, PART, PE_PRESENT, TARGETS
from clotline.data.rejects import count_notes, count_reasons
from clotline.evaluation.decision_curves import useful_thresholds
from clotline.evaluation.decision_tables import with_decisions
from clotline.evaluation.intervals import describe_estimate
from clotline.evaluation.sample_size import HALF_WIDTH
from clotline.labels import IMAGE_LABEL, STUDY_UID, UNKNOWN
from clotline.reporting import claim
from clotline.reporting.pages import FOLDER, describe_bundle, templates
from clotline.reporting.report import TOLD_THRESHOLDS, svg_uri, versions
from clotline.titles import TITLES, counted
from clotline.version import CLOTLINE_VERSION

#: The page's sections: anchor to title.
CONTENTS = {
    "summary": "All models",
    "internal": "Beside the internal test",
    "points": "Operating points",
    "calibration": "Calibration",
    "decisions": "Decision curves",
    "values": "Predictive values at other prevalences",
    "size": "Sample size",
    "roc": "Receiver operating characteristic",
    "precision_recall": "Precision and recall",
    "groups": "Subgroups",
    "labels": "Metrics of each label",
    "data": "Data",
    "claim": "CLAIM",
    "made": "How it was made",
}

#: What is compared with the internal test, and how it is called.
COMPARED = {
    "auroc": "AUROC",
    "average_precision": "Average precision",
    "brier": "Brier score",
    "log_loss": "Log loss",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
}


def recalibrated_metrics(metrics: Mapping, moment: str) -> dict | None:
    """A model's metrics with the calibration of the held-out part, for its plot.

    Args:
        metrics: of `clotline.evaluation.validation.validate`.
        moment: before or after.

    Returns:
        The same metrics; None where there was nothing to recalibrate on.
    """
    main, measured = next(iter(metrics["targets"].items()))
    told = measured["recalibration"][moment]
    if told is None:
        return None
    changed = copy.deepcopy(dict(metrics))
    changed["targets"] = {main: measured | {"calibration": told["calibration"]}}
    changed["n_studies"] = told["calibration"]["slope"]["n_studies"]
    if changed["n_slices"]:
        changed["n_slices"] = told["calibration"]["slope"]["n_slices"]
    return changed


def flow_of(
    content: Mapping,
    truth: pd.DataFrame,
    slice_truth: pd.DataFrame,
    excluded: pd.DataFrame,
    unpredicted: pd.DataFrame,
    left_out: pd.DataFrame,
) -> dict:
    """What became of the cohort: how many studies count, and why the others do not.

    ``told`` is the number of studies of which it is known whether they have a PE; ``unseen``
    whether nobody looked for studies that the models were trained on.

    Args:
        content: of metrics.json.
        truth: truth.parquet of the cohort.
        slice_truth: slice_truth.parquet.
        excluded: excluded.csv.
        unpredicted: unpredicted.csv.
        left_out: left_out.csv.
    """
    known = {TITLES[name]: int((truth[name] != UNKNOWN).sum()) for name in TARGETS}
    known |= {TITLES[IMAGE_LABEL]: int((slice_truth[IMAGE_LABEL] != UNKNOWN).sum())}
    trained_on = excluded["reason"].str.startswith("trained on").sum()
    unseen = any("no digests" in note for note in content["about"]["notes"])
    overlap = f"{trained_on} studies that the models were trained on were left out."
    return {
        "title": content["about"]["title"],
        "studies": len(truth),
        "positive": int((truth[PE_PRESENT] == 1).sum()),
        "told": int((truth[PE_PRESENT] != UNKNOWN).sum()),
        "fitted": int((truth[PART] == FITTED).sum()),
        "slices": len(slice_truth),
        "known": {name: count for name, count in known.items() if count},
        "level": "Studies, of one patient together where the labels name patients",
        "overlap": "Whether studies were trained on is not known." if unseen else overlap,
        "unseen": unseen,
        "excluded": count_reasons(excluded).to_dict(),
        "unpredicted": count_reasons(unpredicted).to_dict(),
        "left_out": count_reasons(left_out).to_dict(),
    }


def render_validation(
    content: Mapping,
    flow: Mapping,
    notes: pd.DataFrame,
    figures: Mapping[str, Mapping[str, str]],
    recalibration: float,
    bootstraps: int,
    date: str,
) -> str:
    """The page as HTML text; everything from outside is escaped.

    Args:
        content: of metrics.json: ``about`` the cohort, the configuration that ``trained`` the
            models, the networks that were also trained in ``folds``, the metrics of all
            ``models``, and which model the bundle's metrics have ``chosen`` and ``why``.
        flow: of `flow_of`.
        notes: on studies.
        figures: groups of figures, each to {caption: path of an SVG}.
        recalibration: part of the cohort on which probabilities are recalibrated.
        bootstraps: resamples of each bootstrap.
        date: of the page, as a text.
    """
    metrics, trained = content["models"], content["trained"]
    main, why = content["chosen"]["model"], content["chosen"]["why"]
    shown = main if main in metrics else next(iter(metrics))
    there = {name: bool(figures.get(name)) for name in ("roc", "precision_recall")}
    deciding = list(with_decisions(metrics))
    there |= dict.fromkeys(("decisions", "values", "size"), bool(deciding))
    there["groups"] = any(model["groups"] for model in metrics.values())
    return (
        templates(FOLDER)
        .get_template("validation.html.j2")
        .render(
            about=content["about"],
            # The page says in its first lines how well this model did there.
            source=describe_bundle(trained, shown, {"targets": {}}),
            date=date,
            clotline=CLOTLINE_VERSION,
            contents={a: title for a, title in CONTENTS.items() if there.get(a, True)},
            main=shown,
            why=why,
            metrics=metrics,
            deciding=deciding,
            useful={name: useful_thresholds(m["decision_curve"]) for name, _, m in deciding},
            told_thresholds=TOLD_THRESHOLDS,
            all_thresholds="results/validate/metrics.json",
            half_width=HALF_WIDTH,
            first_point=next(iter(metrics[shown]["targets"].values()))["operating_points"][0][
                "name"
            ],
            compared=COMPARED,
            flow=flow,
            notes=count_notes(notes).to_dict(),
            noted=notes[STUDY_UID].nunique(),
            recalibration=recalibration,
            claim=claim.ITEMS,
            claimed=claim.fill_in_validation(
                trained, content["folds"], flow, recalibration, bootstraps
            ),
            figures={
                name: {caption: svg_uri(path) for caption, path in group.items()}
                for name, group in figures.items()
            },
            trained=yaml.safe_dump(trained, sort_keys=False),
            versions=versions(),
            digests=content["about"]["digests"],
            headline=_headline(shown, metrics[shown]),
        )
    )


def _headline(name: str, model: Mapping) -> str:
    """The page's first sentence: one model's AUROC here and there."""
    target, measured = next(iter(model["targets"].items()))
    auroc = measured["auroc"]
    said = (
        f"AUROC for {TITLES[target]} {describe_estimate(auroc)} on "
        f"{counted(auroc['n_studies'], 'study', 'studies')}, {auroc['n_positive']:,} of them "
        f"positive"
    )
    beside = measured["internal"].get("auroc")
    if beside is None or beside["internal"]["value"] is None:
        return f"{said}."
    there = describe_estimate(beside["internal"])
    if beside["difference"]["value"] is None:
        return f"{said}; in the internal test {there}."
    difference = describe_estimate(beside["difference"])
    return f"{said}; in the internal test {there}, a difference of {difference}."
