"""Reading shards from a node's own disk, where the site has one to spare."""

import fcntl
import logging
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from clotline.job.progress import progress

log = logging.getLogger("clotline")

#: Names a folder of the node's own disk; variables in it, as in ``$TMPDIR``, are the node's.
VARIABLE = "CLOTLINE_SCRATCH"
#: The part of the free space that copies may take.
SHARE = 0.9


@contextmanager
def nearby(paths: Sequence[str]) -> Iterator[list[str]]:
    """Copies of files on the node's own disk, removed afterwards, also when the job fails.

    Args:
        paths: the files; no two have the same name.

    Yields:
        The copies in the same order, all in one folder; or the files themselves where the site
        names no folder, or it cannot hold them, and the log says why.
    """
    folder = os.path.expandvars(os.environ.get(VARIABLE, ""))
    if not folder:
        yield list(paths)
        return
    reason = _unfit(folder, paths)
    if reason:
        log.warning("no copies of %d files on the node's own disk: %s", len(paths), reason)
        yield list(paths)
        return
    with _removed_afterwards(folder) as target:
        yield _copies(paths, target)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """An empty folder that is removed afterwards, also when the job fails.

    It lies where the site names a folder of the node's own disk, or where temporary files lie.
    """
    folder = os.path.expandvars(os.environ.get(VARIABLE, ""))
    if folder and not Path(folder).is_dir():
        log.warning("%s=%s is no folder here", VARIABLE, os.environ[VARIABLE])
        folder = ""
    with _removed_afterwards(folder or None) as target:
        yield Path(target)


@contextmanager
def _removed_afterwards(parent: str | None) -> Iterator[str]:
    """A folder that nobody else may look into; those of jobs that were killed are removed first."""
    _remove_left_behind(parent or tempfile.gettempdir())
    target = tempfile.mkdtemp(prefix=_PREFIX, dir=parent)
    # What a scheduler sends before it kills.
    before = signal.signal(signal.SIGTERM, _leave)
    lock = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):  # some network file systems have no locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield target
    finally:
        shutil.rmtree(target, ignore_errors=True)
        os.close(lock)
        signal.signal(signal.SIGTERM, before)


#: Before the eight letters that `tempfile.mkdtemp` adds. A user's own folder must never have such a
#: name, because what was left behind is removed.
_PREFIX = "clotline-scratch-"

#: Age in seconds from which on a folder that nobody has locked is one that was left behind.
_LEFT_BEHIND_S = 60


def _remove_left_behind(parent: str) -> None:
    """Removes folders of this user whose job is gone: its lock went with it."""
    for folder in Path(parent).glob(_PREFIX + "[a-z0-9_]" * 8):
        with suppress(OSError):
            status = folder.lstat()
            if status.st_uid != os.getuid() or time.time() - status.st_mtime < _LEFT_BEHIND_S:
                continue
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


def _unfit(folder: str, paths: Sequence[str]) -> str:
    """Why the folder cannot hold copies of the files; empty if it can."""
    if not Path(folder).is_dir():
        return f"{VARIABLE}={os.environ[VARIABLE]} is no folder here ({folder})"
    size = sum(Path(path).stat().st_size for path in paths)
    free = shutil.disk_usage(folder).free
    if size > SHARE * free:
        return f"they have {size / 1e9:.1f} GB, {folder} has {free / 1e9:.1f} GB free"
    return ""


def _copies(paths: Sequence[str], target: str) -> list[str]:
    """Copies the files; gives the files themselves if the disk fills up meanwhile."""
    try:
        for path in progress(paths, len(paths), f"copying to {target}", "files"):
            shutil.copyfile(path, Path(target, Path(path).name))
    except OSError as error:
        log.warning("no copies on the node's own disk: %s", error)
        shutil.rmtree(target, ignore_errors=True)
        return list(paths)
    log.info("reads copies of %d files in %s", len(paths), target)
    return [str(Path(target, Path(path).name)) for path in paths]


def _leave(number: int, frame) -> None:
    sys.exit(128 + number)
