"""Memory whatever the size, cost in proportion to it, and what a second process is worth."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import psutil
import torch

from bench import PROJECT
from bench.data import (
    PROCESSES,
    RSNA_SLICES,
    RSNA_STUDIES,
    RSNA_STUDY_SLICES,
    WIDTH,
    Cohort,
    make_features,
    make_studies,
    repeat_shard,
)
from bench.race import ROUNDS, race, seconds_of
from bench.stages import default_config
from clotline.data.features_file import merge_features
from clotline.data.ingest import write_shard
from clotline.data.positives import copy_positives
from clotline.loading.preprocessing import View
from clotline.loading.slice_loader import SliceLoader, StoredSlices
from clotline.loading.study_loader import FeatureSequences
from clotline.models.backbones import build_classifier
from clotline.models.devices import make_fabric
from clotline.models.extractor import as_extractor
from clotline.models.features import BATCH_SIZE, extract_features
from clotline.models.lstm import build_lstm
from clotline.models.steps import Steps
from clotline.models.training import train_epoch
from clotline.sections.cnn import cnn_sections
from clotline.sections.lstm import lstm_sections

SIZES = (1, 4, 16)
MB = 1_000_000


@dataclass(frozen=True)
class Memory:
    """The most memory that a job held, all its processes together, shared pages counted once.

    Attributes:
        job: what it does.
        peak_mb: in MB.
        reach_mb: what it must not exceed.
        seconds: how long the job took.
    """

    job: str
    peak_mb: float
    reach_mb: float
    seconds: float


def measure_memory(job: str, reach_mb: float, part: str, *arguments: str) -> Memory:
    """Runs a function of this module in a process of its own and watches its memory.

    Args:
        job: what it does, in words.
        reach_mb: what it must not exceed, in MB.
        part: the function's name.
        arguments: its arguments.
    """
    code = f"import sys; from bench import scale; scale.{part}(*sys.argv[1:])"
    start, peak = time.perf_counter(), 0
    process = psutil.Popen([sys.executable, "-c", code, *arguments], cwd=PROJECT)
    while process.poll() is None:
        peak = max(peak, sum(map(_held, [process, *_children(process)])))
        time.sleep(0.05)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, job)
    return Memory(job, peak / MB, reach_mb, time.perf_counter() - start)


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _held(process: psutil.Process) -> int:
    try:
        return process.memory_full_info().pss
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        return 0


def shard_job(folder: str, count: str) -> None:
    """Decodes ``count`` slices of a cohort's folder."""
    import pandas as pd

    rows = pd.read_parquet(Path(folder, "rows.parquet")).iloc[: int(count)]
    write_shard(rows, Path(folder, "dicom"), Path(folder, "memory.h5"), PROCESSES)


def merge_job(target: str, *parts: str) -> None:
    """Joins features files."""
    merge_features(list(parts), target)


def lstm_job(files: str, studies: str, slices: str, epochs: str = "1") -> None:
    """Trains the image-level LSTM for some epochs on a cohort of the given size."""
    table, labels = make_studies(int(studies), int(slices))
    epoch = LSTMEpoch(table, labels, files.split(","), threads=os.cpu_count())
    for _ in range(int(epochs)):
        epoch()


class LSTMEpoch:
    """One epoch of training combined-image, as often as it is called."""

    def __init__(self, studies, image_labels: np.ndarray, files: list[str], threads: int = 1):
        section = lstm_sections(default_config())["combined-image"]
        self._fabric = make_fabric(section.precision, gpus=0, threads=threads)
        self._sequences = FeatureSequences(studies, files, "image", image_labels)
        self._batch_size = section.batch_size
        torch.manual_seed(0)
        model = build_lstm(self._sequences.width, section, "image")
        self._steps = Steps(model, section, 10**6, self._fabric)

    def __call__(self) -> int:
        """Trains; gives the number of studies."""
        order = np.random.default_rng(0).permutation(len(self._sequences))
        batches = self._sequences.batches(self._batch_size, self._fabric, order)
        train_epoch(self._steps, batches, epoch=1)
        return len(self._sequences)


def memory(cohort: Cohort, folder: Path, full_size: bool) -> list[Memory]:
    """Peak memory of the jobs whose input grows with the data set.

    Args:
        cohort: to decode.
        folder: for what is made; full-size features take 12 GB.
        full_size: whether the features are as many as RSNA's, or a twentieth of that.
    """
    cohort.rows.to_parquet(cohort.folder / "rows.parquet")
    found = []
    for count in (len(cohort.rows) // 4, len(cohort.rows)):
        job = f"shard of {count:,} slices, {PROCESSES} processes"
        found.append(measure_memory(job, 1500, "shard_job", str(cohort.folder), str(count)))
    slices = RSNA_SLICES if full_size else RSNA_SLICES // 20
    studies = RSNA_STUDIES if full_size else RSNA_STUDIES // 20
    parts = [make_features(folder / f"part-{n}.h5", slices // 2, 2048) for n in range(2)]
    merged = folder / "2048.h5"
    job = f"merging {slices:,} × 2,048 features"
    found.append(measure_memory(job, 1000, "merge_job", str(merged), *map(str, parts)))
    for part in parts:
        part.unlink()
    slices = slices // 2 * 2
    files = [make_features(folder / "1280.h5", slices, 1280), merged]
    job = f"one LSTM epoch on {studies:,} studies, {slices:,} × {WIDTH:,} features"
    arguments = [",".join(map(str, files)), str(studies), str(slices)]
    found.append(measure_memory(job, 4000, "lstm_job", *arguments))
    return found


@dataclass(frozen=True)
class Growth:
    """How a stage's cost grows with its input.

    Attributes:
        stage: which one.
        unit: what is counted.
        counts: units at each size.
        seconds: median time at each size.
    """

    stage: str
    unit: str
    counts: list[int]
    seconds: list[float]

    @property
    def exponent(self) -> float:
        """Slope of the logarithm of time over that of size: 1 is proportion."""
        return float(np.polyfit(np.log(self.counts), np.log(self.seconds), 1)[0])


def _features_job(rows, folder: Path, name: str = "features.h5") -> Callable[[], int]:
    section = replace(cnn_sections(default_config())["efficientnet_b0"], input_size=64)
    fabric = make_fabric(section.precision, gpus=0, threads=1)
    torch.manual_seed(0)
    model = as_extractor(build_classifier(section), section.input_size)
    loader = SliceLoader(StoredSlices(rows, View.of(section), None), BATCH_SIZE, fabric, 0)

    def extract() -> int:
        extract_features(model, loader, folder / name, "efficientnet_b0", "0" * 64, fabric)
        return len(rows)

    return extract


def growth(cohort: Cohort, folder: Path) -> list[Growth]:
    """The cost of each stage at 1, 4 and 16 times a size."""
    most = max(SIZES)
    per_study = cohort.rows.groupby("StudyInstanceUID").size().iloc[0]
    whole = len(cohort.rows) // per_study // most * per_study
    tables = {n: repeat_shard(cohort, folder / f"{n}.h5", 1000 * n) for n in SIZES}
    features = make_features(folder / "f.h5", 16 * most * RSNA_STUDY_SLICES, WIDTH)

    def ingest(n: int) -> Callable[[], int]:
        rows = cohort.rows.iloc[: n * whole]

        def run() -> int:
            write_shard(rows, cohort.dicom, folder / "ingest.h5", PROCESSES)
            return len(rows)

        return run

    def positives(n: int) -> Callable[[], int]:
        def run() -> int:
            # A new file, as the workflow's: writing over one waits for the disk.
            (folder / "p.h5").unlink(missing_ok=True)
            return copy_positives({"000": folder / f"{n}.h5"}, tables[n], folder / "p.h5")

        return run

    def extract(n: int) -> Callable[[], int]:
        return _features_job(tables[most].iloc[: 250 * n], folder)

    studies, labels = make_studies(16 * most, 16 * most * RSNA_STUDY_SLICES)

    def lstm(n: int) -> Callable[[], int]:
        return LSTMEpoch(studies.iloc[: 16 * n], labels, [features])

    stages = (
        ("DICOM → shard", "slices", ingest),
        ("positives.h5", "slices", positives),
        ("features, EfficientNet-B0 at 64 × 64", "slices", extract),
        ("LSTM training", "studies", lstm),
    )
    return [_grow(stage, unit, make) for stage, unit, make in stages]


def _grow(stage: str, unit: str, make: Callable[[int], Callable[[], int]]) -> Growth:
    jobs = {n: make(n) for n in SIZES}
    counts = {n: job() for n, job in jobs.items()}
    times = {n: [] for n in SIZES}
    for _ in range(3):
        for n, job in jobs.items():
            times[n].append(seconds_of(job)[0])
    return Growth(stage, unit, list(counts.values()), [float(np.median(times[n])) for n in SIZES])


@dataclass(frozen=True)
class Parallel:
    """What two processes do against one.

    Attributes:
        stage: which one.
        speedup: median ratio of the rates.
    """

    stage: str
    speedup: float


def parallel(cohort: Cohort, folder: Path) -> list[Parallel]:
    """Two processes against one on each stage that a CPU does, each with a core of its own.

    A job has as many cores as it has threads. With a core too many, the process that writes a
    shard would work beside a single one that decodes.
    """
    shard = folder / "ingest.h5"

    def ingest(workers: int) -> Callable[[], int]:
        def run() -> int:
            with _cores(range(workers)):
                write_shard(cohort.rows, cohort.dicom, shard, workers)
            return len(cohort.rows)

        return run

    rows = repeat_shard(cohort, folder / "slices.h5", 1000)
    rows.to_parquet(folder / "slices.parquet")
    make_features(folder / "f.h5", 64 * RSNA_STUDY_SLICES, WIDTH)

    # Spawned: torch's threads do not survive a fork.
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:

        def jobs(part: str, count: int) -> Callable[[], int]:
            def run() -> int:
                return sum(pool.map(_part, [part] * count, [str(folder)] * count, range(count)))

            return run

        return [
            Parallel(stage, _speedup(race({"two": two, "one": one}, ROUNDS, made=[shard])))
            for stage, one, two in (
                ("DICOM → shard", ingest(1), ingest(2)),
                ("features of two shards", jobs("features", 1), jobs("features", 2)),
                ("training of two LSTMs", jobs("lstm", 1), jobs("lstm", 2)),
            )
        ]


def _speedup(rates: dict[str, list[float]]) -> float:
    pairs = zip(rates["two"], rates["one"], strict=True)
    return float(np.median([two / one for two, one in pairs]))


@contextmanager
def _cores(numbers: Iterable[int]) -> Iterator[None]:
    """Keeps what is done within, and the processes started there, to some of this one's cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, [sorted(before)[number] for number in numbers])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _part(part: str, folder: str, number: int) -> int:
    import pandas as pd

    with _cores([number]):
        if part == "features":
            rows = pd.read_parquet(Path(folder, "slices.parquet"))
            return _features_job(rows, Path(folder), f"features-{number}.h5")()
        studies, labels = make_studies(64, 64 * RSNA_STUDY_SLICES)
        return LSTMEpoch(studies, labels, [Path(folder, "f.h5")])()
