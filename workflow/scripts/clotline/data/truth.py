"""What is true of a cohort's stored studies and slices, by its labels and its masks."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from clotline.data.cohort import (
    EXCLUDED_COLUMNS,
    PE_PRESENT,
    TARGETS,
    CohortLabels,
    mask_files,
    one_study_a_name,
    studies_of,
)
from clotline.data.dicom.rejection import SliceError
from clotline.data.masks import slice_labels
from clotline.data.overlap import overlapping
from clotline.data.shards import CHECKSUM
from clotline.data.tables import uid_triples
from clotline.errors import ClotlineError
from clotline.labels import IMAGE_LABEL, SOP_UID, STUDY_UID, UIDS, UNKNOWN


class Truth(NamedTuple):
    """What predictions are held against.

    Attributes:
        studies: one row a study that counts: StudyInstanceUID, `clotline.data.cohort.TARGETS`
            (int8, -1 where unknown) and ``part``.
        slices: one row a stored slice of these: UIDs and the image label (int8, -1 where unknown).
        excluded: stored studies that do not count, as of `EXCLUDED_COLUMNS`.
        notes: on the cohort, a sentence each.
    """

    studies: pd.DataFrame
    slices: pd.DataFrame
    excluded: pd.DataFrame
    notes: list[str]


def settle(
    cohort: CohortLabels,
    labels: pd.DataFrame,
    rows: pd.DataFrame,
    slices: pd.DataFrame,
    folder: str | Path,
    description: Mapping,
    seen: tuple[np.ndarray, np.ndarray] | None,
) -> Truth:
    """The truth of all stored studies.

    Args:
        cohort: the labels.
        labels: of `clotline.data.cohort.match_labels`.
        rows: of the same: the slices that were to be stored.
        slices: those stored, in order along the scan axis: UIDs, ``position_mm``, ``checksum``.
        folder: of the cohort.
        description: of the cohort.
        seen: digests of the models' training data; None where the bundle has none.

    Raises:
        ClotlineError: no study is left.
    """
    names, _ = one_study_a_name(studies_of(rows, cohort.studies.index, description))
    masks = mask_files(folder, description)
    why = overlapping(slices, *seen) if seen is not None else {}
    stored = slices.merge(rows[[*UIDS, "path", "frame"]], on=list(UIDS), validate="one_to_one")
    planned = rows[STUDY_UID].value_counts()
    truths = {row[STUDY_UID]: row for row in labels.to_dict("records")}
    parts, notes, kept = [], [], []
    strangers: list[int] = []
    for uid, part in stored.groupby(STUDY_UID, sort=False):
        if uid in why:
            continue
        name, known = names[uid], truths[uid]
        of_slices = np.full(len(part), UNKNOWN, np.int8)
        problem = ""
        if name in cohort.slices:
            of_slices = _named_slices(part, cohort.slices[name])
            there = set().union(*_names_of(rows[rows[STUDY_UID] == uid]))
            said = {k for k, label in cohort.slices[name].items() if label != UNKNOWN}
            strangers.append(len(said - there))
        elif name in masks:
            try:
                part = part.assign(slices=planned[uid])
                of_slices = slice_labels(Path(folder, masks[name]), part, description)
            except SliceError as error:
                problem = f"its mask cannot be used: {error}"
        shown = _of_study(of_slices)
        if shown == 1 and known[PE_PRESENT] == 0:
            why[uid] = (
                "contradicting labels: the table says that there is no PE, and slices show one"
            )
        elif shown == UNKNOWN and all(known[target] == UNKNOWN for target in TARGETS):
            why[uid] = problem or "no label is known"
        else:
            if problem:
                notes.append(f"{problem}: its slices do not count")
            if known[PE_PRESENT] == UNKNOWN:
                known = known | {PE_PRESENT: shown}
            kept.append(known)
            parts.append(part[list(UIDS)].assign(**{IMAGE_LABEL: of_slices}))
    listed = [
        (uid, cohort.studies.loc[names[uid], "labels"], reason) for uid, reason in why.items()
    ]
    excluded = pd.DataFrame(listed, columns=list(EXCLUDED_COLUMNS))
    if not kept:
        raise ClotlineError(
            f"none of {len(excluded):,} studies of the cohort can count; of the first: "
            f"{listed[0][2]}. A model is validated on studies that it was not trained on and "
            "whose labels are known"
        )
    studies = pd.DataFrame(kept)
    if any(strangers):
        notes.append(
            f"{sum(strangers):,} labels of slices do not count, of "
            f"{sum(map(bool, strangers)):,} studies: they name no slice of the scan that was taken"
        )
    notes += _one_class(studies[PE_PRESENT])
    return Truth(studies, pd.concat(parts, ignore_index=True), excluded, list(dict.fromkeys(notes)))


def _named_slices(part: pd.DataFrame, labels: Mapping[str, int]) -> np.ndarray:
    """Labels of slices by their SOPInstanceUID, or by the name of their file."""
    uid, file, stem = (names.map(labels) for names in _names_of(part))
    return uid.fillna(file).fillna(stem).fillna(UNKNOWN).to_numpy(np.int8)


def _names_of(slices: pd.DataFrame) -> tuple[pd.Series, pd.Series, pd.Series]:
    """What labels may call slices: SOPInstanceUID, name of the file, and that without an ending."""
    files = slices["path"].str.rpartition("/")[2]
    stems = files.str.replace(r"\.(dcm|ima)$", "", case=False, regex=True)
    return slices[SOP_UID], files, stems


def _of_study(of_slices: np.ndarray) -> int:
    """Whether the slices show an embolus; not known to show none unless all are known."""
    if (of_slices == 1).any():
        return 1
    return UNKNOWN if (of_slices == UNKNOWN).any() else 0


def _one_class(present: pd.Series) -> list[str]:
    known = present[present != UNKNOWN]
    if len(known) and known.nunique() == 1:
        only, other = ("positive", "negative") if known.iloc[0] else ("negative", "positive")
        return [
            f"all {len(known):,} studies are {only}: without a {other} one neither AUROC nor "
            "calibration can be computed"
        ]
    return []


def cohort_digests(truth: Truth, slices: pd.DataFrame) -> dict[str, str]:
    """What tells one cohort from another: SHA-256 of the slices and of the labels that counted.

    Args:
        truth: of `settle`.
        slices: those stored, with ``checksum``.
    """
    counted = slices[slices[STUDY_UID].isin(truth.studies[STUDY_UID])]
    of_slices = sorted(zip(uid_triples(counted), counted[CHECKSUM].tolist(), strict=True))
    studies = truth.studies.sort_values(STUDY_UID)[[STUDY_UID, *TARGETS]]
    of_labels = [*studies.itertuples(index=False, name=None)]
    of_labels += sorted(truth.slices.itertuples(index=False, name=None))
    return {
        "slices of the cohort": _sha256(of_slices),
        "labels of the cohort": _sha256(of_labels),
    }


def _sha256(value: list) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()
