"""One job at a time on the same files, though a killed Snakemake leaves jobs behind."""

import fcntl
import os
import socket
from contextlib import suppress
from typing import TextIO

from clotline.job.files import STATE_FOLDER


def wait_for_turn(name: str, screen: TextIO) -> TextIO:
    """Waits while an earlier run's job of the same name still works, then locks the name.

    Args:
        name: the rule and its wildcards: jobs that make the same files have the same.
        screen: where to say what is waited for.

    Returns:
        An open file: the lock holds until it is closed, or the process ends, however it ends.
    """
    path = STATE_FOLDER / "running" / name.replace("/", "_")
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a+", encoding="utf-8", errors="backslashreplace")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        file.seek(0)
        print(f"[{name}] waits for the end of {file.read()}", file=screen, flush=True)
        # Some file systems without locks report every lock as taken, and do not wait either.
        with suppress(OSError):
            fcntl.lockf(file, fcntl.LOCK_EX)
    except OSError:
        pass  # a file system without locks
    file.truncate(0)
    file.write(f"an earlier run's job: process {os.getpid()} on {socket.gethostname()}")
    file.flush()
    return file
