"""What surrounds every script: its log, its messages on the screen, its way of failing."""

import faulthandler
import logging
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clotline.errors import ClotlineError
from clotline.turns import wait_for_turn

log = logging.getLogger("clotline")


@contextmanager
def job(snakemake) -> Iterator[None]:
    """Runs a script's body with everything it prints in its log file.

    File descriptors 1 and 2 are pointed at the log, which also catches C libraries and worker
    processes. Progress messages go to the log and to the screen. A ClotlineError ends the job with
    its message alone; anything else leaves a traceback in the log. A job that outlived a killed
    Snakemake and still makes the same files is waited for.

    Args:
        snakemake: the object that Snakemake gives to scripts.
    """
    name = " ".join([snakemake.rule, *map(str, snakemake.wildcards)])
    screen = os.fdopen(os.dup(2), "w")
    lock = wait_for_turn(name, screen)
    if snakemake.log:
        Path(snakemake.log[0]).parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(snakemake.log[0], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.close(descriptor)
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
        yield
    except ClotlineError as error:
        log.error("%s", error)
        _leave(screen)
    except Exception as error:
        traceback.print_exc()
        log.error("%s: %s", type(error).__name__, error)
        _leave(screen)
    finally:
        lock.close()


def _leave(screen) -> None:
    """Ends the process without a second traceback from Snakemake's wrapper."""
    screen.flush()
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(1)
