import numpy as np
import pytest

from clotline.evaluation.predictive_values import predictive_values

CONFUSION = {
    "true_positive": 90, "false_negative": 10, "true_negative": 160, "false_positive": 40,
}  # fmt: skip


def test_at_the_prevalence_of_the_studies_they_are_the_plain_ones():
    (row,) = predictive_values(CONFUSION, [1 / 3])
    assert row["ppv"]["value"] == pytest.approx(90 / 130)
    assert row["npv"]["value"] == pytest.approx(160 / 170)


def test_a_rarer_disease_lowers_ppv_and_raises_npv():
    rare, frequent = predictive_values(CONFUSION, [0.05, 0.3])
    # Bayes: 0.9 × 0.05 / (0.9 × 0.05 + 0.2 × 0.95)
    assert rare["ppv"]["value"] == pytest.approx(0.045 / 0.235)
    assert rare["npv"]["value"] == pytest.approx(0.8 * 0.95 / (0.8 * 0.95 + 0.1 * 0.05))
    assert rare["ppv"]["value"] < frequent["ppv"]["value"]
    assert rare["npv"]["value"] > frequent["npv"]["value"]


def test_intervals_hold_the_truth_as_often_as_they_say():
    rng, held, draws = np.random.default_rng(0), 0, 1000
    truth = 0.045 / 0.235
    for _ in range(draws):
        found, false = rng.binomial(100, 0.9), rng.binomial(200, 0.2)
        confusion = {
            "true_positive": found, "false_negative": 100 - found,
            "true_negative": 200 - false, "false_positive": false,
        }  # fmt: skip
        (row,) = predictive_values(confusion, [0.05])
        held += row["ppv"]["low"] <= truth <= row["ppv"]["high"]
    assert 0.93 <= held / draws <= 0.975


def test_rates_of_0_and_1_still_have_an_interval():
    confusion = CONFUSION | {"true_positive": 100, "false_negative": 0}
    (row,) = predictive_values(confusion, [0.1])
    assert row["npv"]["value"] == row["npv"]["high"] == 1
    assert 0.97 < row["npv"]["low"] < 1
    (row,) = predictive_values(confusion | {"true_negative": 200, "false_positive": 0}, [0.1])
    assert row["ppv"]["value"] == 1
    assert row["ppv"]["low"] < 1


def test_what_cannot_be_told_has_a_reason():
    (row,) = predictive_values(None, [0.1])
    assert row["ppv"] == {
        "value": None, "low": None, "high": None, "reason": "no threshold from the valid split",
    }  # fmt: skip
    (row,) = predictive_values(CONFUSION | {"true_positive": 0, "false_negative": 0}, [0.1])
    assert row["npv"]["reason"] == "no positive studies"
    nobody = {"true_positive": 0, "false_negative": 9, "true_negative": 9, "false_positive": 0}
    (row,) = predictive_values(nobody, [0.1])
    assert row["ppv"]["reason"] == "no studies called positive"
    assert row["npv"]["value"] == pytest.approx(0.9)
