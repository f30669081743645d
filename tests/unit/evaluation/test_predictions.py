"""PE in the study, from the study labels."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from clotline.evaluation.predictions import contradictions, pe_present
from clotline.labels import STUDY_LABELS

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
