"""The one training loop, for both stages, resumable by epoch."""

import hashlib
import logging
import math
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from scipy.special import entr
from torch import Tensor, nn
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException
from torch.nn.functional import binary_cross_entropy_with_logits

from clotline.errors import ClotlineError
from clotline.evaluation.learning import training_warnings
from clotline.job.disk import warn_if_short
from clotline.job.files import atomic
from clotline.job.processes import end_with_parent
from clotline.job.progress import clock, progress
from clotline.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from clotline.models.steps import TINY, Loss, Steps, cross_entropy_loss
from clotline.sections.recipe import Recipe

log = logging.getLogger("clotline")

#: Targets and inputs of a batch to the targets' weights, of their shape.
Weigh = Callable[..., Tensor]


@dataclass(frozen=True)
class Fitted:
    """What a training gives.

    Attributes:
        best: state dict of the kept epoch: that of the lowest validation loss or, where the recipe
            says so, the last. Of averaged weights, where the recipe averages them.
        last: state dict of the last epoch.
        best_epoch: number of that epoch, from 1; 0 where nothing was trained.
        history: one row an epoch: ``epoch`` (from 1), ``lr`` (at its end), ``train_loss``,
            ``valid_loss`` (mean binary cross-entropy in nats, of weighted targets where the loss
            weighs them), ``valid_auroc`` (NaN where it cannot be computed), ``train_base_loss`` and
            ``valid_base_loss`` (what base rates alone give), and ``kept`` (1 of the kept epoch, 0
            of others).
    """

    best: dict[str, Tensor]
    last: dict[str, Tensor]
    best_epoch: int
    history: pd.DataFrame

    @classmethod
    def of(cls, state: dict) -> "Fitted":
        """From the state of a training after its last epoch."""
        best, history = state["best"], pd.DataFrame(state["history"])
        history["kept"] = (history["epoch"] == best["epoch"]).astype(int)
        last = state.get("averaged", state["weights"])
        return cls(best["weights"], last, best["epoch"], history)


def train_together(fabric: Fabric, run: Callable[[], Fitted], state_path: Path) -> Fitted:
    """Runs a training, in a process for each of the fabric's devices.

    Args:
        fabric: devices and precision.
        run: makes the batches and the network, and calls `fit`; each process sees its part of the
            batches, by `clotline.loading.batches.process_batches`.
        state_path: as given to `fit`.

    Raises:
        ClotlineError: as by ``run``, in any process.
    """
    if not isinstance(fabric.strategy, DDPStrategy):
        return run()
    errors = get_context("fork").SimpleQueue()
    try:
        fabric.launch(_run_in_process, run, errors)
    except (ProcessRaisedException, ProcessExitedException):
        if errors.empty():
            raise
        raise ClotlineError(errors.get()) from None
    return Fitted.of(load_checkpoint(state_path))


def _run_in_process(fabric: Fabric, run: Callable[[], Fitted], errors) -> None:
    end_with_parent()
    if not fabric.is_global_zero:
        log.setLevel(logging.ERROR)
    try:
        run()
    except ClotlineError as error:
        errors.put(str(error))
        raise


def fit(
    model: nn.Module,
    recipe: Recipe,
    train_batches: Callable[[int], Iterable],
    valid_batches: Iterable,
    score: Callable[[np.ndarray, np.ndarray], float | None],
    fabric: Fabric,
    state_path: Path,
    seed: int,
    train_base_loss: float,
    loss: Loss = cross_entropy_loss,
    weigh: Weigh | None = None,
) -> Fitted:
    """Trains ``model``; a killed training goes on after its last finished epoch.

    With no epochs it stays as it is, and the history has the validation of epoch 0 only.

    All randomness of an epoch comes from (seed, epoch), so that on a CPU a resumed training ends
    with the same bits as an uninterrupted one.

    Args:
        model: called with a batch's inputs it gives logits of the shape of the batch's targets.
        recipe: how to train.
        train_batches: epoch number (from 0) to its batches of (inputs, targets); each epoch must
            have as many.
        valid_batches: the validation batches, the same at every iteration.
        score: AUROC from (targets, logits), both with batches joined on their first axis; None
            where it cannot be computed.
        fabric: device and precision.
        state_path: file that holds the state between epochs; the caller removes it.
        seed: of the random layers.
        train_base_loss: of `base_rate_loss`, of the training's targets.
        loss: what the training lowers.
        weigh: weights of the targets in the validation loss, of a batch's targets and inputs; None
            weighs them alike.

    Raises:
        ClotlineError: the loss of training or of validation became infinite or NaN. The state then
            is that of the last good epoch.
    """
    if fabric.is_global_zero:
        copies = _STATE_COPIES + (_AVERAGE_COPIES if recipe.ema else 0)
        warn_if_short(state_path, copies * _size(model))
    steps = Steps(model, recipe, len(train_batches(0)), fabric, loss)
    model, optimizer, scheduler = steps.model, steps.optimizer, steps.scheduler
    if not recipe.epochs:
        return _not_trained(model, valid_batches, score, fabric, state_path, weigh)
    done, history, best = 0, [], {"loss": math.inf, "epoch": 0, "weights": {}}
    if state_path.exists():
        state = load_checkpoint(state_path)
        model.load_state_dict(state["weights"])
        optimizer.load_state_dict(state["optimizer"])
        scheduler.load_state_dict(state["scheduler"])
        fabric.strategy.precision.load_state_dict(state["precision"])
        if steps.average is not None:
            steps.average.load_state_dict(state["average"])
        done, history, best = state["epoch"], state["history"], state["best"]
        log.info("goes on after epoch %d of an earlier run", done)
    for epoch in range(done, recipe.epochs):
        start = time.monotonic()
        torch.manual_seed(np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)[0])
        train_loss = train_epoch(steps, train_batches(epoch), epoch + 1)
        with _evaluated(steps, partial(train_batches, epoch)):
            targets, logits, counted = predict(model, valid_batches, fabric, epoch + 1, weigh)
            weights = _weights(model)
        valid_loss = _mean_loss(logits, targets, counted)
        auroc = score(targets.numpy(), logits.numpy())
        history.append(
            {
                "epoch": epoch + 1,
                "lr": scheduler.get_last_lr()[0],
                "train_loss": train_loss,
                "valid_loss": valid_loss,
                "valid_auroc": math.nan if auroc is None else auroc,
                "train_base_loss": train_base_loss,
                "valid_base_loss": base_rate_loss(targets.numpy(), _as_array(counted)),
            }
        )
        if recipe.keep == "last" or valid_loss < best["loss"]:
            best = {"loss": valid_loss, "epoch": epoch + 1, "weights": weights}
        state = {
            "epoch": epoch + 1,
            "weights": weights,
            "optimizer": optimizer.state_dict(),
            "scheduler": scheduler.state_dict(),
            # With 16-mixed, the scale of the gradients, which decides which steps are left out.
            "precision": fabric.strategy.precision.state_dict(),
            "history": history,
            "best": best,
        }
        if steps.average is not None:
            state |= {"weights": _weights(model), "averaged": weights}
            state["average"] = steps.average.state_dict()
        if fabric.is_global_zero:
            save_checkpoint(state_path, state)
        log.info(
            "epoch %d/%d: train loss %.4f, valid loss %.4f, valid AUROC %s, %s",
            epoch + 1, recipe.epochs, train_loss, valid_loss,
            "not computable" if auroc is None else f"{auroc:.4f}", clock(time.monotonic() - start),
        )  # fmt: skip
    return Fitted.of(state)


def _as_array(weights: Tensor | None) -> np.ndarray | None:
    return None if weights is None else weights.numpy()


def _evaluated(steps: Steps, batches: Callable[[], Iterable]) -> AbstractContextManager:
    """Meanwhile the model has the weights that are validated and kept."""
    return nullcontext() if steps.average is None else steps.average.applied(batches)


def base_rate_loss(targets: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Mean binary cross-entropy in nats of a model that knows each label's frequency alone.

    Args:
        targets: (n,) or (n, labels) of 0 and 1.
        weights: of the targets, of their shape; None weighs them alike.
    """
    if weights is None:
        rates = targets.mean(0, dtype=np.float64)
        return float(np.mean(entr(rates) + entr(1 - rates)))
    of_label = weights.sum(0, dtype=np.float64)
    rates = (weights * targets).sum(0, dtype=np.float64) / np.maximum(of_label, TINY)
    losses = (entr(rates) + entr(1 - rates)) * of_label
    return float(losses.sum() / max(of_label.sum(), TINY))


def _mean_loss(logits: Tensor, targets: Tensor, weights: Tensor | None) -> float:
    """Mean binary cross-entropy in nats; 0 where nothing has weight."""
    if weights is None:
        return float(binary_cross_entropy_with_logits(logits, targets))
    total = binary_cross_entropy_with_logits(logits, targets, weights, reduction="sum")
    return float(total / weights.sum().clamp_min(TINY))


def warn_of_training(name: str, history: pd.DataFrame) -> None:
    """Logs what says that a training failed: see `clotline.evaluation.learning`."""
    for warning in training_warnings(history):
        log.warning("%s: %s", name, warning)


def _not_trained(
    model: nn.Module,
    valid_batches: Iterable,
    score: Callable[[np.ndarray, np.ndarray], float | None],
    fabric: Fabric,
    state_path: Path,
    weigh: Weigh | None,
) -> Fitted:
    targets, logits, counted = predict(model, valid_batches, fabric, 0, weigh)
    loss = _mean_loss(logits, targets, counted)
    auroc = score(targets.numpy(), logits.numpy())
    weights = _weights(model)
    row = {
        "epoch": 0,
        "lr": 0.0,
        "train_loss": math.nan,
        "valid_loss": loss,
        "valid_auroc": math.nan if auroc is None else auroc,
        "train_base_loss": math.nan,
        "valid_base_loss": base_rate_loss(targets.numpy(), _as_array(counted)),
    }
    state = {
        "epoch": 0,
        "weights": weights,
        "history": [row],
        "best": {"loss": loss, "epoch": 0, "weights": weights},
    }
    if fabric.is_global_zero:
        save_checkpoint(state_path, state)
    log.info("not trained (epochs is 0): the weights are kept as they are, valid loss %.4f", loss)
    return Fitted.of(state)


def save_fitted(
    fitted: Fitted,
    about: Callable[..., Checkpoint],
    history: str | Path,
    best: str | Path,
    last: str | Path | None = None,
) -> None:
    """Writes what a training gave.

    Args:
        fitted: of `fit`.
        about: makes the checkpoint of an ``epoch`` and its ``weights``.
        history: CSV file to write.
        best: checkpoint to write of the best epoch.
        last: checkpoint to write of the last epoch, if wanted.
    """
    about(epoch=fitted.best_epoch, weights=fitted.best).save(best)
    if last:
        about(epoch=len(fitted.history), weights=fitted.last).save(last)
    with atomic(history) as path:
        fitted.history.to_csv(path, index=False)


#: Batches whose losses are read at a time: a GPU is idle during each reading.
_READ_TOGETHER = 50


def train_epoch(steps: Steps, batches: Iterable, epoch: int) -> float:
    """One pass over ``batches``; gives the mean loss by the targets' weights, as in validation.

    It is 0 where nothing has weight.

    Raises:
        ClotlineError: the loss of a batch is infinite or NaN.
    """
    steps.model.train()
    total, unread = np.zeros(2), []
    loader = progress(batches, len(batches), f"epoch {epoch}", "batches")
    for number, (inputs, targets) in enumerate(loader, start=1):
        unread.append(steps(inputs, targets))
        if len(unread) == _READ_TOGETHER or number == len(batches):
            total += _read_losses(unread, epoch, number)
            unread.clear()
    return float(total[0] / max(total[1], TINY))


def _read_losses(unread: list[Tensor], epoch: int, number: int) -> np.ndarray:
    """Weighted losses and weights, summed, of the batches up to ``number``."""
    sums = torch.stack(unread).cpu().numpy()
    bad = np.flatnonzero(~np.isfinite(sums[:, 0]))
    if bad.size:
        loss = sums[bad[0], 0] / sums[bad[0], 1]
        raise _diverged("the loss", loss, epoch, number - len(unread) + 1 + bad[0])
    return sums.sum(0)


@torch.inference_mode()
def predict(
    model: nn.Module, batches: Iterable, fabric: Fabric, epoch: int, weigh: Weigh | None = None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Targets, float32 logits and weights of all batches, joined on their first axis, on the CPU.

    There are weights where ``weigh`` gives them.

    Raises:
        ClotlineError: the loss of a batch is infinite or NaN.
    """
    model.eval()
    targets, logits, weights = [], [], []
    for batch in batches:
        inputs, target = fabric.to_device(batch)
        logits.append(model(inputs).float())
        targets.append(target)
        if weigh is not None:
            weights.append(weigh(target, inputs).cpu())
    # Fetched at the end: until then a GPU never waits.
    targets, logits = ([tensor.cpu() for tensor in tensors] for tensors in (targets, logits))
    for number, pair in enumerate(zip(logits, targets, strict=True), start=1):
        value = binary_cross_entropy_with_logits(*pair).item()
        if not math.isfinite(value):
            raise _diverged("the validation loss", value, epoch, number)
    joined = _gathered(weights, fabric) if weigh is not None else None
    return _gathered(targets, fabric), _gathered(logits, fabric), joined


def _gathered(parts: list[Tensor], fabric: Fabric) -> Tensor:
    """The parts of all processes joined on their first axis."""
    if fabric.world_size > 1:
        of_all: list = [None] * fabric.world_size
        torch.distributed.all_gather_object(of_all, torch.cat(parts))
        parts = of_all
    return torch.cat(parts)


def _diverged(what: str, value: float, epoch: int, batch: int) -> ClotlineError:
    return ClotlineError(
        f"{what} became {value} in epoch {epoch}, batch {batch}: lower the learning rate (lr), set "
        "clip_norm, or set precision to 32-true"
    )


#: A state holds weights, momentum and best weights; two exist while one replaces the other.
_STATE_COPIES = 6
#: The average and the averaged weights of the last epoch, likewise.
_AVERAGE_COPIES = 4


def _size(model: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in model.state_dict().values())


def _weights(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the state dict on the CPU, contiguous so that its bytes depend on values alone."""
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in model.state_dict().items()
    }


def training_state(folder: Path, name: str, identity: list[str], inputs: list[str]) -> Path:
    """The file for an unfinished training's state; its name changes with anything relevant.

    Args:
        folder: folder of the states.
        name: what is trained.
        identity: the configuration and the digest of the code.
        inputs: files that the training reads; a rebuilt one has another time of modification.
    """
    status = [(path, Path(path).stat()) for path in inputs]
    lines = [*identity, *(f"{path} {s.st_size} {s.st_mtime_ns}" for path, s in status)]
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
    return folder / f"{name}-{digest}.pt"


def drop_states(folder: Path, name: str) -> None:
    """Removes the states that trainings of ``name`` left there, whatever their configuration."""
    for path in folder.glob(f"{name}-{'[0-9a-f]' * 16}.pt"):
        path.unlink(missing_ok=True)
