"""Whether what is faster is as good: losses over seeds, features, and what an LSTM makes of them.

All of it on the demo's slices and its trained networks, at the demo's small size.
"""

import logging
import math
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from bench.data import PROCESSES
from bench.stages import default_config
from clotline.data.features_file import StoredFeatures
from clotline.data.slice_table import locate_studies
from clotline.data.tables import read_table
from clotline.feature_sets import feature_sets
from clotline.labels import IMAGE_LABEL
from clotline.loading.preprocessing import View
from clotline.loading.sampling import locate_slices, training_epochs, validation_slices
from clotline.loading.slice_loader import SliceLoader, StoredSlices
from clotline.loading.study_loader import FeatureSequences
from clotline.models.backbones import build_classifier, for_training, load_classifier
from clotline.models.checkpoint import Checkpoint
from clotline.models.devices import make_fabric
from clotline.models.extractor import as_extractor
from clotline.models.features import BATCH_SIZE, extract_features
from clotline.models.lstm import build_lstm
from clotline.models.monitoring import auroc
from clotline.models.prediction import predict_studies
from clotline.models.training import base_rate_loss, fit
from clotline.sections.cnn import CNNSection
from clotline.sections.lstm import LSTMSection, lstm_sections

SEEDS = range(5)
#: Training slices of each class in one epoch of the comparison of losses.
POSITIVES = 240
#: Critical value of the two-sided t-test of pairs at 5%, four degrees of freedom.
T_TEST = 2.776
PRECISIONS = {"ours": "auto", "published": "32-true"}


@dataclass(frozen=True)
class Check:
    """A figure of quality beside what it must reach.

    Attributes:
        what: what was compared.
        found: the result in words and numbers.
        holds: whether it is as it should be.
    """

    what: str
    found: str
    holds: bool


class Demo:
    """The finished demo's slices and networks."""

    def __init__(self, folder: Path):
        self.results = folder / "results"
        self.slices = read_table(self.results / "data/slices.parquet")
        self.plan = read_table(self.results / "data/plan.parquet")
        self.shards = self.results / "data/shards"

        path = self.results / "lstm/combined-image.pt"
        self.lstm_section = LSTMSection.of_checkpoint(Checkpoint.load(path).config, path)

    def checkpoint(self, name: str) -> Checkpoint:
        """One of its trained networks."""
        return Checkpoint.load(self.results / f"cnn/{name}.pt")

    def cnn_section(self, name: str) -> CNNSection:
        """What it was trained with."""
        return CNNSection.of_checkpoint(self.checkpoint(name).config, name)


def losses(demo: Demo) -> list[Check]:
    """Validation losses of both CNNs after two epochs, in both precisions, over the seeds."""
    tables = locate_slices(demo.slices, demo.shards, demo.results / "data/positives.h5")
    valid = validation_slices(*(t[t["split"] == "valid"] for t in tables), 0)
    train = [t[t["split"] == "train"] for t in tables]
    checks = []
    for name in ("resnext50", "efficientnet_b0"):
        section = replace(demo.cnn_section(name), epochs=2, input_size=64)
        found = {
            way: [_valid_loss(section, precision, train, valid, seed) for seed in SEEDS]
            for way, precision in PRECISIONS.items()
        }
        text, difference, noise = _in_pairs(*found.values())
        checks.append(Check(f"{name}, training in float32", text, abs(difference) < noise))
    return checks


def _valid_loss(section: CNNSection, precision: str, train, valid, seed: int) -> float:
    fabric = make_fabric(precision, gpus=0, threads=PROCESSES)
    view = View.of(section)
    order = np.random.default_rng(seed).permutation(len(train[0]))[:POSITIVES]
    positives = train[0].iloc[order]
    epochs = training_epochs(section, positives, train[1], seed)
    torch.manual_seed(seed)
    model = for_training(section) if precision == "auto" else build_classifier(section)

    def batches(epoch: int):
        slices = StoredSlices(epochs.table(epoch), view, (seed, epoch))
        return SliceLoader(slices, section.batch_size, fabric, 0, train=True)

    loader = SliceLoader(StoredSlices(valid, view, None), section.batch_size, fabric, 0)
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder, "state.pt")
        base_loss = math.log(2)
        fitted = fit(model, section, batches, loader, auroc, fabric, state, seed, base_loss)
    return float(fitted.history["valid_loss"].iloc[-1])


def features(demo: Demo, folder: Path) -> list[Check]:
    """Features in our precision against those in float32, slice by slice, and LSTMs on both."""
    checks = []
    files = {name: demo.shards / f"shard-{name}.h5" for name in demo.slices["shard"].unique()}
    rows = demo.slices.assign(file=demo.slices["shard"].map({k: str(v) for k, v in files.items()}))
    for name in ("resnext50", "efficientnet_b0"):
        found = {}
        for way, precision in PRECISIONS.items():
            path = folder / f"{name}-{way}.h5"
            _extract(demo, name, precision, rows, path)
            found[way] = path
        mine, theirs = (StoredFeatures(path).read(slice(0, len(rows))) for path in found.values())
        cosine = _cosine(mine.astype(np.float32), theirs.astype(np.float32))
        checks.append(
            Check(
                f"{name}, {len(rows):,} slices' features in float32",
                f"lowest cosine similarity {cosine.min():.5f}",
                bool(cosine.min() >= 0.999),
            )
        )
        scores = {way: _lstm_auroc(demo, path) for way, path in found.items()}
        change = scores["ours"] - scores["published"]
        checks.append(
            Check(
                f"{name}-image on features in float32",
                f"AUROC of the test slices {scores['published']:.4f}, ours {scores['ours']:.4f}: "
                f"{change:+.4f}",
                abs(change) <= 0.005,
            )
        )
    return checks


def _extract(demo: Demo, name: str, precision: str, rows, path: Path) -> None:
    checkpoint = demo.checkpoint(name)
    fabric = make_fabric(precision, gpus=0, threads=PROCESSES)
    view = View.of(demo.cnn_section(name))
    loader = SliceLoader(StoredSlices(rows, view, None), BATCH_SIZE, fabric, 0)
    model = load_classifier(checkpoint, name)
    if precision == "auto":
        model = as_extractor(model, view.input_size)
    extract_features(model, loader, path, name, "0" * 64, fabric)


def _cosine(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return (one * other).sum(1) / lengths


def lstm_losses(demo: Demo) -> list[Check]:
    """Validation losses of combined-image trained as the demo's and in the published way."""
    names = feature_sets(default_config())["combined"]
    files = [demo.results / f"features/{name}.h5" for name in names]
    published = lstm_sections(default_config())["combined-image"]
    sections = (
        replace(demo.lstm_section, precision="auto"),
        replace(published, batch_size=1, precision="32-true"),
    )
    found = [[_train_lstm(demo, files, section, s)[0] for s in SEEDS] for section in sections]
    text, difference, noise = _in_pairs(*found)
    # A lower loss is no fault.
    return [Check("combined-image, training a study at a time", text, difference < noise)]


def _in_pairs(ours: list[float], others: list[float]) -> tuple[str, float, float]:
    """Validation losses in words, their mean difference, and what chance can make of it."""
    differences = np.subtract(ours, others)
    error = differences.std(ddof=1) / np.sqrt(len(SEEDS))
    text = (
        f"validation loss over {len(SEEDS)} seeds {np.mean(others):.4f} ± "
        f"{np.std(others, ddof=1):.4f}, ours {np.mean(ours):.4f} ± {np.std(ours, ddof=1):.4f}; "
        f"difference {differences.mean():+.4f} ± {error:.4f}"
    )
    return text, differences.mean(), T_TEST * error


def _lstm_auroc(demo: Demo, path: Path) -> float:
    """AUROC of the test slices of an image-level LSTM trained as the demo's are."""
    _, model, test, fabric = _train_lstm(demo, [path], demo.lstm_section, seed=0)
    probabilities = np.concatenate(predict_studies(model, test, fabric))
    truth = test[range(len(test))][1].numpy()
    return auroc(truth, probabilities)


def _train_lstm(demo: Demo, files: list[Path], section: LSTMSection, seed: int):
    """The lowest validation loss; the network of that epoch, the test studies and the fabric."""
    fabric = make_fabric(section.precision, gpus=0, threads=1)
    studies = locate_studies(demo.slices, demo.plan)
    labels = demo.slices[IMAGE_LABEL].to_numpy()
    train, valid, test = (
        FeatureSequences(studies[studies["split"] == split], files, "image", labels)
        for split in ("train", "valid", "test")
    )
    torch.manual_seed(seed)
    model = build_lstm(train.width, section, "image")

    def batches(epoch: int):
        order = np.random.default_rng((seed, epoch)).permutation(len(train))
        return train.batches(section.batch_size, fabric, order)

    loader = valid.batches(section.batch_size, fabric)
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder, "state.pt")
        base_loss = base_rate_loss(train.targets())
        fitted = fit(model, section, batches, loader, auroc, fabric, state, seed, base_loss)
    model.load_state_dict(fitted.best)
    return float(fitted.history["valid_loss"].min()), model, test, fabric


def all_checks(demo_folder: Path) -> list[Check]:
    """Every comparison of quality."""
    logging.getLogger("clotline").setLevel(logging.WARNING)
    demo = Demo(demo_folder)
    with tempfile.TemporaryDirectory() as folder:
        return [*losses(demo), *features(demo, Path(folder)), *lstm_losses(demo)]
