"""What several processes of the tests share is made by one of them."""

import fcntl
from collections.abc import Callable
from pathlib import Path


def make_once(common: Path, name: str, make: Callable[[], object]) -> None:
    """Calls ``make`` unless this or another of the tests' processes has done it under ``name``.

    The others wait: two runs in one working directory cannot be.
    """
    done = common / f"{name}.done"
    with (common / f"{name}.lock").open("w") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        if not done.exists():
            make()
            done.touch()
