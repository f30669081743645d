"""Dry runs on labels of the size of the whole RSNA set."""

import subprocess
import sys

import pytest
from workflow_run import PROJECT

from bench.data import write_rsna_sized_labels


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working directory whose labels file has as many rows as RSNA's."""
    folder = tmp_path_factory.mktemp("full")
    write_rsna_sized_labels(folder / "train.csv")
    (folder / "dicom").mkdir()
    (folder / "config").mkdir()
    (folder / "config/config.yaml").write_text("data: {labels: train.csv, dicom: dicom}\n")
    return folder


#: Runs a command from a process so small that the memory it says is the command's.
MEASURE = """
import resource, subprocess, sys
status = subprocess.run(sys.argv[1:], stdin=subprocess.DEVNULL).returncode
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(usage.ru_maxrss / 1024)
sys.exit(status)
"""


def dry_run(folder):
    """Output and peak memory in MB of a dry run on the cluster."""
    command = [sys.executable, "-m", "snakemake", "--profile", "profiles/sge", "-n", "all"]
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *command, "--directory", folder],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    *output, memory = done.stdout.splitlines()
    return output, float(memory)


def test_the_plan_of_the_whole_set_shows_jobs_resources_and_cost(folder):
    output, _ = dry_run(folder)
    (head,) = (i for i, line in enumerate(output) if line.startswith("rule "))
    (end,) = (i for i, line in enumerate(output) if line.startswith("all of them"))
    rules = {line.split()[0]: line.split()[1:] for line in output[head + 1 : end]}
    assert rules["shard"][:5] == ["18", "0", "8", "8", "4"]
    assert rules["train_cnn"][:5] == ["2", "1", "8", "16", "48"]
    assert rules["extract_features"][:5] == ["36", "1", "8", "8", "12"]
    assert rules["train_lstm"][:5] == ["6", "0", "1", "8", "24"]
    jobs, gpu_hours, cpu_hours, disk = (float(number) for number in output[end].split()[3:])
    assert jobs == sum(int(row[0]) for row in rules.values())
    assert 3 < gpu_hours < 30
    assert 30 < cpu_hours < 300
    assert 100 < disk < 300
    assert any("measured on real" in line for line in output)
    assert not any("temporary output" in line for line in output)


def test_a_dry_run_takes_less_than_400_mb_whether_the_plan_is_known_or_not(folder):
    known = folder / ".clotline/plan.json"
    known.unlink(missing_ok=True)
    _, first = dry_run(folder)
    assert known.exists()
    _, second = dry_run(folder)
    assert max(first, second) < 400
