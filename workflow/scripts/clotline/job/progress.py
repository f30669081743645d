"""Progress of long loops, as log lines that read well in a file and on a terminal."""

import logging
import time
from collections.abc import Iterable, Iterator

log = logging.getLogger("clotline")


class Meter:
    """Logs how far something is, at most every few seconds."""

    def __init__(self, what: str, unit: str, every_s: float = 10):
        """Starts the clock.

        Args:
            what: what is being done, such as ``decoding``.
            unit: what is counted, in the plural, such as ``slices``.
            every_s: seconds between two lines.
        """
        self._what, self._unit, self._every_s = what, unit, every_s
        self._start = self._last = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        """Reports ``done`` of ``total`` units."""
        now = time.monotonic()
        if now - self._last < self._every_s or not 0 < done < total:
            return
        self._last = now
        rate = done / (now - self._start)
        log.info(
            "%s: %s of %s %s (%.0f%%), %.3g/s, %s left",
            self._what, f"{done:,}", f"{total:,}", self._unit, 100 * done / total, rate,
            clock((total - done) / rate),
        )  # fmt: skip


def progress(items: Iterable, total: int, what: str, unit: str, step=lambda item: 1) -> Iterator:
    """Yields ``items`` and reports each to a `Meter`.

    Args:
        items: what to loop over.
        total: number of units in all.
        what: as for `Meter`.
        unit: as for `Meter`.
        step: number of units in one item.
    """
    meter = Meter(what, unit)
    done = 0
    for item in items:
        yield item
        done += step(item)
        meter(done, total)


def clock(seconds: float) -> str:
    """Seconds as ``h:mm:ss`` or ``m:ss``."""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02}:{s:02}" if hours else f"{m}:{s:02}"
