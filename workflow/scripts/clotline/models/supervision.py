"""How a network of stage 2 is trained: standardised features, dropout, reversal, and its loss.

None of it is left in the trained network; one of the published form keeps that: `kept_weights`.
"""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, dropout

from clotline.evaluation.competition_weights import IMAGE_WEIGHT, LABEL_WEIGHTS
from clotline.labels import STUDY_LABELS
from clotline.loading.study_loader import Moments, StudyBatch
from clotline.models.lstm import SliceLSTM, build_lstm
from clotline.models.sequence import SliceSequence
from clotline.models.steps import TINY, BatchLoss, Loss, cross_entropy_loss
from clotline.models.training import Weigh
from clotline.sections.lstm import LSTMSection


class StudyOutputs(NamedTuple):
    """What a study-level network of the published form gives in training.

    Attributes:
        study: (studies, 9) logits, of each study's last slice.
        so_far: (all slices, 9) logits of each slice's hidden state.
    """

    study: Tensor
    so_far: Tensor


class TrainedLSTM(nn.Module):
    """A network of stage 2 in training; in evaluation mode it gives what the network alone gives.

    Attributes:
        network: the network, of standardised features where they are standardised.
    """

    def __init__(
        self, network: SliceLSTM | SliceSequence, section: LSTMSection, moments: Moments | None
    ):
        """Wraps a network.

        Args:
            network: of `clotline.models.lstm.build_lstm`, for features as they are stored.
            section: the entry of the configuration: ``dropout`` and ``reversal``.
            moments: of the features to train on, to standardise them; None leaves them as they
                are.
        """
        super().__init__()
        self.network = network
        self._dropout, self._reversal = section.dropout, section.reversal
        self._standardized = moments is not None
        if moments is not None:
            self.register_buffer("_mean", moments.mean, persistent=False)
            self.register_buffer("_scale", _scale(moments), persistent=False)

    def forward(self, studies: StudyBatch) -> Tensor | StudyOutputs:
        """Features to logits as the network's; a published study level trains on `StudyOutputs`."""
        features = studies.features
        if self._standardized:
            features = (features.float() - self._mean) * self._scale
        studies = studies._replace(features=dropout(features, self._dropout, self.training))
        if not (self._reversal and self.training):
            return self._outputs(studies)
        turned = half_reversed(studies.counts).to(features.device)
        outputs = self._outputs(studies._replace(features=studies.features[turned]))
        # What is turned twice is as it was.
        return outputs if self.network.level == "study" else outputs[turned]

    def _outputs(self, studies: StudyBatch) -> Tensor | StudyOutputs:
        network = self.network
        published = isinstance(network, SliceLSTM)
        if network.level != "study" or not self.training or not published:
            return network(studies)
        states = network.hidden_states(studies)
        so_far = network.linear(states)
        last = network.last_slices(studies)
        return StudyOutputs(so_far[last], so_far)


def half_reversed(counts: list[int]) -> Tensor:
    """Rows of studies, of which each is turned head to feet with probability 1/2.

    Args:
        counts: slices of each study.

    Returns:
        (all slices,) int64; drawn from torch's global generator.
    """
    turned = (torch.rand(len(counts)) < 0.5).tolist()
    rows = torch.arange(sum(counts)).split(counts)
    return torch.cat(
        [part.flip(0) if turn else part for part, turn in zip(rows, turned, strict=True)]
    )


class StudyLoss:
    """Binary cross-entropy of the study's labels, asked of every slice's hidden state in part.

    From the last state alone a network of few studies learns its memory of the first slices too
    slowly. Target replication: Lipton et al., Learning to Diagnose with LSTM Recurrent Neural
    Networks, ICLR 2016.
    """

    def __init__(self, replication: float, weights: Tensor | None = None):
        """Prepares the loss.

        Args:
            replication: share of all slices' states in what is lowered; the rest is the last ones'.
            weights: (9,) of the labels, with mean 1; None weighs them alike.
        """
        self._replication, self._weights = replication, weights

    def __call__(
        self, outputs: StudyOutputs | Tensor, studies: StudyBatch, targets: Tensor
    ) -> BatchLoss:
        """What a step lowers, and the loss of the studies alone, as validation computes it.

        With others a batch counts as its studies do, though it may have more slices than they.
        """
        if isinstance(outputs, Tensor):
            loss = self._mean(outputs, targets)
            return BatchLoss(loss, loss, targets.numel())
        last = self._mean(outputs.study, targets)
        counts = torch.tensor(studies.counts, device=targets.device)
        of_all = self._mean(outputs.so_far, targets.repeat_interleave(counts, 0))
        lowered = (1 - self._replication) * last + self._replication * of_all
        return BatchLoss(lowered, last, targets.numel())

    def _mean(self, logits: Tensor, targets: Tensor) -> Tensor:
        weights = None if self._weights is None else self._weights.to(logits.device)
        return binary_cross_entropy_with_logits(logits.float(), targets, weights)


class WeightedLoss:
    """Binary cross-entropy of weighted targets: their mean by these weights."""

    def __init__(self, weigh: Weigh):
        """Takes what gives the weights of a batch's targets."""
        self._weigh = weigh

    def __call__(self, logits: Tensor, studies: StudyBatch, targets: Tensor) -> BatchLoss:
        """What a step lowers, and validation computes alike."""
        losses = binary_cross_entropy_with_logits(logits.float(), targets, reduction="none")
        weights = self._weigh(targets, studies)
        total = weights.sum()
        # A batch without a positive slice has no weight where there is no floor.
        loss = (losses * weights).sum() / total.clamp_min(TINY)
        return BatchLoss(loss, loss, total)


def slice_weights(targets: Tensor, counts: list[int], floor: float) -> Tensor:
    """The competition's weight of each slice but for a factor: q, its study's share of positives.

    It is what `clotline.evaluation.competition.loss_terms` says. Negative studies would teach
    nothing, so q has a floor; without one it is the metric itself.

    Args:
        targets: (all slices,) float 0 or 1.
        counts: slices of each study.
        floor: the least q.
    """
    of_study = torch.stack([part.mean() for part in targets.split(counts)]).clamp_min(floor)
    return of_study.repeat_interleave(torch.tensor(counts, device=targets.device))


def make_loss(section: LSTMSection, level: str) -> tuple[Loss, Weigh | None]:
    """What one ``lstm`` entry of the configuration lowers at a level: image, study or joint.

    Returns:
        The loss, and the weights by which the validation loss is the same; None where all targets
        count alike.
    """
    competition, floor = section.loss == "competition", section.q_floor
    if level == "joint":
        weigh = partial(_weigh_both, floor=floor) if competition else _weigh_alike
        return WeightedLoss(weigh), weigh
    if level == "image":
        if not competition:
            return cross_entropy_loss, None
        weigh = partial(_weigh_slices, floor=floor)
        return WeightedLoss(weigh), weigh
    if not competition:
        return StudyLoss(section.target_replication), None
    weights = torch.tensor(LABEL_WEIGHTS, dtype=torch.float64)
    weights = (weights / weights.mean()).float()
    return StudyLoss(section.target_replication, weights), partial(_weigh_labels, weights)


def _weigh_slices(targets: Tensor, studies: StudyBatch, floor: float) -> Tensor:
    return slice_weights(targets, studies.counts, floor)


def _weigh_labels(weights: Tensor, targets: Tensor, studies: StudyBatch) -> Tensor:
    return weights.to(targets.device).expand(targets.shape)


def _weigh_both(targets: Tensor, studies: StudyBatch, floor: float) -> Tensor:
    """The competition's weights of a joint network's targets, (all slices, 10).

    A study's labels stand beside each of its slices: each time they have their part of the weight.
    """
    slices = slice_weights(targets[:, -1], studies.counts, floor)
    labels = torch.tensor(LABEL_WEIGHTS, device=targets.device)
    return torch.cat([labels / _slices(targets, studies), IMAGE_WEIGHT * slices[:, None]], 1)


def _weigh_alike(targets: Tensor, studies: StudyBatch) -> Tensor:
    """Weights by which a study's labels, alike, count as much as its slices, alike."""
    labels = targets.new_full((len(STUDY_LABELS),), 1 / len(STUDY_LABELS))
    return torch.cat([labels, labels.new_ones(1)]) / _slices(targets, studies)


def _slices(targets: Tensor, studies: StudyBatch) -> Tensor:
    """(all slices, 1) the number of slices of each slice's study."""
    counts = torch.tensor(studies.counts, device=targets.device)
    return counts.repeat_interleave(counts)[:, None]


def build_trained_lstm(
    width: int, section: LSTMSection, level: str, moments: Moments | None
) -> TrainedLSTM:
    """The network of one ``lstm`` entry of the configuration, ready to be trained.

    Weights from a file are changed such that the network computes on standardised features what it
    computed on others. Random ones of the published form are scaled by the width, so that gates
    begin unsaturated: torch scales them by the number of hidden units, which is meant for as many
    inputs.

    Args:
        width: features of a slice.
        section: the entry.
        level: image, study or joint.
        moments: of the features, to standardise them; or None.

    Raises:
        ClotlineError: the state dict in ``init`` does not fit.
    """
    network = build_lstm(width, section, level)
    if moments is not None and isinstance(network, SliceLSTM):
        layer = network.lstm
        with torch.no_grad():
            if section.init == "random":
                layer.weight_ih_l0.mul_((layer.hidden_size / width) ** 0.5)
            else:
                layer.bias_ih_l0.add_(layer.weight_ih_l0 @ moments.mean)
                layer.weight_ih_l0.mul_(moments.std)
    return TrainedLSTM(network, section, moments)


def kept_weights(state: dict[str, Tensor], moments: Moments | None) -> dict[str, Tensor]:
    """The state dict of the network that computes what a `TrainedLSTM` computes.

    Args:
        state: state dict of the latter.
        moments: that its features were standardised by.
    """
    weights = {
        name.removeprefix("network."): tensor
        for name, tensor in state.items()
        if name.startswith("network.")
    }
    if moments is None:
        return weights
    if "lstm.weight_ih_l0" not in weights:
        return weights | {"mean": moments.mean.clone(), "scale": _scale(moments)}
    # The published form has no parameter for it: it is folded into those that there are.
    scaled = weights["lstm.weight_ih_l0"].double() * _scale(moments).double()
    shift = scaled @ moments.mean.double()
    weights["lstm.weight_ih_l0"] = scaled.float()
    weights["lstm.bias_ih_l0"] = (weights["lstm.bias_ih_l0"].double() - shift).float()
    return weights


def _scale(moments: Moments) -> Tensor:
    """1 / standard deviation; 0 of a feature that says nothing, for it never varies."""
    constant = moments.std <= 1e-6 * moments.mean.abs().clamp_min(1e-6)
    return torch.where(constant, 0.0, 1 / moments.std.clamp_min(1e-30))
