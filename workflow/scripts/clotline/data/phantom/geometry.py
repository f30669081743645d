"""Tubes and ellipsoids on a grid of CT slices, as soft-edged coverage.

All lengths are in mm, in the patient's axes as DICOM lays them (LPS): x to the patient's left, y to
the back, z to the head. Points are (x, y, z); arrays over the grid are (slices, rows, columns).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

#: Indices of a box within a volume: slices, rows, columns.
Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Grid:
    """Where the voxels of a series lie.

    Attributes:
        slices: number of slices.
        size: rows and columns.
        pixel: pixel spacing in mm.
        spacing: distance between slices in mm.
        bottom: z of the lowest slice in mm.
        centre: (x, y) of the image centre in mm.
    """

    slices: int
    size: int
    pixel: float
    spacing: float
    bottom: float
    centre: tuple[float, float]

    @cached_property
    def x(self) -> np.ndarray:
        """(size,) float32: x of each column in mm."""
        return self._across(self.centre[0])

    @cached_property
    def y(self) -> np.ndarray:
        """(size,) float32: y of each row in mm."""
        return self._across(self.centre[1])

    @cached_property
    def z(self) -> np.ndarray:
        """(slices,) float32: z of each slice in mm, ascending."""
        return (self.bottom + self.spacing * np.arange(self.slices)).astype(np.float32)

    def _across(self, centre: float) -> np.ndarray:
        offsets = np.arange(self.size) - (self.size - 1) / 2
        return (centre + self.pixel * offsets).astype(np.float32)

    def box(self, low: np.ndarray, high: np.ndarray) -> Box | None:
        """The voxels between two corners (x, y, z) in mm; None if there are none."""
        x0, y0, z0 = (float(v) for v in low)
        x1, y1, z1 = (float(v) for v in high)
        ranges = (
            _between(z0, z1, self.bottom, self.spacing, self.slices),
            _between(y0, y1, float(self.y[0]), self.pixel, self.size),
            _between(x0, x1, float(self.x[0]), self.pixel, self.size),
        )
        if any(r.start >= r.stop for r in ranges):
            return None
        return ranges

    def axes(self, box: Box) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """x, y and z in mm of a box's voxels, shaped to broadcast as (slices, rows, columns)."""
        return (
            self.x[box[2]][None, None, :],
            self.y[box[1]][None, :, None],
            self.z[box[0]][:, None, None],
        )


def _between(low: float, high: float, first: float, step: float, count: int) -> slice:
    start = max(0, int(np.ceil((low - first) / step)))
    stop = min(count, int(np.floor((high - first) / step)) + 1)
    return slice(start, max(start, stop))


@dataclass(frozen=True)
class Tube:
    """A chain of cones with round joints.

    Attributes:
        points: (k, 3) float, the axis in mm.
        radii: (k,) float, in mm.
    """

    points: np.ndarray
    radii: np.ndarray

    @cached_property
    def arc(self) -> np.ndarray:
        """(k,) float: length along the axis up to each point, in mm."""
        steps = np.sqrt((np.diff(self.points, axis=0) ** 2).sum(axis=1))
        return np.concatenate([[0.0], np.cumsum(steps)])

    def at(self, arc: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Axis points (m, 3) and radii (m,) at lengths (m,) along the axis, all in mm."""
        points = np.stack([np.interp(arc, self.arc, self.points[:, k]) for k in range(3)], axis=1)
        return points, np.interp(arc, self.arc, self.radii)

    def bounds(self, margin: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """The corners (x, y, z) of the box around it, in mm."""
        reach = self.radii[:, None] + margin
        return (self.points - reach).min(axis=0), (self.points + reach).max(axis=0)


def smooth_tube(points: np.ndarray, radii: np.ndarray, per_span: int = 4) -> Tube:
    """A tube through control points: Catmull-Rom between them.

    Args:
        points: (k, 3) control points in mm.
        radii: (k,) in mm, interpolated linearly.
        per_span: how many cones replace each span.
    """
    points = np.asarray(points, float)
    padded = np.concatenate([points[:1], points, points[-1:]])
    t = (np.arange(per_span) / per_span)[None, :, None]
    p0, p1, p2, p3 = (padded[k : len(points) - 1 + k][:, None, :] for k in range(4))
    curve = 0.5 * (
        2 * p1
        + (p2 - p0) * t
        + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2
        + (3 * p1 - p0 - 3 * p2 + p3) * t**3
    )
    parameters = np.arange(len(curve) * per_span + 1) / per_span
    return Tube(
        np.concatenate([curve.reshape(-1, 3), points[-1:]]),
        np.interp(parameters, np.arange(len(points)), radii),
    )


def tube_coverage(grid: Grid, tube: Tube, box: Box, out: np.ndarray | None = None) -> np.ndarray:
    """How much of each voxel in a box lies inside a tube.

    Args:
        grid: the voxels.
        tube: the tube.
        box: the part of the grid to evaluate.
        out: float32 of the box's shape, raised to the tube's coverage where that is more.

    Returns:
        out, or a new array: float32 from 0 to 1, over an edge one pixel wide.
    """
    if out is None:
        out = np.zeros([r.stop - r.start for r in box], np.float32)
    edge = grid.pixel / 2
    starts, ends = tube.points[:-1], tube.points[1:]
    reach = np.maximum(tube.radii[:-1], tube.radii[1:])[:, None] + edge
    lows, highs = np.minimum(starts, ends) - reach, np.maximum(starts, ends) + reach
    for k in range(len(starts)):
        own = grid.box(lows[k], highs[k])
        if own is None:
            continue
        pairs = zip(own, box, strict=True)
        part = tuple(slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in pairs)
        if any(r.start >= r.stop for r in part):
            continue
        pairs = zip(part, box, strict=True)
        view = out[tuple(slice(a.start - b.start, a.stop - b.start) for a, b in pairs)]
        x, y, z = grid.axes(part)
        depth = _depth_in_cone(
            x, y, z, starts[k], ends[k], float(tube.radii[k]), float(tube.radii[k + 1])
        )
        depth *= np.float32(1 / grid.pixel)
        depth += np.float32(0.5)
        np.clip(depth, 0, 1, out=depth)
        np.maximum(view, depth, out=view)
    return out


def _depth_in_cone(
    x: np.ndarray,
    y: np.ndarray,
    z: np.ndarray,
    start: np.ndarray,
    end: np.ndarray,
    start_radius: float,
    end_radius: float,
) -> np.ndarray:
    """Depth below the surface of one cone with round ends, in mm; negative outside."""
    ax, ay, az = (float(v) for v in start)
    bx, by, bz = (float(e - s) for s, e in zip(start, end, strict=True))
    squared = max(bx * bx + by * by + bz * bz, 1e-6)
    x, y, z = x - np.float32(ax), y - np.float32(ay), z - np.float32(az)
    along = x * np.float32(bx / squared) + y * np.float32(by / squared)
    along = along + z * np.float32(bz / squared)
    np.clip(along, 0, 1, out=along)
    distance = x - along * np.float32(bx)
    distance *= distance
    other = y - along * np.float32(by)
    other *= other
    distance += other
    other = z - along * np.float32(bz)
    other *= other
    distance += other
    np.sqrt(distance, out=distance)
    along *= np.float32(end_radius - start_radius)
    along += np.float32(start_radius)
    along -= distance
    return along


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid turned about the z axis.

    Attributes:
        centre: (x, y, z) in mm.
        axes: semi-axes in mm: along the turned x, along the turned y, along z.
        turn: from x towards y, in radians.
    """

    centre: tuple[float, float, float]
    axes: tuple[float, float, float]
    turn: float = 0.0

    def grown(self, margin: float) -> "Ellipsoid":
        """The same with every semi-axis longer by a margin in mm."""
        return Ellipsoid(self.centre, tuple(a + margin for a in self.axes), self.turn)

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """The corners (x, y, z) of a box around it, in mm."""
        across = max(self.axes[:2])
        reach = np.array([across, across, self.axes[2]])
        return np.array(self.centre) - reach, np.array(self.centre) + reach


def ellipsoid_coverage(grid: Grid, shape: Ellipsoid) -> tuple[Box, np.ndarray] | None:
    """The box around an ellipsoid and how much of each of its voxels lies inside.

    Returns:
        The box and a float32 array from 0 to 1, or None if it misses the grid.
    """
    low, high = shape.bounds()
    box = grid.box(low - grid.pixel, high + grid.pixel)
    if box is None:
        return None
    x, y, z = grid.axes(box)
    x, y, z = (v - np.float32(c) for v, c in zip((x, y, z), shape.centre, strict=True))
    cos, sin = np.float32(np.cos(shape.turn)), np.float32(np.sin(shape.turn))
    a, b, c = (np.float32(v) for v in shape.axes)
    q = ((x * cos + y * sin) / a) ** 2
    q = q + ((y * cos - x * sin) / b) ** 2
    q = q + (z / c) ** 2
    np.sqrt(q, out=q)
    q -= 1
    q *= -min(a, b) / np.float32(grid.pixel)
    q += np.float32(0.5)
    np.clip(q, 0, 1, out=q)
    return box, q
