"""Steps of a training; on a GPU each is replayed as one CUDA graph."""

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from clotline.models.averaging import WeightAverage
from clotline.models.recipe import make_optimizer, make_scheduler
from clotline.sections.recipe import Recipe

#: Batches of one size before their step becomes a graph: in the first libraries choose kernels.
_BATCHES_BEFORE = 3
#: The largest batch for which a graph is made: larger ones keep a GPU busy anyway, and a graph
#: takes as much memory again.
_LARGEST_REPLAYED = 128


#: Keeps a sum of weights from zero.
TINY = torch.finfo(torch.float32).tiny


class BatchLoss(NamedTuple):
    """What one batch, or a process's part of it, says of a network.

    Attributes:
        lowered: scalar in nats, a mean over the batch: what the step lowers.
        reported: likewise the binary cross-entropy of the history.
        weight: by which these are averaged with those of other batches: the number of targets, or
            the sum of their weights, a scalar.
    """

    lowered: Tensor
    reported: Tensor
    weight: Tensor | int


#: Takes a network's outputs, inputs and targets.
Loss = Callable[..., BatchLoss]


def cross_entropy_loss(logits: Tensor, inputs, targets: Tensor) -> BatchLoss:
    """Binary cross-entropy in nats, of logits of the shape of the targets: a `Loss`."""
    loss = binary_cross_entropy_with_logits(logits.float(), targets)
    return BatchLoss(loss, loss, targets.numel())


class Steps:
    """A network's training; each call is a batch of it.

    Attributes:
        model: the network, as Lightning set it up.
        optimizer: its optimizer, likewise.
        scheduler: of the learning rate.
        average: of the weights, where the recipe has one.
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        batches_per_epoch: int,
        fabric: Fabric,
        loss: Loss = cross_entropy_loss,
    ):
        """Prepares the first step.

        Args:
            model: called with a batch's inputs it gives logits of the shape of the batch's targets.
            recipe: how to train.
            batches_per_epoch: number of batches in an epoch.
            fabric: device and precision.
            loss: what the steps lower.
        """
        if fabric.world_size > 1 and fabric.device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        self.model, self.optimizer = fabric.setup(model, make_optimizer(recipe, model))
        steps_per_epoch = -(-batches_per_epoch // recipe.accumulate)
        self.scheduler = make_scheduler(recipe, self.optimizer, steps_per_epoch)
        self.average = WeightAverage(self.model, recipe.ema) if recipe.ema else None
        self._batches, self._batch, self._accumulate = batches_per_epoch, 0, recipe.accumulate
        self._accumulated: list[float] = []
        self._clip_norm, self._fabric, self._loss = recipe.clip_norm, fabric, loss
        self._seen: Counter[torch.Size] = Counter()
        self._graph: Graph | None = None
        self._of_graph: list[tuple[nn.Parameter, Tensor | None]] = []

    def __call__(self, inputs, targets: Tensor) -> Tensor:
        """Takes the step of one batch, or adds its gradients to those of the next one's step.

        Args:
            inputs: what the network takes.
            targets: float tensor.

        Returns:
            (2,) float64 on the device: the reported loss times the weight, and the weight of the
            whole batch, over all processes.
        """
        inputs, targets = self._fabric.to_device((inputs, targets))
        sums = self._gradients(inputs, targets)
        self._batch = (self._batch + 1) % self._batches
        # With an epoch a step ends, too, whatever is left for it.
        if self._batch % self._accumulate and self._batch:
            return sums
        self._average_accumulated()
        if self._clip_norm is not None:
            # Scaled 16-bit gradients may overflow now and then; their step is left out. At other
            # precisions the next loss shows it.
            self._fabric.clip_gradients(
                *(self.model, self.optimizer),
                max_norm=self._clip_norm,
                error_if_nonfinite=False,
            )
        self.optimizer.step()
        self.scheduler.step()
        if self.average is not None:
            self.average.update()
        return sums

    def _gradients(self, inputs, targets: Tensor) -> Tensor:
        """The sums of `__call__`; leaves the gradients with the parameters."""
        if not self._can_replay(inputs):
            return self._compute(inputs, targets)
        if self._graph is None and self._seen[inputs.shape] >= _BATCHES_BEFORE:
            self._graph = Graph(self._compute, inputs, targets)
            self._of_graph = [(each, each.grad) for each in self.model.parameters()]
        if self._graph is None or self._graph.shape != inputs.shape:
            self._seen[inputs.shape] += 1
            return self._compute(inputs, targets)
        # A batch of another size has replaced the gradients by its own.
        for parameter, gradient in self._of_graph:
            parameter.grad = gradient
        return self._graph(inputs, targets)

    def _can_replay(self, inputs) -> bool:
        # Not where processes exchange gradients, nor where gradients stay for the next batch, nor
        # for studies, each of its own length.
        if isinstance(self._fabric.strategy, DDPStrategy) or self._accumulate > 1:
            return False
        if not isinstance(inputs, Tensor):
            return False
        return self._fabric.device.type == "cuda" and len(inputs) <= _LARGEST_REPLAYED

    def _compute(self, inputs, targets: Tensor) -> Tensor:
        loss, reported, weight = self._loss(self.model(inputs), inputs, targets)
        whole = _of_all_processes(reported.detach(), weight, self._fabric)
        if not self._accumulated:
            self.optimizer.zero_grad()
        if self._fabric.world_size > 1:
            # The mean of the processes' gradients is then that of the whole batch.
            share = weight * self._fabric.world_size / whole[1].clamp_min(TINY)
            loss = loss * share.float()
        if self._accumulate > 1:
            of_batch = float(weight if self._fabric.world_size == 1 else whole[1])
            self._accumulated.append(of_batch)
            # As large as a single batch's: a scaled 16-bit gradient must not overflow.
            loss = loss * (of_batch / self._first_weight())
        self._fabric.backward(loss)
        return whole

    def _first_weight(self) -> float:
        """That of the first accumulated batch that has any."""
        return next(filter(None, self._accumulated), 1.0)

    def _average_accumulated(self) -> None:
        """Makes of the gradients' sum over batches their mean by the batches' weights."""
        if len(self._accumulated) > 1 and any(self._accumulated):
            share = self._first_weight() / sum(self._accumulated)
            for parameter in self.model.parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(share)
        self._accumulated.clear()


class Graph:
    """A function of tensors as a CUDA graph: a GPU gets all its kernels at once.

    With a small batch, each of hundreds of kernels takes longer to start than to run.

    Attributes:
        shape: of the first tensor; later ones must have the shapes of the first.
    """

    def __init__(self, function: Callable[..., Tensor], *tensors: Tensor):
        """Makes CUDA record what the function does with such tensors, without doing it.

        Args:
            function: called before with such tensors. Each replay writes to the same other tensors
                as the function.
            tensors: on the GPU.
        """
        self.shape = tensors[0].shape
        self._inputs = [tensor.clone() for tensor in tensors]
        self._graph = torch.cuda.CUDAGraph()
        # So that another thread may go on pinning the memory of batches to come.
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._output = function(*self._inputs)

    def __call__(self, *tensors: Tensor) -> Tensor:
        """Replays the graph on these tensors."""
        for mine, given in zip(self._inputs, tensors, strict=True):
            mine.copy_(given)
        self._graph.replay()
        return self._output.clone()


def _of_all_processes(loss: Tensor, weight: Tensor | int, fabric: Fabric) -> Tensor:
    """Weighted loss and weight of a whole batch, from each process's part of it."""
    loss = loss.double()
    # A number becomes a tensor on the device itself: a CUDA graph can have no other.
    own = weight.double() if isinstance(weight, Tensor) else torch.full_like(loss, weight)
    sums = torch.stack([loss * own, own])
    return sums if fabric.world_size == 1 else fabric.all_reduce(sums, reduce_op="sum")
