import numpy as np
import pytest
from test_metrics import RESAMPLES, image_table, study_table

from clotline.evaluation.decision_tables import (
    decision_curves_table,
    predictive_values_table,
    sample_size_table,
)
from clotline.evaluation.metrics import OPERATING_POINTS, evaluate


@pytest.fixture(scope="module")
def metrics():
    return {
        "combined-study": evaluate(study_table(), "study", RESAMPLES, 0, prevalences=(0.1, 0.4)),
        "combined-image": evaluate(image_table(), "image", RESAMPLES, 0),
        # Of studies without PE, and of an older Clotline.
        "none-study": evaluate(
            study_table().assign(negative_exam_for_pe_true=1, indeterminate_true=0), "study", 10, 0
        ),
        "old-study": {"level": "study", "targets": {"pe_present": {"auroc": {}}}},
    }


def test_each_model_has_one_curve_of_pe_in_the_study(metrics):
    table = decision_curves_table(metrics)
    counts = table.groupby(["model", "target"]).size().to_dict()
    assert counts == {
        ("combined-study", "pe_present"): 99,
        ("combined-image", "pe_present_by_max"): 99,
        ("none-study", "pe_present"): 1,
    }
    (reason,) = table.loc[table["model"] == "none-study", "reason"]
    assert reason == "one class only: all 60 studies are negative"
    curve = metrics["combined-study"]["targets"]["pe_present"]["decision_curve"]
    own = table[table["model"] == "combined-study"]
    assert own["gain_low"].tolist() == curve["gain_low"]
    assert (own["net_benefit_low"] <= own["net_benefit_high"]).all()


def test_predictive_values_are_told_for_each_point_and_prevalence(metrics):
    table = predictive_values_table(metrics)
    own = table[table["model"] == "combined-study"]
    assert own["operating_point"].unique().tolist() == list(OPERATING_POINTS)
    assert own["prevalence"].tolist() == [0.1, 0.4] * 3
    assert (own["ppv_low"] < own["ppv"]).all() and (own["npv"] < own["npv_high"]).all()
    none = table[table["model"] == "none-study"]
    assert none["ppv"].isna().all()
    assert none["reason"].str.len().gt(0).all()


def test_sample_sizes_are_told_for_three_metrics(metrics):
    table = sample_size_table(metrics)
    own = table[table["model"] == "combined-study"]
    assert own["metric"].tolist() == ["auroc", "sensitivity", "specificity"]
    assert own["studies"].iloc[0] == 60
    assert (own["needed"] > own["studies"]).all()
    assert np.isfinite(own[["value", "half_width", "expected"]].to_numpy()).all()


def test_there_can_be_no_rows():
    for table_of in (decision_curves_table, predictive_values_table, sample_size_table):
        assert table_of({}).empty
