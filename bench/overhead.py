"""What Snakemake and evaluation cost beside the work itself."""

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from bench import PROJECT
from bench.data import write_rsna_sized_labels
from clotline.evaluation.metrics import evaluate
from clotline.labels import IMAGE_LABEL, STUDY_LABELS, STUDY_UID


@dataclass(frozen=True)
class Cost:
    """Something with a price that is to stay below a limit.

    Attributes:
        what: what was done.
        value: what it cost.
        reach: what it may cost.
        unit: of both.
        note: what else a reader must know.
    """

    what: str
    value: float
    reach: float
    unit: str
    note: str = ""


def dry_run(folder: Path) -> list[Cost]:
    """``snakemake -n all`` on labels of RSNA's size, with the plan to be made and known."""
    write_rsna_sized_labels(folder / "train.csv")
    command = dry_run_command(folder)
    costs = []
    for which in ("first", "second"):
        seconds, memory = measured(command)
        costs += [
            Cost(f"{which} dry run of the whole RSNA set", seconds, 5, "s"),
            Cost(f"{which} dry run, memory", memory, 400, "MB"),
        ]
    return costs


def dry_run_command(folder: Path) -> list:
    """What Python is told to run for it, in a folder with a ``train.csv`` that is made ready."""
    (folder / "dicom").mkdir()
    (folder / "config").mkdir()
    (folder / "config/config.yaml").write_text(
        "data: {labels: train.csv, dicom: dicom}\n", encoding="utf-8"
    )
    command = ["-m", "snakemake", "-n", "all", "--profile", "profiles/sge"]
    return [*command, "--directory", folder]


#: Runs a command from a process so small that the memory it says is the command's.
_MEASURE = """
import resource, subprocess, sys
nothing = subprocess.DEVNULL
status = subprocess.run(sys.argv[1:], stdin=nothing, stdout=nothing).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)
sys.exit(status)
"""


def measured(
    command: list, python: str | Path = sys.executable, checkout: Path = PROJECT
) -> tuple[float, float]:
    """Seconds and peak memory in MB of what Python is told to run.

    Args:
        command: Python's arguments.
        python: the interpreter.
        checkout: where it runs.
    """
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(python), *map(str, command)],
        cwd=checkout,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
        check=True,
    )
    return time.perf_counter() - start, float(done.stdout)


def job_starts(folder: Path) -> list[Cost]:
    """What a job costs that does next to nothing, as a cluster's node runs it.

    Args:
        folder: of `dry_run`.
    """
    history = pd.DataFrame({"epoch": range(1, 41), "train_loss": 0.5, "valid_loss": 0.5})
    (folder / "results/cnn").mkdir(parents=True)
    history.assign(valid_auroc=0.5).to_csv(folder / "results/cnn/resnext50.csv", index=False)
    command = ["-m", "snakemake", "--directory", folder, "--mode", "remote"]
    command += ["--cores", 1, "--nolock", "--target-jobs", "plot_history:stage=cnn,name=resnext50"]
    command += ["--allowed-rules", "plot_history", "--force", "--", "results/cnn/resnext50.svg"]
    seconds = min(measured(command)[0] for _ in range(3))
    plot = Cost("a job that draws one plot, from its start to its end", seconds, 3, "s")
    return [plot, _training_imports()]


def _training_imports() -> Cost:
    ours, torch = (
        min(measured(["-c", code])[0] for _ in range(3)) for code in (IMPORTS, _ONE_STEP)
    )
    note = f"torch with one step of its SGD alone: {torch:.3g} s"
    return Cost("what a CNN's training imports", ours, 3, "s", note)


IMPORTS = "import sys; sys.path.insert(0, 'workflow/scripts'); import train_cnn"
#: torch imports its compiler when an optimiser is first used.
_ONE_STEP = """
import torch
weight = torch.nn.Parameter(torch.ones(1))
weight.sum().backward()
torch.optim.SGD([weight], lr=0.1).step()
"""


def evaluation() -> list[Cost]:
    """All metrics of a model with 2,000 bootstraps."""
    rng = np.random.default_rng(0)
    studies = pd.DataFrame({STUDY_UID: [f"{n:04x}" for n in range(1250)]})
    studies["split"] = np.where(np.arange(1250) < 1000, "test", "valid")
    for name in STUDY_LABELS:
        truth = rng.random(1250) < 0.3
        studies[f"{name}_true"] = truth.astype(np.int8)
        studies[name] = 1 / (1 + np.exp(-rng.normal(truth, 1)))
    slices = studies.loc[studies.index.repeat(250), [STUDY_UID, "split"]].reset_index(drop=True)
    truth = rng.random(len(slices)) < 0.05
    slices[f"{IMAGE_LABEL}_true"] = truth.astype(np.int8)
    slices[IMAGE_LABEL] = 1 / (1 + np.exp(-rng.normal(truth, 1)))
    costs = []
    for level, table, what, reach in (
        ("study", studies, "1,000 studies", 2),
        ("image", slices, "250,000 slices of 1,000 studies", 20),
    ):
        start = time.perf_counter()
        evaluate(table, level, bootstraps=2000, seed=0)
        seconds = time.perf_counter() - start
        costs.append(Cost(f"evaluation of {what}, 2,000 bootstraps", seconds, reach, "s"))
    return costs
