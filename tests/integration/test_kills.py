"""SIGKILL at any moment: after a rerun the artifacts are those of an uninterrupted run."""

import os
import random
import re
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import yaml
from hostile import TALLY, TORTURE
from tiny_cohort import SPLIT, STUDIES
from workflow_run import ON_TWO_CORES, PROJECT, Run, copy_folder, digests, write_config

from clotline.data import phantom
from clotline.workflow.config import load_config

#: Seconds within which whatever a killed process has started must be gone. A job looks for its
#: parent once its imports are done, which beside other tests on a busy machine take more than 15 s.
PATIENCE_S = 90

#: In a run of each half of the workflow.
KILLS = 5
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


def made(run: Run) -> int:
    """How many results there are, those just being written too."""
    return sum(len(files) for _, _, files in os.walk(run.folder / "results"))


def attempt(
    run: Run, targets: list[str], rng: random.Random, moments: list[int], within_s: float
) -> tuple[bool, int]:
    """One run with its kills, until it ends or has had them all.

    A killed job is tried again by the same run. Does what the messages on the screen say, as a
    user would.

    Args:
        run: where.
        targets: what is asked for.
        rng: chooses whom each kill hits, and when.
        moments: how many results there are before each kill.
        within_s: seconds within which the kill then comes.

    Returns:
        Whether the run completed, and the number of kills.
    """
    process = run.start(*run.local(*ON_TWO_CORES, *targets))
    killed = 0
    with ThreadPoolExecutor(1) as pool:
        # What it says is read all the while: it would wait for ever at a pipe that is full.
        said = pool.submit(process.communicate)
        while killed < len(moments) and process.poll() is None:
            while process.poll() is None and made(run) < moments[killed]:
                time.sleep(0.05)
            with suppress(subprocess.TimeoutExpired):
                process.wait(rng.uniform(0, within_s))
            victim = rng.choice(VICTIMS)
            if process.poll() is None:
                doomed = kill(victim, process, rng)
                wait_until_gone(doomed)
                killed += bool(doomed) or victim != "job"
        _, errors = said.result()
    if "Directory cannot be locked" in errors:
        assert "--unlock" in errors
        run.snakemake("--unlock")
    elif not killed:
        assert process.returncode == 0, errors
    return process.returncode == 0, killed


def run_to_the_end(
    run: Run, targets: list[str], rng: random.Random, moments: list[int], within_s: float
) -> int:
    """The same command again and again until it completes; the number of kills."""
    complete, survived = False, 0
    while not complete:
        complete, killed = attempt(run, targets, rng, moments[survived:], within_s)
        survived += killed
    TALLY["kills survived"] += survived
    return survived


def made_by_networks(path: Path) -> bool:
    """Whether a result comes before all LSTMs."""
    return path.parts[0] in ("data", "cnn", "features", "activation")


def made_beside_combined(path: Path) -> bool:
    """Whether a result needs no LSTM of the combined features.

    Those of single networks come from the same rules, and need not be made anew as well.
    """
    return made_by_networks(path) or path.name.startswith(("efficientnet_b0-", "resnext50-"))


#: In two halves: which results there are before, what is asked for, and which results that gives.
HALVES = {
    "networks": (
        lambda path: False,
        [
            *("results/data/patients.json", "results/data/study_facts.parquet"),
            *(
                f"results/{path}"
                for cnn in ("resnext50", "efficientnet_b0")
                for path in (f"features/{cnn}.h5", f"activation/{cnn}.h5", f"cnn/{cnn}.svg")
            ),
        ],
        made_by_networks,
    ),
    "lstms": (made_beside_combined, ["all"], lambda path: True),
}


@pytest.mark.parametrize("half", HALVES)
def test_killed_at_any_moment_the_workflow_ends_with_the_same_bits(tiny, tmp_path, half):
    """Kills of jobs, of snakemake and of the whole process group, until there were enough."""
    there, targets, gives = HALVES[half]
    expected = digests(tiny.folder / "results")
    expected = {name: digest for name, digest in expected.items() if gives(Path(name))}
    rng, survived, pipelines = random.Random(2020), 0, 0
    while survived < KILLS * TORTURE:
        pipelines += 1
        run = Run(PROJECT, tmp_path / f"work-{pipelines}")
        copy_folder(tiny.folder, run.folder, there)
        # Spread over what is to be made, so that one run has all its kills and no part has none.
        kills = min(KILLS, KILLS * TORTURE - survived)
        moments = sorted(rng.sample(range(made(run), len(expected)), kills))
        survived += run_to_the_end(run, targets, rng, moments, within_s=duration(tiny) / 20)
        assert digests(run.folder / "results") == expected
        assert list((run.folder / ".clotline").glob("*.pt")) == []
        shutil.rmtree(run.folder)


def test_a_phantom_killed_at_any_moment_ends_with_the_same_bits(tmp_path):
    expected = tmp_path / "expected"
    settings = load_config({"phantom": STUDIES})["phantom"]
    phantom.write_cohort(settings, expected / "train", expected / "train.csv")
    run, rng = Run(PROJECT, tmp_path / "work"), random.Random(2020)
    write_config(run, yaml.safe_dump({"phantom": STUDIES, "data": {"split": SPLIT}}))
    target, studies = "data/phantom/train", run.folder / "data/phantom/train"
    # A killed job comes last: the same run tries it again, and completes.
    for victim in [*("snakemake", "group") * TORTURE, "job"]:
        process = run.start(*run.local(target))
        jobs = psutil.Process(process.pid)
        while process.poll() is None and not (jobs_of(jobs) and any(studies.glob("*"))):
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 1))
        assert process.poll() is None
        wait_until_gone(kill(victim, process, rng))
        TALLY["kills survived"] += 1
        _, errors = process.communicate()
        if victim != "job":
            assert not (run.folder / "data/phantom/train.csv").exists()
            run.snakemake("--unlock")
    assert process.returncode == 0, errors
    assert digests(run.folder / "data/phantom") == digests(expected)


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
