"""Each stage against the published way and against its physical limit."""

import itertools
import os
import shutil
import statistics
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from unittest.mock import patch

import h5py
import hdf5plugin  # noqa: F401 - to read the shards' compressed pixels
import numpy as np
import pydicom
import torch
import yaml
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.flop_counter import FlopCounterMode

from bench import AVX2, PROJECT, published
from bench.data import (
    PROCESSES,
    RSNA_STUDY_SLICES,
    WIDTH,
    Cohort,
    make_features,
    make_studies,
    publish_features,
    repeat_shard,
)
from bench.race import ROUNDS, Row, Size, compare, flush, race, seconds_of
from clotline.data.chunks import create_pixels, unpack
from clotline.data.dicom.ct_slice import read_slice
from clotline.data.ingest import write_shard
from clotline.data.positives import copy_positives
from clotline.data.shards import CHECKSUM, StoredPixels, open_shard
from clotline.labels import IMAGE_LABEL, UIDS
from clotline.loading.preprocessing import View
from clotline.loading.slice_loader import SliceLoader, StoredSlices
from clotline.loading.study_loader import FeatureSequences
from clotline.models.backbones import Classifier, build_classifier, for_training
from clotline.models.devices import make_fabric
from clotline.models.extractor import as_extractor
from clotline.models.features import BATCH_SIZE, extract_features
from clotline.models.lstm import build_lstm
from clotline.models.recipe import make_optimizer
from clotline.models.steps import Steps
from clotline.models.training import train_epoch
from clotline.sections.cnn import cnn_sections
from clotline.sections.lstm import lstm_sections
from clotline.workflow.config import load_config

#: Reach of the ratios to the published way.
REACH = {
    "ingest": 6,
    "bytes": 8,
    "positives": 8,
    "input": 5,
    "resnext50": (2.4, 3.5),
    "efficientnet_b0": (1.7, 3),
    "lstm": 10,
}
#: Slices of one turn of a CNN.
TRAINED, EXTRACTED = 96, 128


def default_config(precision: str = "auto") -> dict:
    """The production recipe, with random weights, and in a precision."""
    config = yaml.safe_load((PROJECT / "config/config.yaml").read_text(encoding="utf-8"))
    for entry in config["cnn"].values():
        entry["init"] = "random"
    for entry in (*config["cnn"].values(), *config["lstm"].values()):
        entry["precision"] = precision
    return load_config(config)


def _decode(path: Path) -> int:
    return pydicom.dcmread(path).pixel_array.size


def ingest(cohort: Cohort, folder: Path, name: str, reach: float | None) -> Iterator[Row]:
    """DICOM files to a shard."""
    rows = cohort.rows
    made = target, one = folder / "ours.h5", folder / "published.h5"
    paths = [cohort.dicom / a / b / f"{c}.dcm" for a, b, c in rows[list(UIDS)].to_numpy()]

    def ours() -> int:
        write_shard(rows, cohort.dicom, target, PROCESSES)
        flush(target)
        return len(rows)

    def theirs() -> int:
        published.ingest(rows, cohort.dicom, one)
        flush(one)
        return len(rows)

    def limit() -> int:
        with ProcessPoolExecutor(PROCESSES) as pool:
            return len(list(pool.map(_decode, paths, chunksize=16)))

    row = compare(
        *(f"DICOM → shard, {name}", "slices/s", reach),
        *(ours, theirs, (f"pydicom's decoding alone, {PROCESSES} processes", limit)),
        cold=paths,
        made=made,
    )
    yield replace(row, note=f"reading the files alone: {_disk_rate(paths):,.0f}")


def _disk_rate(paths: list[Path]) -> float:
    """Files a second from the disk, a few asked for at a time."""

    def read() -> int:
        with ThreadPoolExecutor(4) as pool:
            return sum(1 for _ in pool.map(Path.read_bytes, paths))

    return statistics.median(race({"disk": read}, cold=paths)["disk"])


def stored_size(cohort: Cohort, folder: Path, name: str, reach: float | None) -> Size:
    """Bytes of a shard, which is first found to be lossless."""
    ours, theirs = folder / "ours.h5", folder / "published.h5"
    write_shard(cohort.rows, cohort.dicom, ours, PROCESSES)
    _check_lossless(cohort, ours)
    published.ingest(cohort.rows, cohort.dicom, theirs)
    sizes = (path.stat().st_size / len(cohort.rows) / 1e3 for path in (ours, theirs))
    return Size(name, *sizes, reach)


def _check_lossless(cohort: Cohort, shard: Path) -> None:
    """Stops unless the shard holds the very Hounsfield units that were decoded."""
    with open_shard(shard) as file:
        uids = zip(*(file[name].asstr()[:] for name in UIDS), strict=True)
        for row, (study, series, sop) in enumerate(uids):
            decoded = read_slice(cohort.dicom / study / series / f"{sop}.dcm").pixels
            assert np.array_equal(file["pixels"][row], decoded), f"row {row} is not what was read"


def positives(cohort: Cohort, folder: Path) -> Iterator[Row]:
    """Positive slices of a shard to positives.h5."""
    shard, finished = folder / "many.h5", folder / "finished.h5"
    rows = repeat_shard(cohort, shard, 10_000)
    wanted = rows[rows[IMAGE_LABEL] == 1]
    copy_positives({"000": shard}, rows, finished)
    made = target, twice, copy = [folder / f"{name}.h5" for name in ("ours", "again", "copy")]

    def ours() -> int:
        return copy_positives({"000": shard}, rows, target)

    def again() -> int:
        with open_shard(shard) as file, h5py.File(twice, "w") as copied:
            pixels = create_pixels(copied)
            for _, study in wanted.groupby("StudyInstanceUID", sort=False):
                pixels.resize(len(pixels) + len(study), axis=0)
                pixels[-len(study) :] = np.stack([file["pixels"][row] for row in study["row"]])
        return len(wanted)

    def limit() -> int:
        shutil.copyfile(finished, copy)
        return len(wanted)

    yield compare(
        *("positives.h5", "slices/s", REACH["positives"], ours, again),
        ("copying the finished file", limit),
        "published: decoding and encoding again",
        made=made,
    )


def training_input(cohort: Cohort, folder: Path) -> Iterator[Row]:
    """Shards to the tensors of training batches, by a loading process and in the training's own."""
    shard, one = folder / "input.h5", folder / "input-published.h5"
    rows = repeat_shard(cohort, shard, 4000)
    published.ingest(cohort.rows, cohort.dicom, one)
    fabric = make_fabric("32-true", gpus=0, threads=1)
    section = cnn_sections(default_config())["resnext50"]
    order = np.random.default_rng(0).permutation(len(rows))

    stored = StoredPixels(shard)
    chunks = list(map(stored.chunk, rows["row"], rows[CHECKSUM]))

    def limit() -> int:
        return sum(1 for _ in map(unpack, chunks))

    for processes, where, note in (
        (1, "by one loading process", "at least 2,000 slices/s are to be reached"),
        (0, "by the training process", "as without a GPU"),
    ):

        def ours(processes=processes) -> int:
            slices = StoredSlices(rows.iloc[order], View.of(section), (0, 0))
            loader = SliceLoader(slices, section.batch_size, fabric, processes)
            return sum(len(x) for x, _ in loader)

        def theirs(processes=processes) -> int:
            slices = published.Slices(one, cohort.rows)
            return sum(len(x) for x, _ in published.slice_batches(slices, processes))

        yield compare(
            *(f"training input, {where}", "slices/s", REACH["input"], ours, theirs),
            ("decompressing chunks in memory", limit),
            note,
            cold=(shard, one),
        )


def cnn(cohort: Cohort, folder: Path, config: dict) -> Iterator[Row]:
    """Training steps and features of both CNNs at the published size.

    Args:
        cohort: the phantom.
        folder: for what is made.
        config: of `clotline.workflow.config.load_config`.
    """
    one = folder / "cnn-published.h5"
    rows = cohort.stored
    published.ingest(cohort.rows, cohort.dicom, one)
    for name, section in cnn_sections(config).items():
        fabric = make_fabric(section.precision, gpus=0, threads=os.cpu_count())
        yield _training(name, section, fabric, rows.iloc[:TRAINED], one, cohort)
        yield _features(name, section, fabric, rows.iloc[:EXTRACTED], one, cohort, folder)


def _training(name, section, fabric, rows, one, cohort) -> Row:
    view = View.of(section)

    def steps() -> Steps:
        torch.manual_seed(0)
        model = for_training(section)
        return Steps(model, section, 10**6, fabric)

    mine, bare = steps(), steps()
    loader = SliceLoader(StoredSlices(rows, view, (0, 0)), section.batch_size, fabric, 0)
    torch.manual_seed(0)
    theirs = published.network(section)
    their_optimizer = make_optimizer(section, theirs)
    batches = published.slice_batches(published.Slices(one, cohort.rows.iloc[:TRAINED]))
    tensors = list(itertools.islice(loader, TRAINED // section.batch_size))

    def ours() -> int:
        train_epoch(mine, loader, 1)
        return len(rows)

    def limit() -> int:
        _bare_steps(bare, tensors, fabric)
        return TRAINED

    return compare(
        *(f"training {name}", "slices/s", REACH[name][0], ours),
        lambda: published.train(theirs, their_optimizer, batches),
        ("the bare step on tensors in memory", limit),
        f"{section.input_size} × {section.input_size}, {_precision(fabric)}",
    )


def _bare_steps(steps: Steps, batches: list, fabric) -> None:
    """What no training can do without, on batches in memory."""
    model, optimizer = steps.model.train(), steps.optimizer
    for inputs, targets in batches:
        optimizer.zero_grad()
        fabric.backward(binary_cross_entropy_with_logits(model(inputs).float(), targets))
        optimizer.step()


def _precision(fabric) -> str:
    with fabric.autocast():
        mixed = torch.is_autocast_enabled("cpu")
    return "bfloat16 (mixed)" if mixed else "float32: this CPU has no bfloat16 units"


def _features(name, section, fabric, rows, one, cohort, folder) -> Row:
    torch.manual_seed(0)
    model = as_extractor(build_classifier(section), section.input_size)
    theirs = published.network(section)
    slices = StoredSlices(rows, View.of(section), None)
    loader = SliceLoader(slices, BATCH_SIZE, fabric, 0)
    published_slices = published.Slices(one, cohort.rows.iloc[:EXTRACTED])
    tensors = [x for x, _ in itertools.islice(loader, EXTRACTED // BATCH_SIZE)]

    def ours() -> int:
        extract_features(model, loader, folder / "features.h5", name, "0" * 64, fabric)
        return len(rows)

    def limit() -> int:
        with torch.no_grad(), fabric.autocast():
            for inputs in tensors:
                model.features(inputs)
        return EXTRACTED

    row = compare(
        *(f"features of {name}", "slices/s", REACH[name][1], ours),
        lambda: published.features(theirs, published_slices, folder / "features-published.h5"),
        ("the bare forward pass on tensors in memory", limit),
        _precision(fabric),
    )
    asked = row.reach * row.published * _operations(theirs, tensors[0][:1])
    needs = f"{row.reach}× would take {asked / 1e9:.0f} GFLOP/s"
    most = f"a product of large matrices reaches {_matrix_rate(fabric) / 1e9:.0f} here"
    return Row(**vars(row) | {"note": f"{row.note}; {needs}, and {most}"})


def _operations(model: Classifier, inputs: torch.Tensor) -> int:
    """Floating-point operations of a network's convolutions and products."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.features(inputs)
    return counter.get_total_flops()


def _matrix_rate(fabric) -> float:
    """Floating-point operations a second in what processors are best at."""
    side = 4096
    one, other = torch.randn(2, side, side)
    with fabric.autocast():
        seconds = min(seconds_of(lambda: len(one @ other))[0] for _ in range(ROUNDS))
    return 2 * side**3 / seconds


def lstm(folder: Path, config: dict) -> Iterator[Row]:
    """Training of an LSTM on both CNNs' features; arguments as of `cnn`."""
    # Batches enough for the first, which nothing is computed beside, not to count.
    count = 128
    studies, image_labels = make_studies(count, count * RSNA_STUDY_SLICES)
    files = [
        make_features(folder / f"{width}.h5", len(image_labels), width) for width in (1280, 2048)
    ]
    section = lstm_sections(config)["combined-image"]
    fabric = make_fabric(section.precision, gpus=0, threads=os.cpu_count())
    sequences = FeatureSequences(studies, files, "image", image_labels)

    def steps() -> Steps:
        return Steps(build_lstm(WIDTH, section, "image"), section, 10**6, fabric)

    mine, bare = steps(), steps()
    joined = folder / "joined.h5"
    _join(files, joined)
    names = publish_features(joined, studies, folder / "features-published.h5")
    spans = zip(studies["first"], studies["count"], strict=True)
    targets = [image_labels[first : first + n].astype(np.float32) for first, n in spans]
    theirs = _PublishedLSTM(section.hidden_size)
    their_optimizer = make_optimizer(section, theirs)
    their_studies = published.Studies(folder / "features-published.h5", names, targets)
    batches = published.study_batches(their_studies)
    tensors = list(sequences.batches(section.batch_size, fabric))

    def ours() -> int:
        order = np.random.default_rng(0).permutation(count)
        loader = sequences.batches(section.batch_size, fabric, order)
        train_epoch(mine, loader, 1)
        return count

    def limit() -> int:
        _bare_steps(bare, tensors, fabric)
        return count

    yield compare(
        *("training combined-image", "studies/s", REACH["lstm"], ours),
        lambda: published.train(theirs, their_optimizer, batches),
        ("the bare step on batches in memory", limit),
        f"studies of {RSNA_STUDY_SLICES} slices in the mean, {_precision(fabric)}",
    )


def _join(files: list[Path], path: Path) -> None:
    with h5py.File(path, "w") as target:
        parts = [h5py.File(file)["features"][:] for file in files]
        target["features"] = np.concatenate(parts, axis=1)


class _PublishedLSTM(torch.nn.Module):
    """The same network on plain (1, slices, width) tensors."""

    def __init__(self, hidden_size: int):
        super().__init__()
        self.lstm = torch.nn.LSTM(WIDTH, hidden_size, batch_first=True)
        self.linear = torch.nn.Linear(hidden_size, 1)

    def forward(self, features):
        return self.linear(self.lstm(features)[0])


def all_stages(cohort: Cohort, real: Cohort | None) -> Iterator[Row]:
    """Every stage's row, one after the other.

    Args:
        cohort: the phantom.
        real: real CT, where it is at hand.
    """
    stages = (
        lambda folder: ingest(cohort, folder, "phantom, uncompressed", REACH["ingest"]),
        *([lambda folder: ingest(real, folder, "real CT", None)] if real else []),
        lambda folder: positives(cohort, folder),
        lambda folder: training_input(cohort, folder),
        lambda folder: cnn(cohort, folder, default_config()),
        lambda folder: lstm(folder, default_config()),
    )
    for stage in stages:
        with tempfile.TemporaryDirectory(dir=cohort.folder) as folder:
            yield from stage(Path(folder))


def without_bfloat16(cohort: Cohort) -> dict[str, Row]:
    """Stage to its row again, of those that networks take part in, on a processor's AVX2 alone."""
    # oneDNN and torch read the variables once, so the process is a new one.
    with patch.dict(os.environ, AVX2), ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return {row.stage: row for row in pool.submit(_in_float32, cohort).result()}


def _in_float32(cohort: Cohort) -> list[Row]:
    # Asked for its units, the processor still names those for bfloat16.
    config = default_config("32-true")
    with tempfile.TemporaryDirectory(dir=cohort.folder) as folder:
        return [*cnn(cohort, Path(folder), config), *lstm(Path(folder), config)]


def all_sizes(cohort: Cohort, real: Cohort | None) -> Iterator[Size]:
    """What slices take on the disk; arguments as of `all_stages`."""
    found = {"phantom": (cohort, None)} | ({"real CT": (real, REACH["bytes"])} if real else {})
    for name, (scanned, reach) in found.items():
        with tempfile.TemporaryDirectory(dir=cohort.folder) as folder:
            yield stored_size(scanned, Path(folder), name, reach)
