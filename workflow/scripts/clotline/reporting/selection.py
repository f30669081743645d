"""Which studies the viewer shows, and what it says of each."""

from collections.abc import Collection, Mapping

import numpy as np
import pandas as pd

from clotline.data.shards import BLOOD, CHECKSUM, KERNEL, ORIENTATION, PIXEL, POSITION, THICKNESS
from clotline.data.tables import uid_triples
from clotline.evaluation.predictions import PE_PRESENT, TRUE, contradictions, pe_present
from clotline.feature_sets import REFERENCE, image_level_of
from clotline.labels import IMAGE_LABEL, STUDY_LABELS, STUDY_UID, UIDS, UNKNOWN

#: Groups that a reader looks at first, in this order.
ERRORS = ("false_negative", "false_positive", "indeterminate")

#: All groups that the page can be narrowed to.
GROUPS = (*ERRORS, "positive", "negative")

#: Of a stored slice, what the page needs beside its UIDs.
_SHOWN = (
    "shard", "row", CHECKSUM, POSITION, ORIENTATION, PIXEL, THICKNESS, KERNEL, BLOOD, IMAGE_LABEL,
)  # fmt: skip


def best_study_models(metrics: dict[str, dict]) -> list[str]:
    """The study-level models with the highest AUROC for PE present; several where they are tied.

    Tied is what looks the same in the report, in three decimals. Only models are ranked that were
    evaluated on all the studies that any was evaluated on.

    Args:
        metrics: model name to its metrics, of `clotline.evaluation.metrics.evaluate`.
    """
    ranked = _ranked(metrics)
    shown = {name: round(value, 3) for name, value in ranked.items()}
    return [name for name, value in shown.items() if value == max(shown.values())]


def unranked_study_models(metrics: dict[str, dict]) -> dict[str, int]:
    """Study-level models that were evaluated on fewer studies than others: name to how many."""
    most = _most_studies(metrics)
    counts = {n: m["n_studies"] for n, m in metrics.items() if m["level"] == "study"}
    return {name: count for name, count in counts.items() if count < most}


def _most_studies(metrics: dict[str, dict]) -> int:
    return max((m["n_studies"] for m in metrics.values() if m["level"] == "study"), default=0)


def _ranked(metrics: dict[str, dict]) -> dict[str, float]:
    most = _most_studies(metrics)
    aurocs = {
        name: model["targets"][PE_PRESENT]["auroc"]["value"]
        for name, model in metrics.items()
        if model["level"] == "study"
        and model["n_studies"] == most
        and PE_PRESENT in model["targets"]
    }
    return {name: value for name, value in aurocs.items() if value is not None}


def choose_model(metrics: dict[str, dict], own: Collection[str]) -> tuple[str, str]:
    """The study-level model that the viewer shows, and why it is that one.

    Args:
        metrics: model name to its metrics.
        own: names of the models that are made here; of predictions made elsewhere there is nothing
            to look at, and neither of a study level without an image level of its name.
    """
    reference = f"{REFERENCE}-study"
    best = best_study_models(metrics)
    if not best:
        return reference, "no model's AUROC can be computed, so the combined features are shown"
    shown = [name for name in best if name in own and image_level_of(name) in own]
    if not shown:
        lacks = {
            name: "has no image level" if name in own else "was made elsewhere" for name in best
        }
        reasons = " or ".join(dict.fromkeys(lacks.values()))
        return reference, f"the best of the report, {' and '.join(best)}, {reasons}"
    model = reference if reference in shown else shown[0]
    if len(best) == 1:
        return model, "the best study-level model of the report"
    return (
        model,
        f"one of the best study-level models of the report ({' and '.join(best)} are tied)",
    )


def fixed_thresholds(metrics: dict) -> dict[str, float | None]:
    """Target to its first operating point's threshold; None where the valid split gave none.

    Args:
        metrics: of one model, from `clotline.evaluation.metrics.evaluate`.
    """
    return {
        target: measured["operating_points"][0]["threshold"]
        for target, measured in metrics["targets"].items()
    }


def describe_studies(table: pd.DataFrame, thresholds: Mapping[str, float | None]) -> list[dict]:
    """What a study-level model says of each study, and the truth where it is known.

    Args:
        table: predictions of `clotline.models.prediction.study_level_table`; the columns of the
            truth may be missing, or hold `clotline.labels.UNKNOWN`.
        thresholds: of `fixed_thresholds`.

    Returns:
        For each study ``uid``; ``targets``: PE present, then the nine labels, each with
        ``probability``, ``threshold`` (or None), ``called`` (None without a threshold) and
        ``truth`` (None where unknown); ``contradiction``, of
        `clotline.evaluation.predictions.contradictions`; and ``groups``, those of `GROUPS` that it
        belongs to.
    """
    table = table.assign(**{PE_PRESENT: pe_present(table), "contradiction": contradictions(table)})
    if f"{STUDY_LABELS[0]}{TRUE}" in table.columns:
        table[PE_PRESENT + TRUE] = pe_present(table, TRUE)
    studies = []
    for row in table.to_dict("records"):
        targets = {}
        for name in (PE_PRESENT, *STUDY_LABELS):
            probability, threshold = float(row[name]), thresholds.get(name)
            targets[name] = {
                "probability": probability,
                "threshold": threshold,
                "called": None if threshold is None else probability >= threshold,
                "truth": None
                if row.get(name + TRUE, UNKNOWN) == UNKNOWN
                else bool(row[name + TRUE]),
            }
        study = {"uid": row[STUDY_UID], "targets": targets, "groups": _groups(targets)}
        studies.append(study | {"contradiction": row["contradiction"]})
    return studies


def _groups(targets: dict) -> list[str]:
    present, indeterminate = targets[PE_PRESENT], targets["indeterminate"]
    called, truth = present["called"], present["truth"]
    member = {
        "false_negative": truth is True and called is False,
        "false_positive": truth is False and called is True,
        "indeterminate": indeterminate["truth"] is True,
        "positive": called is True,
        "negative": called is False,
    }
    return [name for name in GROUPS if member[name]]


def choose_studies(studies: list[dict], count: int) -> list[dict]:
    """At most ``count`` studies, those that a reader learns most from, by descending probability.

    False negatives (the most surely missed first), false positives and indeterminate studies (the
    most suspicious first) get up to a quarter of the list each; the others go to the studies
    most suspicious of PE.

    Args:
        studies: of `describe_studies`.
        count: length of the list at most.
    """

    def probability(study: dict) -> float:
        return study["targets"][PE_PRESENT]["probability"]

    # The UID only makes the order of equal probabilities the same everywhere.
    falling = sorted(studies, key=lambda study: (-probability(study), study["uid"]))
    chosen: dict[str, dict] = {}
    share = -(-count // 4)
    for group in ERRORS:
        members = [s for s in falling if group in s["groups"] and s["uid"] not in chosen]
        if group == "false_negative":
            members.reverse()
        chosen |= {study["uid"]: study for study in members[:share]}
    for study in falling:
        if len(chosen) >= count:
            break
        chosen.setdefault(study["uid"], study)
    kept = set(list(chosen)[:count])
    return [study for study in falling if study["uid"] in kept]


def select(
    studies: pd.DataFrame,
    slices: pd.DataFrame,
    probabilities: pd.Series,
    study_metrics: dict,
    image_metrics: dict,
    count: int,
) -> tuple[dict, pd.DataFrame]:
    """All that the viewer needs to know of the studies that it shows, but pixels and maps.

    Args:
        studies: predictions of a study-level model; the columns of the truth may be missing.
        slices: stored slices of these studies: UIDs, ``shard``, ``row``, the columns of
            `clotline.data.shards.STORED_COLUMNS`; the image label -1 where unknown.
        probabilities: study, series and SOP instance UID to an image-level model's probability.
        study_metrics: metrics of the study-level model, for its thresholds.
        image_metrics: metrics of the image-level model.
        count: most studies.

    Returns:
        The chosen ``studies`` (of `describe_studies`), ``of`` how many, and the
        ``slice_threshold``; and the slices of these studies with their ``probability``.
    """
    described = describe_studies(studies, fixed_thresholds(study_metrics))
    chosen = choose_studies(described, count)
    shown = slices[slices[STUDY_UID].isin([study["uid"] for study in chosen])]
    table = shown[[*UIDS, *_SHOWN]].assign(
        probability=probabilities.loc[uid_triples(shown)].to_numpy(np.float32)
    )
    selection = {
        "studies": chosen,
        "of": len(described),
        "slice_threshold": fixed_thresholds(image_metrics)[IMAGE_LABEL],
    }
    return selection, table
