"""Stage 2 networks beyond the published one: recurrent layers over a study's slices, pooled.

What each part is after stands in docs/recipes.md.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

from clotline.labels import STUDY_LABELS
from clotline.loading.study_loader import StudyBatch
from clotline.sections.lstm import LSTMSection


class SliceSequence(nn.Module):
    """LSTM or GRU layers over a study's slices, with a linear head.

    Of each slice's features: LayerNorm, a projection with ReLU, the shortening of long studies,
    the differences from both neighbours; each only where it is asked for. The head of the image
    level reads every slice's states, that of the study level what pooling makes of them; a joint
    network has both.

    No output depends on how a batch is padded or what other studies are in it.

    Attributes:
        level: image, study or joint.
        linear: the head; of a joint network that of the study.
        image_linear: of a joint network, the head of the slices.
    """

    def __init__(self, width: int, section: LSTMSection, level: str):
        """Makes the network, its weights drawn from torch's global generator.

        Args:
            width: features of a slice.
            section: the entry of the configuration.
            level: image (one logit a slice), study (nine labels a study) or joint (both).
        """
        super().__init__()
        self.level = level
        # Of training features, where those are standardised: they are read as they are stored.
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.layer_norm = nn.LayerNorm(width) if section.layer_norm else nn.Identity()
        projection = section.projection
        self.projection = (
            nn.Sequential(nn.Linear(width, projection), nn.ReLU()) if projection else nn.Identity()
        )
        self._differences, self._max_steps = section.neighbour_differences, section.max_steps
        inputs, self._units = projection or width, section.hidden_size
        self.layers = {"lstm": nn.LSTM, "gru": nn.GRU}[section.cell](
            inputs * (3 if self._differences else 1),
            self._units,
            section.layers,
            batch_first=True,
            bidirectional=section.bidirectional,
        )
        states = self._units * (2 if section.bidirectional else 1)
        if level == "image":
            self.linear = nn.Linear(states, 1)
            return
        self._pooling = section.pooling
        if "attention" in self._pooling:
            self.attention = nn.Sequential(
                nn.Linear(states, states), nn.Tanh(), nn.Linear(states, 1, bias=False)
            )
        self.linear = nn.Linear(states * len(self._pooling), len(STUDY_LABELS))
        if level == "joint":
            self.image_linear = nn.Linear(states, 1)

    def forward(self, studies: StudyBatch) -> Tensor:
        """Features to logits.

        Returns:
            Image level: (all slices,) in the order of the slices; study level: (studies, 9), the
            labels in the order of `clotline.labels.STUDY_LABELS`; joint: (all slices, 10), the
            nine labels of each slice's study, then the slice's own logit.
        """
        features = self.projection(
            self.layer_norm((studies.features.float() - self.mean) * self.scale)
        )
        sequences = [self._steps(part) for part in features.split(studies.counts)]
        lengths = [len(steps) for steps in sequences]
        device = features.device.type
        # Rounded to 16 bits at every slice, the state would drift.
        with torch.autocast(device, enabled=False):
            packed = pack_padded_sequence(
                pad_sequence(sequences, batch_first=True), lengths, True, enforce_sorted=False
            )
            states, _ = pad_packed_sequence(self.layers(packed)[0], batch_first=True)
            if self.level != "image":
                labels = self.linear(self._pooled(states, lengths))
            if self.level == "study":
                return labels
            head = self.linear if self.level == "image" else self.image_linear
            logits = head(states).squeeze(-1)
        parts = zip(logits, lengths, studies.counts, strict=True)
        slices = torch.cat([_resized(part[:length], count) for part, length, count in parts])
        if self.level == "image":
            return slices
        counts = torch.tensor(studies.counts, device=slices.device)
        return torch.cat([labels.repeat_interleave(counts, 0), slices[:, None]], 1)

    def _steps(self, slices: Tensor) -> Tensor:
        """(slices, inputs) of one study to (steps, inputs of the first layer) float32."""
        steps = slices.float()
        if self._max_steps and len(steps) > self._max_steps:
            steps = _resized(steps.T, self._max_steps).T
        if not self._differences:
            return steps
        # Beyond its ends a study goes on as it ends.
        before, after = torch.cat([steps[:1], steps[:-1]]), torch.cat([steps[1:], steps[-1:]])
        return torch.cat([steps, steps - before, steps - after], 1)

    def _pooled(self, states: Tensor, lengths: list[int]) -> Tensor:
        """(studies, steps, s) states to (studies, pools x s)."""
        steps = torch.tensor(lengths, device=states.device)
        padding = torch.arange(states.shape[1], device=states.device) >= steps[:, None]
        pools = []
        for pooling in self._pooling:
            if pooling == "last":
                # The last that each direction sees: of the second one the first slice's.
                there = states[torch.arange(len(states), device=states.device), steps - 1]
                pools += [there[:, : self._units], states[:, 0, self._units :]]
            elif pooling == "max":
                pools.append(states.masked_fill(padding[..., None], -torch.inf).amax(1))
            else:
                if pooling == "mean":
                    weights = (~padding).float()
                else:
                    scores = self.attention(states).squeeze(-1)
                    weights = scores.masked_fill(padding, -torch.inf).softmax(1)
                weights = weights / weights.sum(1, keepdim=True)
                pools.append((states * weights[..., None]).sum(1))
        return torch.cat(pools, 1)


def _resized(sequences: Tensor, length: int) -> Tensor:
    """(n, steps) or (steps,) sequences, linearly interpolated to another number of steps."""
    if sequences.shape[-1] == length:
        return sequences
    rows = sequences.reshape(-1, 1, sequences.shape[-1])
    resized = interpolate(rows, length, mode="linear", align_corners=True)
    return resized.reshape(*sequences.shape[:-1], length)


def build_sequence(width: int, section: LSTMSection, level: str) -> SliceSequence:
    """The network of one ``lstm`` entry of the configuration, with random weights.

    The first layer's are scaled by its width, so that gates begin unsaturated: torch scales them
    by the number of hidden units, which is meant for as many inputs. ``forget_bias`` is added to
    the bias of all forget gates, or of a GRU's update gates, which keep its state where they are
    open.
    """
    model = SliceSequence(width, section, level)
    layers = model.layers
    # torch's order of the gates: input, forget, cell, output; reset, update, new.
    gates = 4 if isinstance(layers, nn.LSTM) else 3
    with torch.no_grad():
        for name, weights in layers.named_parameters():
            if name.startswith("weight_ih_l0"):
                weights.mul_(min(1.0, (layers.hidden_size / layers.input_size) ** 0.5))
            if name.startswith("bias_ih"):
                weights.chunk(gates)[1].add_(section.forget_bias)
    return model
