"""profiles/slurm on a real slurmctld and slurmd."""

import re
import signal

import pytest
from conftest import HERE, PROFILES, REPOSITORY, SET_THREADS, TARGET, Run, need, write_config

#: This Slurm keeps no accounting, and its jobs are short.
OPTIONS = [
    "--slurm-status-command",
    "squeue",
    "--slurm-init-seconds-before-status-checks",
    "3",
    "--slurm-no-account",
]


@pytest.fixture(scope="module")
def slurm():
    need("Slurm", ["scontrol", "show", "config"], r"(?m)^ClusterName += clotline$", {})


@pytest.fixture
def faulty(slurm, tmp_path):
    options = ["--profile", str(PROFILES / "slurm"), *OPTIONS]
    return Run(tmp_path, [*options, "--snakefile", str(HERE / "faults.smk")], {})


def job_numbers(output: str) -> list[str]:
    return re.findall(r"SLURM jobid (\d+)", output)


def test_the_workflow_makes_the_local_runs_predictions(slurm, local_run, tmp_path):
    write_config(tmp_path)
    options = ["--profile", "profiles/slurm", *OPTIONS, "--directory", str(tmp_path)]
    done = Run(REPOSITORY, options, {}).snakemake(*SET_THREADS, "--", TARGET)
    assert done.returncode == 0, done.stdout[-6000:]
    predictions = sorted((local_run / "results" / "predictions").glob("*.parquet"))
    assert len(predictions) == 6
    for theirs in predictions:
        ours = tmp_path / "results" / "predictions" / theirs.name
        assert ours.read_bytes() == theirs.read_bytes(), theirs.name
    names = {path.relative_to(local_run) for path in (local_run / "results").rglob("*")}
    assert names == {path.relative_to(tmp_path) for path in (tmp_path / "results").rglob("*")}


def test_only_gpu_jobs_ask_for_a_gpu(faulty):
    process = faulty.start("gpu.txt", "sleeper-2.txt")
    output, _ = process.communicate(timeout=180)
    assert process.returncode == 0, output[-3000:]
    granted = {
        number: faulty.call("scontrol", "show", "job", number) for number in job_numbers(output)
    }
    assert len(granted) == 2
    with_gpu = [text for text in granted.values() if re.search(r"gres[:/]gpu", text)]
    assert len(with_gpu) == 1
    assert "rule_gpu" in with_gpu[0]


def test_a_job_that_fails_once_is_tried_again(faulty):
    done = faulty.snakemake("once.txt", timeout=180)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "no luck yet" in done.stdout
    assert (faulty.folder / "once.txt").read_text() == "8000\n"


def test_ctrl_c_cancels_what_runs(faulty):
    process = faulty.start("after-300.txt")
    try:
        faulty.wait_for(faulty.exists("begun-300"))
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=90)
    finally:
        process.kill()
    (number,) = job_numbers(output)
    states = ("-h", "-o", "%T", "-j", number)
    faulty.wait_for(lambda: "CANCELLED" in faulty.call("squeue", "-t", "all", *states), 30)


def test_a_dry_run_submits_nothing(faulty):
    before = faulty.call("squeue", "-t", "all", "-h", "-o", "%i")
    assert faulty.snakemake("--dry-run", "gpu.txt").returncode == 0
    assert faulty.call("squeue", "-t", "all", "-h", "-o", "%i") == before
