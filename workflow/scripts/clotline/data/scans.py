"""Which slices of a series are one scan: one stack of slices, made in one way at one time.

A SeriesInstanceUID is no promise: scanners put several acquisitions, phases, kernels and pictures
of bolus tracking under one, archives join and split them, and anonymisers give one to two patients.
What is chosen and put in order is therefore a scan. Terms are those of DICOM PS3.3, C.7.3.1
(General Series), C.7.6.2 (Image Plane), C.7.6.17 (Multi-frame Dimension) and C.8.2.1 (CT Image).
"""

import math
from bisect import bisect
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from clotline.data.dicom.traits import Traits

#: Fewest positions of a scan that can show the pulmonary arteries.
MIN_SLICES = 16

#: Largest step between neighbours that still are one stack, in usual steps.
MAX_STEP = 3.0


def positions_of(traits: Sequence[Traits]) -> list[float | None]:
    """Where each slice of a series lies along the scan axis, in mm; None where nothing says.

    A value that is the same in all slices says nothing: then SliceLocation counts, if it differs.
    """
    positions = [t.position for t in traits]
    locations = [t.location for t in traits]
    told = len({p for p in positions if p is not None})
    if None in locations or len(set(locations)) <= max(1, told):
        return positions
    if told <= 1 or positions.count(None) == len(positions):
        return locations
    return positions


#: What always tells two scans apart, for neighbours of one stack have the same.
_ALWAYS: tuple[tuple[str, Callable[[Traits], Hashable]], ...] = (
    ("ImageOrientationPatient", lambda t: t.axes),
    ("matrix", lambda t: t.matrix),
    ("PixelSpacing", lambda t: t.spacing),
    ("ConvolutionKernel", lambda t: t.kernel),
)
#: What tells two scans apart that lie side by side in space: a scan that goes on step by step has
#: several acquisitions, one after the other.
_WHERE_THEY_OVERLAP: tuple[tuple[str, Callable[[Traits], Hashable]], ...] = (
    ("TemporalPositionIdentifier", lambda t: t.temporal),
    ("StackID", lambda t: t.stack),
    ("AcquisitionNumber", lambda t: t.acquisition),
    ("ImageType", lambda t: t.image_type),
    ("SliceThickness", lambda t: t.thickness),
    ("FrameOfReferenceUID", lambda t: t.frame),
)


#: What counts on through a scan from one end to the other, and goes back where another one begins.
_IN_THEIR_ORDER: tuple[tuple[str, Callable[[Traits], float | None]], ...] = (
    ("InstanceNumber", lambda t: t.instance),
    ("AcquisitionTime", lambda t: t.time),
)
#: Most scans that are told apart so, and fewest slices of each: beyond, the numbers say nothing.
_MOST_RUNS, _SHORTEST_RUN = 4, 4

#: Most positions with several slices, as a share of all, that are no phases.
_FEW = 0.1


@dataclass(frozen=True)
class Part:
    """One scan of a series.

    Attributes:
        members: indices of its slices, in no order.
        told_by: what tells it from the others of its series, such as "AcquisitionNumber 2"; empty
            where it is the only one.
        mixed: two slices which show that it is none: both claim the same and differ.
    """

    members: list[int]
    told_by: str = ""
    mixed: tuple[int, int] | None = None


def split_scans(traits: Sequence[Traits]) -> list[Part]:
    """The scans of one series in the order of their first instance numbers.

    Args:
        traits: of its slices, of which none is a copy of another.
    """
    positions = positions_of(traits)
    parts = [Part(list(range(len(traits))))]
    for name, key in _ALWAYS:
        parts = [new for part in parts for new in _split_by(part, name, key, traits)]
    for name, key in _WHERE_THEY_OVERLAP:
        parts = [
            new for part in parts for new in _split_overlapping(part, name, key, traits, positions)
        ]
    for name, key in _IN_THEIR_ORDER:
        parts = [new for part in parts for new in _split_runs(part, name, key, traits, positions)]
    parts = [new for part in parts for new in _phases(part, traits, positions)]
    return sorted(
        parts, key=lambda part: (min(_when(traits[m]) for m in part.members), part.told_by)
    )


def _split_by(
    part: Part, name: str, key: Callable[[Traits], Hashable], traits: Sequence[Traits]
) -> list[Part]:
    groups = defaultdict(list)
    for member in part.members:
        groups[key(traits[member])].append(member)
    if len(groups) == 1:
        return [part]
    return [
        Part(members, _and(part.told_by, f"{name} {_shown(value)}"))
        for value, members in groups.items()
    ]


def _and(told_by: str, more: str) -> str:
    return f"{told_by}, {more}" if told_by else more


def _shown(value: Hashable) -> str:
    if value in (None, "", ()):
        return "none"
    if isinstance(value, tuple):
        return " × ".join(map(_shown, value)) if len(value) < 6 else "\\".join(map(_shown, value))
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _split_overlapping(
    part: Part,
    name: str,
    key: Callable[[Traits], Hashable],
    traits: Sequence[Traits],
    positions: Sequence[float | None],
) -> list[Part]:
    new = _split_by(part, name, key, traits)
    if len(new) > 1 and one_stack([[positions[m] for m in p.members] for p in new]):
        return [part]
    return new


def _split_runs(
    part: Part,
    name: str,
    key: Callable[[Traits], float | None],
    traits: Sequence[Traits],
    positions: Sequence[float | None],
) -> list[Part]:
    """A part of which the slices go through the same space several times, one after the other.

    They need not lie at the same positions: two scans begin where they like.
    """
    values = {member: key(traits[member]) for member in part.members}
    numbers = [traits[member].instance for member in part.members]
    if None in values.values() or any(positions[member] is None for member in part.members):
        return [part]
    # Numbers that count twice are no order, and a reason to refuse: see `_numbered_twice`.
    if len(set(numbers)) < len(numbers) and numbers != [None] * len(numbers):
        return [part]
    runs: list[list[int]] = [[]]
    upwards = None
    for member in sorted(part.members, key=lambda m: (values[m], positions[m])):
        run = runs[-1]
        step = positions[member] - positions[run[-1]] if run else math.inf
        if step == 0:
            return [part]  # phases lie at the same positions, one slice after the other
        if len(run) > 1 and (step > 0) != upwards:
            runs.append([member])
            continue
        upwards = step > 0
        run.append(member)
    if not 2 <= len(runs) <= _MOST_RUNS or min(map(len, runs)) < _SHORTEST_RUN:
        return [part]
    if one_stack([[positions[member] for member in run] for run in runs]):
        return [part]
    return [
        Part(
            run, _and(part.told_by, f"{name} {_shown(values[run[0]])} to {_shown(values[run[-1]])}")
        )
        for run in runs
    ]


def one_stack(groups: Sequence[Sequence[float | None]]) -> bool:
    """Whether groups of slices lie one behind the other as one stack, without a gap.

    Args:
        groups: positions of each group's slices in mm; None where unknown.
    """
    if any(None in group for group in groups):
        return False
    ordered = sorted(groups, key=min)
    everything = sorted(position for group in groups for position in group)
    steps = [b - a for a, b in pairwise(everything)]
    if not steps or min(steps) <= 0:
        return False
    usual = median(steps)
    return all(
        max(low) < min(high) <= max(low) + MAX_STEP * usual for low, high in pairwise(ordered)
    )


def _phases(part: Part, traits: Sequence[Traits], positions: Sequence[float | None]) -> list[Part]:
    """A part split into its phases, where several slices lie at each position."""
    at = defaultdict(list)
    for member in part.members:
        # A slice without a position counts as a position of its own.
        position = positions[member]
        at[("own", member) if position is None else position].append(member)
    if len(at) < min(MIN_SLICES, len(part.members)):
        return [part]  # no scan in any case, as of bolus tracking
    if len(at) == len(part.members):
        pair = _numbered_twice(part.members, traits, positions)
        return [Part(part.members, part.told_by, pair)]
    phases = defaultdict(list)
    numbers = _numbers_around(at, traits)
    for position, members in at.items():
        keys = [_when(traits[m]) for m in members]
        if len(set(keys)) < len(keys):
            first = next(k for k, count in Counter(keys).items() if count > 1)
            pair = [m for m, k in zip(members, keys, strict=True) if k == first][:2]
            return [Part(part.members, part.told_by, (pair[0], pair[1]))]
        ranked = [member for _, member in sorted(zip(keys, members, strict=True))]
        if position in numbers:
            ranked.sort(key=lambda m: abs(traits[m].instance - numbers[position]))
        for number, member in enumerate(ranked):
            phases[number].append(member)
    return [
        Part(members, _and(part.told_by, f"phase {number + 1} by InstanceNumber"))
        for number, members in phases.items()
    ]


def _numbers_around(at: dict[Hashable, list[int]], traits: Sequence[Traits]) -> dict:
    """With which number a scan goes on where few positions have several slices.

    They are no phases, but for example of bolus tracking.

    Args:
        at: members by their position.
        traits: of all slices.

    Returns:
        Position to the mean InstanceNumber of the slices beside it; nothing where most positions
        have several, which are phases, or positions or numbers are not known.
    """
    several = [position for position, members in at.items() if len(members) > 1]
    unknown = any(isinstance(position, tuple) for position in at)
    if unknown or len(several) > _FEW * len(at):
        return {}
    if any(traits[m].instance is None for members in at.values() for m in members):
        return {}
    alone = sorted((p, traits[m[0]].instance) for p, m in at.items() if len(m) == 1)
    numbers = {}
    for position in several:
        after = bisect(alone, (position, math.inf))
        beside = alone[max(0, after - 1) : after + 1]
        numbers[position] = sum(number for _, number in beside) / len(beside)
    return numbers


def _when(traits: Traits) -> tuple[float, float]:
    """What orders the phases at one position: instance number first, for most writers count on."""
    return (
        -math.inf if traits.instance is None else traits.instance,
        -math.inf if traits.time is None else traits.time,
    )


def _numbered_twice(
    members: Sequence[int], traits: Sequence[Traits], positions: Sequence[float | None]
) -> tuple[int, int] | None:
    """Two slices with the same number, where many share one: two scans are interleaved."""
    numbered = defaultdict(list)
    for member in members:
        if traits[member].instance is None or positions[member] is None:
            return None
        numbered[traits[member].acquisition, traits[member].instance].append(member)
    repeated = [members for members in numbered.values() if len(members) > 1]
    if len(numbered) < 2 or sum(map(len, repeated)) < 0.5 * len(members):
        return None
    if max(map(len, repeated)) > 4:
        return None  # numbers that say little, as one for each half of a scan
    along = [traits[m].instance for m in sorted(members, key=lambda m: positions[m])]
    steps = [b - a for a, b in pairwise(along)]
    upwards = median(steps) > 0
    if sum(step == 0 or (step > 0) != upwards for step in steps) < _MOST_RUNS:
        return None  # each part of a scan has numbers of its own, and lies behind the one before
    return repeated[0][0], repeated[0][1]


def are_one(scans: Sequence[Sequence[Traits]]) -> bool:
    """Whether scans of several series are one that was split.

    They have the same traits, lie one behind the other, and their instance numbers go on.
    """
    every = [traits for scan in scans for traits in scan]
    same = {
        (t.frame, t.acquisition, t.image_type, t.thickness, t.temporal, *(k(t) for _, k in _ALWAYS))
        for t in every
    }
    if len(same) > 1 or not every[0].frame or any(t.instance is None for t in every):
        return False
    positions = [positions_of(scan) for scan in scans]
    if not one_stack(positions):
        return False
    ordered = sorted(
        zip([p for of in positions for p in of], every, strict=True), key=lambda x: x[0]
    )
    numbers = [t.instance for _, t in ordered]
    steps = [b - a for a, b in pairwise(numbers)]
    return all(step > 0 for step in steps) or all(step < 0 for step in steps)
