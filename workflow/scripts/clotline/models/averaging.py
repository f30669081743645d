"""The exponential moving average of a network's weights over the steps of its training."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice

from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn, update_bn

#: Batches whose mean and variance become batch normalisation's of the averaged weights: 3,200
#: slices in batches of 16.
STATISTICS_BATCHES = 200


class WeightAverage:
    """Parameters averaged over the steps so far, the latest counting most.

    Polyak and Juditsky, SIAM J. Control Optim. 30(4), 1992; exponential and of late steps as in
    Tarvainen and Valpola, NeurIPS 2017.
    """

    def __init__(self, model: nn.Module, decay: float):
        """Starts with the parameters that the model has.

        Args:
            model: the network in training.
            decay: share of the past in the average. In the first steps it is less, (1 + n) /
                (10 + n) after n of them, so that initial weights are soon forgotten.
        """
        self._model, self._decay, self._steps = model, decay, 0
        self._average = [parameter.detach().clone() for parameter in model.parameters()]

    def update(self) -> None:
        """Takes in the parameters after a step."""
        self._steps += 1
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
        get_ema_multi_avg_fn(decay)(self._average, self._parameters(), self._steps)

    @contextmanager
    def applied(self, batches: Callable[[], Iterable]) -> Iterator[None]:
        """Meanwhile the model has the averaged parameters, and batch normalisation's for them.

        Running statistics belong to the weights that they were taken with, and the mean of them is
        not that of the averaged network: they are computed again, from training batches.

        Args:
            batches: makes the training batches of (inputs, targets); read only where there is
                batch normalisation.
        """
        tensors = [*self._parameters(), *self._model.buffers()]
        before = [tensor.detach().clone() for tensor in tensors]
        for parameter, average in zip(self._parameters(), self._average, strict=True):
            parameter.copy_(average)
        update_bn(islice(batches(), STATISTICS_BATCHES), self._model)
        try:
            yield
        finally:
            for tensor, value in zip(tensors, before, strict=True):
                tensor.detach().copy_(value)

    def state_dict(self) -> dict:
        """What an interrupted training needs to go on."""
        return {"steps": self._steps, "average": self._average}

    def load_state_dict(self, state: dict) -> None:
        """Goes on from a `state_dict`."""
        self._steps = state["steps"]
        for mine, given in zip(self._average, state["average"], strict=True):
            mine.copy_(given)

    def _parameters(self) -> list[Tensor]:
        return [parameter.detach() for parameter in self._model.parameters()]
