"""Stage 2 networks: an LSTM over the features of a study's slices."""

from pathlib import Path

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from clotline.checkpoint import load_tensors, load_weights
from clotline.labels import STUDY_LABELS


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
            level: image (one logit a slice) or study (nine labels a study).
        """
        super().__init__()
        self.level = level
        self.lstm = nn.LSTM(width, hidden_size, batch_first=True)
        self.linear = nn.Linear(hidden_size, 1 if level == "image" else len(STUDY_LABELS))

    def forward(self, studies: PackedSequence) -> Tensor:
        """Packed (slices, width) float32 features to logits.

        Returns:
            Image level: (all slices,) in the packed order; study level: (studies, 9) in the
            order of `clotline.labels.STUDY_LABELS`.
        """
        outputs, (hidden, _) = self.lstm(studies)
        if self.level == "image":
            return self.linear(outputs.data).squeeze(-1)
        return self.linear(hidden[-1])


def build_lstm(width: int, section: dict, level: str) -> SliceLSTM:
    """The network of one ``lstm`` entry of the configuration, with its initial weights.

    A bias of the forget gates: Jozefowicz et al., An Empirical Exploration of Recurrent Network
    Architectures, ICML 2015.

    Raises:
        ClotlineError: the state dict in ``init`` does not fit.
    """
    model = SliceLSTM(width, section["hidden_size"], level)
    init = section["init"]
    if init == "random":
        # torch's order of the gates: input, forget, cell, output.
        _, forget, _, _ = model.lstm.bias_ih_l0.detach().chunk(4)
        forget += section["forget_bias"]
    else:
        content = load_tensors(Path(init))
        load_weights(model, content.get("weights", content), init)
    return model


def load_lstm(checkpoint: dict, level: str, path: str | Path) -> SliceLSTM:
    """The trained network in a checkpoint.

    Args:
        checkpoint: of `clotline.checkpoint.load_checkpoint`.
        level: image or study.
        path: its file, for messages.

    Raises:
        ClotlineError: the weights do not fit the network.
    """
    model = SliceLSTM(checkpoint["width"], checkpoint["config"]["hidden_size"], level)
    load_weights(model, checkpoint["weights"], path)
    return model
