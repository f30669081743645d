"""Averaged weights: the average itself, batch normalisation's statistics for it, and resuming."""

import pytest
import torch
from builders import KilledError
from test_training import killed_at, network, recipe, run, same_weights, train_batches
from torch import nn

from clotline.models import averaging
from clotline.models.averaging import WeightAverage


def test_the_average_is_exponential_and_forgets_the_start_soon():
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(0.0)
    average, expected = WeightAverage(model, 0.5), 0.0
    for step, value in enumerate((1.0, 3.0, -2.0, 8.0, 5.0, 5.0, 5.0, 2.0, 1.0, 0.5), start=1):
        with torch.no_grad():
            model.weight.fill_(value)
        average.update()
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
        with average.applied(list):
            assert model.weight.item() == pytest.approx(expected, rel=1e-6)
        assert model.weight.item() == value


def normalised():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 1))


def test_batch_normalisation_has_the_statistics_of_the_averaged_network(monkeypatch):
    model, generator = normalised(), torch.Generator().manual_seed(1)
    average = WeightAverage(model, 0.9)
    for _ in range(5):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator))
        average.update()
    batches = [(torch.randn(32, 4, generator=generator), torch.zeros(32)) for _ in range(6)]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.eval()
    with average.applied(lambda: batches):
        inside = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        outputs = model[0](torch.cat([inputs for inputs, _ in batches]))
        assert torch.allclose(model[1].running_mean, outputs.mean(0), atol=1e-5)
        # torch takes the mean of the batches' variances.
        variances = torch.stack([part.var(0) for part in outputs.split(32)])
        assert torch.allclose(model[1].running_var, variances.mean(0), rtol=1e-4)
        assert not model.training
    assert not torch.allclose(inside["1.running_mean"], before["1.running_mean"])
    assert same_weights(model.state_dict(), before)
    assert model[1].momentum == 0.1
    monkeypatch.setattr(averaging, "STATISTICS_BATCHES", 2)
    with average.applied(lambda: batches):
        some = model[0](torch.cat([inputs for inputs, _ in batches[:2]]))
        assert torch.allclose(model[1].running_mean, some.mean(0), atol=1e-5)


def test_a_network_without_batch_normalisation_reads_no_batch():
    def batches():
        yield pytest.fail("a batch was read")

    model = nn.Linear(2, 1)
    with WeightAverage(model, 0.9).applied(batches):
        pass


def test_validated_and_kept_are_the_averaged_weights(fabric, tmp_path):
    plain = run(fabric, tmp_path / "p.pt", recipe(lr=0.3, epochs=6, keep="last"))
    averaged = run(fabric, tmp_path / "a.pt", recipe(lr=0.3, epochs=6, keep="last", ema=0.9))
    # The training itself is the same, to the last bit.
    assert averaged.history["train_loss"].equals(plain.history["train_loss"])
    assert not averaged.history["valid_loss"].equals(plain.history["valid_loss"])
    assert not same_weights(averaged.last, plain.last)
    assert same_weights(averaged.best, averaged.last)


@pytest.mark.parametrize("epoch", [1, 3])
def test_a_killed_training_goes_on_with_the_average_to_the_same_bits(fabric, tmp_path, epoch):
    chosen = recipe(ema=0.95, accumulate=3, schedule="cosine")
    whole = run(fabric, tmp_path / "whole.pt", chosen)
    with pytest.raises(KilledError):
        run(fabric, tmp_path / "s.pt", chosen, killed_at(epoch))
    resumed = run(fabric, tmp_path / "s.pt", chosen)
    assert same_weights(resumed.last, whole.last)
    assert same_weights(resumed.best, whole.best)
    assert resumed.history.equals(whole.history)


def test_without_an_average_nothing_of_a_training_changes(fabric, tmp_path):
    model = network()
    run(fabric, tmp_path / "s.pt", model=model, batches=train_batches)
    state = torch.load(tmp_path / "s.pt", weights_only=True)
    assert not {"average", "averaged"} & state.keys()
