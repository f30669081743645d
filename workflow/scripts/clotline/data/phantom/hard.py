"""The hard phantom: small emboli at any height, and look-alikes that only their neighbours tell.

An embolus is a tube of 2, 3, 5 or 8 mm along an artery, and shows in `LEAST_SLICES` slices or more
that follow each other. A look-alike is one slice of such a tube: in that slice it has the same
shapes, sizes, places and attenuation, and above and below it the artery is open. Studies with and
without embolism have look-alikes alike often, in runs as long as an embolus's and each in another
artery than the one before, so that neither their number in a slice nor in a study says whether
there is an embolism. With more of them networks that begin to learn would have less to learn from.

Contrast, noise and reconstruction kernel vary from study to study, and a scan begins and ends at
another height of the lungs. Lengths in mm, attenuation in Hounsfield units (HU).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from .anatomy import Chest, cavity_axes
from .emboli import MURAL, Clot, visible_slices
from .geometry import Grid, Tube, smooth_tube

#: Diameters of emboli in mm, each as often as the others.
DIAMETERS = (2.0, 3.0, 5.0, 8.0)

#: Fewest and most slices that one embolus shows in.
LEAST_SLICES, MOST_SLICES = 3, 14

#: Least and most positive slices of a study, each band as often as the others: those of the
#: evaluation (`clotline.evaluation.metrics.SIZES`). The last ends at a share of the scan.
BANDS = ((LEAST_SLICES, 5), (6, 20), (21, 50), (51, None))
_MOST_OF_SCAN = 0.85

#: Share of studies with look-alikes.
_WITH_LOOK_ALIKES = 0.4

#: How wide an artery is about an embolus, in diameters of the embolus.
_CALIBRE = (1.15, 4.0)

#: A slice shows an embolus where it holds this share of a disc of the embolus's diameter.
_VISIBLE_SHARE = 0.35

#: An artery that rises less than this from slice to slice, in mm a mm of its length, is left out:
#: what lies along it shows in one slice or two.
_LEAST_RISE = 0.4

#: Places that are tried for the emboli of a patient before all is drawn anew.
_MOST_TRIES = 1000

#: Fine arteries a lung.
_SUBSEGMENTAL = 22


@dataclass(frozen=True)
class _Places:
    """Points all along the arteries, a millimetre apart, where an embolus may lie.

    Attributes:
        artery: (n,) int, which of `names`.
        names: of the arteries.
        arc: (n,) float, length along the artery in mm.
        z: (n,) float, height in mm.
        calibre: (n,) float, diameter of the artery in mm.
    """

    artery: np.ndarray
    names: tuple[str, ...]
    arc: np.ndarray
    z: np.ndarray
    calibre: np.ndarray

    @classmethod
    def along(cls, arteries: dict[str, Tube]) -> "_Places":
        columns = []
        for number, tube in enumerate(arteries.values()):
            arc = np.arange(0.0, tube.arc[-1], 1.0)
            points, radii = tube.at(arc)
            if len(arc) < 2:
                continue
            rises = np.abs(np.gradient(points[:, 2], arc)) >= _LEAST_RISE
            here = np.full(len(arc), number), arc, points[:, 2], 2 * radii
            columns.append([column[rises] for column in here])
        artery, arc, z, calibre = (np.concatenate(c) for c in zip(*columns, strict=True))
        return cls(artery, tuple(arteries), arc, z, calibre)

    def draw(
        self,
        rng: np.random.Generator,
        diameter: float,
        z: float,
        within: float,
        without: Sequence[str] = (),
    ) -> tuple[str, float] | None:
        """An artery and a length along it, in mm, at a height; None where none is wide enough."""
        low, high = (share * diameter for share in _CALIBRE)
        fits = (np.abs(self.z - z) <= within) & (self.calibre >= low) & (self.calibre <= high)
        for name in without:
            fits &= self.artery != self.names.index(name)
        found = np.flatnonzero(fits)
        if not len(found):
            return None
        # Each artery at this height as often as another, however steep.
        artery = rng.choice(np.unique(self.artery[found]))
        found = found[self.artery[found] == artery]
        return self.names[artery], float(self.arc[rng.choice(found)])


def harden_chest(rng: np.random.Generator, chest: Chest) -> Chest:
    """The patient with subsegmental arteries in all parts of both lungs, and other contrast."""
    arteries = dict(chest.arteries)
    for side, sign in (("right", -1), ("left", 1)):
        for number in range(_SUBSEGMENTAL):
            branch = _grow(rng, chest, arteries, side, sign)
            arteries[f"{side}_subsegmental_{number}"] = branch
    factor = rng.uniform(0.6, 1.25)
    vessels = ("pulmonary", "right_heart", "left_heart", "aorta", "cava")
    hu = chest.hu | {name: max(45.0, chest.hu[name] * factor) for name in vessels}
    return replace(chest, arteries=arteries, hu=hu)


def _grow(
    rng: np.random.Generator, chest: Chest, arteries: dict[str, Tube], side: str, sign: int
) -> Tube:
    """A branch from the nearest artery of a side to anywhere in its lung."""
    while True:
        goal = np.array(
            [
                sign * rng.uniform(32, 115) * chest.size,
                rng.uniform(-55, 75) * chest.size,
                rng.uniform(-100, 85) * chest.size,
            ]
        )
        if not _in_lung(chest, goal, sign):
            continue
        # Beyond the trunk and the main arteries; a branch does not begin at a fine one's tip.
        roots = [t for name, t in arteries.items() if name.startswith(side) and "main" not in name]
        points = np.concatenate([tube.points[2:-1] for tube in roots])
        radii = np.concatenate([tube.radii[2:-1] for tube in roots])
        distance = np.linalg.norm(points - goal, axis=1)
        nearest = int(np.argmin(np.where(radii >= 1.8, distance, np.inf)))
        if distance[nearest] < 18:
            continue
        start, wide = points[nearest], min(0.8 * radii[nearest], rng.uniform(2.2, 3.2))
        middle = 0.5 * (start + goal) + rng.normal(0, 4, 3)
        narrow = max(0.6 * wide, 1.3)
        radii = np.array([wide, 0.5 * (wide + narrow), narrow])
        return smooth_tube(np.stack([start, middle, goal]), radii)


def _in_lung(chest: Chest, point: np.ndarray, sign: int) -> bool:
    """Whether a point lies well inside a lung: in the cavity, above the diaphragm, not the heart.

    Args:
        chest: the patient.
        point: (3,) in mm.
        sign: -1 for the right lung, 1 for the left one.
    """
    x, y, z = point
    width, depth, middle = (float(v[0]) for v in cavity_axes(chest, np.array([z])))
    if ((x / (width - 8)) ** 2 + ((y - middle) / (depth - 8)) ** 2) > 0.9:
        return False
    dome = chest.domes[0 if sign < 0 else 1]
    # The organs under the diaphragm, as the picture has them, from its lowest slice's cavity.
    base, _, _ = (float(v[0]) for v in cavity_axes(chest, np.array([dome])))
    below = ((x - sign * (0.5 * base + 2)) / (0.5 * base + 10)) ** 2
    below += (y / (depth + 4)) ** 2 + ((z - dome + 62) / 66) ** 2
    heart = ((x - 14 * chest.size) / (72 * chest.size)) ** 2
    heart += ((y + 24 * chest.size) / (60 * chest.size)) ** 2
    heart += ((z + 70 * chest.size) / (56 * chest.size)) ** 2
    return below > 1 and heart > 1


def hard_range(rng: np.random.Generator, chest: Chest) -> tuple[float, float]:
    """Where the scan begins and ends, in mm: in the lungs, at another height in each patient."""
    return min(chest.domes) + rng.uniform(-15, 12), rng.uniform(52, 88) * chest.size


def hard_scan(rng: np.random.Generator) -> dict[str, float]:
    """Noise and kernel of one study, as attributes of `clotline.data.phantom.cohort.Acquisition`.

    A sharp kernel and a soft one differ more in noise than two of one sort do.
    """
    sharp = rng.random() < 0.5
    return {
        "noise": rng.uniform(16, 40) if sharp else rng.uniform(6, 18),
        "grain": rng.uniform(0.5, 0.8) if sharp else rng.uniform(0.8, 1.4),
        "blur": rng.uniform(0.3, 0.7) if sharp else rng.uniform(0.7, 1.4),
        "sharpening": rng.uniform(0.2, 0.8) if sharp else 0.0,
    }


def _tube_at(
    rng: np.random.Generator,
    grid: Grid,
    arteries: dict[str, Tube],
    place: tuple[str, float],
    diameter: float,
    shape: str,
    slices: int,
) -> Clot:
    """An embolus of a diameter in mm about a place, over so many slices where its artery is wide.

    Args:
        rng: random numbers.
        grid: the voxels.
        arteries: the patient's.
        place: of `_Places.draw`.
        diameter: in mm.
        shape: central, eccentric (it touches the wall) or `MURAL` (a part of it is in the wall).
        slices: how many it is to show in.
    """
    name, at = place
    tube = arteries[name]
    arc = np.arange(0.0, tube.arc[-1], 1.0)
    points, radii = tube.at(arc)
    own = int(np.argmin(np.abs(arc - at)))
    wide = 2 * radii >= _CALIBRE[0] * diameter
    # From the place outwards in both ways, the way that is behind first.
    first = last = own
    needed = (slices - 1) * grid.spacing
    while np.ptp(points[first : last + 1, 2]) < needed:
        back, on = first > 0 and wide[first - 1], last + 1 < len(arc) and wide[last + 1]
        if not back and not on:
            break
        if back and (not on or own - first <= last - own):
            first -= 1
        else:
            last += 1
    # A tube of one point has no direction.
    last = max(last, first + 1) if first + 1 < len(arc) else last
    first = min(first, last - 1)
    kept = np.unique(np.r_[np.arange(first, last, 2), last])
    axis, room = points[kept], np.maximum(radii[kept] - diameter / 2, 0)
    along = axis[-1] - axis[0]
    aside = rng.normal(size=3)
    aside -= along * (aside @ along) / max(float(along @ along), 1e-6)
    aside /= np.linalg.norm(aside)
    away = {"central": rng.uniform(0, 0.5) * room, "eccentric": room, MURAL: room + diameter / 5}
    return Clot(
        shape=shape,
        hosts=(name,),
        outline=Tube(axis + aside * away[shape][:, None], np.full(len(axis), diameter / 2)),
        channels=(),
        hu=rng.uniform(25, 75),
        least_mm2=_VISIBLE_SHARE * np.pi / 4 * diameter**2,
    )


def _target(rng: np.random.Generator, slices: int, bands) -> tuple[int, int]:
    """How many slices of a scan are to be positive, and the most that may be."""
    scan = int(_MOST_OF_SCAN * slices)
    possible = [(low, high or slices) for low, high in bands if low <= scan]
    low, most = possible[int(rng.integers(len(possible)))]
    # An embolus more adds up to its own length.
    highest = max(low, min(most - LEAST_SLICES + 1, scan))
    return int(rng.integers(low, highest + 1)), most


def draw_small_emboli(
    rng: np.random.Generator, grid: Grid, arteries: dict[str, Tube], pe_type: str
) -> tuple[tuple[Clot, ...], np.ndarray]:
    """Draws the emboli of a patient: until as many slices show one as the study's band wants.

    Args:
        rng: random numbers.
        grid: the voxels; at least 20 slices.
        arteries: the patient's, of `harden_chest`.
        pe_type: acute, chronic or both.

    Returns:
        The emboli, and (slices,) bool: which slices show one.
    """
    places = _Places.along(arteries)
    while True:
        clots, shown = _draw_as_many(rng, grid, arteries, places, pe_type)
        if clots:
            return clots, shown


def _draw_as_many(
    rng: np.random.Generator, grid: Grid, arteries: dict[str, Tube], places: _Places, pe_type: str
) -> tuple[tuple[Clot, ...], np.ndarray]:
    """As `draw_small_emboli`; without an embolus where those drawn first leave no way to go on."""
    # Two sorts of emboli do not go into five slices.
    wanted, most = _target(rng, grid.slices, BANDS[1:] if pe_type == "both" else BANDS)
    longest = min(MOST_SLICES, max(LEAST_SLICES, wanted))
    clots: list[Clot] = []
    shown = np.zeros(grid.slices, bool)
    diameter, shape = float(rng.choice(DIAMETERS)), _shape(rng, pe_type, 0)
    for _ in range(_MOST_TRIES):
        if shown.sum() >= wanted and len({c.chronic for c in clots}) == 1 + (pe_type == "both"):
            return tuple(clots), shown
        # As drawn, the diameter stays: otherwise those that fit few places would be rare.
        place = places.draw(rng, diameter, rng.uniform(grid.z[0], grid.z[-1]), grid.spacing)
        if place is None:
            continue
        slices = int(rng.integers(LEAST_SLICES, longest + 1))
        clot = _tube_at(rng, grid, arteries, place, diameter, shape, slices)
        seen = visible_slices(grid, clot, arteries)
        if _is_run(seen) and (shown | seen).sum() <= most:
            clots.append(clot)
            shown |= seen
            diameter, shape = float(rng.choice(DIAMETERS)), _shape(rng, pe_type, len(clots))
    return (), shown


def _shape(rng: np.random.Generator, pe_type: str, number: int) -> str:
    """The shape of a patient's embolus; of both sorts by turns."""
    chronic = pe_type == "chronic" or (pe_type == "both" and number % 2 == 1)
    return MURAL if chronic else str(rng.choice(["central", "eccentric"]))


def _is_run(shown: np.ndarray) -> bool:
    """Whether slices that show something are enough and follow each other."""
    found = np.flatnonzero(shown)
    return len(found) >= LEAST_SLICES and found[-1] - found[0] + 1 == len(found)


def draw_look_alikes(
    rng: np.random.Generator, grid: Grid, arteries: dict[str, Tube], clots: Sequence[Clot]
) -> tuple[Clot, ...]:
    """Draws gaps of one slice each, in runs, over as many slices as emboli would take.

    Args:
        rng: random numbers.
        grid: the voxels.
        arteries: the patient's.
        clots: the emboli; a look-alike lies in an artery that has none.

    Returns:
        The look-alikes; `Clot.only` is the slice that has one.
    """
    if rng.random() >= _WITH_LOOK_ALIKES:
        return ()
    places = _Places.along(arteries)
    clotted = {host for clot in clots for host in clot.hosts}
    wanted, _ = _target(rng, grid.slices, BANDS)
    alike: list[Clot] = []
    shown = np.zeros(grid.slices, bool)
    # Where most arteries are clotted there is no room for as many.
    for _ in range(20):
        if shown.sum() >= wanted:
            break
        # Large ones fit fewer places: what there is little of is drawn more often.
        rarity = np.array([1 / (1 + sum(c.diameter == d for c in alike)) for d in DIAMETERS])
        diameter = float(rng.choice(DIAMETERS, p=rarity / rarity.sum()))
        longest = min(MOST_SLICES, max(LEAST_SLICES, wanted))
        length = int(rng.integers(LEAST_SLICES, longest + 1))
        first = int(rng.integers(0, grid.slices))
        before = {k: {c.hosts[0] for c in alike if c.only == k} for k in range(grid.slices)}
        for k in range(first, min(first + length, grid.slices)):
            around = set().union(*(before.get(near, set()) for near in (k - 1, k, k + 1)))
            piece = _look_alike(rng, grid, arteries, places, k, diameter, clotted | around)
            if piece is not None:
                alike.append(piece)
                before[k].add(piece.hosts[0])
                shown[k] = True
    return tuple(alike)


def _look_alike(
    rng: np.random.Generator,
    grid: Grid,
    arteries: dict[str, Tube],
    places: _Places,
    k: int,
    diameter: float,
    without: set[str],
) -> Clot | None:
    """One slice of an embolus that could lie there, in none of some arteries; None without any."""
    for _ in range(5):
        place = places.draw(rng, diameter, float(grid.z[k]), grid.spacing / 2, sorted(without))
        if place is None:
            return None
        # Of acute and chronic emboli as many as patients have.
        shape = _shape(rng, "chronic" if rng.random() < 4 / 11 else "acute", 0)
        clot = _tube_at(rng, grid, arteries, place, diameter, shape, LEAST_SLICES + 1)
        seen = visible_slices(grid, clot, arteries)
        if _is_run(seen) and seen[k]:
            return replace(clot, only=k)
    return None
