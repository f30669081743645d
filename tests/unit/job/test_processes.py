import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

SCRIPTS = Path(__file__).parents[3] / "workflow/scripts"

#: A process that starts another one, which works with a pool or alone, and tells their ids.
PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]])
child.wait()
"""
ALONE = """
import time
from clotline.job.processes import end_with_parent
end_with_parent(0.05)
time.sleep(600)
"""
POOL = """
import time
from concurrent.futures import ProcessPoolExecutor
from clotline.job.processes import end_with_parent
end_with_parent(0.05)
with ProcessPoolExecutor(2, initializer=end_with_parent) as pool:
    list(pool.map(time.sleep, [600, 600]))
"""


def family_of(body, size):
    """Starts the parent; gives it and its ``size`` descendants."""
    environment = os.environ | {"PYTHONPATH": str(SCRIPTS)}
    parent = psutil.Popen([sys.executable, "-c", PARENT, body], env=environment)
    end = time.monotonic() + 30
    while len(found := parent.children(recursive=True)) < size and time.monotonic() < end:
        time.sleep(0.05)
    time.sleep(0.5)
    return parent, found


def lives(process):
    # In a container nobody may collect the exit status of an orphan.
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


@pytest.mark.parametrize(("body", "size"), [(ALONE, 1), (POOL, 3)], ids=["alone", "pool"])
def test_a_process_ends_soon_after_its_parent_was_killed(body, size):
    parent, children = family_of(body, size)
    assert len(children) == size
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    end = time.monotonic() + 10
    while (alive := [child for child in children if lives(child)]) and time.monotonic() < end:
        time.sleep(0.1)
    for process in alive:
        process.kill()
    assert not alive


#: A process that tells who it is, and is busy while that one is killed.
STARTER = """
import os, subprocess, sys
os.environ["CLOTLINE_STARTER"] = str(os.getpid())
subprocess.Popen([sys.executable, "-c", sys.argv[1]]).wait()
"""
BUSY = "import time; time.sleep(3)" + ALONE


def test_a_process_that_is_still_busy_when_its_parent_is_killed_ends_afterwards():
    environment = os.environ | {"PYTHONPATH": str(SCRIPTS)}
    parent = psutil.Popen([sys.executable, "-c", STARTER, BUSY], env=environment)
    while not (children := parent.children()):
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    end = time.monotonic() + 20
    while (alive := lives(children[0])) and time.monotonic() < end:
        time.sleep(0.1)
    if alive:
        children[0].kill()
    assert not alive


def test_a_process_goes_on_while_the_one_that_started_its_parent_lives():
    code = ALONE.replace("600", "1") + "print('done')"
    environment = os.environ | {"PYTHONPATH": str(SCRIPTS), "CLOTLINE_STARTER": str(os.getpid())}
    done = subprocess.run(
        [sys.executable, "-c", PARENT, code], env=environment, capture_output=True, timeout=30
    )
    assert done.stdout == b"done\n"


def test_a_process_goes_on_while_its_parent_lives():
    code = ALONE.replace("600", "1") + "print('done')"
    environment = os.environ | {"PYTHONPATH": str(SCRIPTS)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=30
    )
    assert done.stdout == "done\n"
