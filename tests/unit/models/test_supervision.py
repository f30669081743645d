"""How LSTMs are trained: what is trained must be what is published."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from builders import lstm_section
from scipy.special import expit

from clotline.evaluation.competition import loss_terms
from clotline.loading.study_loader import Moments, StudyBatch
from clotline.models import training
from clotline.models.checkpoint import save_checkpoint
from clotline.models.lstm import SliceLSTM, build_lstm
from clotline.models.steps import Steps
from clotline.models.supervision import (
    StudyLoss,
    StudyOutputs,
    TrainedLSTM,
    build_trained_lstm,
    kept_weights,
    make_loss,
    slice_weights,
)
from clotline.models.training import base_rate_loss

WIDTH, COUNTS = 7, [3, 5, 2]


@pytest.fixture(scope="module")
def studies():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(sum(COUNTS), WIDTH, generator=generator)
    # As ReLU's are: far from zero, of very different scales, and one that never varies.
    features = features * torch.logspace(-2, 2, WIDTH) + torch.linspace(0, 300, WIDTH)
    features[:, 3] = 4.25
    return StudyBatch(features, COUNTS)


@pytest.fixture(scope="module")
def moments(studies):
    return Moments(studies.features.mean(0), studies.features.std(0, correction=0))


@pytest.mark.parametrize("level", ["image", "study"])
def test_the_kept_weights_compute_what_was_trained(studies, moments, level):
    torch.manual_seed(1)
    section = lstm_section(standardize=True, hidden_size=6)
    trained = build_trained_lstm(WIDTH, section, level, moments).eval()
    alone = SliceLSTM(WIDTH, 6, level)
    alone.load_state_dict(kept_weights(trained.state_dict(), moments))
    with torch.no_grad():
        expected, found = trained(studies), alone(studies)
    assert expected.std() > 0.01
    assert torch.allclose(found, expected, atol=1e-4)


def test_without_standardization_the_kept_weights_are_the_trained_ones(studies):
    trained = build_trained_lstm(WIDTH, lstm_section(), "study", None)
    weights = kept_weights(trained.state_dict(), None)
    assert weights.keys() == trained.network.state_dict().keys()
    assert all(torch.equal(weights[k], v) for k, v in trained.network.state_dict().items())


def test_weights_from_a_file_start_as_the_function_that_they_were(studies, moments, tmp_path):
    torch.manual_seed(2)
    path = tmp_path / "init.pt"
    origin = SliceLSTM(WIDTH, 6, "study")
    with torch.no_grad():
        origin.lstm.weight_ih_l0.mul_(0.01)
    save_checkpoint(path, {"weights": origin.state_dict()})
    section = lstm_section(init=str(path), standardize=True, hidden_size=6)
    trained = build_trained_lstm(WIDTH, section, "study", moments).eval()
    with torch.no_grad():
        assert torch.allclose(trained(studies), origin(studies), atol=1e-4)


def test_random_weights_of_wide_features_start_with_open_gates():
    width = 3328
    features = torch.randn(50, width, generator=torch.Generator().manual_seed(9))
    moments = Moments(torch.zeros(width), torch.ones(width))
    spread = {}
    for standardize in (False, True):
        torch.manual_seed(0)
        section = lstm_section(standardize=standardize)
        given = moments if standardize else None
        layer = build_trained_lstm(width, section, "study", given).network.lstm
        spread[standardize] = (features @ layer.weight_ih_l0.T).std().item()
    assert spread[False] > 3
    assert 0.4 < spread[True] < 0.8


def test_dropout_and_the_further_targets_are_for_training_alone(studies, moments):
    torch.manual_seed(0)
    section = lstm_section(standardize=True, dropout=0.5)
    model = build_trained_lstm(WIDTH, section, "study", moments)
    outputs = model.train()(studies)
    assert isinstance(outputs, StudyOutputs)
    assert outputs.study.shape == (len(COUNTS), 9)
    assert outputs.so_far.shape == (sum(COUNTS), 9)
    with torch.no_grad():
        assert not torch.equal(model(studies).study, outputs.study)
        assert torch.equal(model.eval()(studies), model(studies))


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_replicated_targets_are_those_of_the_slices_own_study(studies, share):
    generator = torch.Generator().manual_seed(3)
    so_far = torch.randn(sum(COUNTS), 9, generator=generator)
    targets = torch.randint(0, 2, (len(COUNTS), 9), generator=generator).float()
    last = [2, 7, 9]
    loss, watched, _ = StudyLoss(share)(StudyOutputs(so_far[last], so_far), studies, targets)
    cross_entropy = torch.nn.functional.binary_cross_entropy_with_logits
    of_each = [targets[0]] * 3 + [targets[1]] * 5 + [targets[2]] * 2
    expected = (1 - share) * cross_entropy(so_far[last], targets)
    expected += share * cross_entropy(so_far, torch.stack(of_each))
    assert loss.item() == pytest.approx(expected.item())
    assert watched.item() == pytest.approx(cross_entropy(so_far[last], targets).item())


def test_initial_weights_of_the_published_form_do_not_depend_on_the_wrapper():
    section = lstm_section(forget_bias=3)
    torch.manual_seed(5)
    alone = build_lstm(WIDTH, section, "study").state_dict()
    torch.manual_seed(5)
    wrapped = build_trained_lstm(WIDTH, section, "study", None).network.state_dict()
    assert all(torch.equal(alone[k], wrapped[k]) for k in alone)


RNG = np.random.default_rng(11)
LENGTHS = (40, 3, 17, 60, 1, 25)


@pytest.fixture(scope="module")
def cohort():
    """Targets and logits of studies of which two have no positive slice."""
    slice_truth = np.concatenate(
        [
            (RNG.random(n) < q).astype(float)
            for n, q in zip(LENGTHS, (0.3, 1, 0, 0.1, 0, 0.7), strict=True)
        ]
    )
    truth = (RNG.random((len(LENGTHS), 9)) < 0.3).astype(float)
    return truth, RNG.normal(0, 2, truth.shape), slice_truth, RNG.normal(0, 2, len(slice_truth))


def metric_parts(truth, logits, slice_truth, slice_logits):
    """Summed numerators and denominators of the evaluator: of the labels, and of the slices."""
    study_of = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
    labels = [part.sum() for part in loss_terms(truth, expit(logits))]
    both = loss_terms(truth, expit(logits), slice_truth, expit(slice_logits), study_of)
    return labels, [part.sum() - label for part, label in zip(both, labels, strict=True)]


def batch_of(targets):
    return StudyBatch(torch.zeros(len(targets), 1), list(LENGTHS))


def test_the_competition_losses_are_the_evaluators_metric(cohort):
    truth, logits, slice_truth, slice_logits = cohort
    labels, slices = metric_parts(*cohort)
    section = lstm_section(loss="competition", bidirectional=True)
    of = {}
    for level, target, logit in (
        ("study", truth, logits),
        ("image", slice_truth, slice_logits),
    ):
        tensors = (torch.from_numpy(part).float() for part in (logit, target))
        outputs, targets = tensors
        loss, weigh = make_loss(section, level)
        lowered, watched, _ = loss(outputs, batch_of(slice_truth), targets)
        of[level] = lowered.item()
        assert watched is lowered
        plain = torch.nn.functional.binary_cross_entropy_with_logits(outputs, targets)
        assert abs(lowered.item() - plain.item()) > 0.001
        # What validation weighs it by is the same.
        weights = weigh(targets, batch_of(slice_truth))
        validated = training._mean_loss(outputs, targets, weights)
        assert validated == pytest.approx(lowered.item(), rel=1e-5)
        # No shift of all logits of a label alike is as good as its weighted base rate.
        rates = ((weights * targets).sum(0) / weights.sum(0)).clamp(1e-7, 1 - 1e-7)
        base = training._mean_loss(rates.logit().expand(targets.shape), targets, weights)
        expected = base_rate_loss(targets.numpy(), weights.numpy())
        assert expected == pytest.approx(base, rel=1e-4)
    assert of["study"] == pytest.approx(labels[0] / labels[1], abs=1e-6)
    assert of["image"] == pytest.approx(slices[0] / slices[1], abs=1e-6)
    # Together, with the weights that they have there, they are the whole metric.
    whole = (of["study"] * labels[1] + of["image"] * slices[1]) / (labels[1] + slices[1])
    expected = (labels[0] + slices[0]) / (labels[1] + slices[1])
    assert whole == pytest.approx(expected, abs=1e-6)


def joint(of_studies, of_slices):
    """Rows as a joint network's: a study's nine beside each of its slices."""
    rows = np.column_stack([np.repeat(of_studies, LENGTHS, axis=0), of_slices])
    return torch.from_numpy(rows).float()


def test_the_joint_loss_is_the_evaluators_whole_metric(cohort):
    truth, logits, slice_truth, slice_logits = cohort
    outputs, targets = joint(logits, slice_logits), joint(truth, slice_truth)
    (above, below), (slices_above, slices_below) = metric_parts(*cohort)
    loss, weigh = make_loss(lstm_section(loss="competition"), "joint")
    lowered = loss(outputs, batch_of(slice_truth), targets).lowered
    expected = (above + slices_above) / (below + slices_below)
    assert lowered.item() == pytest.approx(expected, abs=1e-6)
    weights = weigh(targets, batch_of(slice_truth))
    validated = training._mean_loss(outputs, targets, weights)
    assert validated == pytest.approx(expected, abs=1e-6)
    floored, _ = make_loss(lstm_section(loss="competition", q_floor=0.5), "joint")
    assert abs(floored(outputs, batch_of(slice_truth), targets)[0].item() - expected) > 0.001


def test_without_the_metric_a_joint_loss_is_the_mean_of_both_levels(cohort):
    truth, logits, slice_truth, slice_logits = cohort
    loss, _ = make_loss(lstm_section(), "joint")
    outputs, targets = joint(logits, slice_logits), joint(truth, slice_truth)
    lowered = loss(outputs, batch_of(slice_truth), targets).lowered
    of_slices, ends = -np.log(expit(np.where(slice_truth, slice_logits, -slice_logits))), 0
    of_each = []
    for length in LENGTHS:
        of_each.append(of_slices[ends : ends + length].mean())
        ends += length
    of_labels = -np.log(expit(np.where(truth, logits, -logits))).mean()
    assert lowered.item() == pytest.approx((np.mean(of_each) + of_labels) / 2, rel=1e-5)


def test_the_published_network_has_the_metric_on_all_its_states(studies):
    generator = torch.Generator().manual_seed(3)
    so_far = torch.randn(sum(COUNTS), 9, generator=generator)
    targets = torch.randint(0, 2, (len(COUNTS), 9), generator=generator).float()
    section = lstm_section(loss="competition", target_replication=0.5)
    outputs = StudyOutputs(so_far[[2, 7, 9]], so_far)
    loss = make_loss(section, "study")[0](outputs, studies, targets).lowered
    replicated = targets.repeat_interleave(torch.tensor(COUNTS), 0)
    parts = [
        np.divide(*loss_terms(t.numpy(), expit(z.numpy().astype(np.float64)))).mean()
        for z, t in ((so_far[[2, 7, 9]], targets), (so_far, replicated))
    ]
    assert loss.item() == pytest.approx(sum(parts) / 2, abs=1e-6)


def test_the_floor_lets_negative_studies_count_so_much(cohort):
    _, _, slice_truth, slice_logits = cohort
    targets = torch.from_numpy(slice_truth).float()
    logits = torch.from_numpy(slice_logits).float().requires_grad_()
    weights = slice_weights(targets, list(LENGTHS), 0.05)
    share = [part.mean().item() for part in targets.split(LENGTHS)]
    expected = [max(q, 0.05) for q, n in zip(share, LENGTHS, strict=True) for _ in range(n)]
    assert weights.tolist() == pytest.approx(expected)
    assert 0 in share and max(share) == 1
    negative = torch.tensor([q == 0 for q, n in zip(share, LENGTHS, strict=True) for _ in range(n)])
    for floor, taught in ((0.0, False), (0.05, True)):
        section = lstm_section(loss="competition", q_floor=floor)
        loss = make_loss(section, "image")[0](logits, batch_of(targets), targets).lowered
        (gradient,) = torch.autograd.grad(loss, logits)
        assert gradient[negative].any().item() == taught
        assert gradient[~negative].any()


def test_a_batch_without_a_positive_slice_teaches_nothing_and_breaks_nothing():
    logits = torch.randn(4, requires_grad=True)
    studies = StudyBatch(torch.zeros(4, 1), [1, 3])
    section = lstm_section(loss="competition")
    loss, weigh = make_loss(section, "image")
    loss = loss(logits, studies, torch.zeros(4)).lowered
    loss.backward()
    assert loss.item() == 0 and not logits.grad.any()
    weights = weigh(torch.zeros(4), studies)
    assert training._mean_loss(logits.detach(), torch.zeros(4), weights) == 0
    assert base_rate_loss(np.zeros(4), weights.numpy()) == 0


def test_nor_does_an_epoch_of_such_batches(fabric):
    section = lstm_section(loss="competition", precision="32-true")
    model = TrainedLSTM(build_lstm(WIDTH, section, "image"), section, None)
    steps = Steps(model, section, 2, fabric, make_loss(section, "image")[0])
    batches = [(StudyBatch(torch.randn(4, WIDTH), [1, 3]), torch.zeros(4))] * 2
    assert training.train_epoch(steps, batches, 1) == 0


def one_step(level, section, targets, together, fabric):
    """Weights after one step on studies, all in one batch or one a batch, and the mean loss."""
    torch.manual_seed(0)
    model = TrainedLSTM(build_lstm(WIDTH, section, level), section, None)
    of_batches = [list(LENGTHS)] if together else [[length] for length in LENGTHS]
    features = torch.randn(sum(LENGTHS), WIDTH, generator=torch.Generator().manual_seed(1))
    rows = features.split([sum(lengths) for lengths in of_batches])
    # Of a study level a study has one row of targets.
    sizes = [len(lengths) if level == "study" else sum(lengths) for lengths in of_batches]
    batches = [
        (StudyBatch(*studies), part)
        for *studies, part in zip(rows, of_batches, targets.split(sizes), strict=True)
    ]
    chosen = replace(section, accumulate=len(batches))
    steps = Steps(model, chosen, len(batches), fabric, make_loss(section, level)[0])
    model.train()
    total, weight = torch.stack([steps(*batch) for batch in batches]).sum(0).tolist()
    assert steps.scheduler.last_epoch == 1
    return model.state_dict(), total / weight


@pytest.mark.parametrize("level", ["image", "study", "joint"])
@pytest.mark.parametrize("loss", ["cross_entropy", "competition"])
@pytest.mark.parametrize("first_has_none", [False, True])
def test_studies_one_a_batch_accumulate_to_the_step_of_all_in_one(
    cohort, fabric, level, loss, first_has_none
):
    """Whatever their lengths, and where the first batch has no weight at all."""
    truth, _, slice_truth, _ = cohort
    slice_truth = slice_truth.copy()
    if first_has_none:
        slice_truth[: LENGTHS[0]] = 0
    targets = {
        "image": torch.from_numpy(slice_truth).float(),
        "study": torch.from_numpy(truth).float(),
        "joint": joint(truth, slice_truth),
    }[level]
    section = lstm_section(
        loss=loss, hidden_size=4, bidirectional=level == "joint", clip_norm=None, lr=1.0,
        precision="32-true",
    )  # fmt: skip
    weights, mean = one_step(level, section, targets, False, fabric)
    expected, expected_mean = one_step(level, section, targets, True, fabric)
    assert mean == pytest.approx(expected_mean, rel=1e-5)
    for name in expected:
        assert torch.allclose(weights[name], expected[name], atol=1e-6), name
