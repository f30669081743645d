import os
import subprocess
import sys
from pathlib import Path

import pytest

import clotline

SCRIPTS = Path(clotline.__file__).parents[1]

HEAD = """
import ctypes, os, subprocess, sys
from types import SimpleNamespace
from clotline.errors import ClotlineError
from clotline.job.run import job, log

snakemake = SimpleNamespace(rule="shard", wildcards=["003"], log={log!r}, output=["a.h5"])
snakemake.resources = {{"mem_mb": 16000}}
with job(snakemake):
"""


@pytest.fixture
def run(tmp_path):
    """Runs the body of a job in a process of its own; gives the process and its log."""

    def run_body(body, log="logs/deep/shard.log"):
        code = HEAD.format(log=[log] if log else []) + "".join(
            f"    {line}\n" for line in body.splitlines()
        )
        environment = os.environ | {"PYTHONPATH": str(SCRIPTS)}
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        path = tmp_path / (log or "none")
        return done, path.read_text() if path.exists() else None

    return run_body


def test_a_job_that_ends_well_shows_its_messages_on_the_screen_and_in_the_log(run):
    done, log = run('log.info("%s slices", 5)')
    assert done.returncode == 0
    assert done.stdout == ""
    assert done.stderr == "[shard 003] 5 slices\n"
    assert log.endswith(" 5 slices\n")


def test_a_clotline_error_ends_the_job_with_its_message_alone(run):
    done, log = run('raise ClotlineError("there is no data: set data.dicom")')
    assert done.returncode == 1
    assert done.stderr == (
        "[shard 003] there is no data: set data.dicom\n"
        "[shard 003] Not tried again: put this right first.\n"
    )
    assert "there is no data: set data.dicom" in log
    assert "Traceback" not in log


def test_any_other_error_leaves_its_traceback_in_the_log_and_one_line_on_the_screen(run):
    done, log = run('{}["nine"]')
    assert done.returncode == 1
    assert done.stderr == "[shard 003] KeyError: 'nine'\n"
    assert "Traceback" in log
    assert "KeyError: 'nine'" in log


def test_what_anyone_prints_lands_in_the_log_alone(run):
    done, log = run(
        'print("of Python")\n'
        'print("to stderr", file=sys.stderr)\n'
        'os.write(1, b"to descriptor 1\\n")\n'
        'os.write(2, b"to descriptor 2\\n")\n'
        "libc = ctypes.CDLL(None)\n"
        'libc.puts(b"of the C library")\n'
        "libc.fflush(None)\n"
        'subprocess.run(["echo", "of a child"])\n'
    )
    assert done.returncode == 0
    assert done.stdout == ""
    assert done.stderr == ""
    for text in (
        "of Python", "to stderr", "to descriptor 1", "to descriptor 2", "of the C library",
        "of a child",
    ):  # fmt: skip
        assert text in log


def test_a_second_run_writes_its_log_anew(run):
    run('log.info("first")')
    _, log = run('log.info("second")')
    assert "first" not in log
    assert "second" in log


def test_a_crash_of_a_library_leaves_where_it_happened_in_the_log(run):
    done, log = run("ctypes.string_at(0)")
    assert done.returncode < 0
    assert "Segmentation fault" in log
    assert "<string>" in log


def test_a_job_without_a_log_still_shows_its_error_and_fails(run):
    done, log = run('raise ClotlineError("no labels")', log=None)
    assert done.returncode == 1
    assert "[shard 003] no labels" in done.stderr
    assert log is None


def test_an_exit_code_that_a_script_chooses_is_kept(run):
    done, _ = run("sys.exit(7)")
    assert done.returncode == 7


def test_a_warning_of_a_library_lands_in_the_log(run):
    done, log = run('import warnings\nwarnings.warn("overflow encountered")')
    assert done.returncode == 0
    assert "overflow encountered" in log


LOADING = """
import signal
import torch
from torch.utils.data import DataLoader

class Loads(torch.utils.data.Dataset):
    def __len__(self):
        return 40

    def __getitem__(self, place):
        if place == 30:
            {fail}
        return torch.zeros(2)

for _ in DataLoader(Loads(), batch_size=1, num_workers=2):
    pass
"""


@pytest.mark.parametrize("attempt", range(3))
def test_a_killed_loading_process_is_lack_of_memory_and_the_message_says_what_to_raise(
    run, attempt
):
    done, log = run(LOADING.format(fail="os.kill(os.getpid(), signal.SIGKILL)"))
    assert done.returncode == 1
    assert done.stderr.startswith("[shard 003] out of memory (DataLoader worker (pid")
    assert "rule shard was given mem_mb=16000" in done.stderr
    assert "--set-resources shard:mem_mb=32000" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Traceback" in log


def test_what_a_loading_process_says_is_not_buried_in_its_traceback(run):
    done, _ = run(LOADING.format(fail='raise ClotlineError("row 3 of x.h5 is wrong")'))
    assert done.returncode == 1
    assert done.stderr == (
        "[shard 003] row 3 of x.h5 is wrong\n[shard 003] Not tried again: put this right first.\n"
    )
