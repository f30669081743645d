import pandas as pd
import pytest

from clotline.inference import predictions_by_slice, predictions_by_study
from clotline.labels import IMAGE_LABEL, SERIES_UID, SOP_UID, STUDY_LABELS, STUDY_UID

SLICES = pd.DataFrame(
    {
        STUDY_UID: ["a", "a", "b"],
        SERIES_UID: ["a.1", "a.1", "b.7"],
        SOP_UID: ["1", "2", "3"],
        "position_mm": [0.0, 2.5, 0.0],
    }
)


def study_table(*negative):
    table = pd.DataFrame({STUDY_UID: ["a", "b"]}).assign(**dict.fromkeys(STUDY_LABELS, 0.1))
    return table.assign(negative_exam_for_pe=list(negative))


def image_table(*probabilities):
    return SLICES.assign(**{IMAGE_LABEL: list(probabilities)})


PREDICTIONS = {
    "resnext50-image": image_table(0.1, 0.2, 0.3),
    "resnext50-study": study_table(0.6, 0.95),
    "combined-image": image_table(0.4, 0.5, 0.6),
    "combined-study": study_table(0.2, 0.3),
}


def test_each_study_has_a_row_a_model_with_pe_present_and_its_series():
    table = predictions_by_study(PREDICTIONS, SLICES)
    assert table[[STUDY_UID, SERIES_UID, "slices", "model"]].values.tolist() == [
        ["a", "a.1", 2, "resnext50-study"],
        ["b", "b.7", 1, "resnext50-study"],
        ["a", "a.1", 2, "combined-study"],
        ["b", "b.7", 1, "combined-study"],
    ]
    # 1 - negative exam - indeterminate, never below 0
    assert table["pe_present"].tolist() == pytest.approx([0.3, 0, 0.7, 0.6])


def test_each_slice_has_a_column_a_model():
    table = predictions_by_slice(PREDICTIONS)
    assert list(table) == [
        *(STUDY_UID, SERIES_UID, SOP_UID, "position_mm", "resnext50-image", "combined-image")
    ]
    assert table["combined-image"].tolist() == [0.4, 0.5, 0.6]
