"""Joint training of a backbone and a network of stage 2 from the trained parts."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from builders import checkpoint_of, cnn_section, lstm_section, write_slices
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from clotline.data.features_file import StoredFeatures
from clotline.data.lone_shard import stored_slices
from clotline.errors import ClotlineError
from clotline.labels import IMAGE_LABEL, STUDY_LABELS, STUDY_UID
from clotline.loading.preprocessing import View
from clotline.loading.study_loader import FeatureSequences, StudyBatch
from clotline.loading.suspicious_slices import (
    SuspiciousSlices,
    all_slices,
    most_suspicious,
    stored_slices_of,
)
from clotline.models import finetuning
from clotline.models.backbones import build_classifier, load_classifier
from clotline.models.devices import make_fabric
from clotline.models.features import extract_shard_features
from clotline.models.finetuning import JointNetwork, calibrated, finetune, slice_features
from clotline.models.lstm import build_lstm, load_lstm
from clotline.models.prediction import predict_models
from clotline.models.supervision import TrainedLSTM, make_loss
from clotline.sections.finetune import finetune_sections
from clotline.workflow.config import load_config

COUNTS = [4, 6, 5, 3, 6, 4, 5, 3]
FIRST = np.cumsum([0, *COUNTS[:-1]])
ROWS = sum(COUNTS)
#: Small, with batch normalisation, and dropout that must not be there.
CNN = {"architecture": "shufflenet_v2_x0_5", "crop": 64, "input_size": 32, "precision": "32-true"}


def finetune_section(**keys):
    """A complete ``finetune`` entry of the configuration."""
    entry = {"precision": "32-true", "slices": 2, "batch_size": 2, "accumulate": 1, "epochs": 2}
    config = load_config({"lstm": {"resnext50-joint": {}}, "finetune": {"resnext50-joint": entry}})
    return replace(finetune_sections(config)["resnext50-joint"], **keys)


class Parts:
    """Two networks as if they were trained, and the studies that they were trained on."""

    def __init__(self, folder, level, **lstm_keys):
        self.folder, self.level = folder, level
        torch.manual_seed(3)
        cnn = build_classifier(cnn_section(**CNN))
        self.view = View.of(cnn_section(**CNN))
        for module in cnn.modules():
            if isinstance(module, _BatchNorm):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2)
        lstm = build_lstm(
            cnn.width,
            lstm_section(**{"hidden_size": 5, "precision": "32-true"} | lstm_keys),
            level,
        )
        self.lstm_section = lstm_section(**{"hidden_size": 5, "precision": "32-true"} | lstm_keys)
        self.cnn = checkpoint_of(cnn_section(**CNN), cnn.state_dict(), cnn.width)
        self.lstm = checkpoint_of(self.lstm_section, lstm.state_dict(), cnn.width)
        rng = np.random.default_rng(0)
        self.labels = rng.integers(0, 2, ROWS)
        pixels = rng.integers(-1000, 1000, (ROWS, 256, 256)).astype(np.int16)
        # A positive slice has a bright square in its middle.
        pixels[self.labels == 1, 100:156, 100:156] = 400
        write_slices(folder / "shard-000.h5", pixels, self.labels)
        self.slices = stored_slices(folder / "shard-000.h5").assign(
            shard="000", row=range(ROWS), split="train"
        )
        self.slices[STUDY_UID] = np.repeat(list("abcdefgh"), COUNTS)
        self.slices[IMAGE_LABEL] = self.labels
        studies = pd.DataFrame({STUDY_UID: list("abcdefgh"), "first": FIRST, "count": COUNTS})
        split = ["train"] * 5 + ["valid"] * 3
        self.studies = studies.assign(
            split=split, **{name: np.arange(8) % 2 for name in STUDY_LABELS}
        )
        self.features = self.extract(self.cnn, "features.h5")
        self.fabric = make_fabric("32-true", 0, 1)

    def extract(self, cnn, name):
        """The features file that a checkpoint gives."""
        cnn.save(self.folder / f"{name}.pt")
        path = self.folder / name
        shard = self.folder / "shard-000.h5"
        extract_shard_features(self.folder / f"{name}.pt", shard, path, "network", 0, 1)
        return path

    def data_set(self, split, most=None):
        """The studies of a split, with the most suspicious or all slices."""
        part = self.studies[self.studies["split"] == split]
        head = self.cnn.weights["head.weight"].double().numpy().ravel()
        chosen = most_suspicious(part, self.features, head, most) if most else all_slices(part)
        table = stored_slices_of(self.slices, part, chosen, self.folder, self.view)
        sequences = FeatureSequences(part, [self.features], self.level, self.labels)
        return SuspiciousSlices(sequences, table, self.view, chosen)

    def tuned(self, section, seed=7):
        state = self.folder / "state.pt"
        state.unlink(missing_ok=True)
        return self.go_on(section, state, seed)

    def go_on(self, section, state, seed=7):
        train, valid = self.data_set("train", section.slices), self.data_set("valid")
        return finetune(
            *(section, self.cnn, self.lstm, self.level, train, valid, self.fabric, state, seed)
        )

    def predictions(self, cnn, lstm, name):
        """What two networks say of all studies, by the rules' own functions."""
        path = self.folder / f"{name}.lstm.pt"
        lstm.save(path)
        features = [self.extract(cnn, f"{name}.h5")]
        network = f"network-{self.level}"
        return predict_models(path, network, self.slices, self.studies, features, 0, 1)

    def network(self, most):
        """The joint network before its training."""
        lstm = TrainedLSTM(load_lstm(self.lstm, self.level, "it"), self.lstm_section, None)
        return JointNetwork(load_classifier(self.cnn, "it"), lstm, self.view, most)


@pytest.fixture
def parts(tmp_path):
    return Parts(tmp_path, "joint")


LEVELS = pytest.mark.parametrize("level", ["image", "study", "joint"])


def gradients_of(parts, studies, targets):
    network = parts.network(4).train()
    loss, _ = make_loss(parts.lstm_section, parts.level)
    lowered, _, _ = loss(network(studies), studies, targets)
    lowered.backward()
    return network


@LEVELS
def test_the_gradient_reaches_the_backbone_through_the_chosen_slices_alone(
    tmp_path, monkeypatch, level
):
    parts = Parts(tmp_path, level)
    studies, targets = next(iter(parts.data_set("train", 2).batches(2, parts.fabric)))
    studies = studies._replace(features=studies.features.requires_grad_())
    network = gradients_of(parts, studies, targets)
    convolutions = [m.weight for m in network.cnn.modules() if isinstance(m, nn.Conv2d)]
    assert all(weight.grad.abs().max() > 0 for weight in convolutions)
    assert all(p.grad is not None for p in network.lstm.parameters())
    # The stored features of chosen slices are not looked at, those of all others are.
    seen = studies.features.grad.abs().amax(1) > 0
    assert not seen[studies.rows].any()
    assert seen.sum() == len(seen) - len(studies.rows) > 0
    # Where what the chosen slices give is taken out of the loss's way, nothing reaches it.
    monkeypatch.setattr(
        finetuning, "slice_features", lambda *given: slice_features(*given).detach()
    )
    cut = gradients_of(parts, studies, targets)
    assert all(parameter.grad is None for parameter in cut.cnn.parameters())


def test_batch_normalisation_and_the_head_stay_as_they_are(parts):
    tuned = parts.tuned(finetune_section(lr=0.01))
    norms = [
        name
        for name, module in load_classifier(parts.cnn, "it").named_modules()
        if isinstance(module, _BatchNorm)
    ]
    assert len(norms) > 20
    frozen = [name for name in parts.cnn.weights if name.rpartition(".")[0] in (*norms, "head")]
    before, after = parts.cnn.weights, tuned.cnn.weights
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and changed == before.keys() - set(frozen)


def test_the_backbone_is_never_in_training_mode(parts):
    network = parts.network(4).train()
    assert network.lstm.training
    assert not any(module.training for module in network.cnn.modules())
    network.eval()
    assert not network.lstm.training


@LEVELS
def test_with_a_learning_rate_of_0_predictions_are_those_of_the_two_stages(tmp_path, level):
    parts = Parts(tmp_path, level, dropout=0.3, reversal=True)
    tuned = parts.tuned(finetune_section(lr=0.0))
    before = parts.predictions(parts.cnn, parts.lstm, "before")
    after = parts.predictions(tuned.cnn, tuned.lstm, "after")
    assert before.keys() == after.keys()
    for model, table in before.items():
        pd.testing.assert_frame_equal(table, after[model], check_exact=True)


def test_the_networks_are_validated_as_they_will_be_predicted(parts):
    section = finetune_section(lr=1e-3, keep="last")
    tuned = parts.tuned(section)
    tables = parts.predictions(tuned.cnn, tuned.lstm, "after")
    table = tables["network-joint-study"]
    table = table[table["split"] == "valid"]
    slices = tables["network-joint-image"].merge(parts.studies[[STUDY_UID]].iloc[5:], on=STUDY_UID)

    def loss(probability, truth):
        return -np.log(np.where(truth == 1, probability, 1 - probability))

    of_labels = np.stack([loss(table[n], table[f"{n}_true"]) for n in STUDY_LABELS]).mean(0)
    of_slices = (
        slices.assign(loss=loss(slices[IMAGE_LABEL], slices[f"{IMAGE_LABEL}_true"]))
        .groupby(STUDY_UID)["loss"]
        .mean()
    )
    expected = (of_labels.mean() + of_slices.mean()) / 2
    # Features are stored as float16.
    assert tuned.fitted.history["valid_loss"].iloc[-1] == pytest.approx(expected, rel=2e-3)


def test_both_networks_learn(parts):
    section = finetune_section(lr=3e-3, epochs=12, augment=False, schedule="constant")
    history = parts.tuned(section).fitted.history
    assert history["train_loss"].iloc[-1] < 0.9 * history["train_loss"].iloc[0]
    assert list(history["epoch"]) == list(range(1, 13))
    assert history["kept"].sum() == 1


@pytest.mark.parametrize(("slices", "batch_size"), [(1, 1), (2, 2), (3, 1), (99, 1)])
def test_no_more_slices_are_in_a_pass_than_slices_times_batch_size(
    parts, monkeypatch, slices, batch_size
):
    passes = {True: [], False: []}
    backbone = type(load_classifier(parts.cnn, "it"))
    features = backbone.features

    def counted(self, inputs):
        passes[torch.is_grad_enabled()].append(len(inputs))
        return features(self, inputs)

    monkeypatch.setattr(backbone, "features", counted)
    section = finetune_section(slices=slices, batch_size=batch_size, epochs=1)
    parts.tuned(section)
    assert section.slices_together == slices * batch_size
    assert max(*passes[True], *passes[False]) <= slices * batch_size
    # In training the chosen slices of each study, each once; in validation all slices.
    assert sum(passes[True]) == sum(min(slices, count) for count in COUNTS[:5])
    assert sum(passes[False]) == sum(COUNTS[5:])


def test_a_study_shorter_than_the_number_of_slices_is_computed_anew_as_a_whole(parts):
    studies, _ = next(iter(parts.data_set("train", 99).batches(1, parts.fabric)))
    network = parts.network(99).eval()
    with torch.no_grad():
        found = network(studies)
        nothing_stored = network(studies._replace(features=torch.full_like(studies.features, 9)))
    assert torch.equal(found, nothing_stored)


def test_what_is_computed_anew_is_what_is_stored_but_for_its_rounding(parts):
    studies, _ = next(iter(parts.data_set("train", 3).batches(2, parts.fabric)))
    network = parts.network(4).eval()
    with torch.no_grad():
        found = network(studies)
        stored = network.lstm(StudyBatch(studies.features, studies.counts))
    assert torch.allclose(found, stored, atol=1e-3)
    assert not torch.equal(found, stored)


@pytest.mark.parametrize("augment", [True, False])
def test_a_seed_gives_the_same_bits_and_another_one_others(parts, augment):
    section = finetune_section(lr=1e-3, augment=augment)
    first, again, other = (parts.tuned(section, seed) for seed in (7, 7, 8))
    for part in ("cnn", "lstm"):
        weights = [getattr(tuned, part).weights for tuned in (first, again, other)]
        assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
        assert any(not torch.equal(weights[0][name], weights[2][name]) for name in weights[0])


def test_a_killed_training_goes_on_to_the_same_bits(parts, monkeypatch):
    section = finetune_section(lr=1e-3, epochs=3)
    whole = parts.tuned(section)
    state = parts.folder / "state.pt"
    state.unlink()
    augmented = SuspiciousSlices.augmented

    def dying(self, seed):
        if seed[1] == 2:
            raise KeyboardInterrupt
        return augmented(self, seed)

    monkeypatch.setattr(SuspiciousSlices, "augmented", dying)
    with pytest.raises(KeyboardInterrupt):
        parts.go_on(section, state)
    monkeypatch.undo()
    rest = parts.go_on(section, state)
    for part in ("cnn", "lstm"):
        found, expected = (getattr(tuned, part).weights for tuned in (rest, whole))
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert rest.fitted.history.equals(whole.fitted.history)


def test_checkpoints_are_those_of_two_networks_that_say_how_they_were_made(parts):
    section = finetune_section(lr=1e-3)
    tuned = parts.tuned(section, seed=11)
    for part, before in (("cnn", parts.cnn), ("lstm", parts.lstm)):
        checkpoint = getattr(tuned, part)
        assert (checkpoint.kind, checkpoint.width) == (before.kind, before.width)
        assert checkpoint.config == before.config | {"finetune": section.as_dict()}
        assert (checkpoint.seed, checkpoint.epoch) == (11, tuned.fitted.best_epoch)
        assert checkpoint.weights.keys() == before.weights.keys()


def test_odds_are_calibrated_anew_where_they_were(tmp_path):
    plain = Parts(tmp_path, "joint")
    section = finetune_section(lr=1e-3)
    tuned = plain.tuned(section)
    valid = plain.data_set("valid")
    assert calibrated(tuned, "joint", valid, section, plain.fabric) is tuned
    config = tuned.lstm.config | {"calibrate_odds": True}
    asked = replace(tuned, lstm=replace(tuned.lstm, config=config))
    found = calibrated(asked, "joint", valid, section, plain.fabric).lstm.weights
    moved = {n for n in found if not torch.equal(found[n], tuned.lstm.weights[n])}
    assert moved == {"linear.bias", "image_linear.bias"}
    for name in moved:
        shift = found[name] - tuned.lstm.weights[name]
        assert torch.allclose(shift, shift[:1].expand_as(shift), atol=1e-5)


def test_stored_features_of_a_damaged_file_stop_it(parts):
    content = bytearray(parts.features.read_bytes())
    offset = StoredFeatures(parts.features)._start
    content[offset + 1] ^= 16
    parts.features.write_bytes(bytes(content))
    with pytest.raises(ClotlineError, match="does not fit its checksum"):
        parts.data_set("train", 2)


#: Trains with so many processes; a process of its own, for this one has threads.
TRAIN = """
import sys
from pathlib import Path

import torch

torch.set_num_threads(1)
from test_finetuning import Parts, finetune_section

from clotline.models.devices import make_training_fabric

processes, folder = int(sys.argv[1]), Path(sys.argv[2])
parts = Parts(folder, "study")
parts.fabric = make_training_fabric("32-true", gpus=0, threads=1, processes=processes)
tuned = parts.tuned(finetune_section(lr=1e-3, batch_size=5, epochs=3))
tuned.fitted.history.to_csv(folder / "history.csv", index=False)
"""


def test_two_processes_train_to_what_one_does(tmp_path):
    histories = []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        folder.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", TRAIN, str(processes), str(folder)],
            env={"PATH": "", "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        histories.append(pd.read_csv(folder / "history.csv"))
    pd.testing.assert_frame_equal(*histories, rtol=1e-4)
