import os
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from builders import DyingBatches, KilledError
from hostile import fill_disk, small_disk
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from clotline.errors import ClotlineError
from clotline.models.checkpoint import load_checkpoint
from clotline.models.compiling import compile_network
from clotline.models.devices import make_fabric, make_training_fabric
from clotline.models.monitoring import auroc
from clotline.models.recipe import make_optimizer, make_scheduler
from clotline.models.steps import Steps
from clotline.models.training import (
    base_rate_loss,
    drop_states,
    fit,
    predict,
    train_epoch,
    training_state,
    warn_of_training,
)
from clotline.reporting.plots import plot_history, save_figure
from clotline.sections.recipe import Recipe

RECIPE = Recipe(
    epochs=4,
    lr=0.1,
    momentum=0.9,
    weight_decay=1e-4,
    schedule="step",
    warm_up=0.3,
    milestones=[2, 3],
    clip_norm=None,
    precision="32-true",
    optimizer="sgd",
    keep="best",
    accumulate=1,
    ema=0,
)
SCHEDULES = ["step", "one_cycle", "cosine", "linear", "constant"]
RNG = np.random.default_rng(0)
X = torch.from_numpy(RNG.normal(size=(64, 8)).astype(np.float32))
Y = (X[:, 0] - X[:, 1] > 0).float()


def recipe(**changes):
    return replace(RECIPE, **changes)


def network():
    """With batch normalisation and dropout: buffers and randomness must survive a kill."""
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 1),
        nn.Flatten(0),
    )  # fmt: skip


def batches_of(x, y, size=16):
    return list(zip(x.split(size), y.split(size), strict=True))


def train_batches(epoch):
    order = np.random.default_rng((7, epoch)).permutation(len(X))
    return batches_of(X[order], Y[order])


VALID = batches_of(X[:20], Y[:20], 8)


def killed_at(epoch, batches=train_batches):
    """Batches that end the process in the middle of an epoch (numbered from 0)."""

    def one_epoch(number):
        return DyingBatches(batches(number)) if number == epoch else batches(number)

    return one_epoch


def run(fabric, state, recipe=RECIPE, batches=train_batches, model=None, valid=VALID, **options):
    torch.manual_seed(12345)  # whatever the process did before
    model = network() if model is None else model
    options = {"score": auroc, "seed": 3, "train_base_loss": 0.69} | options
    return fit(model, recipe, batches, valid, fabric=fabric, state_path=state, **options)


def same_weights(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def test_a_tiny_problem_is_learned(fabric, tmp_path):
    fitted = run(fabric, tmp_path / "s.pt", recipe(epochs=20, milestones=[15]))
    history = fitted.history
    assert history["valid_loss"].iloc[0] > 0.4
    assert history["valid_loss"].min() < 0.2
    assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[0]
    assert history["valid_auroc"].iloc[-1] > 0.95


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_with_no_epochs_the_weights_stay_as_they_are_and_are_validated(fabric, tmp_path, schedule):
    model = network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    none = recipe(epochs=0, schedule=schedule)
    fitted = run(fabric, tmp_path / "s.pt", none, model=model)
    assert fitted.best_epoch == 0
    assert same_weights(fitted.best, before) and same_weights(fitted.last, before)
    (row,) = fitted.history.to_dict("records")
    assert (row["epoch"], row["lr"]) == (0, 0)
    assert np.isnan(row["train_loss"])
    model.eval()
    with torch.no_grad():
        loss = binary_cross_entropy_with_logits(model(X[:20]), Y[:20]).item()
    assert row["valid_loss"] == pytest.approx(loss)
    assert 0 <= row["valid_auroc"] <= 1
    save_figure(plot_history(fitted.history, "a"), tmp_path / "a.svg")
    assert "kept: epoch 0" in (tmp_path / "a.svg").read_text(encoding="utf-8")


def test_the_history_has_a_row_for_each_epoch(fabric, tmp_path):
    history = run(fabric, tmp_path / "s.pt").history
    assert list(history) == [
        *("epoch", "lr", "train_loss", "valid_loss", "valid_auroc"),
        *("train_base_loss", "valid_base_loss", "kept"),
    ]
    assert history["epoch"].tolist() == [1, 2, 3, 4]
    assert history.notna().all(axis=None)


def test_the_same_seed_trains_to_the_same_bits_and_another_one_does_not(fabric, tmp_path):
    one, again, other = (
        run(fabric, tmp_path / f"{i}.pt", seed=seed) for i, seed in enumerate((3, 3, 4))
    )
    assert same_weights(one.last, again.last)
    assert one.history.equals(again.history)
    assert not same_weights(one.last, other.last)


class Draws(nn.Module):
    """Notes what the random layers of each training batch would draw."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 1)
        self.drawn = []

    def forward(self, x):
        if self.training:
            self.drawn.append(torch.rand(1).item())
        return self.layer(x).squeeze(-1)


def test_random_layers_draw_anew_in_every_epoch_and_follow_from_the_seed(fabric, tmp_path):
    one, again = Draws(), Draws()
    for model in (one, again):
        run(fabric, tmp_path / f"{id(model)}.pt", model=model)
    assert len(set(one.drawn)) == 4 * 4
    assert one.drawn == again.drawn


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("epoch", [0, 1, 3])
def test_a_training_killed_in_any_epoch_goes_on_to_the_same_bits(fabric, tmp_path, schedule, epoch):
    chosen = recipe(schedule=schedule)
    whole = run(fabric, tmp_path / "whole.pt", chosen)
    with pytest.raises(KilledError):
        run(fabric, tmp_path / "s.pt", chosen, killed_at(epoch))
    begun = []

    def batches(number):
        begun.append(number)
        return train_batches(number)

    resumed = run(fabric, tmp_path / "s.pt", chosen, batches)
    assert begun == [0, *range(epoch, 4)]  # the first time to count them
    assert same_weights(resumed.last, whole.last)
    assert same_weights(resumed.best, whole.best)
    assert resumed.best_epoch == whole.best_epoch
    assert resumed.history.equals(whole.history)


def test_a_training_with_scaled_gradients_goes_on_at_their_scale(tmp_path):
    """Steps are left out until the scale is small enough: nine of them, of four an epoch."""

    def train(state, batches):
        model = nn.Sequential(nn.Linear(8, 1, bias=False), nn.Flatten(0))
        nn.init.zeros_(model[0].weight)
        # By name Lightning gives it on a GPU alone.
        fabric = Fabric(accelerator="cpu", plugins=MixedPrecision("16-mixed", "cpu"))
        return run(fabric, tmp_path / state, recipe(lr=1e-6), batches, model, VALID)

    def steep(epoch):
        return [(1000 * inputs, targets) for inputs, targets in train_batches(epoch)]

    whole = train("whole.pt", steep)
    with pytest.raises(KilledError):
        train("s.pt", killed_at(2, steep))
    resumed = train("s.pt", steep)
    assert load_checkpoint(tmp_path / "s.pt")["precision"]["scale"] < 2**10
    assert resumed.last["0.weight"].any()
    assert same_weights(resumed.last, whole.last)
    assert resumed.history.equals(whole.history)


def test_a_training_killed_after_its_last_epoch_trains_no_further(fabric, tmp_path):
    whole = run(fabric, tmp_path / "s.pt")
    again = run(fabric, tmp_path / "s.pt", batches=killed_at(3))
    assert same_weights(again.last, whole.last)
    assert again.history.equals(whole.history)


def test_a_loss_that_is_not_finite_is_named_by_epoch_and_batch(fabric, tmp_path):
    def batches(epoch):
        made = train_batches(epoch)
        if epoch == 2:
            made[1] = (made[1][0] * torch.nan, made[1][1])
        return made

    with pytest.raises(ClotlineError) as caught:
        run(fabric, tmp_path / "s.pt", batches=batches)
    message = str(caught.value)
    assert "the loss became nan in epoch 3, batch 2" in message
    for remedy in ("learning rate (lr)", "clip_norm", "32-true"):
        assert remedy in message
    state = load_checkpoint(tmp_path / "s.pt")
    assert state["epoch"] == 2
    assert all(torch.isfinite(w).all() for w in state["weights"].values())
    whole = run(fabric, tmp_path / "whole.pt")
    assert same_weights(run(fabric, tmp_path / "s.pt").last, whole.last)


def test_the_first_of_many_batches_with_an_infinite_loss_is_named(fabric, tmp_path):
    def batches(epoch):
        made = [*train_batches(epoch)] * 30
        for place in (70, 71):
            made[place] = (made[place][0] * torch.nan, made[place][1])
        return made

    with pytest.raises(ClotlineError, match="the loss became nan in epoch 1, batch 71:"):
        run(fabric, tmp_path / "s.pt", batches=batches)


def test_a_diverging_training_is_stopped(fabric, tmp_path):
    with pytest.raises(ClotlineError, match="the loss became"):
        run(fabric, tmp_path / "s.pt", recipe(lr=1e30, schedule="constant"))


class Bias(nn.Module):
    """One logit, the same for all; its loss is known in closed form."""

    def __init__(self, value=0.0):
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, x):
        return self.value.expand(len(x))


def constant_targets(value, count):
    return [(torch.zeros(8, 1), torch.full((8,), float(value)))] * count


def test_the_best_epoch_is_that_of_the_lowest_validation_loss(fabric, tmp_path):
    """Training pulls the logit up in two epochs and down in two; validation likes it high."""
    fitted = run(
        fabric,
        tmp_path / "s.pt",
        recipe(momentum=0, weight_decay=0, schedule="constant"),
        lambda epoch: constant_targets(epoch < 2, 5),
        Bias(),
        constant_targets(1, 1),
    )
    losses = fitted.history["valid_loss"]
    assert losses.idxmin() == 1
    assert fitted.best_epoch == 2
    assert fitted.best["value"] > fitted.last["value"] + 0.1
    expected = np.log1p(np.exp(-fitted.best["value"].item()))
    assert losses[1] == pytest.approx(expected, abs=1e-6)


def test_of_equal_validation_losses_the_first_epoch_is_the_best(fabric, tmp_path):
    fitted = run(
        fabric,
        tmp_path / "s.pt",
        recipe(lr=1e-30, weight_decay=0, schedule="constant"),
        lambda epoch: constant_targets(1, 2),
        Bias(),
        constant_targets(1, 1),
    )
    assert fitted.history["valid_loss"].nunique() == 1
    assert fitted.best_epoch == 1


def test_an_auroc_that_cannot_be_computed_is_nan_in_the_history(fabric, tmp_path):
    fitted = run(fabric, tmp_path / "s.pt", valid=constant_valid())
    assert fitted.history["valid_auroc"].isna().all()
    assert fitted.history["valid_loss"].notna().all()


def constant_valid():
    return [(X[:8], torch.ones(8))]


class SpoiledBy(list):
    """Batches of which one makes the model's weights NaN, as an infinite gradient would."""

    def __init__(self, batches, model):
        super().__init__(batches)
        self.model = model

    def __iter__(self):
        yield from super().__iter__()
        with torch.no_grad():
            self.model[0].weight.fill_(torch.nan)


def test_a_validation_loss_that_is_not_finite_stops_the_training_and_keeps_the_last_good_state(
    fabric, tmp_path
):
    """Weights that the last step of an epoch spoils show in no training loss of that epoch."""
    model = network()

    def batches(epoch):
        made = train_batches(epoch)
        return SpoiledBy(made, model) if epoch == 2 else made

    with pytest.raises(ClotlineError) as caught:
        run(fabric, tmp_path / "s.pt", batches=batches, model=model)
    message = str(caught.value)
    assert "the validation loss became nan in epoch 3, batch 1: lower the learning rate" in message
    state = load_checkpoint(tmp_path / "s.pt")
    assert state["epoch"] == 2
    assert all(torch.isfinite(w).all() for w in state["weights"].values())


def test_an_infinite_gradient_under_clip_norm_is_named_by_the_next_loss(fabric, tmp_path):
    class Steep(torch.autograd.Function):
        @staticmethod
        def forward(context, x):
            return x.clone()

        @staticmethod
        def backward(context, gradient):
            return gradient * torch.inf

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(8, 1)

        def forward(self, x):
            return Steep.apply(self.layer(x)).squeeze(-1)

    with pytest.raises(ClotlineError, match="the loss became nan in epoch 1, batch 2"):
        run(fabric, tmp_path / "s.pt", recipe(clip_norm=1.0), model=Model())
    assert not (tmp_path / "s.pt").exists()


def test_a_full_disk_ends_the_training_and_keeps_the_state_of_the_last_saved_epoch(
    fabric, tmp_path
):
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    whole = run(fabric, tmp_path / "whole.pt")
    with small_disk(tmp_path / "disk", 2_000_000) as disk:

        def batches(epoch):
            if epoch == 2:
                fill_disk(disk, left=0)
            return train_batches(epoch)

        with pytest.raises(ClotlineError, match=f"the disk {disk} is full: {disk}/s.pt needs"):
            run(fabric, disk / "s.pt", batches=batches)
        assert load_checkpoint(disk / "s.pt")["epoch"] == 2
        (disk / ".ballast").unlink()
        assert same_weights(run(fabric, disk / "s.pt").last, whole.last)


def test_a_full_disk_is_foreseen_before_the_first_epoch(fabric, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("clotline.job.disk.free_bytes", lambda path: 1000)
    run(fabric, tmp_path / "s.pt", recipe(epochs=1))
    first = caplog.records[0].getMessage()
    assert "may run full" in first
    assert str(tmp_path / "s.pt") in first
    assert "1.0 kB are free" in first


def test_the_score_is_given_all_targets_and_logits_joined(fabric, tmp_path):
    seen = []
    run(fabric, tmp_path / "s.pt", recipe(epochs=1), score=lambda *given: seen.append(given))
    targets, logits = seen[0]
    assert targets.tolist() == Y[:20].tolist()
    assert logits.shape == (20,)


def test_predictions_are_made_in_evaluation_mode(fabric):
    model = fabric.setup_module(network().train())
    one, again = (predict(model, VALID, fabric, 1)[1] for _ in range(2))
    assert torch.equal(one, again)
    assert not model.training


def test_the_training_loss_counts_each_target_once(fabric):
    """A batch of 8 ones and one of 2 zeros, logit 2: the mean is over the ten targets."""
    batches = [(torch.zeros(8, 1), torch.ones(8)), (torch.zeros(2, 1), torch.zeros(2))]
    plain = recipe(lr=1e-30, momentum=0, weight_decay=0, schedule="constant")
    loss = train_epoch(Steps(Bias(2.0), plain, 2, fabric), batches, 1)
    expected = (8 * np.log1p(np.exp(-2)) + 2 * np.log1p(np.exp(2))) / 10
    assert loss == pytest.approx(expected, abs=1e-6)


def test_the_gradient_is_scaled_down_to_clip_norm(fabric):
    moved = {}
    for clip_norm in (None, 0.01):
        plain = recipe(lr=1.0, momentum=0, weight_decay=0, schedule="constant", clip_norm=clip_norm)
        train_epoch(Steps(m := Bias(), plain, 1, fabric), constant_targets(1, 1), 1)
        moved[clip_norm] = m.value.item()
    assert moved[None] == pytest.approx(0.5)
    assert moved[0.01] == pytest.approx(0.01, rel=1e-3)


def rates(chosen, steps_per_epoch):
    """The learning rate of every batch, and that after the last."""
    optimizer = make_optimizer(chosen, nn.Linear(1, 1))
    scheduler = make_scheduler(chosen, optimizer, steps_per_epoch)
    found = [optimizer.param_groups[0]["lr"]]
    for _ in range(chosen.epochs * steps_per_epoch):
        optimizer.step()
        scheduler.step()
        found.append(optimizer.param_groups[0]["lr"])
    return found


def test_the_step_schedule_divides_by_10_after_each_milestone():
    found = rates(recipe(lr=1.0, epochs=4, milestones=[2, 3]), steps_per_epoch=3)
    assert found[:-1] == pytest.approx([1.0] * 6 + [0.1] * 3 + [0.01] * 3)


def test_the_constant_schedule_keeps_the_learning_rate():
    assert set(rates(recipe(schedule="constant", lr=0.3), steps_per_epoch=3)) == {0.3}


def test_the_one_cycle_schedule_rises_to_lr_and_falls_once_over_the_whole_training():
    found = rates(recipe(schedule="one_cycle", lr=0.5, epochs=10), steps_per_epoch=10)
    peak = int(np.argmax(found))
    assert found[peak] == pytest.approx(0.5, rel=1e-3)
    assert 20 < peak < 40
    assert (np.diff(found[: peak + 1]) > 0).all()
    assert (np.diff(found[peak:-1]) < 0).all()
    assert found[0] == pytest.approx(0.5 / 25)
    assert found[-2] < 0.001


@pytest.mark.parametrize(
    ("schedule", "share"),
    [("linear", lambda done: 1 - done), ("cosine", lambda done: (1 + np.cos(np.pi * done)) / 2)],
)
def test_linear_and_cosine_fall_from_lr_to_zero_over_the_whole_training(schedule, share):
    found = rates(recipe(schedule=schedule, lr=0.4, epochs=5), steps_per_epoch=4)
    steps = np.arange(len(found)) / 20
    assert found == pytest.approx((0.4 * share(steps)).tolist(), abs=1e-9)
    assert found[0] == 0.4 and len(found) == 21


def accumulated(accumulate, size, fabric, **changes):
    """Weights after an epoch in batches of a size, and how often the optimizer stepped."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(8, 1), nn.Flatten(0))
    chosen = recipe(accumulate=accumulate, clip_norm=0.1, schedule="linear", epochs=2, **changes)
    batches = batches_of(X[:60], Y[:60], size)
    training = Steps(model, chosen, len(batches), fabric)
    sums = [training(*batch) for _ in range(2) for batch in batches]
    # The scheduler counts them.
    return model.state_dict(), training.scheduler.last_epoch, torch.stack(sums).sum(0), training


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_small_batches_together_are_a_step_of_a_large_one(fabric, optimizer):
    # 60 samples: of the batches of 8 the last has 4, and of the groups of two the last is cut off.
    small, steps, sums, training = accumulated(2, 8, fabric, optimizer=optimizer)
    large, as_many, whole, other = accumulated(1, 16, fabric, optimizer=optimizer)
    assert steps == as_many == 8
    for name in large:
        assert torch.allclose(small[name], large[name], atol=1e-6)
    assert torch.allclose(sums, whole, rtol=0.05) and sums[1] == whole[1] == 120
    assert training.scheduler.get_last_lr() == other.scheduler.get_last_lr()
    assert training.scheduler.get_last_lr()[0] == pytest.approx(0, abs=1e-9)


def test_a_step_ends_with_its_epoch_whatever_is_left_for_it(fabric):
    _, steps, _, _ = accumulated(3, 15, fabric)
    assert steps == 4  # of four batches an epoch: three, and one
    weights, steps, _, _ = accumulated(100, 15, fabric)
    whole, once, _, _ = accumulated(1, 60, fabric)
    assert steps == once == 2
    assert all(torch.allclose(weights[name], whole[name], atol=1e-6) for name in whole)


def test_the_one_cycle_schedule_leaves_the_momentum_alone():
    chosen = recipe(schedule="one_cycle", momentum=0.7)
    optimizer = make_optimizer(chosen, nn.Linear(1, 1))
    scheduler, found = make_scheduler(chosen, optimizer, steps_per_epoch=3), set()
    for _ in range(chosen.epochs * 3):
        found.add(optimizer.param_groups[0]["momentum"])
        optimizer.step()
        scheduler.step()
    assert found == {0.7}


def test_the_optimizer_is_sgd_with_the_recipes_settings():
    chosen = recipe(momentum=0.7, weight_decay=0.01)
    (group,) = make_optimizer(chosen, nn.Linear(1, 1)).param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.1, 0.7, 0.01)
    assert not group["nesterov"]


def test_adamw_decays_matrices_alone():
    chosen = recipe(optimizer="adamw", momentum=0.7, weight_decay=0.01, lr=0.003)
    optimizer = make_optimizer(chosen, nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)))
    assert type(optimizer).__name__ == "AdamW"
    decays = {
        tuple(parameter.shape): group["weight_decay"]
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert decays == {(3, 2): 0.01, (3,): 0}
    assert {(g["lr"], g["betas"]) for g in optimizer.param_groups} == {(0.003, (0.7, 0.999))}


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_each_optimizer_learns_and_resumes_to_the_same_bits(fabric, tmp_path, optimizer):
    chosen = recipe(optimizer=optimizer, lr=0.05, epochs=6)
    whole = run(fabric, tmp_path / "a.pt", chosen)
    assert whole.history["train_loss"].iloc[-1] < whole.history["train_loss"].iloc[0]
    with pytest.raises(KilledError):
        run(fabric, tmp_path / "b.pt", chosen, killed_at(3))
    assert same_weights(run(fabric, tmp_path / "b.pt", chosen).last, whole.last)


@pytest.mark.parametrize("warm_up", [0.1, 0.5])
def test_the_warm_up_is_the_share_in_which_the_rate_rises(warm_up):
    chosen = recipe(schedule="one_cycle", warm_up=warm_up, epochs=10, lr=1.0)
    found = rates(chosen, steps_per_epoch=10)
    assert np.argmax(found) == pytest.approx(100 * warm_up - 1, abs=1)


@pytest.mark.parametrize(("keep", "epoch"), [("best", 2), ("last", 4)])
def test_the_recipe_says_which_epoch_is_kept(fabric, tmp_path, keep, epoch):
    """Validation whose loss is lowest after the second epoch: its labels turn round."""
    losses = iter([0.9, 0.1, 0.9, 0.9])

    def valid():
        yield X[:20], torch.full((20,), float(next(losses) < 0.5))

    class Valid:
        def __iter__(self):
            return valid()

    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, inputs):
            return self.weight.expand(len(inputs)) + (1.0 if not self.training else 0.0)

    fitted = run(
        fabric, tmp_path / "s.pt", recipe(keep=keep, lr=1e-6), model=Constant(), valid=Valid()
    )
    assert fitted.best_epoch == epoch
    assert fitted.history["kept"].tolist() == [int(n == epoch) for n in (1, 2, 3, 4)]


def test_base_rates_loss_is_the_entropy_of_each_label():
    assert base_rate_loss(np.array([0, 1, 0, 1])) == pytest.approx(np.log(2))
    targets = np.array([[1, 0], [0, 0], [0, 0], [0, 0]])
    entropy = -(0.25 * np.log(0.25) + 0.75 * np.log(0.75))
    assert base_rate_loss(targets) == pytest.approx(entropy / 2)


def test_what_a_training_did_wrong_is_logged(caplog):
    history = pd.DataFrame(
        {
            "epoch": [1, 2],
            "lr": 0.1,
            "train_loss": [0.69, 0.69],
            "valid_loss": [0.71, 0.70],
            "train_base_loss": 0.69,
            "valid_base_loss": 0.69,
            "kept": [0, 1],
        }
    )
    with caplog.at_level("WARNING", logger="clotline"):
        warn_of_training("resnext50", history)
    assert "resnext50: it does not fit its own training split" in caplog.text


def test_the_history_gives_the_learning_rate_at_the_end_of_each_epoch(fabric, tmp_path):
    history = run(fabric, tmp_path / "s.pt").history
    assert history["lr"].tolist() == pytest.approx([0.1, 0.01, 0.001, 0.001])


def test_mixed_precision_keeps_the_weights_in_full_precision(tmp_path):
    fabric = make_fabric("bf16-mixed", gpus=0, threads=1)
    fitted = run(fabric, tmp_path / "s.pt", recipe(epochs=1))
    assert {w.dtype for w in fitted.last.values()} <= {torch.float32, torch.int64}


def test_the_automatic_precision_is_full_where_the_cpu_has_no_bfloat16_units(monkeypatch):
    for units, precision in ((False, "32-true"), (True, "bf16-mixed")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda u=units: {"avx512_bf16": u})
        fabric = make_fabric("auto", gpus=0, threads=1)
        assert fabric._precision.precision == precision


def test_full_precision_is_full_in_a_gpus_convolutions_too(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    make_fabric("bf16-mixed", gpus=0, threads=1)
    assert torch.backends.cudnn.allow_tf32
    make_fabric("32-true", gpus=0, threads=1)
    assert not torch.backends.cudnn.allow_tf32


def test_more_gpus_than_the_machine_shows_are_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ClotlineError, match="its machine shows it 1: lower the resource"):
        make_training_fabric("32-true", gpus=2, threads=2)


def test_a_gpu_that_torch_does_not_see_is_told_with_the_reason(monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("SLURM_JOB_ID", "JOB_ID", "PBS_JOBID", "LSB_JOBID", "CLOTLINE_DEVICE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    make_fabric("32-true", gpus=1, threads=1)
    assert "though gpu=1 was asked for: CUDA_VISIBLE_DEVICES= hides every GPU" in caplog.text
    monkeypatch.setenv("SLURM_JOB_ID", "101")
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(ClotlineError, match="was built without CUDA"):
        make_training_fabric("32-true", gpus=2, threads=2)


def test_a_gpu_is_left_alone_where_the_cpu_is_chosen(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("CLOTLINE_DEVICE", "cpu")
    assert make_fabric("32-true", gpus=1, threads=1).device.type == "cpu"


def test_a_job_uses_the_threads_that_it_was_given():
    before = torch.get_num_threads()
    make_fabric("32-true", gpus=0, threads=2)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


@pytest.mark.parametrize(("threads", "each"), [(6, 3), (5, 2), (1, 1)])
def test_the_processes_of_a_job_share_its_threads(threads, each):
    before = torch.get_num_threads()
    make_training_fabric("32-true", gpus=0, threads=threads, processes=2)
    assert torch.get_num_threads() == each
    torch.set_num_threads(before)


def test_the_state_of_an_unfinished_training_belongs_to_what_it_was_made_from(tmp_path):
    data = tmp_path / "data.h5"
    data.write_bytes(b"abc")
    os.utime(data, ns=(1, 1))

    def state(name="n", identity=("cfg", "code"), inputs=(data,)):
        return training_state(tmp_path, name, list(identity), [str(i) for i in inputs])

    first = state()
    assert first == state()
    assert first.parent == tmp_path
    assert first.name.startswith("n-")
    others = [state("m"), state(identity=("cfg2", "code")), state(identity=("cfg", "code2"))]
    os.utime(data, ns=(2, 2))
    others.append(state())
    data.write_bytes(b"abcd")
    os.utime(data, ns=(1, 1))
    others.append(state())
    assert len({first, *others}) == 6


def test_a_finished_training_leaves_no_state_of_its_own_but_those_of_others(tmp_path):
    for name in ("n", "n-image", "m"):
        for number in "12":
            training_state(tmp_path, name, [number], []).touch()
    (tmp_path / "plan.json").touch()
    drop_states(tmp_path, "n")
    left = [path.name.rpartition("-")[0] for path in tmp_path.glob("*.pt")]
    assert sorted(left) == ["m", "m", "n-image", "n-image"]
    assert (tmp_path / "plan.json").exists()


@pytest.mark.usefixtures("cpp_compiler")
def test_a_compiled_network_trains_alike_and_keeps_its_parameters_names(fabric, tmp_path):
    def still():  # without dropout: compiled code draws other random numbers
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1), nn.Flatten(0))

    plain = run(fabric, tmp_path / "plain.pt", model=still())
    compiled = compile_network(still())
    with pytest.raises(KilledError):
        run(fabric, tmp_path / "s.pt", batches=killed_at(2), model=compiled)
    resumed = run(fabric, tmp_path / "s.pt", model=compile_network(still()))
    assert resumed.last.keys() == plain.last.keys()
    for name, weights in plain.last.items():
        assert torch.allclose(resumed.last[name], weights, atol=1e-4)
