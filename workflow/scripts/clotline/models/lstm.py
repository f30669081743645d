"""Stage 2 networks: the published LSTM over the features of a study's slices, or another form."""

import warnings
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from clotline.labels import STUDY_LABELS
from clotline.loading.study_loader import StudyBatch
from clotline.models.checkpoint import Checkpoint, load_tensors, load_weights
from clotline.models.sequence import SliceSequence, build_sequence
from clotline.sections.lstm import LSTMSection

# cuDNN's hint at speed: it copies the weights of one small layer together for each batch.
warnings.filterwarnings("ignore", "RNN module weights are not part of single contiguous chunk")


class SliceLSTM(nn.Module):
    """One LSTM layer and a linear head, with the published parameter names.

    The hidden state starts at zero. The image level reads every slice's hidden state, the study
    level that of the last slice.
    """

    def __init__(self, width: int, hidden_size: int, level: str):
        """Makes the network, its weights drawn from torch's global generator.

        Args:
            width: features of a slice.
            hidden_size: hidden units.
            level: image (one logit per slice) or study (nine labels per study).
        """
        super().__init__()
        self.level = level
        self.lstm = nn.LSTM(width, hidden_size, batch_first=True)
        self.linear = nn.Linear(hidden_size, 1 if level == "image" else len(STUDY_LABELS))

    def forward(self, studies: StudyBatch) -> Tensor:
        """Features to logits.

        Returns:
            Image level: (all slices,) in the order of the slices; study level: (studies, 9), the
            labels in the order of `clotline.labels.STUDY_LABELS`.
        """
        states = self.hidden_states(studies)
        if self.level == "image":
            return self.linear(states).squeeze(-1)
        return self.linear(states[self.last_slices(studies)])

    @staticmethod
    def last_slices(studies: StudyBatch) -> list[int]:
        """The row of each study's last slice."""
        return [end - 1 for end in accumulate(studies.counts)]

    def hidden_states(self, studies: StudyBatch) -> Tensor:
        """(all slices, hidden units) float32.

        torch's own call of the layer would spend most of its time on what nothing needs: the
        gradient of the features, or with packed sequences one of the whole batch at every slice.
        So the features meet their weights here, in the network's precision and without padding,
        and the layer runs on the products, which it multiplies by the identity.
        """
        layer, features, counts = self.lstm, studies.features, studies.counts
        device = features.device
        mixed = torch.is_autocast_enabled(device.type)
        dtype = torch.get_autocast_dtype(device.type) if mixed else torch.float32
        products = linear(features.to(dtype), layer.weight_ih_l0, layer.bias_ih_l0).float()
        width, longest = products.shape[1], max(counts)
        rows = [torch.arange(n) + longest * study for study, n in enumerate(counts)]
        rows = torch.cat(rows).to(device)
        padded = products.new_zeros(len(counts) * longest, width).index_copy(0, rows, products)
        start = products.new_zeros(1, len(counts), layer.hidden_size)
        # Rounded to 16 bits at every slice, the state would drift.
        with torch.autocast(device.type, enabled=False):
            weights = [
                torch.eye(width, device=device),
                layer.weight_hh_l0,
                torch.zeros_like(layer.bias_ih_l0),
                layer.bias_hh_l0,
            ]
            states, _, _ = torch.lstm(
                padded.view(len(counts), longest, width),
                (start, start),
                weights,
                has_biases=True,
                num_layers=1,
                dropout=0.0,
                train=self.training,
                bidirectional=False,
                batch_first=True,
            )
        return states.flatten(0, 1)[rows]


def build_lstm(width: int, section: LSTMSection, level: str) -> SliceLSTM | SliceSequence:
    """The network of one ``lstm`` entry of the configuration, with its initial weights.

    On the bias of the forget gates: Jozefowicz et al., An Empirical Exploration of Recurrent
    Network Architectures, ICML 2015.

    Raises:
        ClotlineError: the state dict in ``init`` does not fit.
    """
    init = section.init
    if not section.has_published_form(level):
        model = build_sequence(width, section, level)
    else:
        model = SliceLSTM(width, section.hidden_size, level)
        if init == "random":
            # torch's order of the gates: input, forget, cell, output.
            _, forget, _, _ = model.lstm.bias_ih_l0.detach().chunk(4)
            forget += section.forget_bias
    if init != "random":
        content = load_tensors(Path(init))
        load_weights(model, content.get("weights", content), init)
    return model


def load_lstm(checkpoint: Checkpoint, level: str, path: str | Path) -> SliceLSTM | SliceSequence:
    """The trained network in a checkpoint.

    Args:
        checkpoint: the trained network.
        level: image, study or joint.
        path: its file, for messages.

    Raises:
        ClotlineError: the weights do not fit the network.
    """
    section = LSTMSection.of_checkpoint(checkpoint.config, path)
    model = build_lstm(checkpoint.width, replace(section, init="random"), level)
    load_weights(model, checkpoint.weights, path)
    return model
