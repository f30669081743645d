"""How an LSTM of stage 2 is trained: standardised features, dropout, replicated targets.

The trained network has the published form, without any of this: `published_weights`.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, dropout

from clotline.loading.study_loader import Moments, StudyBatch
from clotline.models.lstm import SliceLSTM, build_lstm
from clotline.sections.lstm import LSTMSection


class StudyOutputs(NamedTuple):
    """What a study-level network gives in training.

    Attributes:
        study: (studies, 9) logits, of each study's last slice.
        so_far: (all slices, 9) logits of each slice's hidden state.
    """

    study: Tensor
    so_far: Tensor


class TrainedLSTM(nn.Module):
    """An LSTM in training; in evaluation mode its outputs are those of the LSTM alone.

    Attributes:
        network: the LSTM, of standardised features where they are standardised.
    """

    def __init__(self, network: SliceLSTM, dropout_share: float, moments: Moments | None):
        """Wraps a network.

        Args:
            network: of `clotline.models.lstm.build_lstm`, for features as they are stored.
            dropout_share: of each slice's features, that training leaves out.
            moments: of the features to train on, to standardise them; None leaves them as they
                are.
        """
        super().__init__()
        self.network = network
        self._dropout = dropout_share
        self._standardized = moments is not None
        if moments is not None:
            self.register_buffer("_mean", moments.mean, persistent=False)
            self.register_buffer("_scale", _scale(moments), persistent=False)

    def forward(self, studies: StudyBatch) -> Tensor | StudyOutputs:
        """Features to logits: as `SliceLSTM`; a study level in training gives `StudyOutputs`."""
        features = studies.features
        if self._standardized:
            features = (features.float() - self._mean) * self._scale
        studies = studies._replace(features=dropout(features, self._dropout, self.training))
        if self.network.level == "image" or not self.training:
            return self.network(studies)
        states = self.network.hidden_states(studies)
        so_far = self.network.linear(states)
        last = self.network.last_slices(studies)
        return StudyOutputs(so_far[last], so_far)


class StudyLoss:
    """Binary cross-entropy of the study's labels, in part by every slice's hidden state.

    From the last state alone, a network that sees few studies learns too slowly to remember the
    first slices. Target replication: Lipton et al., Learning to Diagnose with LSTM Recurrent Neural
    Networks, ICLR 2016.
    """

    def __init__(self, replication: float):
        """Takes the share of the loss by all slices' states; the rest is by the last slices'."""
        self._replication = replication

    def __call__(
        self, outputs: StudyOutputs, studies: StudyBatch, targets: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What a step lowers, and the loss of the last slices alone, as validation computes it."""
        last = binary_cross_entropy_with_logits(outputs.study.float(), targets)
        counts = torch.tensor(studies.counts, device=targets.device)
        replicated = targets.repeat_interleave(counts, 0)
        of_all = binary_cross_entropy_with_logits(outputs.so_far.float(), replicated)
        return (1 - self._replication) * last + self._replication * of_all, last


def build_trained_lstm(
    width: int, section: LSTMSection, level: str, moments: Moments | None
) -> TrainedLSTM:
    """The network of one ``lstm`` entry of the configuration, ready to be trained.

    Weights from a file are changed such that the network computes the same on standardised
    features as it did on those as stored. Random ones are scaled by the width, so that gates begin
    unsaturated: torch scales them by the number of hidden units, which suits as many inputs.

    Args:
        width: features of a slice.
        section: the entry.
        level: image or study.
        moments: of the features, to standardise them; or None.

    Raises:
        ClotlineError: the state dict in ``init`` does not fit.
    """
    network = build_lstm(width, section, level)
    if moments is not None:
        layer = network.lstm
        with torch.no_grad():
            if section.init == "random":
                layer.weight_ih_l0.mul_((layer.hidden_size / width) ** 0.5)
            else:
                layer.bias_ih_l0.add_(layer.weight_ih_l0 @ moments.mean)
                layer.weight_ih_l0.mul_(moments.std)
    return TrainedLSTM(network, section.dropout, moments)


def published_weights(state: dict[str, Tensor], moments: Moments | None) -> dict[str, Tensor]:
    """The state dict of the `SliceLSTM` that computes what a `TrainedLSTM` computes.

    Args:
        state: state dict of the latter.
        moments: that its features were standardised by.
    """
    weights = {
        name.removeprefix("network."): tensor
        for name, tensor in state.items()
        if name.startswith("network.")
    }
    if moments is not None:
        scaled = weights["lstm.weight_ih_l0"].double() * _scale(moments).double()
        shift = scaled @ moments.mean.double()
        weights["lstm.weight_ih_l0"] = scaled.float()
        weights["lstm.bias_ih_l0"] = (weights["lstm.bias_ih_l0"].double() - shift).float()
    return weights


def _scale(moments: Moments) -> Tensor:
    """1 / standard deviation; 0 for a feature that never varies and so says nothing."""
    constant = moments.std <= 1e-6 * moments.mean.abs().clamp_min(1e-6)
    return torch.where(constant, 0.0, 1 / moments.std.clamp_min(1e-30))
