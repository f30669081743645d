"""SIGKILL at any moment: after a rerun the artifacts are those of an uninterrupted run."""

import os
import random
import re
import shutil
import signal
import time
from pathlib import Path

import psutil
from hostile import TALLY, TORTURE
from workflow_run import ON_TWO_CORES, PROJECT, TINY, Run, digests, write_config

#: Seconds within which whatever a killed process has started must be gone.
PATIENCE_S = 15

KILLS = 10
VICTIMS = ("job", "snakemake", "group")


def jobs_of(snakemake: psutil.Process) -> list[psutil.Process]:
    """The processes that snakemake has started, with all that these have started."""
    try:
        return snakemake.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def kill(victim: str, process, rng: random.Random) -> list[psutil.Process]:
    """Kills a job, snakemake alone or all of it; gives the processes that must end by that."""
    jobs = jobs_of(psutil.Process(process.pid))
    if victim == "job":
        if not jobs:
            return []
        hit = rng.choice(jobs)
        ended = [hit, *jobs_of(hit)]
        hit.kill()
        return ended
    if victim == "snakemake":
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)
    return jobs


def lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until_gone(processes: list[psutil.Process]) -> None:
    end = time.monotonic() + PATIENCE_S
    while alive := [process for process in processes if lives(process)]:
        assert time.monotonic() < end, f"still there {PATIENCE_S} s later: {alive}"
        time.sleep(0.1)


def attempt(run: Run, rng: random.Random, kills: int, within_s: float) -> tuple[bool, int]:
    """One run, with a kill every so many seconds at most until it ends, or until so many kills.

    A killed job is tried again by the same run. Does what the messages on the screen say, as a
    user would.

    Returns:
        Whether the run completed, and the number of kills.
    """
    process = run.start(*run.local(*ON_TWO_CORES, "all"))
    killed = 0
    while killed < kills and process.poll() is None:
        end = time.monotonic() + rng.uniform(0, within_s)
        while time.monotonic() < end and process.poll() is None:
            time.sleep(0.02)
        victim = rng.choice(VICTIMS)
        if process.poll() is None:
            doomed = kill(victim, process, rng)
            wait_until_gone(doomed)
            killed += bool(doomed) or victim != "job"
    _, errors = process.communicate()
    if "Directory cannot be locked" in errors:
        assert "--unlock" in errors
        run.snakemake("--unlock")
    elif not killed:
        assert process.returncode == 0, errors
    return process.returncode == 0, killed


def test_killed_at_any_moment_the_workflow_ends_with_the_same_bits(tiny, tmp_path):
    """Kills of jobs, of snakemake and of the whole process group, until there were enough."""
    expected, whole_s = digests(tiny.folder / "results"), duration(tiny)
    rng, survived, pipelines = random.Random(2020), 0, 0
    while survived < KILLS * TORTURE:
        pipelines += 1
        run = Run(PROJECT, tmp_path / f"work-{pipelines}")
        write_config(run, TINY)
        complete = False
        while not complete:
            left = KILLS * TORTURE - survived
            complete, killed = attempt(run, rng, left, within_s=whole_s / 6)
            survived += killed
        TALLY["kills survived"] = survived
        assert digests(run.folder / "results") == expected
        assert list((run.folder / ".clotline").glob("*.pt")) == []
        shutil.rmtree(run.folder)


def test_a_killed_training_goes_on_after_its_last_finished_epoch(tiny, tiny_copy):
    checkpoint = tiny_copy.folder / "results/cnn/resnext50.pt"
    expected = checkpoint.read_bytes()
    checkpoint.unlink()
    log = tiny_copy.folder / "logs/train_cnn/resnext50.log"
    log.unlink()
    process = tiny_copy.start(*tiny_copy.local(*ON_TWO_CORES, "results/cnn/resnext50.pt"))
    states = tiny_copy.folder / ".clotline"
    while process.poll() is None and not list(states.glob("resnext50-*.pt")):
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert list(states.glob("resnext50-*.pt"))
    assert not checkpoint.exists()
    tiny_copy.snakemake("--unlock")
    tiny_copy.build(*ON_TWO_CORES, "results/cnn/resnext50.pt")
    text = log.read_text()
    assert re.search(r"goes on after epoch [123] of an earlier run", text)
    assert "epoch 1/3" not in text
    assert checkpoint.read_bytes() == expected


def test_a_second_run_in_one_working_directory_is_told_and_touches_nothing(tiny_copy):
    (tiny_copy.folder / "results/report.html").unlink()
    first = tiny_copy.start(*tiny_copy.local("all"))
    while first.poll() is None and not list(tiny_copy.folder.glob(".snakemake/locks/*")):
        time.sleep(0.01)
    # So that whatever changes now is the second run's doing.
    os.killpg(first.pid, signal.SIGSTOP)
    try:
        before = state(tiny_copy.folder)
        second = tiny_copy.build("all", check=False)
        assert state(tiny_copy.folder) == before
    finally:
        os.killpg(first.pid, signal.SIGCONT)
    _, errors = first.communicate()
    assert second.returncode != 0
    assert "Directory cannot be locked" in second.stderr
    assert "no other Snakemake process" in second.stderr
    assert first.returncode == 0, errors


def state(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Every file outside Snakemake's own folder: which, how large and when changed."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {
        str(path): (path.stat().st_ino, path.stat().st_size, path.stat().st_mtime_ns)
        for path in files
        if ".snakemake" not in path.parts
    }


def duration(run: Run) -> float:
    """Seconds that the first run in a working directory took."""
    log = min((run.folder / ".snakemake/log").glob("*.log"))
    return log.stat().st_mtime - (run.folder / "config/config.yaml").stat().st_mtime
