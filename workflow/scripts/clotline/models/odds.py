"""A factor for the odds of what a trained network says, fitted on the valid studies."""

import logging
from dataclasses import replace

import numpy as np
from lightning_fabric import Fabric
from scipy.optimize import brentq
from scipy.special import expit
from torch import Tensor

from clotline.loading.study_loader import FeatureSequences
from clotline.models.checkpoint import Checkpoint
from clotline.models.lstm import load_lstm
from clotline.models.supervision import make_loss
from clotline.models.training import predict
from clotline.sections.lstm import LSTMSection

log = logging.getLogger("clotline")

#: Bounds of the logarithm of the factor.
_MOST = 30.0


def fit_log_factor(logits: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> float | None:
    """What to add to all logits so that their weighted binary cross-entropy is least.

    Args:
        logits: (n,) float.
        targets: (n,) 0 or 1.
        weights: (n,) float, none negative.

    Returns:
        The natural logarithm of the factor; None where no finite one is best, because all that
        has weight is of one class.
    """
    logits, weights = logits.astype(np.float64), weights.astype(np.float64)
    weighed = targets[weights > 0]
    if not len(weighed) or weighed.min() == weighed.max():
        return None

    def slope(shift: float) -> float:
        return float(weights @ (expit(logits + shift) - targets))

    # It rises from below zero to above, for both classes have weight.
    most = _MOST + np.abs(logits).max()
    return float(brentq(slope, -most, most))


def calibrate_odds(
    checkpoint: Checkpoint, level: str, valid: FeatureSequences, batch_size: int, fabric: Fabric
) -> dict[str, Tensor]:
    """The weights of a network whose odds have the factor that the competition's metric asks for.

    A joint network has two, one of the nine labels and one of the slices, as two networks would.
    Every output's ranks stay what they were, and so does its AUROC; PE present follows from two
    outputs, and its ranks may change.

    Args:
        checkpoint: a trained network of stage 2.
        level: image, study or joint.
        valid: the valid studies.
        batch_size: studies in a batch.
        fabric: device and precision.
    """
    network = fabric.setup_module(load_lstm(checkpoint, level, "the trained network"))
    section = LSTMSection.of_checkpoint(checkpoint.config, "the trained network")
    # The metric itself, whatever the training lowered.
    _, weigh = make_loss(replace(section, loss="competition", q_floor=0.0), level)
    batches = valid.batches(batch_size, fabric)
    targets, logits, weights = predict(network, batches, fabric, 0, weigh)
    kept = dict(checkpoint.weights)
    outputs = {"linear.bias": ("all odds", slice(None))}
    if level == "joint":
        outputs = {
            "linear.bias": ("the labels' odds", slice(-1)),
            "image_linear.bias": ("the slices' odds", slice(-1, None)),
        }
    for bias, (odds, columns) in outputs.items():
        of_head = (tensor.numpy()[..., columns].ravel() for tensor in (logits, targets, weights))
        shift = fit_log_factor(*of_head)
        if shift is None:
            log.warning(
                "%s are left as they are: what the competition's metric counts of the valid "
                "studies is of one class only",
                odds,
            )
            continue
        kept[bias] = kept[bias] + shift
        log.info(
            "%s times %.3g, which lowers the competition's metric on valid", odds, np.exp(shift)
        )
    return kept
