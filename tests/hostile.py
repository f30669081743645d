"""How hard the tests of hostile input and crashes try, and how they do damage."""

import os
import random
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clotline.errors import ClotlineError

#: 1 in `make test`; `make torture` tries ten times as many cases.
TORTURE = int(os.environ.get("CLOTLINE_TORTURE", "1"))


def flip_bit(content: bytes, rng: random.Random) -> bytes:
    """A copy of ``content`` with one bit of it turned over."""
    damaged = bytearray(content)
    damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


class Touch:
    """Pickled, it makes a file when it is loaded."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """A disk of ``size`` bytes mounted at ``folder``; needs root."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill_disk(folder: Path, left: int) -> Path:
    """Writes a file that leaves ``left`` bytes free on the disk of ``folder``."""
    ballast = folder / ".ballast"
    with ballast.open("wb") as file:
        file.write(bytes(max(shutil.disk_usage(folder).free - left, 0)))
    return ballast


#: What the tests of hostile input and crashes have done, for the table of `make torture`.
TALLY = Counter(dict.fromkeys(("cases tried", "stored", "rejected", "crashed", "lost"), 0))
TALLY["kills survived"] = 0


def tally(outcome: str) -> None:
    """Counts one case."""
    TALLY["cases tried"] += 1
    TALLY[outcome] += 1


@contextmanager
def failures_counted() -> Iterator[None]:
    """Counts a failed check as lost and any other exception as crashed; both go on to the test."""
    try:
        yield
    except AssertionError:
        tally("lost")
        raise
    except Exception:
        tally("crashed")
        raise


class Cases:
    """Damaged files that are tried one by one.

    Attributes:
        refused: how many of them were refused.
    """

    def __init__(self):
        self.refused = 0

    @contextmanager
    def one(self, words: object) -> Iterator[None]:
        """A case: refused with a message that has ``words``, or read and checked."""
        with failures_counted():
            try:
                yield
            except ClotlineError as error:
                assert str(words) in str(error)
                self.refused += 1
                tally("rejected")
            else:
                tally("stored")
