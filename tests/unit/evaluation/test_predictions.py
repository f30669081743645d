"""PE in the study, from the study labels."""

from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from clotline.evaluation.delong import auroc_delong
from clotline.evaluation.intervals import Cases
from clotline.evaluation.metrics import evaluate_target, thresholds_from
from clotline.evaluation.predictions import (
    TRUE,
    cases_by_target,
    contradictions,
    pe_present,
    written_decimals,
)
from clotline.labels import STUDY_LABELS, STUDY_UID

LOGITS = st.floats(-15, 15).map(lambda value: round(value, 3))


def table(negative, indeterminate, suffix=""):
    frame = pd.DataFrame({name + suffix: np.zeros(len(negative)) for name in STUDY_LABELS})
    return frame.assign(
        **{f"negative_exam_for_pe{suffix}": negative, f"indeterminate{suffix}": indeterminate}
    )


@given(LOGITS, LOGITS, LOGITS)
def test_no_two_logits_give_one_probability(first, second, other):
    """However sure the outputs are, and also where both together exceed 1."""
    if first == second:
        return
    pairs = np.array([[first, other], [second, other], [other, first], [other, second]])
    found = pe_present(table(*expit(pairs).T))
    assert ((found > 0) & (found < 1)).all()
    # The surer that there is none, the less probable PE is.
    assert (found[0] < found[1]) == (first > second)
    assert (found[2] < found[3]) == (first > second)


def test_outputs_that_together_exceed_one_are_not_cut_off():
    assert pe_present(table([0.665], [0.492])) == pytest.approx([0.335 * 0.508])


def test_the_truth_is_one_where_neither_label_says_otherwise():
    labels = table([0, 1, 0, 1], [0, 0, 1, 1], "_true")
    assert pe_present(labels, "_true").tolist() == [1, 0, 0, 0]


def test_a_label_about_a_pe_that_is_more_probable_than_pe_contradicts_it():
    frame = table([0.2, 0.9, 0.9], [0.0, 0.0, 0.0])
    frame["central_pe"], frame["leftsided_pe"] = [0.7, 0.59, 0.05], [0.79, 0.5, 0.0]
    assert contradictions(frame).tolist() == ["", "central_pe", ""]


def test_of_a_reader_who_said_nothing_of_where_nothing_contradicts():
    assert contradictions(pd.DataFrame({"pe_present": [0.1, 0.9]})).tolist() == ["", ""]


def reader(negative, indeterminate):
    """A reader's table: decimals, each rounded to the nearest number by itself."""
    frame = table(negative, indeterminate)
    frame[STUDY_UID] = [f"s{number}" for number in range(len(frame))]
    for name in STUDY_LABELS:
        frame[name + TRUE] = 0
    frame["negative_exam_for_pe" + TRUE] = np.arange(len(frame)) % 2
    return frame


#: Pairs of which (1 - negative) (1 - indeterminate) is one number, by whatever way.
EQUAL = {
    "0.09": [(0.9, 0.1), (0.1, 0.9), (0.7, 0.7), (0.55, 0.8), (0.8, 0.55), (0.4, 0.85)],
    "0.24": [(0.6, 0.4), (0.4, 0.6), (0.2, 0.7), (0.7, 0.2), (0.04, 0.75), (0.52, 0.5)],
    "1e-06": [(0.999, 0.999), (0.9999, 0.99), (0.99, 0.9999), (0.999999, 0), (0, 0.999999)],
}


@pytest.mark.parametrize("kind", ["float64", "float32", "float64 of float32"])
@pytest.mark.parametrize("score", EQUAL)
def test_scores_that_are_equal_get_no_order_by_rounding(score, kind):
    pairs = np.array(EQUAL[score] * 4)
    exact = (1 - pairs[:, 0]) * (1 - pairs[:, 1])
    assert np.unique(exact).size > 1
    frame = reader(*pairs.T)
    for name in ("negative_exam_for_pe", "indeterminate"):
        for step in reversed(kind.split(" of ")):
            frame[name] = frame[name].astype(step)
    cases = cases_by_target(frame, "study")["pe_present"]
    assert set(cases.score) == {float(score)}
    estimate = auroc_delong(cases)
    assert estimate.value == 0.5
    assert estimate.reason == "no interval: all scores are equal"
    assert evaluate_target(cases, thresholds_from(cases), 20, 0)["auroc_bootstrap"]["value"] == 0.5


def test_what_is_really_different_stays_different():
    close = np.array([1 - 1e-9, 1 - 2e-9, 1 - 3e-9, 0.5])
    assert np.unique(pe_present(reader(close, 0 * close))).size == 4
    steps = (1 - np.arange(1, 5) * 2.0**-24).astype(np.float32)
    assert np.unique(pe_present(reader(steps, np.float32(0) * steps))).size == 4


def test_float32_stands_for_the_decimals_that_it_was_written_from():
    values = np.array([0.1, 0.9, 0.123456, 0, 1])
    for kind in (np.float32, np.float64):
        assert written_decimals(values.astype(kind)).tolist() == [
            Decimal(text) for text in ("0.1", "0.9", "0.123456", "0", "1")
        ]
    assert written_decimals(np.array([1, 0, -1], np.int8)).tolist() == [1, 0, -1]
    assert pe_present(table([], [])).tolist() == []


def test_an_overconfident_models_order_is_that_of_its_numbers():
    """In float32 its 67 scores would be a few."""
    rng = np.random.default_rng(0)
    truth = np.arange(67) % 2
    score = 1 / (1 + np.exp(-(truth * 4 + rng.normal(17, 3, 67))))
    assert np.unique(score.astype(np.float32)).size < 40 < np.unique(score).size
    frame = reader(np.zeros(67), np.zeros(67)).assign(central_pe=score, central_pe_true=truth)
    found = auroc_delong(cases_by_target(frame, "study")["central_pe"]).value
    pairs = score[truth == 1][:, None] - score[truth == 0]
    assert found == pytest.approx(((pairs > 0) + (pairs == 0) / 2).mean(), abs=1e-12)
    coarse = Cases.of(truth, score.astype(np.float32))
    assert auroc_delong(coarse).value < found - 0.02
