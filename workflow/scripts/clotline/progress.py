"""Progress of long loops, as log lines that read well in a file and on a terminal."""

import logging
import time
from collections.abc import Iterable, Iterator

log = logging.getLogger("clotline")


def progress(
    items: Iterable, total: int, what: str, unit: str, every_s: float = 10, step=lambda item: 1
) -> Iterator:
    """Yields ``items`` and logs how far it is at most every ``every_s`` seconds.

    Args:
        items: what to loop over.
        total: number of units in all.
        what: what is being done, such as ``shard-000``.
        unit: what is counted, in the plural, such as ``slices``.
        every_s: seconds between two lines.
        step: number of units in one item.
    """
    start = last = time.monotonic()
    done = 0
    for item in items:
        yield item
        done += step(item)
        now = time.monotonic()
        if now - last >= every_s and done < total:
            last = now
            rate = done / (now - start)
            left = (total - done) / rate if rate else 0
            log.info(
                "%s: %s of %s %s (%.0f%%), %.0f/s, %s left",
                what, f"{done:,}", f"{total:,}", unit, 100 * done / total, rate, clock(left),
            )  # fmt: skip


def clock(seconds: float) -> str:
    """Seconds as ``h:mm:ss`` or ``m:ss``."""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02}:{s:02}" if hours else f"{m}:{s:02}"
