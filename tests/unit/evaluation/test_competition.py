import itertools
import math

import numpy as np
import pytest
from builders import weighted_log_loss
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from clotline.data.consistency import consistent
from clotline.evaluation.competition import (
    IMAGE_WEIGHT,
    RAISED,
    WEIGHTS,
    loss_terms,
    make_consistent,
)
from clotline.labels import STUDY_LABELS

W = np.array([WEIGHTS[name] for name in STUDY_LABELS])


def draw(exams=12, seed=0):
    """Truth and predictions of exams with 3 to 8 slices; every third exam has no positive one."""
    rng = np.random.default_rng(seed)
    exam = np.repeat(np.arange(exams), rng.integers(3, 9, exams))
    truth = (rng.random((exams, 9)) < 0.4).astype(int)
    slice_truth = ((rng.random(len(exam)) < 0.5) & (exam % 3 > 0)).astype(int)
    return truth, rng.random((exams, 9)), slice_truth, rng.random(len(exam)), exam


def bce(y, p):
    return -(y * math.log(p) + (1 - y) * math.log(1 - p))


def follows_the_rules(labels, slices):
    """The published rules, one examination at a time."""
    on = {name: bool(p > 0.5) for name, p in zip(STUDY_LABELS, labels, strict=True)}
    pe = [name for name in STUDY_LABELS if name not in ("negative_exam_for_pe", "indeterminate")]
    if max(slices) > 0.5:
        return (
            on["rv_lv_ratio_gte_1"] + on["rv_lv_ratio_lt_1"] == 1
            and (on["central_pe"] or on["rightsided_pe"] or on["leftsided_pe"])
            and not (on["chronic_pe"] and on["acute_and_chronic_pe"])
            and not on["negative_exam_for_pe"]
            and not on["indeterminate"]
        )
    return on["negative_exam_for_pe"] + on["indeterminate"] == 1 and not any(on[n] for n in pe)


def test_weights_sum_to_one():
    assert sum(WEIGHTS.values()) == pytest.approx(1, abs=1e-8)
    assert set(WEIGHTS) == set(STUDY_LABELS)


def test_weights_are_the_published_ones():
    assert WEIGHTS == {
        "negative_exam_for_pe": 0.0736196319,
        "indeterminate": 0.09202453988,
        "chronic_pe": 0.1042944785,
        "acute_and_chronic_pe": 0.1042944785,
        "central_pe": 0.1877300613,
        "leftsided_pe": 0.06257668712,
        "rightsided_pe": 0.06257668712,
        "rv_lv_ratio_gte_1": 0.2346625767,
        "rv_lv_ratio_lt_1": 0.0782208589,
    }
    assert IMAGE_WEIGHT == 0.07361963


def test_a_score_worked_out_by_hand():
    # One examination of two slices, one of them positive. A probability of 1/2 for what is true
    # costs ln 2, one of 1/4 twice that, of 1/8 three times and of 1/16 four times.
    probability = dict.fromkeys(STUDY_LABELS, 0.5)
    probability |= {"rv_lv_ratio_gte_1": 1 / 16, "chronic_pe": 7 / 8, "leftsided_pe": 1 / 4}
    truth = [[int(n in ("rv_lv_ratio_gte_1", "leftsided_pe")) for n in STUDY_LABELS]]
    labels = [[probability[name] for name in STUDY_LABELS]]
    exams = [np.array(part) for part in (truth, labels, [1, 0], [1 / 4, 1 / 2], [0, 0])]
    on_labels = 1 + 3 * 0.2346625767 + 2 * 0.1042944785 + 0.06257668712
    on_slices = 0.07361963 / 2 * (2 + 1)
    expected = math.log(2) * (on_labels + on_slices) / (1 + 0.07361963 / 2 * 2)
    assert expected == pytest.approx(1.346488, abs=1e-6)
    assert weighted_log_loss(*exams) == pytest.approx(expected)


def test_weighted_log_loss_matches_the_formula():
    truth, labels, slice_truth, slices, exam = draw()
    above = below = 0
    for e in range(len(labels)):
        rows = np.flatnonzero(exam == e)
        q = sum(slice_truth[i] for i in rows) / len(rows)
        above += sum(W[k] * bce(truth[e, k], labels[e, k]) for k in range(9))
        above += IMAGE_WEIGHT * q * sum(bce(slice_truth[i], slices[i]) for i in rows)
        below += sum(W) + IMAGE_WEIGHT * q * len(rows)
    assert weighted_log_loss(truth, labels, slice_truth, slices, exam) == pytest.approx(
        above / below
    )


def test_slices_without_a_positive_one_in_the_exam_have_no_weight():
    truth, labels, slice_truth, slices, exam = draw()
    silent = exam % 3 == 0
    other = np.where(silent, 0.99, slices)
    assert weighted_log_loss(truth, labels, slice_truth, slices, exam) == weighted_log_loss(
        truth, labels, slice_truth, other, exam
    )


def test_a_constant_half_scores_ln_2():
    truth, labels, slice_truth, slices, exam = draw()
    half = np.full_like(labels, 0.5), np.full_like(slices, 0.5)
    loss = weighted_log_loss(truth, half[0], slice_truth, half[1], exam)
    assert loss == pytest.approx(math.log(2))


@given(
    arrays(float, 9, elements=st.sampled_from([0.2, 0.5, 0.8])), st.sampled_from([0.3, 0.5, 0.7])
)
def test_consistency_follows_the_published_rules(labels, highest):
    slices, exam = np.array([0.1, highest]), np.array([0, 0])
    assert consistent(labels[None], slices, exam)[0] == follows_the_rules(labels, slices)
    kinds = [follows_the_rules(labels, [p]) for p in (0.9, 0.1)]
    assert consistent(labels[None])[0] == any(kinds)


def nearest_by_trying_all(labels, slices):
    """Least weighted divergence of a consistent prediction, over all patterns of labels."""

    def moved(p, up):
        return (p if p > 0.5 else RAISED) if up else min(p, 0.5)

    def divergence(p, q):
        return sum(a * math.log(a / b) for a, b in ((p, q), (1 - p, 1 - q)) if a > 0)

    top = int(np.argmax(slices))
    best = math.inf
    for has_pe in (False, True):
        new = [moved(p, False) if not has_pe else p for p in slices]
        if has_pe:
            new[top] = moved(slices[top], True)
        on_slices = sum(divergence(p, q) for p, q in zip(slices, new, strict=True))
        on_slices *= IMAGE_WEIGHT * np.mean(slices)
        for pattern in itertools.product((False, True), repeat=9):
            version = [moved(p, up) for p, up in zip(labels, pattern, strict=True)]
            if follows_the_rules(version, new):
                on_labels = sum(
                    w * divergence(p, q) for w, p, q in zip(W, labels, version, strict=True)
                )
                best = min(best, on_labels + on_slices)
    return best


@pytest.mark.parametrize("seed", range(3))
def test_correction_is_the_nearest_of_all_consistent_predictions(seed):
    _, labels, _, slices, exam = draw(8, seed)
    new_labels, new_slices = make_consistent(labels, slices, exam)

    def entropy(p, q):
        return -(p * np.log(q) + (1 - p) * np.log(1 - q))

    for e in range(len(labels)):
        rows = exam == e
        cost = (entropy(labels[e], new_labels[e]) - entropy(labels[e], labels[e])) @ W
        on_slices = entropy(slices[rows], new_slices[rows]) - entropy(slices[rows], slices[rows])
        cost += IMAGE_WEIGHT * slices[rows].mean() * on_slices.sum()
        assert cost == pytest.approx(nearest_by_trying_all(labels[e], slices[rows]), abs=1e-9)


@given(
    arrays(np.float32, (4, 9), elements=st.floats(0, 1, width=32)),
    arrays(np.float32, 10, elements=st.floats(0, 1, width=32)),
)
def test_corrected_predictions_are_consistent_and_stay(labels, slices):
    exam = np.repeat(np.arange(4), [1, 2, 3, 4])
    for rows in ((labels, slices, exam), (labels,)):
        fixed = make_consistent(*rows)
        exams = rows[2:]
        arguments = (fixed[0], fixed[1], *exams) if exams else (fixed[0],)
        assert consistent(*arguments).all()
        single = [part.astype(np.float32) for part in arguments[:2]]
        assert consistent(*single, *exams).all()
        again = make_consistent(*arguments)
        assert np.array_equal(again[0], fixed[0]) and np.array_equal(again[1], fixed[1])
        # What was consistent is left as it was.
        kept = consistent(*rows)
        assert np.array_equal(fixed[0][kept], labels[kept])


def test_terms_without_slices_are_those_of_the_labels():
    truth, labels, *_ = draw()
    above, below = loss_terms(truth, labels)
    assert below == pytest.approx(np.full(len(labels), W.sum()))
    assert above[0] == pytest.approx(
        sum(w * bce(y, p) for w, y, p in zip(W, truth[0], labels[0], strict=True))
    )
