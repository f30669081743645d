"""What surrounds every script: its log, its messages on the screen, how it fails."""

import faulthandler
import logging
import os
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from clotline.errors import ClotlineError
from clotline.job.failures import NOT_AGAIN, explain
from clotline.job.lock import wait_for_turn
from clotline.job.processes import end_with_parent

log = logging.getLogger("clotline")


@contextmanager
def job(snakemake) -> Iterator[None]:
    """Runs a script's body with everything it prints in its log file.

    File descriptors 1 and 2 are pointed at the log, which also catches C libraries and worker
    processes. Progress messages go to the log and to the screen. A ClotlineError ends the job with
    its message alone; anything else leaves a traceback in the log. The job also ends when the
    Snakemake that started it is gone. If an earlier one, on another host, still makes the same
    files, this job waits for it.

    Args:
        snakemake: the object that Snakemake gives to scripts.
    """
    # First: a job whose Snakemake is gone must neither wait for its turn nor touch a log.
    end_with_parent()
    name = " ".join([snakemake.rule, *map(str, snakemake.wildcards)])
    screen = os.fdopen(os.dup(2), "w", encoding="utf-8", errors="backslashreplace")
    lock = wait_for_turn(name, screen)
    if snakemake.log:
        Path(snakemake.log[0]).parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(snakemake.log[0], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.close(descriptor)
    for stream in (sys.stdout, sys.stderr):
        # UTF-8 whatever the machine's locale is; a path that is not text must not end a job.
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    faulthandler.enable()
    log.setLevel(logging.INFO)
    for stream, layout in (
        (sys.stderr, "%(asctime)s %(message)s"),
        (screen, f"[{name}] %(message)s"),
    ):
        handler = logging.StreamHandler(stream)
        handler.setFormatter(logging.Formatter(layout, datefmt="%H:%M:%S"))
        log.addHandler(handler)
    try:
        try:
            yield
        except (EOFError, OSError):
            # A moment after the connection to a killed loading process is lost, torch says from a
            # signal handler that it was killed.
            time.sleep(1)
            raise
    except Exception as error:
        if not isinstance(error, ClotlineError):
            traceback.print_exc()
        log.error("%s", explain(error, snakemake))
        if isinstance(error, ClotlineError):
            log.error("%s", NOT_AGAIN)
        _leave(screen)
    finally:
        lock.close()


def _leave(screen) -> None:
    """Ends the process without a second traceback from Snakemake's wrapper.

    At once: after a write to a full disk HDF5 crashes when the interpreter shuts down.
    """
    for stream in (screen, sys.stdout, sys.stderr):
        # The log's own disk can be full.
        with suppress(OSError):
            stream.flush()
    os._exit(1)
