"""Predictions beside the truth, as the cases of every target."""

from decimal import Decimal

import numpy as np
import pandas as pd

from clotline.evaluation.intervals import Cases
from clotline.labels import (
    IMAGE_LABEL,
    NO_PE_LABELS,
    PE_LABELS,
    STUDY_LABELS,
    STUDY_UID,
    UNKNOWN,
    pe_probability,
)

TRUE = "_true"

#: Study-level target derived from the labels.
PE_PRESENT = "pe_present"

#: Study-level target of an image-level model: its highest slice.
PE_PRESENT_BY_MAX = "pe_present_by_max"


def pe_present(table: pd.DataFrame, suffix: str = "") -> np.ndarray:
    """PE in the study: the truth (1 where neither label says otherwise), or a probability.

    Args:
        table: of `clotline.models.prediction.study_level_table`.
        suffix: `TRUE` for the truth.

    Returns:
        (n,) float64; `clotline.labels.UNKNOWN` where a cohort's labels do not tell.
    """
    if PE_PRESENT + suffix in table:
        # From a reader who was asked for nothing else, or a cohort whose labels say nothing else.
        return table[PE_PRESENT + suffix].to_numpy(np.float64)
    # In float64 (1 - 0.9) (1 - 0.1) and (1 - 0.1) (1 - 0.9) differ by 1e-17, which would break a
    # tie.
    absent = (written_decimals(table[name + suffix].to_numpy()) for name in NO_PE_LABELS)
    return pe_probability(*absent).astype(np.float64)


def written_decimals(values: np.ndarray) -> np.ndarray:
    """Probabilities as the decimals that they were written as; computing with those is exact.

    Args:
        values: (n,) numbers.

    Returns:
        (n,) objects, each the `Decimal` of fewest digits that reads as the number: 0.9 also where
        it went through float32, which keeps 0.89999998 of it.
    """
    values = np.asarray(values)
    single = values.astype(np.float32)
    exact = single if np.array_equal(single, values) else values.astype(np.float64)
    return np.array([Decimal(text) for text in exact.astype(str).tolist()], dtype=object)


def contradictions(table: pd.DataFrame) -> pd.Series:
    """For each study, the label about a PE that is more probable than PE itself.

    A network's outputs are independent, so this may happen; a reader should then rely on neither.

    Args:
        table: of `clotline.models.prediction.study_level_table`.

    Returns:
        (n,) names of labels, the most probable where there are several; "" where there is none.
    """
    labels = table[[name for name in PE_LABELS if name in table]].astype(np.float64)
    if labels.empty:
        return pd.Series("", table.index)
    return labels.idxmax(axis=1).where(labels.max(axis=1) > pe_present(table), "")


def says_pe_present(table: pd.DataFrame) -> bool:
    """Whether PE in the study is among the predictions, or follows from them."""
    return PE_PRESENT in table or {"negative_exam_for_pe", "indeterminate"} <= set(table)


def cases_by_target(table: pd.DataFrame, level: str) -> dict[str, Cases]:
    """Truth and probability of every target of a model.

    Args:
        table: predictions of `clotline.models.prediction.study_level_table` or of its
            ``image_level_table``.
        level: study or image.

    Returns:
        Target to cases. Study level: PE present, then the nine labels, without those that a
        reader did not give. Image level: the slices, then the studies by their highest slice. A
        case whose truth is `clotline.labels.UNKNOWN` is none.

    Raises:
        ClotlineError: a column holds something else than truths or probabilities.
    """
    if level == "image":
        slices = _cases(table, IMAGE_LABEL, table[STUDY_UID])
        highest = table.groupby(STUDY_UID, sort=False)[[IMAGE_LABEL, IMAGE_LABEL + TRUE]].max()
        if PE_PRESENT + TRUE in table:
            of_study = table.groupby(STUDY_UID, sort=False)[PE_PRESENT + TRUE].first()
            highest[IMAGE_LABEL + TRUE] = of_study
        return {IMAGE_LABEL: slices, PE_PRESENT_BY_MAX: _cases(highest, IMAGE_LABEL)}
    labels = {name: _cases(table, name) for name in STUDY_LABELS if name in table}
    if not says_pe_present(table):
        return labels
    present = {PE_PRESENT: pe_present(table), PE_PRESENT + TRUE: pe_present(table, TRUE)}
    return {PE_PRESENT: _cases(pd.DataFrame(present), PE_PRESENT)} | labels


def _cases(table: pd.DataFrame, name: str, study: pd.Series | None = None) -> Cases:
    known = table[name + TRUE] != UNKNOWN
    of_study = None if study is None else study[known]
    return Cases.of(table[name + TRUE][known], table[name][known], of_study, name)
