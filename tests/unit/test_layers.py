"""Imports between the rooms of the package go one way: the contracts in pyproject.toml."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
SCRIPTS = PROJECT / "workflow/scripts"


def lint(scripts):
    """What import-linter says of the package in a folder."""
    command = [Path(sys.executable).parent / "lint-imports", "--no-cache"]
    return subprocess.run(
        [*command, PROJECT / "pyproject.toml"],
        cwd=scripts,
        env=os.environ | {"PYTHONPATH": str(scripts), "COLUMNS": "200"},
        capture_output=True,
        text=True,
    )


def test_every_import_goes_down():
    done = lint(SCRIPTS)
    assert done.returncode == 0, done.stdout
    assert "2 kept, 0 broken" in done.stdout


@pytest.mark.parametrize(
    ("module", "statement"),
    [
        ("data/plan.py", "from clotline.loading.batches import process_batches"),
        ("evaluation/delong.py", "import clotline.models.lstm"),
        ("job/files.py", "def late():\n    from clotline.data import hdf5"),
        ("errors.py", "from clotline import labels"),
        ("reporting/plots.py", "from clotline.models.recipe import make_optimizer"),
        ("data/dicom/header.py", "from clotline.data.shards import POSITION"),
    ],
)
def test_an_import_the_other_way_breaks_a_contract(tmp_path, module, statement):
    copy = tmp_path / "scripts"
    shutil.copytree(SCRIPTS, copy, ignore=shutil.ignore_patterns("__pycache__"))
    path = copy / "clotline" / module
    path.write_text(f"{path.read_text()}\n{statement}\n")
    done = lint(copy)
    assert done.returncode == 1, done.stdout
    assert f"clotline.{module[:-3].replace('/', '.')} -> clotline." in done.stdout
