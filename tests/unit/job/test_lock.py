import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

import clotline

#: A job that says when it has begun and then works until its standard input ends.
CODE = """
import sys
from clotline.job.lock import wait_for_turn

lock = wait_for_turn("shard 003", sys.stderr)
print("begun", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def start(tmp_path):
    """Starts a job in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(Path(clotline.__file__).parents[1])}

    def start_job():
        return subprocess.Popen(
            [sys.executable, "-c", CODE], cwd=tmp_path, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    return start_job


def test_a_job_waits_while_one_of_a_killed_run_still_makes_the_same_files(start):
    orphan = start()
    assert orphan.stdout.readline() == "begun\n"
    second = start()
    assert f"an earlier run's job: process {orphan.pid} on " in second.stderr.readline()
    assert select.select([second.stdout], [], [], 0.5)[0] == []
    orphan.kill()
    orphan.communicate()
    assert second.communicate(timeout=60)[0] == "begun\n"


def test_after_its_end_the_next_job_begins_at_once(start):
    for _ in range(2):
        output, errors = start().communicate(timeout=60)
        assert (output, errors) == ("begun\n", "")
