"""Runs snakemake as a user would, in working directories of the tests' own."""

import csv
import io
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Run:
    """A working directory and the workflow that runs in it."""

    project: Path
    folder: Path

    def snakemake(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess:
        """Runs snakemake as a user would; its output is kept as text."""
        done = subprocess.run(
            [
                *(sys.executable, "-m", "snakemake", "--snakefile", self.project / "Snakefile"),
                *("--workflow-profile", self.project / "profiles/default"),
                *("--directory", self.folder, *arguments),
            ],
            capture_output=True,
            text=True,
            cwd=self.project,
            env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        )
        if check and done.returncode:
            raise AssertionError(f"snakemake failed:\n{done.stdout}\n{done.stderr}")
        return done

    def build(self, *targets: str) -> subprocess.CompletedProcess:
        """Makes targets with the local profile."""
        return self.snakemake("--profile", str(self.project / "profiles/local"), *targets)

    def to_be_made(self, *arguments: str, target: str = "all") -> set[str]:
        """The files that a dry run would make."""
        # The target first: options that take several values would swallow it.
        summary = self.snakemake(target, "--summary", *arguments).stdout
        table = summary[summary.index("output_file\t") :]
        rows = csv.DictReader(io.StringIO(table), delimiter="\t")
        return {row["output_file"] for row in rows if row["plan"] == "update pending"}


def copy_project(target: Path) -> Path:
    """A copy of the workflow whose code a test may change."""
    for name in ("workflow", "profiles", "envs"):
        shutil.copytree(PROJECT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT / "Snakefile", target)
    return target


def link_folder(source: Path, target: Path) -> Path:
    """A copy of a working directory that shares its files: replace them, never write into them."""
    shutil.copytree(source, target, copy_function=os.link, symlinks=True)
    # Snakemake looks at the folder that the phantom rule made.
    for path in source.rglob(".snakemake_timestamp"):
        shutil.copystat(path.parent, target / path.parent.relative_to(source))
    return target
