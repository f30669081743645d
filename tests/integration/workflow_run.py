"""Runs snakemake as a user would, in working directories of the tests' own."""

import csv
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from clotline.job.files import sha256

PROJECT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Run:
    """A working directory and the workflow that runs in it."""

    project: Path
    folder: Path

    def snakemake(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess:
        """Runs snakemake as a user would; its output is kept as text."""
        process = self.start(*arguments)
        output, errors = process.communicate()
        done = subprocess.CompletedProcess(process.args, process.returncode, output, errors)
        if check and done.returncode:
            raise AssertionError(f"snakemake failed:\n{done.stdout}\n{done.stderr}")
        return done

    def start(self, *arguments: str, **options) -> subprocess.Popen:
        """Starts snakemake, the leader of a process group of its own; options are of `Popen`."""
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "snakemake", "--snakefile", self.project / "Snakefile"),
                *("--workflow-profile", self.project / "profiles/default"),
                *("--directory", self.folder, *arguments),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.project,
            env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
            start_new_session=True,
            **options,
        )

    def build(self, *targets: str, check: bool = True) -> subprocess.CompletedProcess:
        """Makes targets with the local profile."""
        return self.snakemake(*self.local(*targets), check=check)

    def local(self, *targets: str) -> tuple[str, ...]:
        """The arguments with which ``targets`` are made on this machine."""
        return "--profile", str(self.project / "profiles/local"), *targets

    def to_be_made(self, *arguments: str, target: str = "all") -> set[str]:
        """The files that a dry run would make."""
        # The target first: options that take several values would swallow it.
        summary = self.snakemake(target, "--summary", *arguments).stdout
        table = summary[summary.index("output_file\t") :]
        rows = csv.DictReader(io.StringIO(table), delimiter="\t")
        return {row["output_file"] for row in rows if row["plan"] == "update pending"}


def write_config(run: Run, text: str) -> None:
    """Gives a working directory its configuration."""
    (run.folder / "config").mkdir(parents=True, exist_ok=True)
    (run.folder / "config/config.yaml").write_text(text)


def copy_project(target: Path) -> Path:
    """A copy of the workflow whose code a test may change."""
    for name in ("workflow", "profiles", "envs"):
        shutil.copytree(PROJECT / name, target / name)
    shutil.copy(PROJECT / "Snakefile", target)
    return target


#: Another process of the tests may be looking whether anything is to be made there.
LOCKS = shutil.ignore_patterns("locks")


def copy_folder(source: Path, target: Path, there: Callable[[Path], bool]) -> None:
    """A copy of a working directory with those of its results alone for which ``there`` says so.

    Of none, it is a working directory in which nothing was run yet.
    """
    shutil.copytree(source / "config", target / "config")
    results = [path for path in (source / "results").rglob("*") if path.is_file()]
    kept = [path for path in results if there(path.relative_to(source / "results"))]
    for path in kept:
        copied = target / path.relative_to(source)
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copied)
    for name in (".snakemake", ".clotline", "logs", "benchmarks") if kept else ():
        shutil.copytree(source / name, target / name, ignore=LOCKS)


def link_folder(source: Path, target: Path) -> Path:
    """A copy of a working directory that shares its files: replace them, never write into them."""
    shutil.copytree(source, target, ignore=LOCKS, copy_function=_link, symlinks=True)
    # Snakemake looks at the folder that the phantom rule made.
    for path in source.rglob(".snakemake_timestamp"):
        shutil.copystat(path.parent, target / path.parent.relative_to(source))
    return target


def _link(source: str, target: str) -> None:
    # A run writes into what is there of these, and so into those of other tests.
    if {"benchmarks", "logs", ".snakemake", ".clotline"} & {*Path(source).parts}:
        shutil.copy2(source, target)
    else:
        os.link(source, target)


#: Two trainings side by side on a core each; sums depend on the number of threads.
ON_TWO_CORES = (
    *("--resources", "gpu=2"),
    *("--set-threads", "train_cnn=1", "extract_features=1", "activation=1", "--"),
)


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below ``folder``, hidden ones too, by its relative path.

    But of the report, which says how long the jobs took.
    """
    return {
        str(path.relative_to(folder)): sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (".snakemake_timestamp", "report.html")
    }
