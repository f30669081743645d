"""What is watched while training."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from clotline.labels import STUDY_LABELS
from clotline.models.monitoring import auroc, pe_present_auroc

NEGATIVE, INDETERMINATE = map(STUDY_LABELS.index, ("negative_exam_for_pe", "indeterminate"))


def studies(negative, indeterminate):
    """(n, 9) with two of the labels set."""
    table = np.zeros((len(negative), len(STUDY_LABELS)), np.float32)
    table[:, NEGATIVE], table[:, INDETERMINATE] = negative, indeterminate
    return table


def test_one_class_alone_has_no_auroc():
    assert auroc(np.zeros(3), np.arange(3)) is None
    assert auroc(np.array([0, 1, 1]), np.arange(3)) == 1


def test_pe_is_present_where_a_study_is_neither_negative_nor_indeterminate():
    logits = np.random.default_rng(0).normal(size=(6, len(STUDY_LABELS)))
    targets = studies([1, 0, 0, 1, 0, 0], [0, 1, 0, 0, 0, 0])
    negative, indeterminate = 1 / (1 + np.exp(-logits[:, [NEGATIVE, INDETERMINATE]].T))
    expected = roc_auc_score([0, 0, 1, 0, 1, 1], (1 - negative) * (1 - indeterminate))
    assert pe_present_auroc(targets, logits) == pytest.approx(expected)


def test_a_study_labelled_both_negative_and_indeterminate_is_without_pe():
    logits = np.random.default_rng(0).normal(size=(3, len(STUDY_LABELS)))
    once, both = (studies([1, 0, 1], twice) for twice in ([0, 0, 0], [1, 0, 0]))
    assert pe_present_auroc(both, logits) == pe_present_auroc(once, logits)
    assert pe_present_auroc(studies([1, 1], [1, 0]), logits[:2]) is None
