"""Pulmonary emboli: where they lie, what shape they have, and which slices show them."""

from dataclasses import dataclass

import numpy as np

from .geometry import Box, Grid, Tube, tube_coverage

#: What a clot must show of itself in a slice to be called, in mm^2; less is not drawn either.
VISIBLE_MM2 = 45.0

ACUTE_SHAPES = ("central", "eccentric", "occluding")
CHRONIC_SHAPES = ("crescent", "recanalised")

#: An old clot of the hard phantom, of which a part lies in the wall.
MURAL = "mural"

#: How often a clot has each shape. A clot ringed by contrast is the sign that readers look for, and
#: the one that still shows at a reduced size.
_SHAPES = {"central": 6, "eccentric": 2, "occluding": 1, "crescent": 1, "recanalised": 2}

#: Arteries that make an embolus central.
CENTRAL = ("trunk", "left_main", "right_main")

#: How often an embolus lies in each artery. Large ones lead, as they show at a reduced size.
_SITES = {
    "left_main": 3,
    "right_main": 3,
    "left_lower": 5,
    "right_lower": 5,
    "left_upper": 3,
    "right_upper": 3,
    "trunk": 1,
    "left_lingula": 0.2,
    "right_middle": 0.2,
    "left_superior": 0.2,
    "right_superior": 0.2,
    "left_basal_posterior": 0.2,
    "right_basal_posterior": 0.2,
    "left_anterior": 0.1,
    "right_anterior": 0.1,
}


@dataclass(frozen=True)
class Clot:
    """A filling defect.

    Attributes:
        shape: one of ACUTE_SHAPES or CHRONIC_SHAPES, or MURAL.
        hosts: the arteries it lies in.
        outline: the tube that holds it; where it leaves its hosts it is cut off.
        channels: what contrast has kept, or made, open through it.
        hu: its attenuation in HU.
        least_mm2: what it must show of itself in a slice, in mm^2; where it is less, it is not
            drawn.
        only: the one slice that shows it, of a look-alike; None for an embolus.
    """

    shape: str
    hosts: tuple[str, ...]
    outline: Tube
    channels: tuple[Tube, ...]
    hu: float
    least_mm2: float = VISIBLE_MM2
    only: int | None = None

    @property
    def chronic(self) -> bool:
        """Whether its shape is an old clot's: on the wall, or with channels through it."""
        return self.shape in (*CHRONIC_SHAPES, MURAL)

    @property
    def central(self) -> bool:
        """Whether it lies in the trunk or a main artery."""
        return any(host in CENTRAL for host in self.hosts)

    @property
    def diameter(self) -> float:
        """The greatest diameter of its outline, in mm."""
        return 2 * float(self.outline.radii.max())

    def on_side(self, side: str) -> bool:
        """Whether it lies in the arteries of a side, "left" or "right"."""
        return any(host.startswith(side) for host in self.hosts)


def clot_coverage(
    grid: Grid, clot: Clot, arteries: dict[str, Tube]
) -> tuple[Box, np.ndarray] | None:
    """How much of each voxel a clot fills; slices that show less than it must are empty.

    Returns:
        A box of the grid and float32 from 0 to 1 in it; None if no slice shows the clot.
    """
    low, high = clot.outline.bounds(grid.pixel)
    box = grid.box(low, high)
    if box is None:
        return None
    lumen = None
    for host in clot.hosts:
        lumen = tube_coverage(grid, arteries[host], box, lumen)
    coverage = np.minimum(lumen, tube_coverage(grid, clot.outline, box))
    if clot.channels:
        open_ = None
        for channel in clot.channels:
            open_ = tube_coverage(grid, channel, box, open_)
        coverage *= 1 - open_
    coverage[clot_areas(grid, coverage) < clot.least_mm2] = 0
    if clot.only is not None:
        coverage[np.arange(box[0].start, box[0].stop) != clot.only] = 0
    return (box, coverage) if coverage.any() else None


def clot_areas(grid: Grid, coverage: np.ndarray) -> np.ndarray:
    """The area of a clot in each slice, in mm^2, float, from its coverage in a box."""
    return coverage.sum(axis=(1, 2), dtype=float) * grid.pixel**2


def visible_slices(grid: Grid, clot: Clot, arteries: dict[str, Tube]) -> np.ndarray:
    """(slices,) bool: which slices show a clot."""
    shown = np.zeros(grid.slices, bool)
    covered = clot_coverage(grid, clot, arteries)
    if covered is not None:
        box, coverage = covered
        shown[box[0]] = coverage.any(axis=(1, 2))
    return shown


def draw_clots(
    rng: np.random.Generator, arteries: dict[str, Tube], shapes: tuple[str, ...]
) -> list[Clot]:
    """Draws one to six clots of the shapes named; each shape group named occurs at least once."""
    names = list(_SITES)
    weights = np.array([_SITES[name] for name in names], float)
    count = int(rng.integers(3, 6))
    sites = rng.choice(len(names), count, replace=False, p=weights / weights.sum())
    clots = []
    forms = _mixed_forms(rng, shapes, count)
    if set(shapes) & set(ACUTE_SHAPES) and rng.random() < 0.2:
        clots.append(_saddle(rng, arteries))
    for site, shape in zip(sites, forms, strict=True):
        clots.append(_draw_clot(rng, names[site], arteries[names[site]], shape))
    return clots


def _mixed_forms(rng: np.random.Generator, shapes: tuple[str, ...], count: int) -> list[str]:
    acute = [s for s in shapes if s in ACUTE_SHAPES]
    chronic = [s for s in shapes if s in CHRONIC_SHAPES]
    forms = []
    for k in range(count):
        group = (acute, chronic)[k % 2] if acute and chronic else acute or chronic
        weights = np.array([_SHAPES[shape] for shape in group], float)
        forms.append(group[int(rng.choice(len(group), p=weights / weights.sum()))])
    return forms


def _draw_clot(rng: np.random.Generator, name: str, artery: Tube, shape: str) -> Clot:
    length = min(rng.uniform(28, 62), 0.9 * artery.arc[-1])
    # Near the artery's beginning it is wide enough to show.
    room = artery.arc[-1] - length
    start = rng.uniform(0.05, 0.6) * room
    arc = np.linspace(start, start + length, max(4, int(length / 5)))
    points, radii = artery.at(arc)
    aside = _perpendicular(rng, points)
    taper = np.ones(len(arc))
    taper[[0, -1]] = 0.7
    channels: tuple[Tube, ...] = ()
    if shape == "central":
        own = radii * rng.uniform(0.55, 0.7) * taper
        points = points + aside * (radii - own)[:, None] * rng.uniform(0, 0.4)
    elif shape == "eccentric":
        own = radii * rng.uniform(0.6, 0.75) * taper
        points = points + aside * (radii - own)[:, None] * 1.05
    elif shape == "occluding":
        own = radii * 1.05
    elif shape == "crescent":
        own = radii * 1.1
        channels = (Tube(points + aside * (0.42 * radii)[:, None], 0.6 * radii),)
    else:  # recanalised: two channels
        own = radii * 1.1
        apart = aside * (0.5 * radii)[:, None]
        channels = (Tube(points + apart, 0.34 * radii), Tube(points - apart, 0.34 * radii))
    return Clot(shape, (name,), Tube(points, own), channels, rng.uniform(25, 60))


def _saddle(rng: np.random.Generator, arteries: dict[str, Tube]) -> Clot:
    """An acute embolus that rides on the trunk's division, with a leg in each main artery."""
    left, right = arteries["left_main"], arteries["right_main"]
    left_points, left_radii = left.at(np.arange(rng.uniform(22, 36), 0, -5))
    right_points, right_radii = right.at(np.arange(0, rng.uniform(24, 42), 5))
    radii = np.concatenate([left_radii, right_radii]) * rng.uniform(0.5, 0.7)
    outline = Tube(np.concatenate([left_points, right_points]), radii)
    return Clot("central", ("left_main", "right_main", "trunk"), outline, (), rng.uniform(25, 60))


def _perpendicular(rng: np.random.Generator, points: np.ndarray) -> np.ndarray:
    """(3,) unit vector across a chain of points (k, 3)."""
    along = points[-1] - points[0]
    along = along / np.linalg.norm(along)
    aside = rng.normal(size=3)
    aside -= along * (aside @ along)
    return aside / np.linalg.norm(aside)
