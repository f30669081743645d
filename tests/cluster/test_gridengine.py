"""profiles/sge on a real Grid Engine: the workflow itself, and small jobs with faults."""

import itertools
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import (
    GPU_RULES,
    HERE,
    PROFILES,
    REPOSITORY,
    SET_THREADS,
    TARGET,
    Run,
    accounts,
    assert_same_artifacts,
    beginning_of,
    calls,
    submitted_jobs,
    watched,
    write_config,
)

POLLED = ("qstat", "qacct")
POLLING = ["--seconds-between-status-checks", "1"]


@pytest.fixture(scope="module")
def cluster_run(gridengine, tmp_path_factory):
    """The workflow's run on the cluster, with the calls of Grid Engine's commands counted."""
    folder = tmp_path_factory.mktemp("sge")
    write_config(folder)
    counted = watched(folder / "counted", "qstat", "qacct", "qsub")
    environment = {**gridengine, "PATH": f"{counted}:{os.environ['PATH']}"}
    options = ["--profile", "profiles/sge", *POLLING, "--directory", str(folder)]
    run = Run(REPOSITORY, options, environment)
    preview = run.snakemake("--dry-run", *SET_THREADS, "--", TARGET)
    run.dry_run_submitted = len(calls(counted, "qsub"))
    assert preview.returncode == 0, preview.stdout[-3000:]
    done = run.snakemake(*SET_THREADS, "--", TARGET)
    assert done.returncode == 0, done.stdout[-6000:]
    run.output = done.stdout
    run.data = folder
    run.counted = counted
    # Before the tests themselves ask.
    run.polls = {name: sorted(when for when, _ in calls(counted, name)) for name in POLLED}
    run.accounts = accounts(run.call("qacct", "-o", "root", "-j"))
    run.jobs = submitted_jobs(folder)
    return run


@pytest.fixture
def faulty(gridengine, tmp_path):
    """A working directory for faults.smk."""
    options = ["--profile", str(PROFILES / "sge"), "--snakefile", str(HERE / "faults.smk")]
    run = Run(tmp_path, [*options, *POLLING], gridengine)
    yield run
    # What a failed test leaves in the queue would hold up the next.
    if numbers := submitted_jobs(tmp_path):
        run.call("qdel", *numbers)


def test_a_dry_run_submits_nothing(cluster_run):
    assert cluster_run.dry_run_submitted == 0


def test_all_artifacts_are_the_local_runs(cluster_run, local_run):
    assert_same_artifacts(cluster_run.data, local_run)


def test_gpu_jobs_read_copies_of_the_shards_on_the_nodes_own_disk(cluster_run):
    for rule in ("train_cnn", "extract_features"):
        for log in (cluster_run.data / "logs" / rule).rglob("*.log"):
            (folder,) = re.findall(r"reads copies of \d+ files in (\S+)", log.read_text())
            assert not Path(folder).exists()


def test_gpu_rules_and_no_others_asked_for_a_gpu(cluster_run):
    rules = set()
    for number, job in cluster_run.jobs.items():
        record = cluster_run.accounts[number]
        rules.add(job["rule"])
        if job["rule"] in GPU_RULES:
            assert "gpu=1" in record["category"]
            assert record["qname"] == "gpu.q"
        else:
            assert "gpu=" not in record["category"]
            assert record["qname"] == "cpu.q"
        assert record["failed"].startswith("0")
    assert rules > set(GPU_RULES)


def test_two_jobs_never_held_the_gpu_at_once(cluster_run):
    from datetime import datetime

    layout = "%a %b %d %H:%M:%S %Y"
    held = sorted(
        tuple(
            datetime.strptime(cluster_run.accounts[number][name], layout)
            for name in ("start_time", "end_time")
        )
        for number, job in cluster_run.jobs.items()
        if job["rule"] in GPU_RULES
    )
    assert len(held) == 6
    for (_, end), (start, _) in itertools.pairwise(held):
        assert end <= start


def test_polling_is_cheap(cluster_run):
    for name in POLLED:
        times = cluster_run.polls[name]
        gaps = np.diff(times)
        assert len(times) > 1
        # The site file of the tests says 2 s.
        assert gaps.min() > 1.9, f"{name}: {gaps.min():.2f} s between two calls"


def test_every_jobs_end_stands_on_the_screen_and_in_its_log(cluster_run):
    for number, job in cluster_run.jobs.items():
        line = f"Grid Engine: job {number} ("
        assert line in cluster_run.output
        assert "finished after" in (cluster_run.data / job["log"]).read_text()


def test_one_artifact_by_name(cluster_run):
    artifact = "results/lstm/combined-study.pt"
    before = len(calls(cluster_run.counted, "qsub"))
    content = (cluster_run.data / artifact).read_bytes()
    (cluster_run.data / artifact).unlink()
    done = cluster_run.snakemake(*SET_THREADS, "--", artifact)
    assert done.returncode == 0, done.stdout[-3000:]
    assert len(calls(cluster_run.counted, "qsub")) == before + 1
    assert (cluster_run.data / artifact).read_bytes() == content


def test_three_hundred_queued_jobs_cost_one_qstat_in_ten_seconds_and_ctrl_c_deletes_all(faulty):
    counted = watched(faulty.folder / "counted", *POLLED)
    faulty.environment["PATH"] = f"{counted}:{os.environ['PATH']}"
    # The site file and the profile as they stand.
    del faulty.environment["CLOTLINE_SITE"]
    faulty.options = faulty.options[: -len(POLLING)]
    targets = [f"sleeper-{seconds}.txt" for seconds in range(1001, 1301)]
    process = faulty.start(*targets, "--quiet", "all")
    try:
        faulty.wait_for(lambda: len(submitted_jobs(faulty.folder)) == 300, timeout=240)
        time.sleep(21)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    finally:
        process.kill()
    asked = [when for when, _ in calls(counted, "qstat")]
    assert len(asked) > 2
    assert np.diff(asked).min() > 9.5
    assert calls(counted, "qacct") == []
    names = set(submitted_jobs(faulty.folder))
    faulty.wait_for(lambda: not names & set(faulty.call("qstat", "-u", "root").split()), 60)


def test_failing_jobs_are_explained_and_tried_again_with_more(faulty):
    done = faulty.snakemake("faults", timeout=240)
    assert done.returncode == 0, done.stdout[-6000:]
    text = done.stdout
    assert "(once), attempt 1: exit status 1" in text
    assert "no luck yet" in text
    assert "over its wall time of 60 s. Raise runtime of rule overtime (now 1 minutes)" in text
    assert "Raise mem_mb of rule hungry (now 800)" in text
    assert (faulty.folder / "once.txt").read_text() == "8000\n"
    assert (faulty.folder / "overtime.txt").read_text() == "2\n"
    jobs = submitted_jobs(faulty.folder).values()
    ended = {(job["rule"], job["attempt"]): job["ending"] for job in jobs}
    assert ended["once", 1] == "exit"
    assert ended["overtime", 1] == "time"
    assert ended["hungry", 1] == "memory"
    assert [ended[rule, 2] for rule in ("once", "overtime", "hungry")] == ["done"] * 3


def test_a_job_that_fails_once_asks_for_more_and_makes_the_same(cluster_run, local_run, tmp_path):
    artifact = "results/lstm/combined-study.pt"
    (cluster_run.data / artifact).unlink()
    site = tmp_path / "site.ini"
    setup = f"setup =\n    mkdir {tmp_path}/tried && echo no luck yet && exit 1"
    text = Path(cluster_run.environment["CLOTLINE_SITE"]).read_text(encoding="utf-8")
    site.write_text(text.replace("\nsetup =\n", f"\n{setup}\n"))
    first = Run(
        REPOSITORY, cluster_run.options, {**cluster_run.environment, "CLOTLINE_SITE": str(site)}
    ).snakemake(*SET_THREADS, "--", artifact)
    assert first.returncode == 0, first.stdout[-3000:]
    assert "exit status 1" in first.stdout
    assert "setup lines failed" in first.stdout
    assert "no luck yet" in first.stdout
    again, once = sorted(submitted_jobs(cluster_run.data).values(), key=lambda j: -int(j["id"]))[:2]
    assert (once["attempt"], again["attempt"]) == (1, 2)
    assert (once["ending"], again["ending"]) == ("exit", "done")
    assert again["mem_mb"] == 2 * once["mem_mb"]
    assert again["seconds"] == 2 * once["seconds"]
    assert (cluster_run.data / artifact).read_bytes() == (local_run / artifact).read_bytes()


def test_after_qdel_the_run_says_why_it_stops_and_a_rerun_makes_the_same(cluster_run, local_run):
    artifact = "results/cnn/resnext50.pt"
    (cluster_run.data / artifact).unlink()
    before = set(submitted_jobs(cluster_run.data))
    began = beginning_of(cluster_run.data, "train_cnn resnext50")
    process = cluster_run.start(*SET_THREADS, "--", artifact)
    try:
        cluster_run.wait_for(began)
        (number,) = set(submitted_jobs(cluster_run.data)) - before
        cluster_run.call("qdel", number)
        output, _ = process.communicate(timeout=90)
    finally:
        process.kill()
    assert process.returncode == 1
    assert f"job {number} (train_cnn resnext50), attempt 1: killed by SIGKILL" in output
    assert "deleted with qdel" in output
    assert "was deleted by hand, so it is not tried again" in output
    assert not (cluster_run.data / artifact).exists()
    done = cluster_run.snakemake(*SET_THREADS, "--", artifact)
    assert done.returncode == 0, done.stdout[-3000:]
    assert (cluster_run.data / artifact).read_bytes() == (local_run / artifact).read_bytes()


@pytest.mark.parametrize("daemon", ["sge_execd", "sge_qmaster"])
def test_a_daemon_that_restarts_does_not_harm_the_run(cluster_run, local_run, daemon):
    artifact = "results/lstm/combined-image.pt"
    (cluster_run.data / artifact).unlink()
    before = set(submitted_jobs(cluster_run.data))
    began = beginning_of(cluster_run.data, "train_lstm combined-image")
    process = cluster_run.start(*SET_THREADS, "--", artifact)
    try:
        cluster_run.wait_for(began)
        stop(daemon)
        cluster_run.wait_for(lambda: not running(daemon))
        cluster_run.call(daemon)
        output, _ = process.communicate(timeout=180)
    finally:
        process.kill()
        subprocess.run([HERE / "start-gridengine.sh"], check=True, stdin=subprocess.DEVNULL)
    assert process.returncode == 0, output[-6000:]
    # Nothing had to be tried again.
    assert len(set(submitted_jobs(cluster_run.data)) - before) == 1
    assert (cluster_run.data / artifact).read_bytes() == (local_run / artifact).read_bytes()


JSV = """#!/bin/bash
# A job submission verifier that tells the user what it did, as many do.
while read -r command arguments; do
    case $command in
        START)
            echo "LOG INFO The site checked this job (JSV 2.1), see http://site:8080"
            echo STARTED ;;
        BEGIN)
            echo "LOG WARNING 2 days until the maintenance of 2026-11-30"
            echo RESULT STATE ACCEPT ;;
        QUIT) exit 0 ;;
    esac
done
"""


@pytest.mark.parametrize("terse", [True, False])
def test_what_a_site_prints_beside_the_number_harms_nothing(faulty, terse):
    """A job submission verifier, a banner around all commands, and a wrapper that drops -terse."""
    folder = faulty.folder / "site-commands"
    folder.mkdir()
    verifier = folder / "jsv.sh"
    verifier.write_text(JSV)
    notice = "echo '*** 7 users are waiting ***'"
    for name in ("qsub", "qstat", "qacct"):
        given = f'-jsv {verifier} "${{@}}"' if name == "qsub" else '"${@}"'
        if name == "qsub" and not terse:
            given = f'-jsv {verifier} "${{@/-terse/-V}}"'
        command = folder / name
        command.write_text(
            f"#!/bin/bash\n{notice}\n{shutil.which(name)} {given} || exit\n{notice}\n"
        )
    for command in folder.iterdir():
        command.chmod(0o755)
    faulty.environment["PATH"] = f"{folder}:{os.environ['PATH']}"
    done = faulty.snakemake("sleeper-1.txt", timeout=180)
    assert done.returncode == 0, done.stdout[-3000:]
    (job,) = submitted_jobs(faulty.folder).values()
    assert job["ending"] == "done"
    assert f"job {job['id']} (sleeper 1), attempt 1: finished after" in done.stdout


def running(daemon: str) -> list[int]:
    found = subprocess.run(["pgrep", "-x", daemon], capture_output=True, text=True, check=False)
    return [int(number) for number in found.stdout.split()]


def stop(daemon: str) -> None:
    for number in running(daemon):
        os.kill(number, signal.SIGTERM)


def test_ctrl_c_cancels_what_runs(faulty):
    process = faulty.start("after-300.txt")
    try:
        faulty.wait_for(faulty.exists("begun-300"))
        (number,) = submitted_jobs(faulty.folder)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    finally:
        process.kill()
    faulty.wait_for(lambda: number not in faulty.call("qstat", "-u", "root").split(), 30)
    assert not (faulty.folder / "sleeper-300.txt").exists()


def test_after_a_kill_the_running_job_is_found_again(faulty):
    process = faulty.start("after-25.txt")
    faulty.wait_for(faulty.exists("begun-25"))
    process.kill()
    process.communicate()
    faulty.snakemake("--unlock")
    done = faulty.snakemake("after-25.txt")
    assert done.returncode == 0, done.stdout[-3000:]
    assert "taken over" in done.stdout
    assert (faulty.folder / "begun-25").read_text() == "begun\n"


@pytest.mark.parametrize(
    ("option", "line", "words"),
    [
        ("gpu_job", "gpu_job = -l gpus={gpu}", 'unknown resource "gpus"'),
        ("parallel_job", "parallel_job = -pe omp {threads}", 'parallel environment "omp"'),
        ("every_job", "every_job = -q long.q", 'unknown queue "long.q"'),
        ("gpu_job", "gpu_job = -l gpu=4", "no suitable queues"),
    ],
)
def test_a_refusal_shows_the_sites_words_and_the_line(faulty, option, line, words):
    site = faulty.folder / "site.ini"
    lines = (PROFILES / "sge" / "site.ini").read_text().splitlines()
    number = next(i for i, text in enumerate(lines) if text.startswith(f"{option} ="))
    lines[number] = line
    site.write_text("\n".join(lines))
    faulty.environment["CLOTLINE_SITE"] = str(site)
    done = faulty.snakemake("--retries", "0", "--set-threads", "gpu=2", "--", "gpu.txt")
    assert done.returncode == 1
    assert words in done.stdout
    assert f"change {site}, line {number + 1}: {line}" in done.stdout
