"""How LSTMs are trained: what is trained must be what is published."""

import pytest
import torch
from builders import lstm_section

from clotline.loading.study_loader import Moments, StudyBatch
from clotline.models.checkpoint import save_checkpoint
from clotline.models.lstm import SliceLSTM, build_lstm
from clotline.models.supervision import (
    StudyLoss,
    StudyOutputs,
    build_trained_lstm,
    kept_weights,
)

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
    loss, watched = StudyLoss(share)(StudyOutputs(so_far[last], so_far), studies, targets)
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
