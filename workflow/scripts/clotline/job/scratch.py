"""Reading shards from a node's own disk, where the site has one to spare."""

import logging
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
    target = tempfile.mkdtemp(prefix="clotline-", dir=folder)
    # What a scheduler sends before it kills.
    before = signal.signal(signal.SIGTERM, _leave)
    try:
        yield _copies(paths, target)
    finally:
        shutil.rmtree(target, ignore_errors=True)
        signal.signal(signal.SIGTERM, before)


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
