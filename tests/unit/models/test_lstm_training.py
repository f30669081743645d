import numpy as np
import pandas as pd
import pytest
import torch
from builders import checkpoint_of, lstm_section
from torch.nn.functional import binary_cross_entropy_with_logits

from clotline.data.features_file import create_features, write_features
from clotline.labels import STUDY_LABELS, STUDY_UID
from clotline.loading.study_loader import FeatureSequences
from clotline.models.devices import make_fabric
from clotline.models.lstm import load_lstm
from clotline.models.lstm_training import train_lstm
from clotline.models.monitoring import auroc
from clotline.models.prediction import predict_studies
from clotline.models.supervision import make_loss
from clotline.models.training import predict

COUNTS, WIDTH = [3, 5, 4, 6, 2, 4, 5, 3], 4


@pytest.fixture
def sequences(tmp_path):
    """Makes the studies of a split at a level: the features' second column tells the labels."""
    rng = np.random.default_rng(0)
    rows = sum(COUNTS)
    positive = rng.integers(0, 2, rows)
    features = rng.normal(3, 2, (rows, WIDTH))
    features[:, 1] = 100 + 20 * positive
    path = tmp_path / "features.h5"
    with create_features(path, rows, WIDTH, "resnext50", "0" * 64) as file:
        write_features(file, 0, features.astype(np.float16))
    first = np.cumsum([0, *COUNTS[:-1]])
    studies = pd.DataFrame({STUDY_UID: list("abcdefgh"), "first": first, "count": COUNTS})
    studies = studies.assign(**{name: np.arange(8) % 2 for name in STUDY_LABELS})

    def make(level, part):
        return FeatureSequences(studies.iloc[part], [path], level, positive)

    return make


def trained(sequences, tmp_path, level, seed=7, **keys):
    section = lstm_section(
        **{"hidden_size": 6, "epochs": 3, "batch_size": 2, "precision": "32-true", "keep": "last"}
        | keys
    )
    train, valid = sequences(level, slice(0, 5)), sequences(level, slice(5, 8))
    fabric, state = make_fabric("32-true", 0, 1), tmp_path / "state.pt"
    fitted = train_lstm(section, level, train, valid, fabric, state, seed)
    state.unlink()
    return section, fitted, valid, fabric


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("level", ["image", "study", "joint"])
def test_the_kept_weights_read_features_as_they_are_stored(sequences, tmp_path, level, cell):
    section, fitted, valid, fabric = trained(
        sequences, tmp_path, level, cell=cell, standardize=True
    )
    checkpoint = checkpoint_of(section, fitted.best, WIDTH)
    network = fabric.setup_module(load_lstm(checkpoint, level, "the network"))
    _, weigh = make_loss(section, level)
    targets, logits, weights = predict(network, valid.batches(2, fabric), fabric, 0, weigh)
    losses = binary_cross_entropy_with_logits(logits, targets, reduction="none")
    loss = np.average(losses, weights=weights)
    assert loss == pytest.approx(fitted.history["valid_loss"].iloc[-1], rel=1e-4)


def test_a_seed_gives_the_same_bits_and_another_one_others(sequences, tmp_path):
    first, again, other = (
        trained(sequences, tmp_path, "image", seed, standardize=True)[1] for seed in (7, 7, 8)
    )
    assert all(torch.equal(first.best[name], again.best[name]) for name in first.best)
    assert any(not torch.equal(first.best[name], other.best[name]) for name in first.best)


def test_a_joint_network_learns_both_of_its_levels(sequences, tmp_path):
    keys = {"lr": 0.05, "optimizer": "adamw", "standardize": True, "epochs": 25}
    section, fitted, valid, fabric = trained(sequences, tmp_path, "joint", **keys)
    train = sequences("joint", slice(0, 5))
    checkpoint = checkpoint_of(section, fitted.best, WIDTH)
    network = load_lstm(checkpoint, "joint", "the network")
    errors = np.abs(np.concatenate(predict_studies(network, train, fabric)) - train.targets())
    assert errors[:, :-1].max() < 0.3
    assert errors[:, -1].max() < 0.3
    watched = auroc(
        valid.targets()[:, -1], np.concatenate(predict_studies(network, valid, fabric))[:, -1]
    )
    assert fitted.history["valid_auroc"].iloc[-1] == pytest.approx(watched)


def test_base_rates_are_weighed_as_the_loss_is(sequences, tmp_path):
    plain, weighed = (
        trained(sequences, tmp_path, "image", loss=loss)[1].history["train_base_loss"]
        for loss in ("cross_entropy", "competition")
    )
    assert plain.iloc[0] != pytest.approx(weighed.iloc[0], rel=1e-3)
