"""The training of one network of stage 2."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric

from clotline.loading.study_loader import FeatureSequences, StudyBatch
from clotline.models.monitoring import auroc, joint_auroc, pe_present_auroc
from clotline.models.steps import Loss
from clotline.models.supervision import build_trained_lstm, kept_weights, make_loss
from clotline.models.training import Fitted, Weigh, base_rate_loss, fit, train_together
from clotline.sections.lstm import LSTMSection

#: What is watched at each level.
SCORES = {"image": auroc, "study": pe_present_auroc, "joint": joint_auroc}


def train_lstm(
    section: LSTMSection,
    level: str,
    train: FeatureSequences,
    valid: FeatureSequences,
    fabric: Fabric,
    state: Path,
    seed: int,
) -> Fitted:
    """Trains the network of one ``lstm`` entry of the configuration.

    Args:
        section: the entry.
        level: image, study or joint.
        train: the studies to train on.
        valid: the studies to validate on.
        fabric: devices and precision.
        state: file of the unfinished training's state; one that is there is gone on from.
        seed: of the initial weights, the order of studies, dropout and reversal.

    Returns:
        The training; its ``best`` weights read features as they are stored.

    Raises:
        ClotlineError: as of `clotline.models.training.fit`, or the state dict in ``init`` does not
            fit.
    """

    def train_batches(epoch: int) -> Iterable:
        order = np.random.default_rng((seed, epoch)).permutation(len(train))
        return train.batches(section.batch_size, fabric, order)

    # Weights that are only evaluated (epochs is 0) read features as they are stored.
    moments = train.moments() if section.standardize and section.epochs else None
    loss, weigh, base_loss = objective(section, level, train.targets(), train.counts)

    def run() -> Fitted:
        torch.manual_seed(seed)
        return fit(
            build_trained_lstm(train.width, section, level, moments),
            section,
            train_batches,
            valid.batches(section.batch_size, fabric),
            SCORES[level],
            fabric,
            state,
            seed,
            base_loss,
            loss,
            weigh,
        )

    fitted = train_together(fabric, run, state)
    return replace(fitted, best=kept_weights(fitted.best, moments))


def objective(
    section: LSTMSection, level: str, targets: np.ndarray, counts: list[int]
) -> tuple[Loss, Weigh | None, float]:
    """What a training of stage 2 lowers, and where it begins.

    Args:
        section: the entry of ``lstm``.
        level: image, study or joint.
        targets: of the studies to train on.
        counts: number of slices of each.

    Returns:
        Of `make_loss`: the loss and the weights of validation; and the loss of a network that knows
        each label's frequency alone.
    """
    loss, weigh = make_loss(section, level)
    weights = None
    if weigh:
        studies = StudyBatch(torch.empty(0), counts)
        weights = weigh(torch.from_numpy(targets).float(), studies).numpy()
    return loss, weigh, base_rate_loss(targets, weights)
