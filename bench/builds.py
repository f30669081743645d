"""Speed beside an earlier build: both in processes of their own, in turns, on the same data."""

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import pandas as pd

from bench import AVX2, PROJECT, data, overhead, published, realct
from bench.overhead import Cost
from bench.race import ROUNDS, Ratio, flush, race, ratio
from clotline.errors import ClotlineError
from clotline.labels import STUDY_LABELS, STUDY_UID, UIDS

OURS, EARLIER, PUBLISHED = "ours", "the earlier build", "the published way"

#: Ratios to be reached. Of ingest to the earlier build and to the published way.
INGEST = {
    "uncompressed": (1, None),
    "JPEG Lossless": (3, 6),
    "JPEG-LS": (1.6, None),
    "RLE": (3, None),
    "HTJ2K": (None, None),
}
ONE_STUDY, SECOND_STUDY, START, DRY_RUN, VIEWER_BYTES = 0.5, 0.35, 0.6, 0.6, 0.6

#: How often each real study is stored: a pool of processes starts once for all of a shard's slices.
COPIES = 4

#: What the viewer is measured on.
STUDIES, SLICES = 20, 300


@dataclass(frozen=True)
class Build:
    """A checkout of Clotline with an environment of its own.

    Attributes:
        folder: of the checkout.
        python: its interpreter.
    """

    folder: Path
    python: Path

    @classmethod
    def at(cls, folder: Path) -> "Build":
        """The build of a checkout whose environment is in ``.venv``."""
        return cls(folder.resolve(), folder.resolve() / ".venv/bin/python")

    @property
    def commit(self) -> str:
        """The commit that is checked out."""
        command = ["git", "-C", self.folder, "rev-parse", "--short", "HEAD"]
        answer = subprocess.run(command, check=True, capture_output=True, encoding="utf-8")
        return answer.stdout.strip()

    @property
    def environment(self) -> dict[str, str]:
        """The environment of its processes: nothing of this one's Python."""
        kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
        return kept | {"PATH": f"{self.python.parent}:{os.environ['PATH']}"}


class Comparison(NamedTuple):
    """A table's worth of what was measured.

    Attributes:
        title: of the table.
        ratios: to the earlier build.
        costs: what is to stay below a limit of its own.
        went: where the time went, a line each.
    """

    title: str
    ratios: list[Ratio]
    costs: Sequence[Cost] = ()
    went: Sequence[str] = ()


#: This build.
PRESENT = Build(PROJECT, Path(sys.executable))


# DICOM files to shards


#: Stores a shard for each line of input, a folder of DICOM files and the shard's path: what both
#: builds' benchmarks call in one way, so that nothing depends on where their modules lie. Answers
#: with the number of slices, or with why there are none.
_INGEST = """
import json, os, sys
from pathlib import Path
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
from bench import data
from clotline.errors import ClotlineError
for line in sys.stdin:
    realct, target = map(Path, json.loads(line))
    cohort = data.real_cohort(realct, target.parent)
    try:
        rejects, _ = data.write_shard(cohort.rows, cohort.dicom, target, data.PROCESSES)
        answer = len(cohort.rows) - len(rejects)
    except ClotlineError as error:
        answer = str(error)
    print(json.dumps(answer), file=answers, flush=True)
"""


@contextmanager
def _ingesting(build: Build) -> Iterator[Callable[[Path, Path], int]]:
    """A process of the build that waits for its turns: its start is measured elsewhere."""
    with subprocess.Popen(
        [build.python, "-c", _INGEST],
        cwd=build.folder,
        env=build.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    ) as process:

        def ask(realct: Path, target: Path) -> int:
            print(json.dumps([str(realct), str(target)]), file=process.stdin, flush=True)
            answer = process.stdout.readline()
            assert answer, f"the ingest of {build.folder} ended"
            stored = json.loads(answer)
            if isinstance(stored, str):
                raise ClotlineError(stored)
            return stored

        yield ask
        process.stdin.close()


def ingest(
    encoded: dict[str, Path], folder: Path, earlier: Build, rounds: int = ROUNDS
) -> Iterator[Ratio]:
    """DICOM files to shards in each encoding, beside the earlier build and the published way.

    Args:
        encoded: of `bench.realct.encode`.
        folder: for the shards.
        earlier: the other build.
        rounds: turns of each.

    Raises:
        AssertionError: the shards of the two builds differ in a pixel.
    """
    with ExitStack() as stack:
        builds = {OURS: PRESENT, EARLIER: earlier}
        asks = {who: stack.enter_context(_ingesting(build)) for who, build in builds.items()}
        for name, dicom in encoded.items():
            yield from _ingest(name, dicom, folder, asks, rounds)


def _ingest(name: str, dicom: Path, folder: Path, asks: dict, rounds: int) -> Iterator[Ratio]:
    """As `ingest`, of one encoding."""
    cohort = data.real_cohort(dicom, folder)
    shards = {who: folder / f"{who}.h5" for who in (*asks, PUBLISHED)}

    def store(who: str) -> int:
        if who == PUBLISHED:
            stored = published.ingest(cohort.rows, cohort.dicom, shards[who])
        else:
            stored = asks[who](dicom, shards[who])
        flush(shards[who])
        return stored

    refused = {}
    for who in shards:
        try:
            stored = store(who)
            assert stored == len(cohort.rows), f"{who} stores {stored} of {len(cohort.rows)}"
        # Of what is said the reason, not which folder it was, nor pydicom's line for each decoder.
        except (ClotlineError, RuntimeError) as error:
            refused[who] = str(error).partition(". Is ")[0].splitlines()[0].rstrip(":")
    same = ""
    if EARLIER not in refused:
        _check_equal(shards[OURS], shards[EARLIER])
        same = f"the same pixels in {len(cohort.rows):,} slices"
    contestants = {who: partial(store, who) for who in shards if who not in refused}
    paths = sorted((dicom / "train").rglob("*.dcm"))
    rates = race(contestants, rounds, cold=paths, made=[shards[who] for who in contestants])
    what = f"DICOM → shard, real CT, {name}, {data.PROCESSES} cores"
    for who, reach, note in zip((EARLIER, PUBLISHED), INGEST[name], (same, ""), strict=True):
        note = refused.get(who, note)
        yield ratio(what, "slices/s", rates[OURS], who, rates.get(who), reach, note)


def _check_equal(one: Path, other: Path) -> None:
    """Stops unless two shards have the same slices in the same order, bit by bit."""
    with h5py.File(one) as a, h5py.File(other) as b:
        for name in UIDS:
            assert np.array_equal(a[name][:], b[name][:]), f"{name} differs"
        for row in range(len(a["pixels"])):
            assert np.array_equal(a["pixels"][row], b["pixels"][row]), f"row {row} differs"


# New studies


@dataclass(frozen=True)
class Prediction:
    """A build that applies a bundle to the studies of a folder, from the command to the viewer.

    Attributes:
        build: it.
        bundle: models in a format that it reads.
        new: the studies.
        folder: its working directory, made anew each time.
    """

    build: Build
    bundle: Path
    new: Path
    folder: Path

    def __call__(self) -> int:
        """Runs it; 1, so that rates are those of runs.

        Raises:
            RuntimeError: Snakemake failed, with the end of what it said.
        """
        shutil.rmtree(self.folder, ignore_errors=True)
        (self.folder / "config").mkdir(parents=True)
        # The earlier build asks for the file.
        (self.folder / "config/config.yaml").write_text("seed: 2020\n", encoding="utf-8")
        checkout = self.build.folder
        command = [self.build.python, "-m", "snakemake", "--snakefile", checkout / "Snakefile"]
        command += ["--profile", checkout / "profiles/local", "--directory", self.folder]
        command += ["--cores", data.PROCESSES, "predict", "--config", f"predict={self.new}"]
        done = subprocess.run(
            [*map(str, command), f"models={self.bundle}"],
            cwd=self.folder,
            env=self.build.environment | AVX2,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
        )
        if done.returncode or not (self.viewer / "index.html").exists():
            raise RuntimeError(f"{checkout} does not predict: {done.stdout[-3000:]}")
        return 1

    @property
    def viewer(self) -> Path:
        """The viewer's folder."""
        return self.folder / "results/predict/viewer"

    def slices(self) -> list[int]:
        """How many each study has."""
        table = pd.read_csv(self.folder / "results/predict/predictions.csv")
        return table.groupby(STUDY_UID)["slices"].first().tolist()

    def probabilities(self) -> pd.DataFrame:
        """Study and model to the probabilities of the nine labels.

        Not of PE: builds may conclude it from the labels in different ways.
        """
        table = pd.read_csv(self.folder / "results/predict/predictions.csv")
        return table.set_index([STUDY_UID, "model"])[list(STUDY_LABELS)].sort_index()

    def phases(self, seconds: float) -> str:
        """Where the seconds of the last run went: each job's, and what is left."""
        found = {
            path.stem: float(pd.read_csv(path, sep="\t")["s"].iloc[0])
            for path in sorted((self.folder / "benchmarks").glob("*.tsv"))
        }
        found["Snakemake and starts"] = seconds - sum(found.values())
        told = ", ".join(f"{name} {value:.1f}" for name, value in found.items())
        logs = (path.read_text(encoding="utf-8") for path in (self.folder / "logs").glob("*.log"))
        # As `clotline.job.phases` says it, of the job that applies the models.
        took = re.findall(r"took [\d.]+ s: start .*", "\n".join(logs))
        return "; ".join([told, *(f"of it the models {line}" for line in took)])


def first_version(bundle: Path, path: Path) -> Path:
    """The same networks in a bundle of version 1, which knows nothing of its training data."""
    with zipfile.ZipFile(bundle) as source, zipfile.ZipFile(path, "w") as target:
        manifest = json.loads(source.read("manifest.json"))
        kept = {k: v for k, v in manifest["members"].items() if not k.startswith("seen/")}
        target.writestr("manifest.json", json.dumps(manifest | {"version": 1, "members": kept}))
        for name in kept:
            target.writestr(name, source.read(name))
    return path


def predict(
    realct_folder: Path, bundle: Path, folder: Path, earlier: Build, rounds: int = ROUNDS
) -> tuple[list[Ratio], list[str]]:
    """New real studies, one and two in a folder; a second one costs what the two take beyond one.

    Args:
        realct_folder: data in the competition's layout.
        bundle: models of this build.
        folder: an empty one.
        earlier: the other build.
        rounds: turns of each.

    Returns:
        Ratios of seconds, and where they went, a line a build.

    Raises:
        AssertionError: the builds' probabilities differ by more than rounding.
    """
    bundles = {OURS: bundle, EARLIER: first_version(bundle, folder / "version-1.zip")}
    studies = realct.predictable(realct_folder)
    runs = {}
    for count in (1, 2):
        new = folder / f"new-{count}"
        for study in studies[:count]:
            shutil.copytree(study, new / study.name)
        for who, build in ((OURS, PRESENT), (EARLIER, earlier)):
            work = folder / f"{who}-{count}"
            runs[who, count] = Prediction(build, bundles[who], new, work)
    rates = race(runs, rounds)
    seconds = {run: [1 / rate for rate in found] for run, found in rates.items()}
    for who in (OURS, EARLIER):
        pairs = zip(seconds[who, 1], seconds[who, 2], strict=True)
        seconds[who, "second"] = [two - one for one, two in pairs]
    ours, theirs = (runs[who, 2].probabilities() for who in (OURS, EARLIER))
    assert ours.index.equals(theirs.index), "the builds predict other studies"
    worst = float((ours - theirs).abs().max(axis=None))
    assert worst < 0.001, f"probabilities of labels differ by {worst}"
    slices = sum(1 for _ in studies[0].rglob("*.dcm"))
    ratios = [
        ratio(what, "s", seconds[OURS, which], EARLIER, seconds[EARLIER, which], reach, note)
        for what, which, reach, note in (
            (f"predict, a real study of {slices} slices", 1, ONE_STUDY, "from the command"),
            (
                "predict, two in a folder",
                2,
                None,
                f"labels' probabilities differ by {worst:.1g} at most",
            ),
            ("predict, the second of them", "second", SECOND_STUDY, "two beyond one"),
        )
    ]
    went = [
        f"{who}, {count} in a folder: {runs[who, count].phases(seconds[who, count][-1])}"
        for who in (OURS, EARLIER)
        for count in (1, 2)
    ]
    return ratios, went


# The viewer


#: From the first slice to the last, as fast as they are drawn; milliseconds a slice.
_SCROLL = """
async (slices) => {
  const image = document.getElementById("image");
  const press = (key) => document.dispatchEvent(new KeyboardEvent("keydown", {key}));
  const drawn = async () => {
    do await new Promise(requestAnimationFrame); while (Number(image.dataset.drawn) !== drawing);
  };
  press("Home");
  await drawn();
  const begin = performance.now();
  for (let slice = 1; slice < slices; slice++) {
    press("ArrowUp");
    await drawn();
  }
  return (performance.now() - begin) / (slices - 1);
}
"""


def viewer(
    cohort: data.Cohort,
    bundle: Path,
    folder: Path,
    earlier: Build,
    rounds: int = ROUNDS,
    size: tuple[int, int] = (STUDIES, SLICES),
) -> tuple[list[Ratio], list[Cost]]:
    """The viewer of tall real studies: bytes, and in Chromium the first study and scrolling.

    Args:
        cohort: real CT.
        bundle: models of this build.
        folder: an empty one.
        earlier: the other build.
        rounds: times that each page is opened.
        size: studies, and slices of each.

    Raises:
        AssertionError: a build does not show them all.
    """
    realct.write_tall(cohort, folder / "tall", *size)
    found = {}
    for who, build, models in (
        (OURS, PRESENT, bundle),
        (EARLIER, earlier, first_version(bundle, folder / "version-1.zip")),
    ):
        run = Prediction(build, models, folder / "tall", folder / who)
        run()
        assert run.slices() == [size[1]] * size[0], f"{who} leaves out slices: {run.slices()}"
        files = [path for path in run.viewer.rglob("*") if path.is_file()]
        # Those two are not the page's: the job that makes it reads them.
        pages = [path for path in files if path.name not in ("selection.json", "slices.parquet")]
        megabytes = sum(path.stat().st_size for path in pages) / 1e6
        found[who] = run.viewer, megabytes
    opened: dict[str, list[float]] = {who: [] for who in found}
    scrolled: dict[str, list[float]] = {who: [] for who in found}
    for turn in range(rounds + 1):
        for who, (page, _) in found.items():
            first, step = _look_at(page / "index.html", size[1])
            if turn:
                opened[who].append(first)
                scrolled[who].append(step)
    named = f"the viewer of {size[0]} studies of {size[1]} slices"
    mb = [[megabytes] for _, megabytes in found.values()]
    ratios = [
        ratio(f"{named}, bytes", "MB", mb[0], EARLIER, mb[1], VIEWER_BYTES),
        ratio(f"{named}, first study", "s", opened[OURS], EARLIER, opened[EARLIER], None),
        ratio(f"{named}, scrolling", "ms/slice", scrolled[OURS], EARLIER, scrolled[EARLIER], None),
    ]
    costs = [
        Cost("first study visible from file://", statistics.median(opened[OURS]), 1, "s"),
        Cost("scrolling", statistics.median(scrolled[OURS]), 33.3, "ms/slice", "30 frames/s"),
    ]
    return ratios, costs


def _look_at(page: Path, slices: int) -> tuple[float, float]:
    """Seconds until a browser shows the first study, and milliseconds a slice in scrolling."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    # Chromium's sandbox does not work for root.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        tab = browser.new_page(viewport={"width": 1400, "height": 900})
        begin = time.perf_counter()
        tab.goto(page.resolve().as_uri())
        tab.wait_for_selector("#image[data-drawn]")
        first = time.perf_counter() - begin
        step = tab.evaluate(_SCROLL, slices)
        browser.close()
    return first, step


# Start-up


def dry_runs(folder: Path, earlier: Build, rounds: int = ROUNDS) -> tuple[list[Ratio], list[Cost]]:
    """The first dry run at RSNA's size: seconds and peak memory.

    Args:
        folder: an empty one.
        earlier: the other build.
        rounds: turns of each.
    """
    data.write_rsna_sized_labels(folder / "train.csv")
    memory: dict[str, list[float]] = {OURS: [], EARLIER: []}

    def first(who: str, build: Build) -> int:
        work = folder / who
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        os.link(folder / "train.csv", work / "train.csv")
        command = overhead.dry_run_command(work)
        memory[who].append(overhead.measured(command, build.python, build.folder)[1])
        return 1

    rates = race(
        {OURS: lambda: first(OURS, PRESENT), EARLIER: lambda: first(EARLIER, earlier)}, rounds
    )
    seconds = {who: [1 / rate for rate in found] for who, found in rates.items()}
    what = "first dry run of the whole RSNA set"
    peaks = {who: found[1:] for who, found in memory.items()}
    ratios = [
        ratio(what, "s", seconds[OURS], EARLIER, seconds[EARLIER], DRY_RUN),
        ratio(f"{what}, memory", "MB", peaks[OURS], EARLIER, peaks[EARLIER], None),
    ]
    return ratios, [Cost(f"{what}, memory", statistics.median(peaks[OURS]), 300, "MB")]


def training_start(earlier: Build, rounds: int = ROUNDS) -> Ratio:
    """What a CNN's training imports before its first step."""

    def start(build: Build) -> int:
        overhead.measured(["-c", overhead.IMPORTS], build.python, build.folder)
        return 1

    rates = race({OURS: lambda: start(PRESENT), EARLIER: lambda: start(earlier)}, rounds)
    ours, theirs = ([1 / rate for rate in rates[who]] for who in (OURS, EARLIER))
    return ratio("imports of a CNN's training", "s", ours, EARLIER, theirs, START)


def all_comparisons(
    realct_folder: Path,
    bundle: Path,
    folder: Path,
    earlier: Build,
    rounds: int = ROUNDS,
    full_size: bool = True,
) -> Iterator[Comparison]:
    """Everything, a table's worth at a time.

    Args:
        realct_folder: data in the competition's layout.
        bundle: models of this build.
        folder: an empty one.
        earlier: the other build.
        rounds: turns of each.
        full_size: all studies, and the viewer's in full; else one, and a few short ones.
    """

    def place(name: str) -> Path:
        path = folder / name
        path.mkdir()
        return path

    studies = sorted(path.name for path in (realct_folder / "train").iterdir())
    studies = studies if full_size else studies[:1]
    copies = COPIES if full_size else 1
    encoded = realct.encode(realct_folder, place("encoded"), studies, copies=copies)
    found = list(ingest(encoded, place("ingest"), earlier, rounds))
    yield Comparison("DICOM files to shards beside an earlier build", found)
    ratios, went = predict(realct_folder, bundle, place("predict"), earlier, rounds)
    yield Comparison("New studies beside an earlier build", ratios, went=went)
    cohort = data.real_cohort(realct_folder, place("cohort"))
    size = (STUDIES, SLICES) if full_size else (2, 40)
    ratios, costs = viewer(cohort, bundle, place("viewer"), earlier, rounds, size)
    yield Comparison("The viewer beside an earlier build", ratios, costs)
    ratios, costs = dry_runs(place("dry"), earlier, rounds)
    ratios.append(training_start(earlier, rounds))
    yield Comparison("Start-up beside an earlier build", ratios, costs)
