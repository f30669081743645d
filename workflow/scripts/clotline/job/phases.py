"""Where a job's time goes, in a line of its log."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

log = logging.getLogger("clotline")


class Phases:
    """Seconds of a job's parts; the first, before it was made, is the start of its process."""

    def __init__(self):
        self._begin = psutil.Process().create_time()
        self._seconds = {"start": time.time() - self._begin}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Counts what is done within; parts of one name are added up."""
        begin = time.time()
        try:
            yield
        finally:
            self._seconds[name] = self._seconds.get(name, 0) + time.time() - begin

    def tell(self) -> None:
        """Says it on the screen; what no part counts is ``else``."""
        whole = time.time() - self._begin
        parts = self._seconds | {"else": whole - sum(self._seconds.values())}
        told = ", ".join(f"{name} {seconds:.1f}" for name, seconds in parts.items())
        log.info("took %.1f s: %s", whole, told)
