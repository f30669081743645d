"""Contestants measured side by side: in turns, so that a noisy machine treats them alike."""

import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

#: Each contestant's turns, of which the median counts.
ROUNDS = 5

Contestant = Callable[[], int]


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        stage: what was measured.
        unit: of the rates, such as slices/s.
        ours: rate of this pipeline.
        published: rate of the published way.
        ratio: median of the rounds' ratios of the two.
        reach: the ratio to be reached, if any.
        limit: what the machine could do at best, in words.
        limit_rate: its rate.
        of_limit: median of the rounds' ratios of ours to it.
        note: what else a reader must know.
    """

    stage: str
    unit: str
    ours: float
    published: float
    ratio: float
    reach: float | None
    limit: str
    limit_rate: float
    of_limit: float
    note: str = ""


@dataclass(frozen=True)
class Size:
    """What a slice takes on the disk.

    Attributes:
        data: whose slices.
        ours_kb: bytes of this pipeline's file, in thousands.
        published_kb: of the published way's.
        reach: how many times smaller ours is to be, if at all.
    """

    data: str
    ours_kb: float
    published_kb: float
    reach: float | None


@dataclass(frozen=True)
class Ratio:
    """What something takes or does beside another way of it.

    Attributes:
        what: was measured.
        unit: of the two values.
        ours: median of this build.
        beside: the other way.
        theirs: its median; None where it refuses.
        ratio: median of the turns' ratios of ours to theirs; None where it refuses.
        reach: the ratio to be reached, if any: at least where it is 1 or more, else at most.
        note: what else a reader must know.
    """

    what: str
    unit: str
    ours: float
    beside: str
    theirs: float | None
    ratio: float | None
    reach: float | None
    note: str = ""

    @property
    def reached(self) -> bool:
        """Whether the ratio is what it was to be, where something was."""
        return self.ratio >= self.reach if self.reach >= 1 else self.ratio <= self.reach


def seconds_of(contestant: Contestant) -> tuple[float, int]:
    """Seconds that one turn takes, and the units that it did."""
    start = time.perf_counter()
    units = contestant()
    return time.perf_counter() - start, units


def forget(*paths: Path) -> None:
    """Drops files from the system's cache, as happens to those of a set larger than the memory."""
    os.sync()
    for path in paths:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def flush(path: Path) -> None:
    """Waits until a file is on the disk: the cache takes only so much of a large one."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def race(
    contestants: dict[str, Contestant],
    rounds: int = ROUNDS,
    cold: Sequence[Path] = (),
    made: Sequence[Path] = (),
) -> dict[str, list[float]]:
    """Rates of each contestant, one a round, after a turn of each that does not count.

    Args:
        contestants: name to what does some units of work and says how many.
        rounds: turns of each.
        cold: files that no turn finds in the system's cache.
        made: files that no turn finds at all: writing over one waits for the disk.
    """
    for contestant in contestants.values():
        contestant()
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, contestant in contestants.items():
            for path in made:
                path.unlink(missing_ok=True)
            if cold:
                forget(*cold)
            seconds, units = seconds_of(contestant)
            rates[name].append(units / seconds)
    return rates


def ratio(
    what: str,
    unit: str,
    ours: Sequence[float],
    beside: str,
    theirs: Sequence[float] | None,
    reach: float | None,
    note: str = "",
) -> Ratio:
    """The ratio of values of which each pair was measured in one turn; arguments as of `Ratio`."""
    middle = statistics.median(ours)
    if theirs is None:
        return Ratio(what, unit, middle, beside, None, None, None, note)
    found = statistics.median(one / other for one, other in zip(ours, theirs, strict=True))
    return Ratio(what, unit, middle, beside, statistics.median(theirs), found, reach, note)


def compare(
    stage: str,
    unit: str,
    reach: float | None,
    ours: Contestant,
    published: Contestant,
    limit: tuple[str, Contestant],
    note: str = "",
    cold: Sequence[Path] = (),
    made: Sequence[Path] = (),
) -> Row:
    """Races this pipeline, the published way and the limit.

    Args:
        stage: what is measured.
        unit: of the rates.
        reach: the ratio of ours to the published way that is to be reached, if any.
        ours: this pipeline.
        published: the published way.
        limit: what the machine could do at best, in words, and as a contestant.
        note: what else a reader must know.
        cold: as of `race`.
        made: as of `race`.
    """
    contestants = {"ours": ours, "published": published, "limit": limit[1]}
    rates = race(contestants, cold=cold, made=made)

    def ratio(of: str) -> float:
        pairs = zip(rates["ours"], rates[of], strict=True)
        return statistics.median(mine / other for mine, other in pairs)

    middle = {name: statistics.median(found) for name, found in rates.items()}
    return Row(
        *(stage, unit, middle["ours"], middle["published"], ratio("published"), reach),
        *(limit[0], middle["limit"], ratio("limit"), note),
    )
