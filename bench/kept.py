"""What finished rungs of a ladder gave, kept in a file of the project.

So a ladder goes on where it was stopped on another machine too, without its shards, features and
networks: of each rung and seed the AUROC is kept, with that of every resample of the test studies,
from which the differences of any two rungs and their intervals follow.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from clotline.evaluation.intervals import TAILS, Cases, resample
from clotline.evaluation.ranking import Ranking
from clotline.job.files import atomic

#: Digits of a kept AUROC: a hundredth of what an interval of 300 studies is wide is two.
DIGITS = 5


@dataclass(frozen=True)
class Ranked:
    """How one network ranks the test cases.

    Attributes:
        value: its AUROC.
        drawn: that of each resample of the test studies; NaN of one that lacks a class. All rungs
            of a ladder have the same resamples.
    """

    value: float
    drawn: tuple[float, ...]

    @classmethod
    def of(cls, cases: Cases, resamples: int) -> "Ranked":
        """That of test cases."""
        ranking = Ranking(cases)
        value = ranking.metrics(np.ones(cases.studies, int))[0]
        drawn = resample(lambda draws: ranking.metrics(draws)[:1], cases.studies, resamples, 0)
        rounded = (round(float(auroc), DIGITS) for auroc in drawn[:, 0])
        return cls(round(float(value), DIGITS), tuple(rounded))


def difference(
    of: Mapping[int, Ranked], other: Mapping[int, Ranked], seed: int = 0
) -> tuple[float, float, float]:
    """Mean difference of two rungs' AUROC over the seeds that both have, with a 95% interval.

    Studies are resampled, the same for both rungs and all seeds, and with them the seeds: the
    interval is for other studies and other trainings alike.

    Args:
        of: seed to the ranking of one rung.
        other: seed to that of the other, of the same studies and resamples.
        seed: of the resamples of the seeds.

    Returns:
        The difference, and the ends of its interval.
    """
    seeds = sorted(set(of) & set(other))
    value = np.mean([of[s].value - other[s].value for s in seeds])
    each = np.array([np.subtract(of[s].drawn, other[s].drawn) for s in seeds])
    chosen = np.random.default_rng((seed, 1)).integers(0, len(seeds), each.shape[::-1])
    drawn = np.take_along_axis(each, chosen.T, axis=0).mean(axis=0)
    return float(value), *(float(end) for end in np.nanquantile(drawn, TAILS))


@dataclass(frozen=True)
class KeptRung:
    """What one rung of one seed gave.

    Attributes:
        part: of bench/accuracy.md.
        key: of its configuration and studies: what differs in any of them is another rung.
        seed: of the trainings.
        name: of the rung when it was run, for who reads the file.
        machine: that trained it.
        date: when, as YYYY-MM-DD.
        views: backbone to the slices that it was trained on, counted each time.
        stage1_s: CPU seconds of stage 1.
        stage2_s: CPU seconds of stage 2.
        ranked: column of the table to the ranking of the test cases.
        bands: band of positive slices to the study AUROC (None if there is none) and the number
            of positive studies.
    """

    part: str
    key: str
    seed: int
    name: str
    machine: str
    date: str
    views: dict[str, int]
    stage1_s: float
    stage2_s: float
    ranked: dict[str, Ranked]
    bands: dict[str, tuple[float | None, int]]


@dataclass(frozen=True)
class KeptCohort:
    """What is said of the studies of a ladder.

    Attributes:
        part: of bench/accuracy.md.
        key: of all that the studies follow from.
        studies: split to the number of its studies.
        by_position: AUROC of test studies and of their slices by the slices' positions alone.
    """

    part: str
    key: str
    studies: dict[str, int]
    by_position: tuple[float, float]


class Kept:
    """The file: a JSON object a line, of a rung or of a cohort.

    Args:
        path: of the file; none yet is an empty one.
    """

    def __init__(self, path: Path):
        self._path = path
        self.rungs: list[KeptRung] = []
        self.cohorts: list[KeptCohort] = []
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                self._take(json.loads(line))

    def _take(self, content: dict) -> None:
        if "ranked" not in content:
            content["by_position"] = tuple(content["by_position"])
            self.cohorts.append(KeptCohort(**content))
            return
        ranked = {
            name: Ranked(of["value"], tuple(np.array(of["drawn"], float)))
            for name, of in content["ranked"].items()
        }
        bands = {name: tuple(band) for name, band in content["bands"].items()}
        self.rungs.append(KeptRung(**content | {"ranked": ranked, "bands": bands}))

    def rung(self, part: str, key: str) -> dict[int, KeptRung]:
        """Seed to what a rung gave."""
        found = [rung for rung in self.rungs if (rung.part, rung.key) == (part, key)]
        return {rung.seed: rung for rung in sorted(found, key=lambda rung: rung.seed)}

    def cohort(self, part: str, key: str) -> KeptCohort | None:
        """What is said of some studies, if anything is."""
        found = (c for c in self.cohorts if (c.part, c.key) == (part, key))
        return next(found, None)

    def add(self, entry: KeptRung | KeptCohort) -> None:
        """Keeps an entry, in the file at once; what another process has kept since stays in it."""
        now = Kept(self._path)
        (now.rungs if isinstance(entry, KeptRung) else now.cohorts).append(entry)
        self.rungs, self.cohorts = now.rungs, now.cohorts
        lines = [json.dumps(_plain(asdict(e))) for e in (*self.cohorts, *self.rungs)]
        with atomic(self._path) as path:
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _plain(content: dict) -> dict:
    """With null for NaN, which JSON does not have."""
    for ranked in content.get("ranked", {}).values():
        ranked["drawn"] = [None if np.isnan(auroc) else auroc for auroc in ranked["drawn"]]
    return content
