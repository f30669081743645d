"""Predictions beside the truth, as the cases of every target."""

import numpy as np
import pandas as pd

from clotline.evaluation.intervals import Cases
from clotline.labels import IMAGE_LABEL, STUDY_LABELS, STUDY_UID

TRUE = "_true"

#: Study-level target derived from the labels.
PE_PRESENT = "pe_present"

#: Study-level target of an image-level model: its highest slice.
PE_PRESENT_BY_MAX = "pe_present_by_max"


def pe_present(table: pd.DataFrame, suffix: str = "") -> np.ndarray:
    """1 - negative_exam_for_pe - indeterminate, clipped to 0 to 1: truth or probability."""
    if not suffix and PE_PRESENT in table:
        # Of a reader who was asked for nothing else.
        return table[PE_PRESENT].to_numpy(np.float64)
    negative = table["negative_exam_for_pe" + suffix].to_numpy(np.float64)
    return np.clip(1 - negative - table["indeterminate" + suffix].to_numpy(np.float64), 0, 1)


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
        Target to cases. Study level: PE present, then the nine labels, but those of which a
        reader said nothing. Image level: the slices, then the studies by their highest slice.

    Raises:
        ClotlineError: a column holds something else than truths or probabilities.
    """
    if level == "image":
        slices = _cases(table, IMAGE_LABEL, table[STUDY_UID])
        highest = table.groupby(STUDY_UID, sort=False)[[IMAGE_LABEL, IMAGE_LABEL + TRUE]].max()
        return {IMAGE_LABEL: slices, PE_PRESENT_BY_MAX: _cases(highest, IMAGE_LABEL)}
    labels = {name: _cases(table, name) for name in STUDY_LABELS if name in table}
    if not says_pe_present(table):
        return labels
    return {PE_PRESENT: Cases.of(pe_present(table, TRUE), pe_present(table))} | labels


def _cases(table: pd.DataFrame, name: str, study=None) -> Cases:
    return Cases.of(table[name + TRUE], table[name], study, name)
