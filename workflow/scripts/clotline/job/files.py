"""Writing files so that nothing half-written is ever taken for complete."""

import errno
import glob
import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from clotline.errors import ClotlineError
from clotline.job.disk import full_disk, is_full, warn_if_short
from clotline.job.shortage import shortage

#: Small files that only speed up parsing or resume a killed job; safe to delete.
STATE_FOLDER = Path(".clotline")

#: What the phantom that was written last was made of: configuration and code, a line each.
PHANTOM_SOURCE = STATE_FOLDER / "phantom.txt"

#: The trained models of this working directory.
BUNDLE = "results/models/clotline.zip"

#: Folders whose files the workflow makes by itself, under its working directory.
MADE_FOLDERS = ("results", STATE_FOLDER.name)

#: Bytes assumed for an output whose size is not estimated: a table, a figure, text.
SMALL = 1_000_000


@contextmanager
def atomic(path: str | os.PathLike, need: int = SMALL) -> Iterator[Path]:
    """A temporary name beside ``path`` to write to; it replaces ``path`` on success alone.

    What a killed writer of the same file left is removed first, and a warning is logged where the
    disk has less space than needed.

    Args:
        path: file to write.
        need: its estimated size in bytes.

    Raises:
        ClotlineError: the disk ran full; names it, the need and the free space.
    """
    path = Path(path)
    # The suffix stays last: several libraries choose the format by it.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f".{glob.escape(path.stem)}.*.tmp{glob.escape(path.suffix)}"):
            left.unlink(missing_ok=True)
        warn_if_short(path, need)
        yield temporary
        temporary.replace(path)
    except Exception as error:
        if not is_full(error):
            raise
        written = temporary.stat().st_size if temporary.exists() else 0
        raise full_disk(path, need, written) from error
    finally:
        temporary.unlink(missing_ok=True)


def unusable(path: str | os.PathLike, reason: object) -> Exception:
    """What to raise when a file is damaged, or not what it should be; says how to remake it.

    Where the system refused to read it, or memory was lacking, the file may well be intact: then
    the message does not tell to remake it.

    Args:
        path: the file.
        reason: what is wrong with it, as text or as the error that reading it raised; only the
            first sentence is shown.

    Returns:
        A `ClotlineError`, or ``reason`` itself where it is a lack of memory.
    """
    if isinstance(reason, Exception):
        if (number := refusal(reason)) is not None:
            return _refused(path, number)
        # HDF5 may also fail to allocate a size that is itself damaged.
        if shortage(reason) and "synchronously" not in str(reason):
            return reason
    lines = str(reason).splitlines() or [type(reason).__name__]
    reason = lines[0].partition(". ")[0].strip('".')
    if Path(path).parts[0] in MADE_FOLDERS:
        remedy = f"To remake it, rm {path} and run the same snakemake command again"
    else:
        remedy = "Put an intact copy in its place"
    return ClotlineError(f"{path} cannot be used: {reason}. {remedy}")


def refusal(error: BaseException | None) -> int | None:
    """The errno of the system's refusal in an error, or in one that led to it.

    None where the system refused nothing: then it is the bytes that are wrong.
    """
    while error is not None:
        number = getattr(error, "errno", None) if isinstance(error, OSError) else None
        # HDF5 names it in its text, whatever type of error h5py raises.
        if number is None and (told := _ERRNO.search(str(error))):
            number = int(told[1])
        if number and number != errno.ENOMEM:
            return number
        error = error.__cause__
    return None


_ERRNO = re.compile(r"\berrno = (\d+)")


def _refused(path: str | os.PathLike, number: int) -> ClotlineError:
    if number == errno.ENOENT:
        return ClotlineError(f"there is no file {path}")
    words = _WORDS.get(number) or os.strerror(number)
    remedy = _REMEDIES.get(number, "Put that right")
    return ClotlineError(
        f"{path} cannot be read: {words} (errno {number}). It is the system that refuses; the file "
        f"may be intact, so keep it. {remedy}, and run the same snakemake command again"
    )


#: Linux's own ENOTSUPP, which network file systems give to programs though it is not theirs.
_ENOTSUPP = 524
_LOCKS = "Have HDF5 do without locks (export HDF5_USE_FILE_LOCKING=FALSE)"
_WORDS = {_ENOTSUPP: "the file system does not support that"}
_REMEDIES = {
    errno.EMFILE: "Raise the number of open files that a process may have (ulimit -n)",
    errno.ENFILE: "The machine has too many files open: end other programs",
    errno.EACCES: "Give yourself permission to read it and to enter its folders (chmod, chown)",
    errno.EPERM: "Give yourself permission to read it and to enter its folders (chmod, chown)",
    errno.ESTALE: "Its file server was restarted or the file replaced: look at it once (ls -l)",
    errno.EIO: "The disk, or the way to it, failed (dmesg may say more): have that mended",
    errno.EISDIR: "It is a folder: remove that",
    errno.ENOLCK: _LOCKS,
    errno.EOPNOTSUPP: _LOCKS,
    errno.EAGAIN: _LOCKS,
    _ENOTSUPP: _LOCKS,
    errno.ETIMEDOUT: "Its file server does not answer: wait for it",
    errno.EHOSTDOWN: "Its file server does not answer: wait for it",
    errno.ENOTCONN: "Its file system is no longer mounted: mount it",
}


def file_version(path: str | Path) -> tuple[int, ...]:
    """Numbers that change whenever a file is replaced, even by one of equal size and time.

    rsync and tar set a file's time of modification to the original's; but nothing sets the time of
    the last change of its inode, and a file that replaces another has an inode of its own.
    """
    status = Path(path).stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def any_there(paths: Iterable[str | os.PathLike]) -> bool:
    """Whether any of some files is there; a link that leads to nothing is not."""
    return any(os.path.exists(path) for path in paths)  # noqa: PTH110 - raises nothing


def files_under(folder: str | os.PathLike) -> list[str]:
    """Paths of all files under ``folder``, relative to it, sorted.

    Links are followed, and each folder is entered once, whatever links lead to it. A link that
    leads to nothing, as those of a data set that was not fetched, counts as a file. Of what is a
    file itself the one path is empty.

    Raises:
        ClotlineError: a folder cannot be read.
    """
    if Path(folder).is_file():
        return [""]
    paths, entered = [], set()
    for base, folders, names in os.walk(folder, onerror=_unreadable, followlinks=True):
        current = Path(base)
        status = current.stat()
        if (status.st_dev, status.st_ino) in entered:
            folders.clear()
            continue
        entered.add((status.st_dev, status.st_ino))
        # So that of two links to a folder the same one is followed every time.
        folders.sort()
        within = current.relative_to(folder)
        try:
            paths += [
                str(within / name)
                for name in names
                if (path := current / name).is_file() or (path.is_symlink() and not path.exists())
            ]
        except PermissionError as error:  # its names can be read, but nothing else
            _unreadable(error)
    return sorted(paths)


def _unreadable(error: OSError) -> None:
    raise ClotlineError(f"the folder {error.filename} cannot be read: {error.strerror}")


def remove(path: str | os.PathLike) -> None:
    """Removes a file, or a folder with all that is in it; nothing where there is neither."""
    if Path(path).is_dir():
        shutil.rmtree(path)
    else:
        Path(path).unlink(missing_ok=True)


def sha256(path: str | os.PathLike) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
