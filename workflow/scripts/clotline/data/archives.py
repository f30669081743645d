"""Files that lie packed in a folder of new studies: ZIP and tar archives, gzip, bzip2 and xz.

What they hold is unpacked for as long as a job runs, and is called by the path of the archive, two
slashes and the name within, which no path of a folder has. Names within an archive may be anything
and of any length, so none becomes a file's name.
"""

import bz2
import gzip
import logging
import lzma
import os
import shutil
import tarfile
import zipfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, NamedTuple

from clotline.data.folder import DataFolder
from clotline.errors import ClotlineError
from clotline.job.disk import is_full
from clotline.job.scratch import SHARE, scratch_folder

log = logging.getLogger("clotline")

#: Between the path of an archive and the name of what it holds.
WITHIN = "//"

_BLOCK = 2**20

#: Files whose first bytes are read at a time.
_PROBES = 16


@dataclass(frozen=True)
class Limits:
    """How much may be unpacked before an archive is taken for one that was made to do harm.

    Attributes:
        size: bytes of all that is unpacked at a time.
        members: files in all archives together.
        ratio: of the bytes unpacked to those of the archive; deflate reaches 1,032, and empty
            pictures come near. Nothing is said below ``small`` bytes.
        small: bytes below which any ratio is harmless.
        depth: archives within archives.
    """

    size: int = 256 * 2**30
    members: int = 1_000_000
    ratio: float = 200.0
    small: int = 2**30
    depth: int = 4


LIMITS = Limits()


class Unpacked(NamedTuple):
    """What a folder holds once its archives are unpacked.

    Attributes:
        folder: where files are looked for.
        files: paths of all files, those of archives where the archives stood.
        refused: paths of archives of which nothing was taken, and why.
    """

    folder: DataFolder
    files: list[str]
    refused: dict[str, str]


def located(folder: str | os.PathLike, path: str) -> str:
    """Where a file lies.

    Args:
        folder: a folder, or a `DataFolder`.
        path: in it, as of `Unpacked.files`.
    """
    scratch = getattr(folder, "unpacked", None)
    if scratch and WITHIN in path:
        return f"{scratch}/{_file_name(path)}"
    return f"{os.fspath(folder)}/{path}"


@contextmanager
def unpacked(
    folder: str | os.PathLike,
    files: Sequence[str] = (),
    only: Collection[str] | None = None,
    limits: Limits = LIMITS,
) -> Iterator[Unpacked]:
    """A folder with what its archives hold, which is removed afterwards.

    Args:
        folder: the folder, or one archive.
        files: paths of its files, as of `clotline.job.files.files_under`.
        only: paths of the files that are wanted, as they were called here before; None for all.
        limits: of what is unpacked.

    Raises:
        ClotlineError: the disk has no room for it.
    """
    if Path(folder).is_file():
        folder, files = Path(folder).parent, [Path(folder).name]
    plain = DataFolder(os.fspath(folder))
    if only is None:
        # Side by side: on a network file system each waits for an answer.
        with ThreadPoolExecutor(_PROBES) as pool:
            packed = pool.map(partial(_is_archive, plain), files)
            archives = {path for path, is_packed in zip(files, packed, strict=True) if is_packed}
    else:
        files = list(dict.fromkeys(path.partition(WITHIN)[0] for path in only))
        archives = {path.partition(WITHIN)[0] for path in only if WITHIN in path}
    if not archives:
        yield Unpacked(plain, list(files), {})
        return
    with scratch_folder() as scratch:
        unpacking = _Unpacking(scratch, None if only is None else _with_archives(only), limits)
        entered: list[str] = []
        for path in files:
            is_archive = path in archives
            entered += unpacking.enter(path, located(plain, path)) if is_archive else [path]
        log.info("%s files unpacked from %s archives", f"{unpacking.members:,}", len(archives))
        yield Unpacked(DataFolder(plain.path, unpacked=str(scratch)), entered, unpacking.refused)


def _is_archive(folder: DataFolder, path: str) -> bool:
    """Whether a file is to be entered; one whose name is no UTF-8 text is left out by that."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return _opener(located(folder, path)) is not None


def _with_archives(paths: Iterable[str]) -> frozenset[str]:
    """Paths, and those of the archives around them."""
    every = set()
    for path in paths:
        parts = path.split(WITHIN)
        every |= {WITHIN.join(parts[:count]) for count in range(1, len(parts) + 1)}
    return frozenset(every)


class _Unpacking:
    """What was unpacked up to now.

    Attributes:
        members: number of files.
        refused: archives of which nothing was taken, and why.
    """

    def __init__(self, scratch: Path, only: frozenset[str] | None, limits: Limits):
        self.members = 0
        self.refused: dict[str, str] = {}
        self._scratch, self._only, self._limits = scratch, only, limits
        self._size = 0
        # Others may need some of it too.
        self._room = min(limits.size, int(SHARE * shutil.disk_usage(scratch).free))

    def enter(self, path: str, file: str, depth: int = 1) -> list[str]:
        """Unpacks one archive; gives the paths of its files, and of those of archives in it.

        Args:
            path: how it is called.
            file: where it lies.
            depth: of archives around it, and itself.
        """
        taken: list[str] = []
        before = self.members, self._size
        try:
            if depth > self._limits.depth:
                raise _RefusedError(f"archives within archives, {depth} deep")
            self._unpack(path, file, depth, taken)
            return taken
        except _RefusedError as error:
            reason = str(error)
        except (ClotlineError, MemoryError):
            raise
        except Exception as error:  # readers of archives raise many types on damaged ones
            if is_full(error):
                raise ClotlineError(
                    f"the disk of {self._scratch.parent} has no room to unpack {path}: name one "
                    "that has in CLOTLINE_SCRATCH, or unpack it yourself"
                ) from error
            reason = f"damaged or of an unknown way: {type(error).__name__}"
        for member in taken:
            (self._scratch / _file_name(member)).unlink(missing_ok=True)
        self.members, self._size = before
        self.refused = {k: v for k, v in self.refused.items() if not k.startswith(path + WITHIN)}
        self.refused[path] = f"an archive that cannot be unpacked: {reason}"
        return [path]

    def _unpack(self, path: str, file: str, depth: int, taken: list[str]) -> None:
        start, packed = self._size, Path(file).stat().st_size
        opener = _opener(file)
        if opener is None:
            raise _RefusedError("it has changed while it was read")
        names: set[str] = set()
        for name, content in opener(file, _inner_name(path)):
            member = _own_name(f"{path}{WITHIN}{_as_text(name)}", names)
            if self._only is not None and member not in self._only:
                continue
            self.members += 1
            if self.members > self._limits.members:
                raise _RefusedError(f"more than {self._limits.members:,} files")
            target = self._scratch / _file_name(member)
            taken.append(member)
            with target.open("xb") as output:
                while block := content.read(_BLOCK):
                    self._size += len(block)
                    self._check_size(self._size - start, packed)
                    output.write(block)
            if _opener(str(target)):
                taken.pop()
                taken += self.enter(member, str(target), depth + 1)
                if member not in self.refused:
                    target.unlink()

    def _check_size(self, size: int, packed: int) -> None:
        if self._size > self._room:
            raise _RefusedError(f"more than {self._room:,} bytes when unpacked")
        if size > self._limits.small and size > self._limits.ratio * packed:
            raise _RefusedError(f"{packed:,} bytes become {size:,} and more, as in a bomb of zeros")


class _RefusedError(Exception):
    """Why an archive is not unpacked."""


#: An archive's members: names, and what they hold, to be read before the next one.
_Members = Iterable[tuple[str, BinaryIO]]


def _zip_members(file: str, _inner: str) -> _Members:
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            if member.filename.endswith("/"):
                continue
            if member.flag_bits & 1:
                raise _RefusedError("it has a password")
            with archive.open(member) as content:
                yield member.filename, content


def _tar_members(file: str | BinaryIO, _inner: str) -> _Members:
    # As a stream: each member once, in their order.
    name, stream = (file, None) if isinstance(file, str) else (None, file)
    with tarfile.open(name, "r|", fileobj=stream, errorlevel=2, encoding="utf-8") as archive:
        for member in archive:
            if member.isreg():
                yield member.name, archive.extractfile(member)


def _packed_member(unpack, file: str, inner: str) -> _Members:
    """What a file packed by itself holds: a tar archive, or one file, which has no name."""
    with unpack(file, "rb") as content:
        is_tar = content.read(512)[257:262] == b"ustar"
        content.seek(0)
        if is_tar:
            yield from _tar_members(content, inner)
        else:
            yield inner, content


#: How files begin, and what gives their members.
_PACKED = (
    (b"PK\x03\x04", _zip_members),
    (b"\x1f\x8b", partial(_packed_member, gzip.open)),
    (b"BZh", partial(_packed_member, bz2.open)),
    (b"\xfd7zXZ", partial(_packed_member, lzma.open)),
)


def _opener(file: str):
    """What gives a file's members; None where it is no archive, or cannot be read."""
    if not Path(file).is_file():
        return None
    try:
        with Path(file).open("rb") as content:
            start = content.read(262)
    except OSError:
        return None  # whoever reads it tells why
    if start[128:132] == b"DICM":
        return None
    if start[257:262] == b"ustar":
        return _tar_members
    return next((opener for signature, opener in _PACKED if start.startswith(signature)), None)


def _as_text(name: str) -> str:
    """A name within an archive on one line, without what `WITHIN` is known by."""
    text = name.encode(errors="surrogateescape").decode(errors="backslashreplace")
    text = "".join(c if c.isprintable() else " " for c in text)
    return "/".join(part for part in text.replace("\\", "/").split("/") if part) or "unnamed"


def _inner_name(path: str) -> str:
    """How that is called which a file packed by itself holds: as it was before."""
    name = path.rpartition("/")[2]
    stem, dot, _ = name.rpartition(".")
    return stem if dot else name


def _own_name(member: str, names: set[str]) -> str:
    """A name that no other member of the archive has: they may be the same."""
    number, own = 1, member
    while own in names:
        number += 1
        own = f"{member} ({number})"
    names.add(own)
    return own


def _file_name(path: str) -> str:
    return sha256(path.encode()).hexdigest()
