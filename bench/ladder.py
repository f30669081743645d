"""The published recipe and the winners' ingredients, one after the other, on a phantom.

Each rung is a whole configuration: that of the rung before with one ingredient more, unless
that is set aside. All are trained by the workflow's own scripts, on the same studies, with the
same CPU time for stage 1: what a slice costs is measured first, and a rung's epochs have as many
slices as fit. As ImageNet's weights do in the published recipe, weights that were trained on
another task, the plain phantom, start each network. Each finished training is kept in the
folder, and what a finished rung gave in a file of the project (`bench.kept`): so it goes on
where it was stopped, and two seeds can run side by side.
"""

import contextlib
import datetime
import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import yaml

from bench import PROJECT, tables
from bench.kept import Kept, KeptCohort, KeptRung, Ranked, difference
from bench.scripts import job
from clotline.data.tables import read_table, write_table
from clotline.evaluation.baselines import count_baseline, position_baseline
from clotline.evaluation.delong import auroc_delong
from clotline.evaluation.ensembles import mean_of
from clotline.evaluation.intervals import Cases
from clotline.evaluation.metrics import SIZES, evaluate_sizes
from clotline.evaluation.predictions import PE_PRESENT, TRUE, cases_by_target
from clotline.evaluation.ranking import Ranking
from clotline.feature_sets import backbones_of, models_of, split_lstm_name
from clotline.job.files import atomic
from clotline.job.lock import wait_for_turn
from clotline.labels import IMAGE_LABEL, STUDY_UID
from clotline.workflow.code_digest import code_digest
from clotline.workflow.config import load_config

#: The published networks' names, each left out by null.
_SIX = [f"{f}-{level}" for f in ("resnext50", "efficientnet_b0", "combined")
        for level in ("image", "study")]  # fmt: skip


class Cohort(Protocol):
    """The studies that are trained and tested on.

    Attributes:
        part: of bench/accuracy.md, and the folder of its shards.
        heading: of that part.
        settings: other ones make other studies; ``slices_min`` and ``slices_max`` are among them.
        split: of the configuration's ``data``.
        recipe: all that the studies' files follow from, for JSON.
    """

    part: str
    heading: str
    settings: dict
    split: dict
    recipe: list

    def with_studies(self, studies: int) -> "Cohort":
        """The same with so many studies."""

    def config(self) -> dict:
        """The sections ``phantom`` and ``data`` of the configuration."""

    def write(self, folder: Path) -> None:
        """Writes what the configuration names and no rule makes: into ``data`` of the folder."""

    def describe(self) -> str:
        """What they are, as sentences."""


@dataclass(frozen=True)
class Phantom:
    """Studies of the phantom, which the workflow makes.

    Attributes:
        part: of bench/accuracy.md, and the folder of its shards.
        heading: of that part.
        settings: the configuration's ``phantom``.
        split: of the configuration's ``data``.
    """

    part: str
    heading: str
    settings: dict
    split: dict

    @property
    def recipe(self) -> list:
        """All that the files follow from."""
        return [self.settings, self.split, code_digest("phantom.py")]

    def with_studies(self, studies: int) -> "Phantom":
        """The same with so many studies."""
        return replace(self, settings=self.settings | {"studies": studies})

    def config(self) -> dict:
        """The sections ``phantom`` and ``data`` of the configuration."""
        return {"phantom": self.settings, "data": {"split": self.split}}

    def write(self, folder: Path) -> None:
        """Nothing: a rule makes the phantom."""

    def describe(self) -> str:
        """What they are."""
        return f"`phantom.difficulty: {self.settings['difficulty']}`."


@dataclass(frozen=True)
class Pretraining:
    """Where networks get the weights that they start from.

    Attributes:
        cohort: other studies than those of the ladder.
        view: the keys of stage 1 that say what networks see of a slice.
        epochs: balanced ones.
    """

    cohort: Phantom
    view: dict
    epochs: int


@dataclass(frozen=True)
class Size:
    """How large everything is.

    Attributes:
        cohort: the studies.
        pretraining: of all networks.
        view: the keys of stage 1 that say what networks see of a slice, as published: half of the
            pixels in each direction.
        pixels: those keys from the rung on that shows more of them.
        minutes: CPU minutes to train a rung's stage 1, in `EPOCHS`; None trains one balanced epoch.
        bootstraps: resamples for intervals.
        stage1: keys of stage 1 that differ where a rung names no others.
        stage2: keys of stage 2 that differ in all rungs.
    """

    cohort: Cohort
    pretraining: Pretraining
    view: dict
    pixels: dict
    minutes: float | None
    bootstraps: int
    stage1: dict
    stage2: dict


#: A crop that holds the lungs' vessels of all patients, moved as far as the published one.
ALL_VESSELS = {"crop": 176, "shift": 16}

#: The demo's crop: a larger one would show emboli at fewer pixels, or cost more. 6% of the hard
#: phantom's positive slices have none in it.
INNER_LUNGS = {"crop": 128, "shift": 4}


def _hard(settings: dict, split: dict) -> Phantom:
    heading = "The ladder, on the hard phantom"
    return Phantom("phantom", heading, {"seed": 1, "difficulty": "hard"} | settings, split)


def _plain(studies: int, input_size: int, epochs: int) -> Pretraining:
    settings = {"studies": studies, "seed": 2, "difficulty": "plain"}
    split = {"train": 0.8, "valid": 0.1, "test": 0.1}
    view = INNER_LUNGS | {"input_size": input_size}
    return Pretraining(Phantom("pretraining", "", settings, split), view, epochs)


#: Of each backbone of stage 1; the more slices its CPU time has, the larger they are.
EPOCHS = 3

#: With 60 slices and more all four bands of size are filled; about 350 studies test.
WHOLE = Size(
    cohort=_hard(
        {"studies": 1040, "slices_min": 60, "slices_max": 64},
        {"train": 0.56, "valid": 0.1, "test": 0.34},
    ),
    # As many pixels a millimetre as the published view.
    pretraining=_plain(studies=400, input_size=64, epochs=8),
    view=ALL_VESSELS | {"input_size": 88},
    pixels=INNER_LUNGS | {"input_size": 128},
    minutes=20,
    bootstraps=1000,
    stage1={},
    stage2={},
)
TINY = Size(
    cohort=_hard(
        {"studies": 40, "slices_min": 24, "slices_max": 24},
        {"train": 0.4, "valid": 0.3, "test": 0.3},
    ),
    pretraining=_plain(studies=40, input_size=32, epochs=1),
    view=ALL_VESSELS | {"input_size": 32},
    pixels=INNER_LUNGS | {"input_size": 32},
    minutes=None,
    bootstraps=100,
    # At the published rate, 0.1, a few batches can leave batch norms' averages so far behind that
    # features are infinite.
    stage1={"lr": 0.01},
    stage2={"epochs": 1, "hidden_size": 4},
)

#: Networks of random weights have few steps to learn in: what ImageNet's weights get over must not
#: stand in their way.
_START = {
    "init": "random",
    "precision": "32-true",
    "zero_init_residual": True,
    "batch_norm_momentum": 0.1,
}
# The rate of places 4, 6 and 9.
_OPTIMISER = {
    "dropout": False,
    "optimizer": "adamw",
    "lr": 0.001,
    "weight_decay": 0.01,
    "schedule": "one_cycle",
    "warm_up": 0.2,
    "keep": "last",
}
# As in the demo, which starts from random weights, too.
_PRETRAINING = _OPTIMISER | {"lr": 0.002}
_OPTIMISER_2 = {
    "standardize": True,
    "dropout": 0.5,
    "optimizer": "adamw",
    "weight_decay": 0.01,
    "schedule": "one_cycle",
    "keep": "last",
}
_OPTIMISER_IMAGE = _OPTIMISER_2 | {"lr": 0.005, "epochs": 5}
_OPTIMISER_STUDY = _OPTIMISER_2 | {
    "lr": 0.002,
    "epochs": 25,
    "forget_bias": 3,
    "target_replication": 0.5,
}
_PLANES = {"planes": 3}
# The amounts of place 1.
_AUGMENT = {"vertical_flip": False, "scale": 0.2, "rotate": 20, "contrast": 0.2, "cutout": 0.4}
_AVERAGE = {"ema": 0.99}
# Of 25 epochs as at place 1, or of more units, it learns 576 studies by heart.
_SECOND_STAGE = _OPTIMISER_2 | {
    "lr": 0.002,
    "epochs": 8,
    "cell": "gru",
    "bidirectional": True,
    "hidden_size": 64,
    "projection": 64,
    "pooling": ["max", "attention"],
    "neighbour_differences": True,
    "reversal": True,
}
_COMPETITION = {"loss": "competition", "q_floor": 0.001, "calibrate_odds": True}

_PUBLISHED_NETS = {
    "resnext50": {"library": "torchvision", "architecture": "resnext50_32x4d"},
    "efficientnet_b0": {"library": "efficientnet-pytorch", "architecture": "efficientnet-b0"},
}
# As place 1's SE-ResNeXt-50, convolutions in groups with channels weighed; a training slice costs a
# third of ResNeXt-50's CPU time.
_WINNER = {"winner": {"library": "timm", "architecture": "regnety_008"}}


@dataclass(frozen=True)
class Rung:
    """One configuration of the ladder.

    Attributes:
        name: what it adds.
        cnn: backbone to its keys beyond `_START`; each has an equal share of the CPU time.
        lstm: network of stage 2 to its keys. The models of a level are averaged.
        aside: whether the next rung is built on the one before this one.
    """

    name: str
    cnn: dict[str, dict]
    lstm: dict[str, dict]
    aside: bool = False

    @property
    def title(self) -> str:
        """Its name in the table, in brackets where it is set aside."""
        return f"({self.name})" if self.aside else self.name


def ladder(size: Size) -> list[Rung]:
    """The published recipe, and each ingredient on top of those before it but those set aside.

    What needs both published networks comes first: features of ResNeXt-50 cost most of all.

    Args:
        size: of everything.
    """
    optimised = {"combined-image": _OPTIMISER_IMAGE, "combined-study": _OPTIMISER_STUDY}
    rungs = [
        Rung("published recipe", _PUBLISHED_NETS, {"combined-image": {}, "combined-study": {}}),
        Rung("+ optimiser: AdamW, one cycle", _with(_PUBLISHED_NETS, _OPTIMISER), optimised),
    ]
    old = {"winner-image": _OPTIMISER_IMAGE, "winner-study": _OPTIMISER_STUDY}
    keys = _OPTIMISER
    rungs.append(Rung("+ RegNetY-800MF in place of both", _with(_WINNER, keys), old))
    keys = keys | size.pixels
    rungs.append(Rung("+ more pixels of the lungs", _with(_WINNER, keys), old))
    keys = keys | _PLANES
    rungs.append(Rung("+ neighbours as channels", _with(_WINNER, keys), old))
    # Set aside before it was measured: squares of air hide small emboli, in few epochs.
    augmented = _with(_WINNER, keys | _AUGMENT)
    rungs.append(Rung("+ augmentation", augmented, old, aside=True))
    keys = keys | _AVERAGE
    winner = _with(_WINNER, keys)
    new = dict.fromkeys(old, _SECOND_STAGE)
    scored = dict.fromkeys(old, _SECOND_STAGE | _COMPETITION)
    joint = _SECOND_STAGE | _COMPETITION
    second = {"efficientnet_b0": _PUBLISHED_NETS["efficientnet_b0"]}
    return [
        *rungs,
        Rung("+ averaged weights", winner, old),
        Rung("+ stage 2: bidirectional GRU, pools, differences, reversal", winner, new),
        Rung("+ the competition's loss, odds factor", winner, scored),
        Rung("+ one joint network", winner, {"winner-joint": joint}),
        Rung(
            "+ EfficientNet-B0 as well: the mean of two",
            winner | _with(second, keys),
            {"winner-joint": joint, "efficientnet_b0-joint": joint},
        ),
    ]


def _with(networks: dict[str, dict], keys: dict) -> dict[str, dict]:
    return {name: network | keys for name, network in networks.items()}


def run(folder: Path, seeds: list[int], rungs: list[Rung], size: Size, kept: Kept) -> Iterator[str]:
    """Runs what is missing.

    Args:
        folder: of the shards and the runs.
        seeds: of the trainings.
        rungs: to run.
        size: of everything.
        kept: what finished rungs gave; new ones are added.

    Yields:
        The part of bench/accuracy.md, after each rung that was run and at the end.
    """
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    part = size.cohort.part
    done = [kept.rung(part, key_of(rung, size)) for rung in rungs]
    missing = [(seed, n) for seed in seeds for n, runs in enumerate(done) if seed not in runs]
    if missing or kept.cohort(part, cohort_key(size)) is None:
        # Trainings have a folder each as their working directory.
        folder = folder.resolve()
        with alone(folder):
            data = make_data(folder / part, size.cohort)
        if kept.cohort(part, cohort_key(size)) is None:
            kept.add(describe_cohort(data, size))
        costs = Costs(folder / "costs.json", data, size)
        pretrained = Pretrained(folder / "pretrained", size)
    for seed, number in missing:
        rung = rungs[number]
        print(f"seed {seed}, {rung.name}", flush=True)
        own = RungRun(folder / f"seed-{seed}", rung, seed, data, size, costs, pretrained)
        kept.add(own.run())
        # They take most of the disk, and are made again from the networks where they lack.
        later = [rungs[n] for s, n in missing if s == seed and n > number]
        needed = {b.folder for rung in later for b in own.other(rung).backbones()}
        for backbone in own.backbones():
            if backbone.folder not in needed:
                backbone.features.unlink(missing_ok=True)
        yield describe(kept, size)
    yield describe(kept, size)


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Waits until no other process is in such a block of the same folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.chdir(folder):
        turn = wait_for_turn(folder.name, sys.stdout)
    with turn:
        yield


def make_data(folder: Path, cohort: Cohort) -> Path:
    """The shards of the studies and what belongs to them, made by the workflow once.

    The DICOM files are deleted when they are decoded: they are most of the space.

    Returns:
        The folder of slices.parquet, plan.parquet, positives.h5 and the shards.
    """
    config = cohort.config()
    config["data"]["slices_per_shard"] = 8000
    made, data = folder / "made.json", folder / "results/data"
    recipe = json.dumps(cohort.recipe)
    if made.exists() and made.read_text(encoding="utf-8") == recipe:
        return data
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "config").mkdir(parents=True)
    text = yaml.safe_dump(config, sort_keys=False)
    (folder / "config/config.yaml").write_text(text, encoding="utf-8")
    cohort.write(folder)
    subprocess.run(
        [
            *(sys.executable, "-m", "snakemake", "--snakefile", PROJECT / "Snakefile"),
            *("--workflow-profile", PROJECT / "profiles/default"),
            *("--profile", PROJECT / "profiles/local", "--directory", folder),
            *("--quiet", "rules", "host", "--"),
            *("results/data/slices.parquet", "results/data/positives.h5"),
        ],
        check=True,
        cwd=PROJECT,
    )
    shutil.rmtree(folder / "data")
    with atomic(made) as path:
        path.write_text(recipe, encoding="utf-8")
    return data


def _networks(rung: Rung, size: Size) -> dict:
    """The sections ``cnn``, ``features`` and ``lstm`` of a rung, with null for what it lacks.

    A configuration has the LSTMs of the combined features in any case; only those that the rung
    names are trained.
    """
    start = _START | size.view | size.stage1
    cnn = dict.fromkeys(_PUBLISHED_NETS) | {n: start | keys for n, keys in rung.cnn.items()}
    lstm = dict.fromkeys(_SIX) | {"combined-image": {}, "combined-study": {}}
    lstm |= {
        name: {"precision": "32-true"} | keys | size.stage2 for name, keys in rung.lstm.items()
    }
    return {"cnn": cnn, "features": {"combined": sorted(rung.cnn)}, "lstm": lstm}


def _digest(*of: object) -> str:
    return hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()[:12]


def cpu_seconds() -> float:
    """CPU seconds of this process and of those of its children that have ended."""
    return sum(os.times()[:4])


class Costs:
    """CPU seconds that training on one slice costs, measured once for each form of a backbone.

    The same training is run for one epoch and for two of a few studies, and the difference, which
    has no start in it, is divided by the epoch's slices. Validation is in it, as in a whole one.
    """

    #: Positive training slices of the studies that are trained on to measure.
    POSITIVES = 100

    def __init__(self, path: Path, data: Path, size: Size):
        self._path, self._data, self._size = path, data, size

    def budget(self, section: dict, share: float) -> dict:
        """How long a backbone trains, as keys of its section.

        Args:
            section: of the configuration, with all keys.
            share: of the rung's CPU time, from 0 to 1.
        """
        if self._size.minutes is None:
            return {"epochs": 1}
        views = 60 * self._size.minutes * share / self._of_slice(section)
        # As many of each label; costs that differ by a few slices are the same.
        even = max(2, 2 * round(views / EPOCHS / 2))
        return {"epochs": EPOCHS, "epoch_slices": even}

    def _of_slice(self, section: dict) -> float:
        # What is trained by which loss and rate costs the same; averaging weights has a fixed
        # cost an epoch, of 200 batches, which a short one would overstate.
        form = {k: v for k, v in section.items() if k not in ("epochs", "lr", "ema", "schedule")}
        key = _digest(form)
        with alone(self._path.parent):
            exists = self._path.exists()
            known = json.loads(self._path.read_text(encoding="utf-8")) if exists else {}
            if key not in known:
                known[key] = self._measure(section | {"ema": 0})
                with atomic(self._path) as path:
                    path.write_text(json.dumps(known, indent=1), encoding="utf-8")
        return known[key]

    def _measure(self, section: dict) -> float:
        where = self._path.parent / f"measuring-{os.getpid()}"
        where.mkdir(parents=True)
        slices = read_table(self._data / "slices.parquet")
        positive = slices[IMAGE_LABEL] == 1
        train, valid = (positive & (slices["split"] == split) for split in ("train", "valid"))
        # Of whole studies from the first on, so that the rows are those of positives.h5; a
        # training needs something to validate.
        enough = train.cumsum() >= min(self.POSITIVES, train.sum())
        enough &= valid.cumsum() > 0
        last = slices[STUDY_UID][enough].iloc[0]
        end = slices.index[slices[STUDY_UID] == last][-1] + 1
        few = slices[:end]
        write_table(few, where / "slices.parquet")
        seconds = []
        for epochs in (1, 2):
            start = cpu_seconds()
            with contextlib.chdir(where):
                train_backbone("probe", section | {"epochs": epochs}, 1, self._data, where)
            seconds.append(cpu_seconds() - start)
        shutil.rmtree(where)
        return max(seconds[1] - seconds[0], 1e-3) / (2 * int(train[:end].sum()))


def slices_of_epoch(data: Path) -> int:
    """Training slices of a balanced epoch."""
    slices = read_table(data / "slices.parquet")
    return 2 * int(((slices[IMAGE_LABEL] == 1) & (slices["split"] == "train")).sum())


def train_backbone(name: str, section: dict, seed: int, data: Path, folder: Path) -> None:
    """Trains a CNN by the workflow's script, in the working directory.

    Args:
        name: of the backbone.
        section: of the configuration, with all keys.
        seed: of the training.
        data: of `make_data`.
        folder: for the checkpoints and the history; slices.parquet is taken from it if it has one.
    """
    own = folder / "slices.parquet"
    inputs = {
        "slices": str(own if own.exists() else data / "slices.parquet"),
        "positives": str(data / "positives.h5"),
        "shards": _shards(data),
        "imagenet": [],
        "init": [],
    }
    outputs = {"best": "best.pt", "last": "last.pt", "history": "history.csv"}
    params = {"cfg": json.dumps(section), "seed": json.dumps(seed), "code": ""}
    outputs = {key: str(folder / path) for key, path in outputs.items()}
    job("train_cnn", inputs, outputs, params, backbone=name)


def _shards(data: Path) -> list[str]:
    return sorted(map(str, (data / "shards").glob("shard-*.h5")))


#: Keys that say what a network is: those that pretraining has in common with it.
_FORM = ("library", "architecture", "planes")


class Pretrained:
    """The weights that networks start from: of each form of network one, of one seed.

    Args:
        folder: for the studies and the networks.
        size: of everything.
    """

    #: Of all those trainings.
    SEED = 0

    def __init__(self, folder: Path, size: Size):
        self._folder, self._size = folder, size

    def start(self, name: str, section: dict) -> Path:
        """The checkpoint that a backbone starts from; it is trained if it is not there.

        Args:
            name: of the backbone.
            section: of the configuration, with all keys.
        """
        cohort = self._size.pretraining.cohort
        keys = {key: section[key] for key in _FORM} | pretraining_keys(self._size)
        networks = _networks(Rung("pretraining", {name: keys}, {}), self._size)
        whole = load_config(cohort.config() | networks)["cnn"][name]
        place = self._folder / f"{name}-{_digest(whole, cohort.recipe)}"
        with alone(self._folder):
            data = make_data(self._folder / "studies", cohort)
        with alone(place):
            if not (place / "best.pt").exists():
                with contextlib.chdir(place):
                    train_backbone(name, whole, self.SEED, data, place)
                (place / "last.pt").unlink()
        return place / "best.pt"


def pretraining_keys(size: Size) -> dict:
    """How all networks are pretrained, as keys of stage 1."""
    return _PRETRAINING | size.pretraining.view | {"epochs": size.pretraining.epochs}


@dataclass(frozen=True)
class Backbone:
    """One CNN of one seed: the rungs that have the same one share it.

    Attributes:
        name: in the configuration.
        section: of the configuration, with all keys.
        seed: of the training.
        data: of `make_data`.
        folder: its own.
        pretrained: what it starts from.
    """

    name: str
    section: dict
    seed: int
    data: Path
    folder: Path
    pretrained: Pretrained

    @property
    def features(self) -> Path:
        """Of all slices, rows as in slices.parquet."""
        return self.folder / "features.h5"

    def train(self) -> float:
        """Trains it if it is not trained yet; gives the CPU seconds that it took."""
        seconds = self.folder / "seconds.json"
        if not seconds.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            section = self.section | {"init": str(self.pretrained.start(self.name, self.section))}
            start = cpu_seconds()
            with contextlib.chdir(self.folder):
                train_backbone(self.name, section, self.seed, self.data, self.folder)
            (self.folder / "last.pt").unlink()  # nobody asks for it, and it is large
            with atomic(seconds) as path:
                path.write_text(json.dumps(cpu_seconds() - start), encoding="utf-8")
        return json.loads(seconds.read_text(encoding="utf-8"))

    def extract(self) -> None:
        """Makes its features if they are not there."""
        if self.features.exists():
            return
        parts = []
        with contextlib.chdir(self.folder):
            for shard in _shards(self.data):
                part = self.folder / f"part-{Path(shard).name}"
                inputs = {"checkpoint": str(self.folder / "best.pt"), "shard": shard}
                job("extract_features", inputs, {"part": str(part)}, backbone=self.name)
                parts.append(str(part))
            job("merge_features", {"parts": parts}, {"features": str(self.features)})
        for part in parts:
            Path(part).unlink()


@dataclass(frozen=True)
class RungRun:
    """One rung of one seed.

    Attributes:
        folder: of the seed.
        rung: what is trained.
        seed: of all trainings.
        data: of `make_data`.
        size: of everything.
        costs: how long a backbone trains.
        pretrained: what its backbones start from.
    """

    folder: Path
    rung: Rung
    seed: int
    data: Path
    size: Size
    costs: Costs
    pretrained: Pretrained

    def other(self, rung: Rung) -> "RungRun":
        """Another rung of the same seed."""
        return replace(self, rung=rung)

    @property
    def place(self) -> Path:
        """Where its predictions are: another place for other keys."""
        return self.folder / f"rung-{key_of(self.rung, self.size)}"

    def _config(self) -> dict:
        return load_config(self.size.cohort.config() | _networks(self.rung, self.size))

    def backbones(self) -> list[Backbone]:
        """Its CNNs, with as many slices an epoch as fit into their share of the CPU time."""
        found = []
        for name, section in self._config()["cnn"].items():
            section = section | self.costs.budget(section, 1 / len(self.rung.cnn))
            folder = self.folder / f"{name}-{_digest(section, *recipe_of(self.size))}"
            found.append(Backbone(name, section, self.seed, self.data, folder, self.pretrained))
        return found

    def run(self) -> KeptRung:
        """Trains both stages, and gives how what they say ranks the test studies."""
        backbones = self.backbones()
        of_backbones = sum(backbone.train() for backbone in backbones)
        for backbone in backbones:
            backbone.extract()
        files = {backbone.name: str(backbone.features) for backbone in backbones}
        config, place = self._config(), self.place
        place.mkdir(parents=True, exist_ok=True)
        start, found = cpu_seconds(), {"image": [], "study": []}
        with contextlib.chdir(place):
            for name in self.rung.lstm:
                section = config["lstm"][name]
                features = [files[backbone] for backbone in backbones_of(config, name)]
                for model in self._stage2(name, section, features):
                    found[split_lstm_name(model)[1]].append(f"{model}.parquet")
        tables_ = {
            level: mean_of({path: read_table(place / path) for path in paths})
            if len(paths) > 1
            else read_table(place / paths[0])
            for level, paths in found.items()
        }
        tests = {
            level: table[table["split"] == "test"].reset_index(drop=True)
            for level, table in tables_.items()
        }
        counts = read_table(self.data / "plan.parquet").set_index(STUDY_UID)["positive_slices"]
        bands = evaluate_sizes(tests["study"], counts)
        balanced = slices_of_epoch(self.data)
        views = {
            b.name: b.section["epochs"] * (b.section["epoch_slices"] or balanced) for b in backbones
        }
        return KeptRung(
            part=self.size.cohort.part,
            key=key_of(self.rung, self.size),
            seed=self.seed,
            name=self.rung.name,
            machine=tables.describe_machine(),
            date=f"{datetime.date.today():%Y-%m-%d}",
            views=views,
            stage1_s=round(of_backbones, 1),
            stage2_s=round(cpu_seconds() - start, 1),
            ranked={
                column: Ranked.of(
                    cases_by_target(tests[level], level)[target], self.size.bootstraps
                )
                for column, (level, target) in _LEVELS.items()
            },
            bands={name: (bands[name]["value"], bands[name]["n_positive"]) for name in SIZES},
        )

    def _stage2(self, name: str, section: dict, features: list[str]) -> list[str]:
        """Trains one network of stage 2 in the working directory; gives its models' names."""
        inputs = {
            "slices": str(self.data / "slices.parquet"),
            "plan": str(self.data / "plan.parquet"),
            "features": features,
        }
        params = {"cfg": json.dumps(section), "seed": json.dumps(self.seed), "code": ""}
        outputs = {"best": f"{name}.pt", "history": f"{name}.csv"}
        models = models_of(name)
        if not all(Path(f"{model}.parquet").exists() for model in models):
            job("train_lstm", inputs | {"init": []}, outputs, params, lstm=name)
            predicted = {model: f"{model}.parquet" for model in models}
            job("predict_lstm", inputs | {"checkpoint": outputs["best"]}, predicted, lstm=name)
        return models


def key_of(rung: Rung, size: Size) -> str:
    """Of a rung's configuration, its time to train, and all that studies and starts follow from."""
    return _digest(_networks(rung, size), size.minutes, *recipe_of(size))


def recipe_of(size: Size) -> list:
    """All that the studies and the weights at the start follow from, for JSON."""
    return [size.cohort.recipe, size.pretraining.cohort.recipe, pretraining_keys(size)]


def cohort_key(size: Size) -> str:
    """Of all that the studies follow from."""
    return _digest(size.cohort.recipe)


def describe_cohort(data: Path, size: Size) -> KeptCohort:
    """What is said of the studies.

    Args:
        data: of `make_data`.
        size: of everything.
    """
    counts = read_table(data / "plan.parquet")["split"].value_counts()
    studies = {split: int(counts[split]) for split in ("train", "valid", "test")}
    return KeptCohort(size.cohort.part, cohort_key(size), studies, position_only(data))


def position_only(data: Path) -> tuple[float, float]:
    """AUROC of test studies and of their slices by the slices' relative position alone."""
    slices, plan = read_table(data / "slices.parquet"), read_table(data / "plan.parquet")
    train = slices["split"] == "train"
    position = position_baseline(slices.assign(split=np.where(train, "train", "test")))
    image = slices[~train].reset_index(drop=True)
    image[IMAGE_LABEL + TRUE] = image[IMAGE_LABEL]
    image[IMAGE_LABEL] = position[IMAGE_LABEL]
    test = image["split"] == "test"
    of_slices = Ranking(Cases.of(image[IMAGE_LABEL + TRUE][test], image[IMAGE_LABEL][test]))
    scores = count_baseline(image, plan)
    truth = plan.set_index(STUDY_UID).loc[scores[STUDY_UID]]
    present = 1 - truth[["negative_exam_for_pe", "indeterminate"]].max(axis=1)
    of_studies = auroc_delong(Cases.of(present, scores[PE_PRESENT])).value
    return of_studies, of_slices.metrics(np.ones(int(test.sum()), int))[0]


#: Table's column to the file of predictions and the target in it.
_LEVELS = {"study AUROC": ("study", PE_PRESENT), "slice AUROC": ("image", IMAGE_LABEL)}


def describe(kept: Kept, size: Size) -> str:
    """The part of bench/accuracy.md: the rungs that have run, as Markdown."""
    compared, costs, machines = [], [], {}
    published: dict[int, KeptRung] = {}
    before: dict[int, KeptRung] = {}
    for number, rung in enumerate(ladder(size)):
        runs = kept.rung(size.cohort.part, key_of(rung, size))
        if runs:
            cells = [rung.title, str(len(runs))]
            for column in _LEVELS:
                own = {seed: run.ranked[column] for seed, run in runs.items()}
                cells.append(f"{np.mean([ranked.value for ranked in own.values()]):.3f}")
                for reference in (before, published):
                    theirs = {seed: run.ranked[column] for seed, run in reference.items()}
                    both = set(own) & set(theirs)
                    cells.append(_signed(difference(own, theirs)) if both else "")
            compared.append(cells)
            results = list(runs.values())
            cells = [
                rung.title,
                *_bands(results),
                f"{np.mean([sum(r.views.values()) for r in results]):,.0f}",
            ]
            cells.append(f"{np.mean([r.stage1_s for r in results]) / 60:.1f}")
            cells.append(f"{np.mean([r.stage2_s for r in results]) / 60:.1f}")
            costs.append(cells)
            for run_ in results:
                machines.setdefault((run_.machine, run_.date), []).append(run_)
        if number == 0:
            published = runs
        if not rung.aside:
            before = runs
    against = ("", "from the rung before", "from the published recipe")
    head = ["rung", "seeds", *(what or column for column in _LEVELS for what in against)]
    first = tables.markdown(head, compared)
    head = ["rung", *(f"{name} positive slices" for name in SIZES)]
    head += ["slices trained on", "CPU min, stage 1", "CPU min, stage 2"]
    words = "Study AUROC by the number of positive slices, against all negative studies, and costs:"
    lines = [*_preface(kept, size, machines), first, words, "", tables.markdown(head, costs)]
    return "\n".join(lines)


def _preface(kept: Kept, size: Size, machines: dict[tuple[str, str], list[KeptRung]]) -> list[str]:
    settings, cohort = size.cohort.settings, kept.cohort(size.cohort.part, cohort_key(size))
    of_studies, of_slices = cohort.by_position
    minutes = "one epoch each" if size.minutes is None else f"{size.minutes:g} CPU minutes"
    return [
        f"## {size.cohort.heading}",
        "",
        f"Measured by `python -m bench.accuracy {size.cohort.part}`, one thread a rung:",
        "",
        *(
            f"- {len(runs)} of the trainings on {date}: {machine}."
            for (machine, date), runs in machines.items()
        ),
        "",
        f"{size.cohort.describe()} {sum(cohort.studies.values()):,} studies "
        f"of {settings['slices_min']} to {settings['slices_max']} slices; "
        f"{cohort.studies['train']} train, {cohort.studies['valid']} validate, "
        f"{cohort.studies['test']} test. Networks "
        f"see {size.view['crop']} of 256 pixels as {size.view['input_size']}, and from the rung of "
        f"more pixels on {size.pixels['crop']} as {size.pixels['input_size']}; they start from "
        f"weights that were trained for {size.pretraining.epochs} epochs on "
        f"{size.pretraining.cohort.settings['studies']} "
        "studies of the plain phantom, in the place of ImageNet's. Each rung has what the one "
        "before has and one thing more; one in brackets is left out of those after it, and a "
        "difference from one that was not run is left empty. "
        f"All have the same time for stage 1: {minutes}, an equal part for each backbone, by what "
        "a slice was measured to cost beforehand; what they took stands below. Features and stage "
        "2 come on top. The numbers compare recipes and say nothing of patients.",
        "",
        "Differences are paired, on the same test studies and seeds, with a 95% interval by "
        f"{size.bootstraps:,} resamples of the studies and of the seeds; of a single seed it says "
        "nothing about others.",
        "",
        f"By the slices' position alone: study AUROC {of_studies:.3f}, slice AUROC "
        f"{of_slices:.3f}.",
        "",
    ]


def _signed(values: tuple[float, float, float]) -> str:
    value, low, high = values
    return f"{value:+.3f} [{low:+.3f}, {high:+.3f}]"


def _bands(runs: list[KeptRung]) -> list[str]:
    """Mean study AUROC of each band of positive slices, and how many studies it has."""
    cells = []
    for name in SIZES:
        known = [run.bands[name][0] for run in runs if run.bands[name][0] is not None]
        positives = runs[0].bands[name][1]
        cells.append(f"{np.mean(known):.3f} (n {positives})" if known else f"– (n {positives})")
    return cells


def choose(names: list[str] | None, size: Size) -> list[Rung]:
    """The rungs whose numbers are named, the published recipe (0) always; all without a name.

    Raises:
        SystemExit: there is no such rung.
    """
    rungs = ladder(size)
    if names is None:
        return rungs
    if wrong := [n for n in names if not n.isdigit() or int(n) >= len(rungs)]:
        listed = "\n".join(f"  {k}: {rung.name}" for k, rung in enumerate(rungs))
        raise SystemExit(f"there is no rung {', '.join(wrong)}; there are\n{listed}")
    return [rungs[k] for k in sorted({0, *map(int, names)})]
