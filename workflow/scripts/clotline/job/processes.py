"""Processes of a job: they end with the one that started them, and share memory with it."""

import logging
import os
import threading
import time
from mmap import mmap

import psutil

log = logging.getLogger("clotline")

#: Environment variable with the process of the Snakemake that starts jobs.
STARTER = "CLOTLINE_STARTER"


def end_with_parent(every_s: float = 0.5) -> None:
    """Ends this process soon after its parent is gone, or the Snakemake that started it.

    A killed Snakemake would otherwise leave jobs that write beside those of the next run, and a
    killed job its pool of processes, which wait for work for ever.

    Args:
        every_s: seconds between two checks.
    """
    parent = os.getppid()
    # It may be gone already: a script's imports take seconds.
    starter = os.environ.get(STARTER)
    if starter and int(starter) not in (process.pid for process in psutil.Process().parents()):
        _stop()
    threading.Thread(target=_watch, args=(parent, every_s), daemon=True).start()


def shared_memory(size: int) -> mmap:
    """Memory, in bytes, that this process shares with those that it forks from now on.

    Not a file in /dev/shm, of which containers often have a few megabytes only.
    """
    return mmap(-1, max(1, size))


def _watch(parent: int, every_s: float) -> None:
    while os.getppid() == parent:
        time.sleep(every_s)
    _stop()


def _stop() -> None:
    log.error("the process that started this one is gone: it stops too")
    os._exit(1)
