"""What several processes of the tests share is made by one of them."""

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def one_at_a_time(common: Path) -> Iterator[None]:
    """Makes the tests' other processes wait: two runs in one working directory cannot be."""
    with (common / "lock").open("w") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        yield


def make_once(common: Path, name: str, make: Callable[[], object]) -> None:
    """Calls ``make`` unless this or another of the tests' processes has done it under ``name``."""
    done = common / f"{name}.done"
    with one_at_a_time(common):
        if not done.exists():
            make()
            done.touch()
