"""Clusters for the tests: a real Grid Engine, a real Slurm, each of this one machine.

`make clusters` installs and starts them. Where one is not there its tests skip, and so they do
where another one is: they stop daemons. With CLOTLINE_NO_SKIP=1 a missing cluster is a failure.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from once import make_once

REPOSITORY = Path(__file__).resolve().parents[2]
PROFILES = REPOSITORY / "profiles"
HERE = Path(__file__).resolve().parent
SNAKEMAKE = Path(sys.executable).parent / "snakemake"

#: What the workflow's runs make, and the threads that keep torch's sums in one order everywhere.
TARGET = "all"
GPU_RULES = ("train_cnn", "extract_features", "activation")
SET_THREADS = [
    "--set-threads",
    *(f"{rule}=1" for rule in (*GPU_RULES, "shard", "phantom", "study_facts")),
]
CONFIG = """
phantom: {studies: 14, seed: 1, slices_min: 8, slices_max: 10}
data: {split: {train: 0.5, valid: 0.25, test: 0.25}}
cnn:
  resnext50: &backbone
    {init: random, input_size: 32, epochs: 1, lr: 0.01, schedule: one_cycle, precision: 32-true}
  efficientnet_b0: *backbone
lstm:
  resnext50-image: &lstm {epochs: 1}
  resnext50-study: *lstm
  efficientnet_b0-image: *lstm
  efficientnet_b0-study: *lstm
  combined-image: *lstm
  combined-study: *lstm
evaluation: {bootstraps: 100}
plots: {dpi: 50}
"""


def need(cluster: str, query: list[str], answer: str, environment: dict[str, str]) -> None:
    """Skips unless the cluster that the tests start is there, or fails where everything must be."""
    reason = f"{cluster} is not started here as make clusters does"
    try:
        done = subprocess.run(
            query,
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    except FileNotFoundError:
        reason = f"{cluster} is not installed here: make clusters installs it"
    else:
        if re.search(answer, done.stdout):
            return
    if os.environ.get("CLOTLINE_NO_SKIP"):
        pytest.fail(reason)
    pytest.skip(reason)


class Run:
    """One working directory with everything needed to start snakemake in it."""

    def __init__(self, folder: Path, options: list[str], environment: dict[str, str]):
        self.folder = folder
        self.options = options
        # The clusters' GPU is a number in their books: no card is there.
        self.environment = {**os.environ, "CLOTLINE_DEVICE": "cpu", **environment}
        folder.mkdir(parents=True, exist_ok=True)

    def command(self, *arguments: str) -> list[str]:
        return [str(SNAKEMAKE), *self.options, *arguments]

    def snakemake(self, *arguments: str, timeout: float = 900) -> subprocess.CompletedProcess:
        """A run to its end; standard output and error come together in ``stdout``."""
        process = self.start(*arguments)
        try:
            output, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            output, _ = process.communicate(timeout=60)
            pytest.fail(f"snakemake did not end within {timeout} s:\n{output[-6000:]}")
        return subprocess.CompletedProcess(process.args, process.returncode, output)

    def start(self, *arguments: str) -> subprocess.Popen:
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def call(self, *command: str) -> str:
        """A cluster's own command."""
        answer = subprocess.run(
            command,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return answer.stdout + answer.stderr

    def wait_for(self, condition, timeout: float = 60):
        """Waits until a condition holds and returns its value."""
        give_up = time.monotonic() + timeout
        while not (value := condition()):
            assert time.monotonic() < give_up, f"waited {timeout} s in vain"
            time.sleep(0.5)
        return value

    def exists(self, name: str):
        return lambda: (self.folder / name).exists()


def watched(folder: Path, *names: str) -> Path:
    """A folder for the front of PATH whose commands note each call and then run the real one."""
    folder.mkdir()
    for name in names:
        command = folder / name
        command.write_text(
            f'#!/bin/sh\necho "$(date +%s.%N) $*" >>{folder}/{name}.calls\n'
            f'exec {shutil.which(name)} "$@"\n'
        )
        command.chmod(0o755)
    return folder


def calls(folder: Path, name: str) -> list[tuple[float, str]]:
    """The calls noted: when, and with which arguments."""
    noted = folder / f"{name}.calls"
    lines = noted.read_text().splitlines() if noted.exists() else []
    return [(float(line.split(" ", 1)[0]), line.split(" ", 1)[1]) for line in lines]


def beginning_of(folder: Path, job: str):
    """A condition: the process of a job of this name that begins from now on."""
    noted = folder / ".clotline" / "running" / job
    earlier = noted.read_text()

    def process() -> int | None:
        text = noted.read_text()
        found = re.search(r"process (\d+) on \S", text)
        return int(found[1]) if found and text != earlier else None

    return process


def write_config(folder: Path) -> None:
    (folder / "config").mkdir(parents=True, exist_ok=True)
    (folder / "config" / "config.yaml").write_text(CONFIG)


@pytest.fixture(scope="session")
def local_run(common) -> Path:
    """The working directory of a finished run of the workflow without a cluster."""
    folder = common / "local"

    def make():
        write_config(folder)
        options = ["--profile", "profiles/local", "--directory", str(folder)]
        done = Run(REPOSITORY, options, {}).snakemake(*SET_THREADS, "--", TARGET)
        assert done.returncode == 0, done.stdout[-6000:]

    make_once(common, "local", make)
    return folder


def assert_same_artifacts(folder: Path, other: Path) -> None:
    """Compares all results of two working directories bit by bit.

    But for the report, which says how long the jobs took.
    """
    found, expected = (
        {path.relative_to(f) for path in (f / "results").rglob("*")} for f in (folder, other)
    )
    assert found == expected
    files = [n for n in found if (folder / n).is_file() and n.name != "report.html"]
    assert len(files) > 40
    differ = [n for n in files if (folder / n).read_bytes() != (other / n).read_bytes()]
    assert differ == []


GRIDENGINE = {"SGE_ROOT": "/var/lib/gridengine", "SGE_CELL": "default"}


@pytest.fixture(scope="session")
def gridengine(tmp_path_factory) -> dict[str, str]:
    """Environment variables with which the Grid Engine of this machine is used."""
    need("Grid Engine", ["qconf", "-sql"], r"\Acpu\.q\ngpu\.q\n\Z", GRIDENGINE)
    # The site file as it stands, but waiting is shorter, and shards are read on the node's disk.
    site = tmp_path_factory.mktemp("site") / "site.ini"
    text = (PROFILES / "sge" / "site.ini").read_text()
    for old, new in (("seconds = 10", "seconds = 2"), ("scratch =", "scratch = $TMPDIR")):
        assert f"\n{old}\n" in text
        text = text.replace(f"\n{old}\n", f"\n{new}\n")
    site.write_text(text)
    return {**GRIDENGINE, "CLOTLINE_SITE": str(site)}


def accounts(text: str) -> dict[str, dict[str, str]]:
    """Qacct's records by job number, read without any code of the profile."""
    records = {}
    for block in re.split(r"^={62}$", text, flags=re.M)[1:]:
        lines = [line.split(None, 1) for line in block.splitlines() if line.strip()]
        record = {line[0]: line[1].strip() if len(line) > 1 else "" for line in lines}
        records[record["jobnumber"]] = record
    return records


def submitted_jobs(folder: Path) -> dict[str, dict]:
    """What the profile remembers of a working directory's jobs, by job number."""
    records = (folder / ".clotline" / "gridengine" / "jobs").glob("*.json")
    return {record["id"]: record for record in (json.loads(r.read_text()) for r in records)}
