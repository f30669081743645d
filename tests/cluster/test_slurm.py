"""profiles/slurm on a real slurmctld and slurmd."""

import os
import re
import shutil
import signal

import pytest
from conftest import (
    GPU_RULES,
    HERE,
    PROFILES,
    REPOSITORY,
    SET_THREADS,
    TARGET,
    Run,
    assert_same_artifacts,
    beginning_of,
    need,
    write_config,
)

#: This Slurm keeps no accounting, and its jobs are short.
OPTIONS = [
    "--slurm-status-command",
    "squeue",
    "--slurm-init-seconds-before-status-checks",
    "3",
    "--seconds-between-status-checks",
    "2",
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


@pytest.fixture(scope="module")
def cluster_run(slurm, tmp_path_factory):
    """The workflow's run on the cluster."""
    folder = tmp_path_factory.mktemp("slurm")
    write_config(folder)
    options = ["--profile", "profiles/slurm", *OPTIONS, "--directory", str(folder)]
    run = Run(REPOSITORY, options, {})
    done = run.snakemake(*SET_THREADS, "--", TARGET)
    assert done.returncode == 0, done.stdout[-6000:]
    run.data = folder
    run.output = done.stdout
    return run


def test_the_workflow_makes_the_local_runs_artifacts(cluster_run, local_run):
    assert_same_artifacts(cluster_run.data, local_run)


def test_gpu_rules_and_no_others_asked_for_a_gpu(cluster_run):
    rules = {}
    for number in job_numbers(cluster_run.output):
        job = cluster_run.call("scontrol", "show", "job", number)
        rule = re.search(r"Comment=rule_(\w+?)(_wildcards_\S*)? *$", job, re.MULTILINE)[1]
        rules.setdefault(rule, set()).add(bool(re.search(r"gres[:/]gpu(:|=)1\b", job)))
    assert {rule for rule, asked in rules.items() if True in asked} == set(GPU_RULES)
    assert all(len(asked) == 1 for asked in rules.values())
    assert len(rules) > 10


def test_a_job_that_outlived_a_killed_snakemake_is_waited_for(cluster_run, local_run):
    # The longest job: a short one would have ended before it can be stopped.
    artifact = "results/cnn/resnext50.pt"
    (cluster_run.data / artifact).unlink()
    began = beginning_of(cluster_run.data, "train_cnn resnext50")
    # So little memory that the second fits beside the first; and each its GPU.
    resources = ["--set-resources", "train_cnn:mem_mb=2000", "train_cnn:gpu=0"]
    command = [*SET_THREADS, *resources, "--", artifact]
    first = cluster_run.start(*command)
    number = cluster_run.wait_for(began)
    os.kill(number, signal.SIGSTOP)
    try:
        first.kill()
        first.communicate()
        cluster_run.snakemake("--unlock")
        second = cluster_run.start(*command)
        logs = cluster_run.data / ".snakemake" / "slurm_logs" / "rule_train_cnn"
        words = f"waits for the end of an earlier run's job: process {number}"
        cluster_run.wait_for(
            lambda: any(words in log.read_text() for log in logs.rglob("*.log")), timeout=180
        )
    finally:
        os.kill(number, signal.SIGCONT)
    output, _ = second.communicate(timeout=120)
    assert second.returncode == 0, output[-3000:]
    assert (cluster_run.data / artifact).read_bytes() == (local_run / artifact).read_bytes()


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


def test_what_a_site_prints_beside_the_number_harms_nothing(faulty):
    """A wrapper of sbatch, squeue and sacct, as sites have them."""
    folder = faulty.folder / "site"
    folder.mkdir()
    for name in ("sbatch", "squeue"):
        notice = "echo '*** 2 days to the maintenance of 2026-11-30; 1234 core hours left ***'"
        command = folder / name
        command.write_text(
            f'#!/bin/bash\n{notice}\n{shutil.which(name)} "$@" || exit\n{notice}\necho 4711\n'
        )
        command.chmod(0o755)
    faulty.environment["PATH"] = f"{folder}:{os.environ['PATH']}"
    done = faulty.snakemake("gpu.txt", timeout=180)
    assert done.returncode == 0, done.stdout[-3000:]
    (number,) = job_numbers(done.stdout)
    assert "JobState=COMPLETED" in faulty.call("scontrol", "show", "job", number)


def test_a_dry_run_submits_nothing(faulty):
    before = faulty.call("squeue", "-t", "all", "-h", "-o", "%i")
    assert faulty.snakemake("--dry-run", "gpu.txt").returncode == 0
    assert faulty.call("squeue", "-t", "all", "-h", "-o", "%i") == before
