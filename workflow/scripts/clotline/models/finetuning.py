"""The joint training of a backbone and a network of stage 2, from the trained parts.

The most suspicious slices of a study go through the backbone, and the loss of stage 2 through them
to its weights; the other slices' features are those that are stored. After place 2 of the RSNA-STR
competition (i-pan/kaggle-rsna-pe, configs/mk3d), whose joint network saw 32 of the 30% of slices
with the highest scores, and nothing of the others.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from clotline.loading.preprocessing import View
from clotline.loading.study_loader import StudyBatch
from clotline.loading.suspicious_slices import SuspiciousBatch, SuspiciousSlices
from clotline.models.backbones import Classifier, in_fast_layout, load_classifier
from clotline.models.checkpoint import Checkpoint
from clotline.models.lstm import load_lstm
from clotline.models.lstm_training import SCORES, objective
from clotline.models.odds import calibrate_odds
from clotline.models.supervision import StudyOutputs, TrainedLSTM, kept_weights
from clotline.models.training import Fitted, fit, train_together
from clotline.sections.finetune import FinetuneSection
from clotline.sections.lstm import LSTMSection


class JointNetwork(nn.Module):
    """A backbone and a network of stage 2 as one network of a study's slices.

    The backbone stays in evaluation mode, so that what it gives is what it gives when it is
    applied: batch normalisation is frozen as a whole, its statistics, which a few slices of one
    kind would spoil, and with them scale and shift (as torchvision's FrozenBatchNorm2d), and
    nothing is dropped. Its head, of which stage 2 sees nothing, is not trained either.
    """

    def __init__(self, cnn: Classifier, lstm: TrainedLSTM, view: View, most: int):
        """Joins two trained networks.

        Args:
            cnn: the backbone, some of whose weights are frozen here.
            lstm: the network of stage 2.
            view: how slices become inputs of the backbone.
            most: slices that go through the backbone together.
        """
        super().__init__()
        self.cnn, self.lstm = cnn, lstm
        self._view, self._most = view, most
        cnn.head.requires_grad_(False)
        for module in cnn.modules():
            if isinstance(module, _BatchNorm):
                module.requires_grad_(False)

    def train(self, mode: bool = True) -> "JointNetwork":
        """Sets the mode of stage 2; the backbone has one only."""
        super().train(mode)
        self.cnn.eval()
        return self

    def forward(self, studies: SuspiciousBatch) -> Tensor | StudyOutputs:
        """The logits that stage 2 gives of the studies, as of `TrainedLSTM`."""
        anew = slice_features(self.cnn, self._view, studies.slices, self._most)
        features = studies.features.float().index_copy(0, studies.rows, anew)
        return self.lstm(StudyBatch(features, studies.counts))


def slice_features(cnn: Classifier, view: View, slices: Tensor, most: int) -> Tensor:
    """What a backbone gives of slices, some at a time.

    Args:
        cnn: the backbone.
        view: how slices become its inputs.
        slices: (n, p, c, c) int16 Hounsfield units, cut, n at least 1.
        most: slices that go through the backbone together.

    Returns:
        (n, width) float32.
    """
    parts = []
    for part in slices.split(most):
        # In 16 bits the inputs would lose more than all layers together.
        with torch.autocast(slices.device.type, enabled=False):
            inputs = view.inputs(part)
        parts.append(cnn.features(inputs).float())
    return torch.cat(parts)


@dataclass(frozen=True)
class Finetuned:
    """What a joint training gives.

    Attributes:
        cnn, lstm: checkpoints of the two networks.
        fitted: the training.
    """

    cnn: Checkpoint
    lstm: Checkpoint
    fitted: Fitted


def finetune(
    section: FinetuneSection,
    cnn: Checkpoint,
    lstm: Checkpoint,
    level: str,
    train: SuspiciousSlices,
    valid: SuspiciousSlices,
    fabric: Fabric,
    state: Path,
    seed: int,
) -> Finetuned:
    """Trains a backbone and a network of stage 2 on together.

    What is lowered, dropout and reversal are those of the network's own training.

    Args:
        section: the entry of ``finetune``.
        cnn: the trained backbone.
        lstm: the network of stage 2 that was trained on its features.
        level: of that network: image, study or joint.
        train: the studies to train on, with their most suspicious slices.
        valid: the studies to validate on, with all their slices: they are validated as they will
            be predicted, all features made by the backbone in training.
        fabric: devices and precision.
        state: file of the unfinished training's state; one that is there is gone on from.
        seed: of the order of studies, augmentation, dropout and reversal.

    Raises:
        ClotlineError: as of `clotline.models.training.fit`, or weights do not fit a network.
    """
    of_lstm = LSTMSection.of_checkpoint(lstm.config, "the trained network")
    loss, weigh, base_loss = objective(of_lstm, level, train.targets(), train.counts)

    def train_batches(epoch: int) -> Iterable:
        order = np.random.default_rng((seed, epoch)).permutation(len(train))
        seen = train.augmented((seed, epoch)) if section.augment else train
        return seen.batches(section.batch_size, fabric, order)

    def run() -> Fitted:
        torch.manual_seed(seed)
        backbone = load_classifier(cnn, "the trained backbone")
        network = JointNetwork(
            in_fast_layout(backbone),
            # A network that was trained on standardised features reads them as they are stored.
            TrainedLSTM(load_lstm(lstm, level, "the trained network"), of_lstm, moments=None),
            train.view,
            section.slices_together,
        )
        return fit(
            network,
            section,
            train_batches,
            # A study a process: all of its slices are read, not only the most suspicious ones.
            valid.batches(fabric.world_size, fabric),
            SCORES[level],
            fabric,
            state,
            seed,
            base_loss,
            loss,
            weigh,
        )

    fitted = train_together(fabric, run, state)
    of_parts = (_part(fitted.best, "cnn."), kept_weights(_part(fitted.best, "lstm."), None))
    tuned = (
        replace(
            checkpoint,
            config=checkpoint.config | {"finetune": section.as_dict()},
            seed=seed,
            epoch=fitted.best_epoch,
            weights=part,
        )
        for checkpoint, part in zip((cnn, lstm), of_parts, strict=True)
    )
    return Finetuned(*tuned, fitted)


def _part(state: dict[str, Tensor], start: str) -> dict[str, Tensor]:
    """The state dict of one part of a `JointNetwork`."""
    return {
        name.removeprefix(start): tensor for name, tensor in state.items() if name.startswith(start)
    }


def calibrated(
    tuned: Finetuned,
    level: str,
    valid: SuspiciousSlices,
    section: FinetuneSection,
    fabric: Fabric,
) -> Finetuned:
    """The networks, with the factor of the odds that the competition's metric asks for.

    Where the network of stage 2 had such a factor it is fitted anew; else nothing changes.

    Args:
        tuned: of `finetune`.
        level: of the network of stage 2.
        valid: the valid studies, with all their slices.
        section: the entry of ``finetune``.
        fabric: one device, and the precision.
    """
    if not LSTMSection.of_checkpoint(tuned.lstm.config, "the trained network").calibrate_odds:
        return tuned
    cnn = fabric.to_device(load_classifier(tuned.cnn, "the trained backbone")).eval()
    features = _FeaturesOf(cnn, valid, section.slices_together)
    weights = calibrate_odds(tuned.lstm, level, features, 1, fabric)
    return replace(tuned, lstm=replace(tuned.lstm, weights=weights))


class _FeaturesOf:
    """Studies as `FeatureSequences` gives them, their features made by a backbone as asked for."""

    def __init__(self, cnn: Classifier, studies: SuspiciousSlices, most: int):
        self._cnn, self._studies, self._most = cnn, studies, most

    def batches(self, batch_size: int, fabric: Fabric) -> Iterator[tuple[StudyBatch, Tensor]]:
        view = self._studies.view
        for studies, targets in self._studies.batches(batch_size, fabric):
            with torch.no_grad(), fabric.autocast():
                features = slice_features(self._cnn, view, studies.slices, self._most)
            # As exact as they will be stored.
            yield StudyBatch(features.half().float(), studies.counts), targets
