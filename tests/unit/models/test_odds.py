"""One factor of the odds, fitted on valid: it lowers the metric and changes no rank."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from builders import checkpoint_of, lstm_section
from scipy.special import expit

from clotline.evaluation.competition_weights import LABEL_WEIGHTS
from clotline.loading.study_loader import StudyBatch
from clotline.models.devices import make_fabric
from clotline.models.lstm import build_lstm, load_lstm
from clotline.models.odds import calibrate_odds, fit_log_factor

RNG = np.random.default_rng(5)


def cross_entropy(logits, targets, weights):
    chosen = np.where(targets == 1, logits, -logits)
    return np.average(-np.log(expit(chosen)), weights=weights)


def test_the_factor_is_the_best_of_all():
    logits, weights = RNG.normal(-2, 1.5, 4000), RNG.random(4000)
    targets = (RNG.random(4000) < expit(logits + 1.3)).astype(float)
    shift = fit_log_factor(logits, targets, weights)
    assert shift == pytest.approx(1.3, abs=0.2)
    best = cross_entropy(logits + shift, targets, weights)
    for other in (shift - 0.05, shift + 0.05, 0.0):
        assert best < cross_entropy(logits + other, targets, weights)


def test_what_has_no_weight_does_not_count():
    logits, targets = np.array([0.0, 0, 9, -9]), np.array([1.0, 0, 0, 1])
    assert fit_log_factor(logits, targets, np.array([3.0, 1, 0, 0])) == pytest.approx(np.log(3))


@pytest.mark.parametrize(
    ("targets", "weights"), [([1, 1], [1, 1]), ([0, 1], [1, 0]), ([0, 1], [0, 0])]
)
def test_of_one_class_no_finite_factor_is_best(targets, weights):
    actual = fit_log_factor(np.zeros(2), np.array(targets, float), np.array(weights, float))
    assert actual is None


class Studies:
    """Studies in memory, as `FeatureSequences` gives them."""

    def __init__(self, level, lengths, positives):
        generator = torch.Generator().manual_seed(0)
        self.counts = lengths
        self.features = [torch.randn(length, 4, generator=generator) for length in lengths]
        if level == "image":
            self.targets = [
                (torch.arange(n) < p).float() for n, p in zip(lengths, positives, strict=True)
            ]
        else:
            self.targets = [torch.randint(0, 2, (1, 9), generator=generator).float()] * len(lengths)

    def batches(self, size, fabric):
        rows = range(0, len(self.counts), size)
        return [
            (
                StudyBatch(torch.cat(self.features[at : at + size]), self.counts[at : at + size]),
                torch.cat(self.targets[at : at + size]),
            )
            for at in rows
        ]


@pytest.mark.parametrize("form", [{}, {"cell": "gru", "pooling": ["mean", "max"]}])
@pytest.mark.parametrize("level", ["image", "study"])
def test_a_calibrated_network_differs_by_one_shift_that_fits_the_metric(level, form, caplog):
    lengths, positives = [9, 20, 14, 6], [2, 0, 14, 1]
    section, fabric = lstm_section(precision="32-true", **form), make_fabric("32-true", 0, 1)
    torch.manual_seed(3)
    network = build_lstm(4, section, level)
    checkpoint = checkpoint_of(section, network.state_dict(), 4)
    valid = Studies(level, lengths, positives)
    with caplog.at_level(logging.INFO, "clotline"):
        weights = calibrate_odds(checkpoint, level, valid, 2, fabric)
    assert "all odds times" in caplog.text
    after = load_lstm(replace(checkpoint, weights=weights), level, "a.pt").eval()
    (whole,) = valid.batches(10, fabric)
    with torch.inference_mode():
        before, logits = network.eval()(whole[0]), after(whole[0])
    shift = (logits - before).flatten()
    assert torch.allclose(shift, shift[:1].expand_as(shift), atol=1e-5)
    assert abs(shift[0]) > 0.05
    if level == "image":
        # The metric's weights: each slice counts by the share of positives of its study.
        share = torch.tensor(positives) / torch.tensor(lengths)
        weight = share.repeat_interleave(torch.tensor(lengths))
        slope = (weight * (logits.sigmoid() - whole[1])).sum()
        assert abs(slope) < 1e-4
    changed = [name for name in weights if not torch.equal(weights[name], checkpoint.weights[name])]
    assert changed == ["linear.bias"]


def test_valid_studies_without_a_positive_slice_leave_the_odds_with_a_warning(caplog):
    section, fabric = lstm_section(precision="32-true"), make_fabric("32-true", 0, 1)
    weights = build_lstm(4, section, "image").state_dict()
    checkpoint = checkpoint_of(section, weights, 4)
    actual = calibrate_odds(checkpoint, "image", Studies("image", [3, 4], [0, 0]), 2, fabric)
    assert all(torch.equal(actual[name], weights[name]) for name in weights)
    assert "all odds are left as they are" in caplog.text


def test_a_joint_networks_labels_and_slices_have_a_factor_each():
    lengths, positives = [9, 20, 14, 6], [2, 0, 14, 1]
    section, fabric = lstm_section(precision="32-true"), make_fabric("32-true", 0, 1)
    torch.manual_seed(3)
    network = build_lstm(4, section, "joint").eval()
    checkpoint = checkpoint_of(section, network.state_dict(), 4)
    valid, labels = Studies("image", lengths, positives), Studies("study", lengths, positives)
    valid.targets = [
        torch.cat([of_study.expand(n, 9), of_slices[:, None]], 1)
        for of_study, of_slices, n in zip(labels.targets, valid.targets, lengths, strict=True)
    ]
    weights = calibrate_odds(checkpoint, "joint", valid, 2, fabric)
    after = load_lstm(replace(checkpoint, weights=weights), "joint", "a.pt").eval()
    ((studies, targets),) = valid.batches(10, fabric)
    with torch.inference_mode():
        shift = after(studies) - network(studies)
        gap = after(studies).sigmoid() - targets
    assert torch.allclose(shift, shift[:1], atol=1e-5)
    assert torch.allclose(shift[:, :9], shift[:, :1], atol=1e-5)
    assert abs(shift[0, 0] - shift[0, 9]) > 0.05
    # Of each head the weighed probabilities sum up to the weighed truth.
    counts = torch.tensor(lengths)
    share = (torch.tensor(positives) / counts).repeat_interleave(counts)
    assert abs((share * gap[:, 9]).sum()) < 1e-4
    firsts = [0, *counts.cumsum(0).tolist()[:-1]]
    assert abs((gap[firsts, :9] @ torch.tensor(LABEL_WEIGHTS)).sum()) < 1e-4
    changed = [name for name in weights if not torch.equal(weights[name], checkpoint.weights[name])]
    assert changed == ["linear.bias", "image_linear.bias"]
