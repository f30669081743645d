"""The HDF5 files of the workflow: opened, checked and read so that damage is detected and named.

HDF5 itself guards its metadata with checksums (``libver`` v110). Small columns get its Fletcher-32
filter. Pixels and features have a checksum of each row in a column of their own, which costs a
fifth of what that filter does.
"""

import io
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
from xxhash import xxh3_64_intdigest

from clotline.errors import ClotlineError
from clotline.job.files import unusable
from clotline.job.speed import WRITTEN_BYTES


class _Disk(io.RawIOBase):
    """A file that a thread writes, while HDF5 makes what comes next.

    It keeps a failed write to itself, and drops what is written after it: a write that fails while
    HDF5 closes a dataset or a file is lost, or crashes the process.
    """

    failed: OSError | None = None

    def __init__(self, path: str | Path):
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        self._place = 0
        # What is gathered, with its length and its offset in the file, and what is being written.
        self._blocks = [memoryview(bytearray(WRITTEN_BYTES)) for _ in range(2)]
        self._used, self._start = 0, 0
        self._thread = ThreadPoolExecutor(1, "write-behind")
        self._writing: Future | None = None

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_END:
            self._settle()
            offset += os.fstat(self._file).st_size
        elif whence == os.SEEK_CUR:
            offset += self._place
        self._place = offset
        return offset

    def write(self, content) -> int:
        rest = memoryview(content).cast("B")
        size = len(rest)
        if self._place != self._start + self._used:
            self._hand_over()
            self._start = self._place
        while len(rest):
            if self._used == WRITTEN_BYTES:
                self._hand_over()
            part, rest = rest[: WRITTEN_BYTES - self._used], rest[WRITTEN_BYTES - self._used :]
            # Copied, for HDF5 uses its memory again.
            self._blocks[0][self._used : self._used + len(part)] = part
            self._used += len(part)
        self._place += size
        return size

    def _hand_over(self) -> None:
        """Has the thread write what was gathered, once it has written what was before."""
        self._wait()
        if self._used:
            block = self._blocks[0][: self._used]
            self._writing = self._thread.submit(self._put, block, self._start)
            self._start += self._used
            self._used = 0
            self._blocks.reverse()

    def _put(self, block: memoryview, start: int) -> None:
        try:
            while len(block) and self.failed is None:
                written = os.pwrite(self._file, block, start)
                block, start = block[written:], start + written
        except OSError as error:
            self.failed = error

    def _wait(self) -> None:
        if self._writing:
            self._writing.result()
            self._writing = None

    def _settle(self) -> None:
        """Waits until all is written."""
        self._hand_over()
        self._wait()

    def readinto(self, buffer) -> int:
        self._settle()
        view = memoryview(buffer).cast("B")
        count = os.preadv(self._file, [view], self._place)
        if self.failed:
            # Of what was dropped.
            view[count:] = bytes(len(view) - count)
            count = len(view)
        self._place += count
        return count

    def truncate(self, size: int | None = None) -> int:
        self._settle()
        size = self._place if size is None else size
        os.truncate(self._file, size)
        return size

    def flush(self) -> None:
        if not self.closed:
            self._settle()

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._thread.shutdown()
            os.close(self._file)


class NewHDF5(h5py.File):
    """A new file; `check` and the end of a ``with`` block raise what failed when writing it."""

    def __init__(self, path: str | Path, form: str, version: int, **attributes):
        """Creates the file with its format, version and further attributes."""
        self._disk = _Disk(path)
        super().__init__(self._disk, "w", libver="v110")
        for name, value in ({"format": form, "version": version} | attributes).items():
            # Text of fixed length lies in the header, which has a checksum; other text does not.
            self.attrs[name] = np.bytes_(value.encode()) if isinstance(value, str) else value

    def check(self) -> None:
        """Raises the OSError of the first write that failed, as on a full disk."""
        if self._disk.failed:
            raise self._disk.failed

    def close(self) -> None:
        """Closes the file; what failed is raised by `check`."""
        super().close()
        self._disk.close()

    def __exit__(self, *failure) -> None:
        super().__exit__(*failure)
        self.check()


def read_attributes(file: h5py.File) -> dict:
    """A file's attributes, text as ``str``."""
    return {
        name: value.decode() if isinstance(value, bytes) else value
        for name, value in file.attrs.items()
    }


def open_hdf5(
    path: str | Path, form: str, version: int, main: str, later: Sequence[int] = ()
) -> h5py.File:
    """Opens a file for reading.

    Args:
        path: the file.
        form: the format that it must have.
        version: and its version.
        main: the dataset that it must hold: its own, not one that lies in another file.
        later: further versions that it may have.

    Raises:
        ClotlineError: the file is missing, damaged or of another format or version.
    """
    with reading(path):
        # Without locks, which some network file systems do not have: what is complete is not
        # written to again.
        file = h5py.File(path, "r", locking=False)
    try:
        with reading(path):
            attributes = read_attributes(file)
            stated = attributes.get("format"), attributes.get("version")
            if stated not in [(form, number) for number in (version, *later)]:
                wanted = " or ".join(map(str, (version, *later)))
                raise ValueError(
                    f"it has format {stated[0]} version {stated[1]}, not {form} {wanted}"
                )
            link, dataset = file.get(main, getlink=True), file[main]
            if not isinstance(link, h5py.HardLink) or dataset.external or dataset.is_virtual:
                raise ValueError(f"its {main} lie in another file")
    except ClotlineError:
        file.close()
        raise
    return file


@contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Turns what HDF5 raises of damaged bytes, or of a file that the system does not let it read.

    Raises:
        ClotlineError: which of the two it is, with the file's name and what to do.
    """
    try:
        yield
    except (OSError, KeyError, RuntimeError, TypeError, ValueError, AttributeError) as error:
        raise unusable(path, error) from None


def write_column(group: h5py.Group, name: str, values: np.ndarray) -> None:
    """Writes a small column with a checksum that HDF5 verifies by itself."""
    # Chunks of nothing cannot be.
    group.create_dataset(name, data=values, fletcher32=bool(len(values)) or None)


def uid_dtype(uids: Sequence[str]) -> str:
    """Dtype of a column of UIDs: 64 bytes, or more where a frame's number follows one (1.2.3#7)."""
    return f"S{max(64, max(map(len, uids), default=0))}"


def byte_sum(content: bytes | memoryview | np.ndarray) -> int:
    """The checksum of some bytes: 64-bit XXH3, seed 0 (https://github.com/Cyan4973/xxHash).

    It sees every change of the bytes but for one in 2**64. A cryptographic digest would take longer
    than reading what it guards.
    """
    return xxh3_64_intdigest(content)


def byte_sums(rows: np.ndarray) -> np.ndarray:
    """One `byte_sum` a row.

    Args:
        rows: (n, ...) of any type.

    Returns:
        (n,) uint64.
    """
    rows = np.ascontiguousarray(rows)
    return np.fromiter(map(byte_sum, rows), np.uint64, len(rows))
