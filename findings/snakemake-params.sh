#!/usr/bin/env bash
# Snakemake 9.27.1 makes an output anew where the rule's params have changed. It compares the set of
# their values as text, without their names, and leaves out values of most types. So these changes
# are not seen, and old results stand: two params that swap their values; one that takes the value
# of another; a numpy integer, truth value or array, a Path and a dataclass, whatever they become
# (of a pandas sample sheet integers are numpy's; floats are seen); new names of a DataFrame's
# columns. Seen, though nothing has changed, is a set of strings: its order as text differs from
# process to process, and its job runs at every call.
# For trainings with their settings in params: "nothing to be done", and results of the settings
# before.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    snakemake==9.27.1 pandas==3.1.1 numpy==2.4.6

cat >"$folder/Snakefile" <<'SNAKEFILE'
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

NOW = int(config["now"])


@dataclass
class Window:
    """Hounsfield units."""

    low: int
    high: int


def sheet(column):
    """A sample sheet with one row, before and after."""
    columns = {"slices": [300, 150][NOW], "dose": [3.5, 4.5][NOW], "contrast": [True, False][NOW]}
    return pd.DataFrame(columns, index=["study"]).loc["study", column]


labels = pd.DataFrame([[1, 0]], columns=[["central", "segmental"], ["segmental", "central"]][NOW])
# Params of each job, before and after.
VALUES = {
    "integer": [(1, 2), (1, 3)][NOW],
    "swapped": [(-100, 700), (700, -100)][NOW],
    "three": [(1, 1, 2), (1, 2, 2)][NOW],
    "sheet_float": (sheet("dose"), 0),
    "sheet_integer": (sheet("slices"), 0),
    "sheet_truth": (sheet("contrast"), 0),
    "array": (np.array([1.0, [4.0, 8.0][NOW]]), 0),
    "path": (Path(["first.ckpt", "second.ckpt"][NOW]), 0),
    "dataclass": (Window(-100, [300, 700][NOW]), 0),
    "columns": (labels, 0),
    "set": ({"central", "segmental", "lobar", "left", "right", "chronic"}, 0),
}


def value(number):
    return lambda wildcards: (*VALUES[wildcards.case], 0)[number]


rule all:
    input:
        expand("{case}.txt", case=VALUES),


rule train:
    output:
        "{case}.txt",
    params:
        first=value(0),
        second=value(1),
        third=value(2),
    shell:
        "echo '{params.first} {params.second} {params.third}' >{output}"
        " && echo >>{wildcards.case}.runs"
SNAKEFILE

"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

print(", ".join(f"{name} {version(name)}" for name in ("snakemake", "pandas", "numpy")))
folder = Path(sys.argv[1])


def snakemake(now, seed):
    """How often each case's job has run after this call."""
    # Unless it is set, Python takes a seed by chance in each process.
    environment = {**os.environ, "PYTHONHASHSEED": str(seed)}
    command = [folder / "venv" / "bin" / "snakemake", "--cores", "1", "--config", f"now={now}"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return {path.stem: len(path.read_text().split("\n")) - 1 for path in folder.glob("*.runs")}


first, again, changed = snakemake(0, 1), snakemake(0, 2), snakemake(1, 2)
assert set(first.values()) == {1} and len(first) == 11
held = True
for case, text in (
    ("set", "a set of six strings"),
    ("integer", "an integer"),
):
    held &= (ran := again[case] > first[case]) == (case == "set")
    print(f"\n{text}, the same as before\n  expected: not run again\n  seen:     ", end="")
    print("run again" if ran else "not run again")
for case, text, right in (
    ("integer", "an integer", True),
    ("sheet_float", "a float of a pandas column", True),
    ("sheet_integer", "an integer of a pandas column", False),
    ("sheet_truth", "a truth value of a pandas column", False),
    ("array", "a numpy array", False),
    ("path", "a Path", False),
    ("dataclass", "a dataclass", False),
    ("columns", "the names of a DataFrame's columns", False),
    ("swapped", "two params (-100 and 700 swap)", False),
    ("three", "the second of three params (1, 1, 2 become 1, 2, 2)", False),
):
    held &= (ran := changed[case] > again[case]) == right
    stands = " ".join((folder / f"{case}.txt").read_text().split())
    print(f"\nother than before: {text}\n  expected: run again\n  seen:     ", end="")
    print("run again" if ran else f"not run again, the result is still that of {stands}")
print("\nas stated" if held else "\nno longer as stated")
sys.exit(not held)
PYTHON
