import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path
from types import SimpleNamespace

import pytest

import clotline
from clotline.job.failures import NOT_AGAIN
from clotline.workflow.console import runs_first

SNAKEFILE = f"""
import sys
sys.path.insert(0, {str(Path(clotline.__file__).parents[1])!r})
from clotline.workflow.estimate import Data
from clotline.workflow.console import watch
watch(workflow, Data({{}}, {{}}))

rule all:
    input: "trained.txt"

rule prepare:
    output: "prepared.txt"
    log: "logs/prepare.log"
    shell: "touch {{output}} >{{log}}"

rule train:
    input: "prepared.txt"
    output: "trained.txt"
    log: "logs/train.log"
    shell: "(echo 12:00:01 epoch 2/9: train loss 0.5; sleep 5; touch {{output}}) >{{log}}"
"""
COMMAND = [sys.executable, "-m", "snakemake", "--cores", "1", "all"]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    return tmp_path


def on_a_terminal(command, folder):
    """What a command writes to a terminal of 100 columns and 30 rows."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(folder)
        os.execve(command[0], command, os.environ | {"TERM": "xterm"})
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    text = b""
    while True:
        try:
            text += os.read(terminal, 65536)
        except OSError:  # the end, where the other side has closed
            break
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    return text.decode()


def visible(text):
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def test_a_terminal_shows_jobs_done_running_and_waiting_and_the_epoch(folder):
    text = on_a_terminal(COMMAND, folder)
    assert "1 of 3 done, 1 running, 1 waiting" in visible(text)
    assert "train: epoch 2/9: train loss 0.5" in visible(text)
    # In the end the whole screen scrolls again.
    assert text.rindex("\x1b[r") > text.rindex("1 running")


@pytest.mark.parametrize("quiet", ["all", "progress"])
def test_a_quiet_run_shows_no_bars(folder, quiet):
    assert "waiting" not in on_a_terminal([*COMMAND, "--quiet", quiet], folder)


def test_without_a_terminal_there_are_plain_lines(folder):
    done = subprocess.run(COMMAND, cwd=folder, capture_output=True, text=True, check=True)
    assert "\x1b" not in done.stderr
    assert "waiting" not in done.stderr
    assert "3 of 3 steps (100%) done" in done.stderr


def test_a_dry_run_ends_with_the_cost_of_its_jobs(folder):
    command = [*COMMAND, "--dry-run", "--set-threads", "train=4", "--default-resources", "gpu=1"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    rows = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if line}
    # Not the one core that a dry run cuts it down to.
    assert rows["train"][:3] == ["1", "1", "4"]
    assert rows["prepare"][:3] == ["1", "1", "1"]
    assert rows["all"][:3] == ["of", "them", "2"]


def test_a_run_with_nothing_to_do_costs_nothing(folder):
    subprocess.run([*COMMAND, "--touch"], cwd=folder, capture_output=True, check=True)
    for name in ("prepared.txt", "trained.txt"):
        (folder / name).touch()
    done = subprocess.run(
        [*COMMAND, "--dry-run"], cwd=folder, capture_output=True, text=True, check=True
    )
    assert "Nothing to be done" in done.stdout
    assert "all of them" not in done.stdout


def test_a_dry_run_has_one_table_and_says_what_runs_first(folder):
    command = [*COMMAND, "--dry-run"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    said = done.stdout + done.stderr
    assert said.count("all take about") == 1
    assert "Job stats:" not in said
    assert "Runs first:\n  prepare: Missing output files: prepared.txt\n(" in said
    # The paragraphs of the jobs come when they are asked for.
    assert "rule train:" not in said
    assert "Reasons:" not in said
    more = subprocess.run([*command, "-p"], cwd=folder, capture_output=True, text=True, check=True)
    assert "rule train:" in more.stdout + more.stderr
    assert "reason: Missing output files: trained.txt" in more.stdout + more.stderr


def record(rule, number, inputs, output):
    return SimpleNamespace(
        rule_name=rule, wildcards={"n": number}, input=inputs, output=[output], reason="a\n  b"
    )


def test_of_many_jobs_that_run_first_a_few_are_named():
    records = [record("shard", n, [], f"{n}.h5") for n in range(9)]
    records.append(record("slices", "x", ["3.h5"], "slices"))
    assert runs_first(records).splitlines()[:-1] == [
        "Runs first:",
        "  shard 0: a b",
        "  shard 1: a b",
        "  shard 2: a b",
        "  and 6 more of shard",
    ]


@pytest.mark.parametrize(("words", "tries"), [(NOT_AGAIN, 1), ("out of memory", 3)])
def test_what_a_user_must_put_right_is_not_tried_again(tmp_path, words, tries):
    head = SNAKEFILE.partition("rule all:")[0]
    rule = f"""
rule all:
    output: "made.txt"
    log: "logs/all.log"
    shell: "echo x >> tries; (echo 12:00:01 no such file; echo '12:00:01 {words}') >{{log}}; exit 1"
"""
    (tmp_path / "Snakefile").write_text(head + rule)
    done = subprocess.run([*COMMAND, "--retries", "2"], cwd=tmp_path, capture_output=True)
    assert done.returncode == 1
    assert (tmp_path / "tries").read_text().split() == ["x"] * tries
