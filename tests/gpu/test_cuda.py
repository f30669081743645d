"""What only a GPU shows: that it does what a CPU does, and how. `make gpu` runs these.

Without a GPU they skip.
"""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from builders import DyingBatches, KilledError, cnn_section, lstm_section, write_slices
from torch import nn

from clotline.data.features_file import create_features, open_features, write_features
from clotline.data.shards import read_rows
from clotline.labels import STUDY_LABELS
from clotline.loading.preprocessing import View
from clotline.loading.slice_loader import SliceLoader, StoredSlices
from clotline.loading.study_loader import FeatureSequences
from clotline.models import steps as steps_module
from clotline.models.activation import activation_maps
from clotline.models.backbones import build_classifier
from clotline.models.compiling import compile_network
from clotline.models.devices import make_fabric
from clotline.models.extractor import as_extractor
from clotline.models.features import extract_features
from clotline.models.lstm import build_lstm
from clotline.models.lstm_training import SCORES
from clotline.models.monitoring import auroc
from clotline.models.prediction import predict_studies
from clotline.models.steps import Graph, Steps
from clotline.models.supervision import make_loss
from clotline.models.training import fit, train_epoch

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="torch finds no CUDA device on this machine"
)

SLICES, BATCH = 70, 16
SCRIPTS = Path(__file__).parents[2] / "workflow/scripts"


@pytest.fixture(scope="module")
def cpu():
    return make_fabric("32-true", gpus=0, threads=2)


@pytest.fixture(scope="module")
def gpu():
    return make_fabric("32-true", gpus=1, threads=2)


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    """Float32 with all its digits, and sums in one order, so that runs can be compared."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)


@pytest.fixture
def replays(monkeypatch):
    """How many batches each graph has replayed."""
    counts = []

    class Counting(Graph):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.number = len(counts)
            counts.append(0)

        def __call__(self, *tensors):
            counts[self.number] += 1
            return super().__call__(*tensors)

    monkeypatch.setattr(steps_module, "Graph", Counting)
    return counts


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Stored slices of noise; in positive ones half is brighter."""
    path = tmp_path_factory.mktemp("gpu") / "shard-000.h5"
    rng = np.random.default_rng(0)
    labels = np.arange(SLICES) % 2
    pixels = rng.integers(-300, 500, (SLICES, 256, 256)).astype(np.int16)
    pixels[labels == 1, :128] += 250
    write_slices(path, pixels, labels)
    return read_rows(path).assign(file=str(path), row=range(SLICES))


def section_of(architecture="resnet18", **keys):
    library = "efficientnet-pytorch" if architecture.startswith("efficientnet") else "torchvision"
    # With a higher learning rate, what the first step rounds off decides what comes of a training.
    keys = {"crop": 64, "input_size": 64, "lr": 0.001, "schedule": "constant"} | keys
    return cnn_section(library=library, architecture=architecture, batch_size=BATCH, **keys)


def batches(table, section, fabric, augment=None, train=False):
    slices = StoredSlices(table, View.of(section), augment)
    # Processes load, and a thread pins their batches, while a step becomes a graph.
    processes = 2 if fabric.device.type == "cuda" else 0
    return SliceLoader(slices, BATCH, fabric, processes, train)


def train(table, section, fabric, folder, epochs=3, model=None, kill=None):
    """A training's history; ``kill`` is an epoch that ends early."""

    def of_epoch(epoch):
        found = batches(table, section, fabric, (1, epoch), train=True)
        return DyingBatches(found) if epoch == kill else found

    torch.manual_seed(0)
    model = build_classifier(section) if model is None else model
    model = model.to(memory_format=torch.channels_last)
    valid = batches(table, section, fabric)
    recipe = replace(section, epochs=epochs)
    state = folder / "state.pt"
    return fit(
        model, recipe, of_epoch, valid, auroc, fabric, state, seed=2, train_base_loss=0.69
    ).history


def test_the_automatic_precision_is_that_of_the_gpu_also_once_it_is_in_use():
    for _ in range(2):
        fabric = make_fabric("auto", gpus=1, threads=1)
        model = fabric.setup_module(nn.Linear(4, 4))
        with fabric.autocast():
            kind = (torch.ones(4, 4, device=fabric.device) @ model.weight).dtype
        bfloat16 = torch.cuda.get_device_capability()[0] >= 8
        assert kind == (torch.bfloat16 if bfloat16 else torch.float32)


def test_batches_arrive_whole_however_far_behind_the_gpu_is(table, cpu, gpu):
    many, section = pd.concat([table] * 10), section_of()
    work = torch.rand(4096, 4096, device=gpu.device)
    found = []
    for inputs, labels in batches(many, section, gpu, (0, 0)):
        found.append((inputs, labels))
        for _ in range(10):
            torch.mm(work, work)
    for pair, expected in zip(found, batches(many, section, cpu, (0, 0)), strict=True):
        for mine, other in zip(pair, expected, strict=True):
            assert torch.allclose(mine.cpu(), other, rtol=1e-6, atol=1e-6)


def test_a_training_goes_as_on_a_cpu_and_most_of_its_batches_are_replayed(
    table, cpu, gpu, replays, tmp_path
):
    histories = []
    for fabric in (cpu, gpu):
        folder = tmp_path / fabric.device.type
        folder.mkdir()
        histories.append(train(table, section_of(), fabric, folder))
    # Three of the first epoch's four whole batches come before the graph, and each epoch has a
    # smaller last one.
    assert replays == [3 * 4 - 3]
    pd.testing.assert_frame_equal(*histories, rtol=0.02)
    assert histories[0]["train_loss"].iloc[-1] < 0.95 * histories[0]["train_loss"].iloc[0]


@pytest.mark.parametrize("architecture", ["resnet18", "efficientnet-b0"])
@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_a_replayed_step_is_the_step(table, gpu, replays, monkeypatch, architecture, clip_norm):
    found = {}
    for before in (10**6, 1):
        monkeypatch.setattr(steps_module, "_BATCHES_BEFORE", before)
        section = section_of(architecture, clip_norm=clip_norm)
        torch.manual_seed(0)
        model = build_classifier(section)
        if architecture.startswith("efficientnet"):
            # Without random layers, whose draws a graph numbers otherwise.
            model.backbone._dropout.p = 0
            model.backbone._global_params = model.backbone._global_params._replace(
                drop_connect_rate=None
            )
        training = Steps(model, section, 5, gpu)
        losses = [
            train_epoch(training, batches(table, section, gpu, (0, epoch), train=True), 1)
            for epoch in range(2)
        ]
        found[before] = losses, [each.detach().clone() for each in model.parameters()]
    assert len(replays) == 1
    (losses, weights), (others, replayed) = found.values()
    assert others == pytest.approx(losses, rel=1e-5)
    for one, other in zip(weights, replayed, strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-5)


def test_random_layers_draw_anew_at_each_replay_and_follow_from_the_seed(gpu, replays):
    class Draws(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(8, 1)
            self.register_buffer("drawn", torch.zeros(20))
            self.register_buffer("step", torch.zeros(1, dtype=torch.long))

        def forward(self, x):
            self.drawn.index_copy_(0, self.step, torch.rand(1, device=x.device))
            self.step.add_(1)
            return self.layer(x).squeeze(-1)

    drawn = []
    for _ in range(2):
        section = section_of()
        training = Steps(Draws(), section, 10, gpu)
        torch.manual_seed(5)
        train_epoch(training, [(torch.ones(4, 8), torch.ones(4))] * 20, 1)
        drawn.append(training.model.drawn.cpu().tolist())
    assert replays == [17, 17]
    assert len(set(drawn[0])) == 20
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_mixed_precision_trains_alike(table, gpu, replays, tmp_path, precision, clip_norm):
    (tmp_path / "full").mkdir()
    full = train(table, section_of(clip_norm=clip_norm), gpu, tmp_path / "full")
    section = section_of(clip_norm=clip_norm, precision=precision)
    mixed = train(table, section, make_fabric(precision, gpus=1, threads=2), tmp_path)
    assert len(replays) == 2
    assert mixed["train_loss"].to_numpy() == pytest.approx(full["train_loss"].to_numpy(), rel=0.1)


def test_a_killed_training_goes_on_to_about_the_same(table, gpu, tmp_path):
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    whole = train(table, section_of(), gpu, tmp_path / "whole")
    with pytest.raises(KilledError):
        train(table, section_of(), gpu, tmp_path / "killed", kill=2)
    resumed = train(table, section_of(), gpu, tmp_path / "killed")
    pd.testing.assert_frame_equal(whole, resumed, rtol=0.02)


def test_a_compiled_network_trains_alike(table, gpu, replays, tmp_path):
    def network():
        torch.manual_seed(1)
        return nn.Sequential(
            nn.Conv2d(1, 8, 5, 4), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2),
            nn.Flatten(), nn.Linear(32, 1), nn.Flatten(0),
        )  # fmt: skip

    histories = []
    for model in (network(), compile_network(network())):
        folder = tmp_path / str(len(histories))
        folder.mkdir()
        histories.append(train(table, section_of(), gpu, folder, model=model))
    assert replays == [9, 9]
    pd.testing.assert_frame_equal(*histories, rtol=0.02)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("architecture", ["resnet18", "efficientnet-b0"])
def test_features_are_those_of_a_cpu(table, cpu, gpu, tmp_path, architecture, precision):
    """70 slices, 16 a batch: the last one is smaller."""
    section, found = section_of(architecture, batch_norm_momentum=0.5), []
    inputs, _ = next(iter(batches(table, section, cpu)))
    for fabric in (cpu, make_fabric(precision, gpus=1, threads=2)):
        torch.manual_seed(0)
        model = build_classifier(section).train()
        with torch.no_grad():
            for _ in range(5):  # statistics with which features are of a size that float16 holds
                model(inputs)
        model = as_extractor(model, 64)
        path = tmp_path / f"{fabric.device.type}.h5"
        loader = batches(table, section, fabric)
        extract_features(model, loader, path, "b", "0" * 64, fabric)
        with open_features(path) as file:
            found.append(file["features"][:].astype(np.float64))
    one, other = found
    assert one.shape == other.shape == (SLICES, model.width)
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    assert ((one * other).sum(1) / norms).min() > 0.999


def test_activation_maps_are_those_of_a_cpu(table, cpu, gpu):
    section, found = section_of(), []
    for fabric in (cpu, gpu):
        torch.manual_seed(0)
        model = build_classifier(section).eval()
        found.append(activation_maps(model, batches(table, section, fabric), fabric))
    (maps, logits), (others, other_logits) = found
    assert other_logits == pytest.approx(logits, rel=1e-3, abs=1e-3)
    np.testing.assert_allclose(
        np.asarray(others, float), np.asarray(maps, float), rtol=0.02, atol=0.01 * np.max(maps)
    )


@pytest.mark.parametrize("level", ["image", "study", "joint"])
def test_an_lstm_trains_and_predicts_as_on_a_cpu(cpu, gpu, replays, tmp_path, level):
    rng = np.random.default_rng(0)
    counts = rng.integers(3, 30, 24)
    studies = pd.DataFrame({"count": counts, "first": np.cumsum(counts) - counts})
    for label in STUDY_LABELS:
        studies[label] = rng.integers(0, 2, len(studies))
    studies["indeterminate"] = 0  # which excludes a negative examination
    rows, width = counts.sum(), 64
    path = tmp_path / "features.h5"
    with create_features(path, rows, width, "b", "0" * 64) as file:
        write_features(file, 0, rng.normal(size=(rows, width)).astype(np.float16))
    labels = rng.integers(0, 2, rows).astype(np.int8)
    section = lstm_section(hidden_size=16, batch_size=8, epochs=3)
    histories, probabilities = [], []
    for fabric in (cpu, gpu):
        sequences = FeatureSequences(studies, [path], level, labels)
        torch.manual_seed(0)
        model = build_lstm(width, section, level)
        fitted = fit(
            *(model, section),
            lambda epoch, s=sequences, f=fabric: s.batches(8, f),
            sequences.batches(8, fabric),
            SCORES[level],
            *(fabric, tmp_path / f"{fabric.device.type}.pt"),
            1,
            0.69,
            *make_loss(section, level),
        )
        histories.append(fitted.history)
        found = predict_studies(model, sequences, fabric)
        probabilities.append(np.concatenate(found))
    assert not replays
    pd.testing.assert_frame_equal(*histories, rtol=1e-3)
    assert probabilities[1] == pytest.approx(probabilities[0], abs=1e-3)


#: One process for each of the GPUs that there are, at least in the way in which several start.
TOGETHER = """
import sys
from pathlib import Path

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import LightningEnvironment
from torch import nn

from clotline.loading.batches import process_batches
from clotline.models.devices import make_training_fabric
from clotline.models.monitoring import auroc
from clotline.sections.recipe import Recipe
from clotline.models.training import fit, train_together

state = Path(sys.argv[1])
count = torch.cuda.device_count()
if count > 1:
    fabric = make_training_fabric("bf16-mixed", gpus=count, threads=count)
else:
    fabric = Fabric(
        accelerator="cuda",
        strategy="ddp_fork",
        devices=1,
        plugins=LightningEnvironment(),
        precision="bf16-mixed",
    )
recipe = Recipe(2, "sgd", 0.1, 0.9, 1e-4, "one_cycle", 0.3, [], 1.0, "bf16-mixed", "best", 1, 0)


def batches():
    return [
        (torch.randn(8, 1, 8, 8)[part], (torch.arange(8) % 2).float()[part])
        for part in process_batches(range(8), 8, fabric) * 5
    ]


def run():
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 1), nn.Flatten(0)
    )
    args = model, recipe, lambda _: batches(), batches(), auroc, fabric, state
    return fit(*args, seed=3, train_base_loss=0.69)


print(len(train_together(fabric, run, state).history), "epochs")
"""


def test_processes_for_gpus_start_and_train(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", TOGETHER, str(tmp_path / "state.pt")],
        env={"PYTHONPATH": f"{SCRIPTS}:{':'.join(sys.path)}", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "2 epochs" in done.stdout
