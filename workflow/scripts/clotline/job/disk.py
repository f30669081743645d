"""Free space: a warning before a job lacks it, and a clear error once it has run out."""

import errno
import logging
import os
import shutil
from pathlib import Path

from clotline.errors import ClotlineError

log = logging.getLogger("clotline")

#: Bytes that a CT slice of 256 × 256 takes in a shard: measured on 586 slices of real chest CT,
#: which compresses less than the phantom.
SLICE_BYTES = 76_000


def slice_bytes(size: int) -> int:
    """Bytes that a CT slice takes in a shard.

    Args:
        size: its side in pixels.
    """
    return round(SLICE_BYTES * (size / 256) ** 2)


def disk_of(path: str | os.PathLike) -> Path:
    """The mount point of the disk that ``path``, which need not exist yet, lies on."""
    folder = _existing(path)
    while not folder.is_mount():
        folder = folder.parent
    return folder


def free_bytes(path: str | os.PathLike) -> int:
    """Bytes that this user can still write to the disk of ``path``."""
    return shutil.disk_usage(_existing(path)).free


def _existing(path: str | os.PathLike) -> Path:
    folder = Path(path).resolve()
    while not folder.exists():
        folder = folder.parent
    return folder


def warn_if_short(path: str | os.PathLike, need: int) -> None:
    """Logs a warning where the disk of ``path`` has less space left than will be needed.

    Args:
        path: what will be written.
        need: its estimated size in bytes.
    """
    free = free_bytes(path)
    if need > free:
        log.warning(
            "the disk %s may run full: %s needs about %s, and %s are free",
            *(disk_of(path), path, describe_size(need), describe_size(free)),
        )


def is_full(error: BaseException | None) -> bool:
    """Whether a write failed for want of space, by the error itself or one that led to it."""
    while error is not None:
        # When it closes a file, HDF5 gives the system's error only in its text.
        if isinstance(error, OSError | RuntimeError) and (
            getattr(error, "errno", None) in _FULL or any(t in str(error) for t in _FULL_TEXTS)
        ):
            return True
        error = error.__cause__ or error.__context__
    return False


_FULL = (errno.ENOSPC, errno.EDQUOT)
_FULL_TEXTS = tuple(os.strerror(number) for number in _FULL)


def full_disk(path: str | os.PathLike, need: int, written: int) -> ClotlineError:
    """What to raise when writing ``path`` has filled its disk.

    Args:
        path: what could not be written.
        need: its estimated size in bytes; 0 where it is not known.
        written: bytes of it that could be written, and will be free again.
    """
    had = free_bytes(path) + written
    needs = f"about {describe_size(need)}" if need > had else f"more than {describe_size(had)}"
    return ClotlineError(
        f"the disk {disk_of(path)} is full: {path} needs {needs}, and {describe_size(had)} were "
        "free for it. Nothing half-written is left. Free some space there and run the same "
        "command again"
    )


def describe_size(count: int) -> str:
    """A number of bytes in decimal units, such as ``6.2 GB``."""
    size, units = float(count), ["bytes", "kB", "MB", "GB", "TB"]
    while size >= 1000 and len(units) > 1:
        size /= 1000
        units.pop(0)
    return f"{size:.0f} {units[0]}" if units[0] == "bytes" else f"{size:.1f} {units[0]}"
