"""The picture: a drawn study as Hounsfield units.

Tissue is painted from the outside in, each layer over the last with a soft edge one pixel wide,
for the whole study at once: a fine vessel then costs one small box, not one per slice.
"""

from collections.abc import Iterable

import cv2
import numpy as np

from clotline.grid import AIR_HU

from .anatomy import cavity_axes
from .cohort import Study
from .emboli import Clot, clot_coverage
from .geometry import (
    Box,
    Ellipsoid,
    Grid,
    Tube,
    ellipsoid_coverage,
    smooth_tube,
    tube_coverage,
)

#: The lowest and highest value that a file can hold, in HU: 12 bits from -1024.
HU_MIN, HU_MAX = -1024, 3071

#: Width of the edges that a sharp kernel raises, in pixels.
_EDGE_PIXELS = 1.5


def render(study: Study) -> np.ndarray:
    """Renders a study.

    Returns:
        (slices, size, size) int16, Hounsfield units in scan order (ascending z), exactly as the
        study's files hold them: rounded to RescaleSlope, padding as air.
    """
    volume = _anatomy(study)
    acquire(study, volume)
    return volume.astype(np.int16)


def artery_mask(study: Study, share: float = 0.5) -> np.ndarray:
    """(slices, size, size) bool: where pulmonary arteries, clots included, fill over a share."""
    return _all_tubes(study.grid, study.chest.arteries.values()) > share


def clot_mask(study: Study) -> np.ndarray:
    """(slices, size, size) bool: where a clot fills most of the voxel."""
    return _covered(study.grid, study.chest.arteries, study.clots)[0] > 0.5


def _whole(grid: Grid) -> Box:
    return slice(0, grid.slices), slice(0, grid.size), slice(0, grid.size)


def _all_tubes(grid: Grid, tubes) -> np.ndarray:
    out = np.zeros((grid.slices, grid.size, grid.size), np.float32)
    for tube in tubes:
        tube_coverage(grid, tube, _whole(grid), out)
    return out


def _covered(
    grid: Grid, arteries: dict[str, Tube], clots: Iterable[Clot]
) -> tuple[np.ndarray, np.ndarray]:
    """Coverage by any of some clots, and their HU where there is one; float32."""
    coverage = np.zeros((grid.slices, grid.size, grid.size), np.float32)
    value = np.zeros_like(coverage)
    for clot in clots:
        covered = clot_coverage(grid, clot, arteries)
        if covered is None:
            continue
        box, own = covered
        more = own > coverage[box]
        coverage[box][more] = own[more]
        value[box][more] = clot.hu
    return coverage, value


def _paint(volume: np.ndarray, alpha: np.ndarray, value) -> None:
    """Lays a value in HU over a volume where alpha, from 0 to 1, says; destroys alpha."""
    alpha *= value - volume
    volume += alpha


def _soft(depth: np.ndarray, pixel: float) -> np.ndarray:
    """Depth below a surface in mm to coverage from 0 to 1, in place."""
    depth *= np.float32(1 / pixel)
    depth += np.float32(0.5)
    return np.clip(depth, 0, 1, out=depth)


def smooth_noise(rng: np.random.Generator, grid: Grid, scale: float) -> np.ndarray:
    """(slices, size, size) float32 of about unit variance, with structures of a scale in mm."""
    side = max(4, int(grid.size * grid.pixel / scale))
    coarse = rng.standard_normal((grid.slices, side, side), dtype=np.float32)
    # Slices near each other share structure, as tissue does.
    coarse[1:] = 0.6 * coarse[1:] + 0.8 * coarse[:-1]
    shape = (grid.size, grid.size)
    return np.stack([cv2.resize(s, shape, interpolation=cv2.INTER_CUBIC) for s in coarse])


def _anatomy(study: Study) -> np.ndarray:
    grid, chest = study.grid, study.chest
    texture = smooth_noise(study.rng("texture"), grid, 7.0)
    volume = np.full((grid.slices, grid.size, grid.size), AIR_HU, np.float32)
    _paint_table(study, volume)
    cavity = _paint_wall(study, volume, texture)
    lung = _paint_cavity(study, volume, cavity, texture)
    _paint_skeleton(study, volume)
    for shape, value in chest.nodes:
        _paint_ellipsoid(grid, volume, shape, value)
    _paint_heart(study, volume)
    _paint_airways(study, volume)
    _paint_lung_vessels(study, volume, lung)
    _paint_great_vessels(study, volume)
    _paint_pulmonary_arteries(study, volume)
    return volume


def _paint_ellipsoid(grid: Grid, volume: np.ndarray, shape: Ellipsoid, value) -> None:
    covered = ellipsoid_coverage(grid, shape)
    if covered is not None:
        box, alpha = covered
        _paint(volume[box], alpha, np.float32(value))


def _paint_tube(grid: Grid, volume: np.ndarray, tube: Tube, value) -> None:
    box = grid.box(*tube.bounds(grid.pixel))
    if box is not None:
        _paint(volume[box], tube_coverage(grid, tube, box), np.float32(value))


def _paint_table(study: Study, volume: np.ndarray) -> None:
    """The scanner's table: a shallow trough of carbon fibre around foam, the same in all slices."""
    grid = study.grid
    x, y = grid.x[None, :], grid.y[:, None]
    depth = y - (study.acquisition.table + 4 - (x / 60) ** 2)
    shell = np.clip(1.6 - np.abs(depth), 0, 1) + np.clip(1.6 - np.abs(depth - 26), 0, 1)
    foam = ((depth > 0) & (depth < 26)).astype(np.float32)
    volume += (40 * foam + 850 * shell).astype(np.float32)


def _rounded(grid: Grid, half_width: np.ndarray, half_depth: np.ndarray, front: np.ndarray):
    """How far each voxel lies inside a rounded oval that changes with z.

    Args:
        grid: the voxels.
        half_width: (slices,) in mm.
        half_depth: (slices,) in mm.
        front: (slices,) y of the oval's middle in mm.

    Returns:
        (slices, size, size) float32: depth below the oval's edge in mm, negative outside.
    """
    a = half_width.astype(np.float32)[:, None, None]
    b = half_depth.astype(np.float32)[:, None, None]
    u = (grid.x[None, None, :] / a) ** 2
    v = ((grid.y[None, :, None] - front.astype(np.float32)[:, None, None]) / b) ** 2
    # Between an ellipse and a rectangle: the mean of the norms of degree 2 and 4.
    r = u * u + v * v
    np.sqrt(r, out=r)
    r *= np.float32(0.5)
    r += np.float32(0.5) * u + np.float32(0.5) * v
    np.sqrt(r, out=r)
    r -= 1
    r *= -np.minimum(a, b)
    return r


def _level(study: Study) -> np.ndarray:
    """(slices,) float: height in units of the average patient's mm."""
    return study.grid.z.astype(float) / study.chest.size


def _cavity_axes(study: Study) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Half-width, half-depth and middle (y) of the chest cavity in each slice, in mm."""
    return cavity_axes(study.chest, study.grid.z.astype(float))


def _paint_wall(study: Study, volume: np.ndarray, texture: np.ndarray) -> np.ndarray:
    """Skin, fat and muscle; returns the depth inside the chest cavity in mm."""
    grid, chest = study.grid, study.chest
    level = _level(study)
    shoulders = np.clip((level - 40) / 60, 0, 1)
    half_width = chest.body[0] * (1 + 0.14 * shoulders)
    half_depth = chest.body[1] * (1 - 0.1 * shoulders)
    body = _rounded(grid, half_width, half_depth, np.full(grid.slices, 4.0))
    if chest.breasts:
        for side in (-1, 1):
            shape = Ellipsoid(
                (side * 0.5 * chest.body[0], -0.8 * chest.body[1], -35.0),
                (0.4 * chest.body[0], 0.22 * chest.body[1] + chest.breasts, 62.0),
            )
            _paint_ellipsoid(grid, volume, shape, chest.hu["fat"])
            gland = Ellipsoid(
                (shape.centre[0], shape.centre[1] - 0.5 * chest.breasts, -38.0),
                (0.2 * chest.body[0], 0.6 * chest.breasts, 26.0),
            )
            _paint_ellipsoid(grid, volume, gland, 20)
    skin = _soft(body.copy(), grid.pixel)
    _paint(volume, skin, 5)
    fat = _soft(body - 2, grid.pixel)
    _paint(volume, fat, np.float32(chest.hu["fat"]))
    # Fat lies thicker in front and behind than under the arms; muscles have fat between them.
    body -= np.float32(chest.fat)
    muscle = _soft(body, 1.5 * grid.pixel)
    streaks = texture - np.float32(1.1)
    np.clip(streaks, 0, 0.6, out=streaks)
    streaks *= np.float32(1.2)
    muscle -= streaks * muscle
    _paint(volume, muscle, np.float32(chest.hu["muscle"]))
    return _rounded(grid, *_cavity_axes(study))


def _paint_cavity(
    study: Study, volume: np.ndarray, cavity: np.ndarray, texture: np.ndarray
) -> np.ndarray:
    """Mediastinal fat, the organs under the diaphragm, and the lungs; returns their coverage."""
    grid, chest = study.grid, study.chest
    hu = chest.hu
    level = _level(study).astype(np.float32)[:, None, None]
    x, y = grid.x[None, None, :], grid.y[None, :, None]
    _paint(volume, _soft(cavity.copy(), grid.pixel), np.float32(hu["mediastinum"]))
    # The mediastinum's half-width: wide at the spine and the great vessels, narrow at the front.
    behind = np.clip((y - 30) / 25, 0, 1)
    middle = np.exp(-(((y + 5) / 30) ** 2))
    half = 9 + 17 * behind + 21 * middle + 6 * np.clip(-level / 60, 0, 1)
    half = half + 16 * np.clip((level - 40) / 25, 0, 1) * np.exp(-(((y + 20) / 32) ** 2))
    half = (half * chest.size).astype(np.float32)
    shift = (4 + 3 * np.sin(level / 35)).astype(np.float32)
    lung = np.minimum(cavity - np.float32(2.0), np.abs(x - shift) - half)
    width, depth = (float(v[0]) for v in _cavity_axes(study)[:2])
    for side, dome in zip((-1, 1), chest.domes, strict=True):
        axes = (0.5 * width + 6, 0.96 * depth, 62.0)
        shape = Ellipsoid((side * (0.5 * width + 2), 2.0, dome - axes[2]), axes)
        covered = ellipsoid_coverage(grid, shape)
        if covered is None:
            continue
        box, alpha = covered
        lung[box] = np.minimum(lung[box], (0.5 - alpha) * grid.pixel)
        inside = alpha * np.clip(cavity[box] / grid.pixel + 0.5, 0, 1)
        _paint(volume[box], inside, np.float32(hu["liver" if side < 0 else "spleen"]))
    stomach = Ellipsoid((50.0, -30.0, chest.domes[1] - 34), (30.0, 28.0, 26.0))
    _paint_ellipsoid(grid, volume, stomach, 25)
    bubble = Ellipsoid((50.0, -44.0, chest.domes[1] - 34), (22.0, 12.0, 18.0))
    _paint_ellipsoid(grid, volume, bubble, -950)
    heart = Ellipsoid(
        (14.0 * chest.size, -24.0 * chest.size, -70.0 * chest.size),
        tuple(v * chest.size for v in (66.0, 54.0, 50.0)),
        np.deg2rad(-20),
    )
    covered = ellipsoid_coverage(grid, heart)
    if covered is not None:
        box, alpha = covered
        lung[box] = np.minimum(lung[box], (0.5 - alpha) * grid.pixel)
    # Lung is denser towards the back, where blood sinks, and mottled by vessels too fine to draw.
    parenchyma = texture * np.float32(16)
    parenchyma += np.float32(hu["lung"]) + np.float32(0.55) * y
    lung = _soft(lung, grid.pixel)
    _paint(volume, lung.copy(), parenchyma)
    return lung


def _paint_skeleton(study: Study, volume: np.ndarray) -> None:
    grid, chest = study.grid, study.chest
    size, cortex, marrow = chest.size, chest.hu["cortex"], chest.hu["marrow"]
    rng = study.rng("skeleton")
    _, half_depth, middle = _cavity_axes(study)
    behind = chest.body[1] + 2 - chest.fat - 44 * size  # the spinous processes stay under the fat
    back = min(float(np.median(half_depth)) * 0.8 - 2, behind)
    # Paraspinal muscles, vertebral bodies, canal and processes, the same down the whole scan.
    for side in (-1, 1):
        muscle = _column(grid, side * 26 * size, back + 24, 19 * size, 13 * size)
        _paint(volume, np.repeat(muscle, grid.slices, 0), np.float32(chest.hu["muscle"] + 4))
    x, y = grid.x[None, :], grid.y[:, None]
    phase = rng.uniform(0, 1)
    for k, z in enumerate(grid.z):
        disc = ((z / (23 * size) + phase) % 1.0) < 0.22
        slice_ = volume[k]
        outer = _column(grid, 0, back, 19 * size, 15.5 * size)[0]
        _paint(slice_, outer, np.float32(95 if disc else 0.75 * cortex))
        inner = _column(grid, 0, back, 17 * size, 13.5 * size)[0]
        _paint(slice_, inner, np.float32(85 if disc else marrow))
        arch = _column(grid, 0, back + 22 * size, 16 * size, 12 * size)[0]
        _paint(slice_, arch, np.float32(0.7 * cortex))
        spinous = np.clip((3.2 * size - np.abs(x)) / grid.pixel + 0.5, 0, 1) * np.clip(
            (9 * size - np.abs(y - (back + 35 * size))) / grid.pixel + 0.5, 0, 1
        )
        _paint(slice_, spinous.astype(np.float32), np.float32(0.6 * cortex))
        canal = _column(grid, 0, back + 21 * size, 9.5 * size, 8 * size)[0]
        _paint(slice_, canal, np.float32(28))
        if not disc:  # transverse processes
            for side in (-1, 1):
                at = (side * 25 * size, back + 18 * size)
                process = _column(grid, *at, 12 * size, 3.5 * size)[0]
                _paint(slice_, process, np.float32(0.65 * cortex))
    # Sternum.
    level = _level(study)
    for k in np.flatnonzero(level < 66):
        front = middle[k] - half_depth[k] - 5
        _paint(volume[k], _column(grid, 0, front, 17 * size, 5.5)[0], np.float32(0.6 * cortex))
        _paint(volume[k], _column(grid, 0, front, 15 * size, 3.8)[0], np.float32(0.8 * marrow))
    _paint_ribs(study, volume, back)
    # Shoulder blades in their muscles, and collar bones.
    for side in (-1, 1):
        for k in np.flatnonzero(level > -30):
            share = float(np.clip((level[k] + 30) / 120, 0, 1))
            at = (side * (0.62 + 0.1 * share) * chest.body[0], 0.56 * chest.body[1])
            tilt = side * np.deg2rad(-52)
            plate = _column(grid, *at, 12 + 22 * share, 2.6, tilt)[0]
            _paint(volume[k], plate, np.float32(0.8 * cortex))
        clavicle = smooth_tube(
            [(side * 22, -50, 84), (side * 60, -52, 92), (side * 110, -30, 104)], np.full(3, 5.5)
        )
        _paint_tube(grid, volume, clavicle, 0.75 * cortex)


def _column(
    grid: Grid, x: float, y: float, half_width: float, half_depth: float, turn: float = 0.0
) -> np.ndarray:
    """(1, size, size) float32 coverage of an ellipse in the slice's plane, all in mm."""
    out = np.zeros((1, grid.size, grid.size), np.float32)
    reach = max(half_width, half_depth) + grid.pixel
    box = grid.box((x - reach, y - reach, -1e9), (x + reach, y + reach, 1e9))
    if box is None:
        return out
    dx = grid.x[box[2]][None, :] - np.float32(x)
    dy = grid.y[box[1]][:, None] - np.float32(y)
    cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    q = ((dx * cos + dy * sin) / np.float32(half_width)) ** 2
    q = q + ((dy * cos - dx * sin) / np.float32(half_depth)) ** 2
    depth = (1 - np.sqrt(q)) * np.float32(min(half_width, half_depth))
    out[0, box[1], box[2]] = np.clip(depth / np.float32(grid.pixel) + 0.5, 0, 1)
    return out


def _paint_ribs(study: Study, volume: np.ndarray, back: float) -> None:
    """Eleven pairs of ribs, each falling from the spine to the front along the cavity's wall."""
    grid, chest = study.grid, study.chest
    half_width, half_depth, middle = _cavity_axes(study)
    angles = np.linspace(0.12, 0.88, 11) * np.pi  # from the back round the side to the front
    # Ribs lie where the slice is; interpolate the wall at each rib's own height.
    z_grid = grid.z.astype(float)
    for rib in range(12):
        start = (118 - 23 * rib) * chest.size
        fall = (30 + 3 * rib) * chest.size
        z = start - fall * np.linspace(0, 1, len(angles)) ** 1.3
        a = np.interp(z, z_grid, half_width) + 3.5
        b = np.interp(z, z_grid, half_depth) + 3.5
        front = np.interp(z, z_grid, middle)
        # The cavity is squarer than an ellipse: its edge at this angle, by the same norm.
        s, c = np.sin(angles), np.cos(angles)
        norm = np.sqrt(0.5 * (s**2 + c**2) + 0.5 * np.sqrt(s**4 + c**4))
        x, y = a * s / norm, front + b * c / norm
        for side in (-1, 1):
            axis = np.stack([side * x, y, z], axis=1)
            radii = np.full(len(angles), 4.6)
            _paint_tube(grid, volume, Tube(axis, radii), 0.85 * chest.hu["cortex"])
            _paint_tube(grid, volume, Tube(axis, radii - 2.0), chest.hu["marrow"])


def _paint_heart(study: Study, volume: np.ndarray) -> None:
    grid, chest = study.grid, study.chest
    hu, heart = chest.hu, chest.heart
    muscle = hu["myocardium"]
    _paint_ellipsoid(grid, volume, heart["right"].grown(3.5), muscle)
    _paint_ellipsoid(grid, volume, heart["right_atrium"].grown(2.5), muscle)
    _paint_ellipsoid(grid, volume, heart["left_atrium"].grown(2), muscle)
    _paint_ellipsoid(grid, volume, heart["right_atrium"], hu["right_heart"] * 0.95)
    _paint_ellipsoid(grid, volume, heart["left_atrium"], hu["left_heart"])
    _paint_ellipsoid(grid, volume, heart["right"], hu["right_heart"])
    _paint_ellipsoid(grid, volume, heart["left"].grown(chest.myocardium), muscle)
    _paint_ellipsoid(grid, volume, heart["left"], hu["left_heart"])
    rng = study.rng("heart")
    # Papillary muscles and trabeculae: small dark spots in both ventricles.
    for name in ("left", "right"):
        chamber = heart[name]
        for _ in range(4):
            offset = rng.uniform(-0.5, 0.5, 3) * chamber.axes
            centre = tuple(np.array(chamber.centre) + offset)
            spot = Ellipsoid(centre, (5.0, 3.0, 7.0), chamber.turn)
            _paint_ellipsoid(grid, volume, spot, 0.5 * (muscle + hu["left_heart"]))


def _paint_airways(study: Study, volume: np.ndarray) -> None:
    grid, chest = study.grid, study.chest
    for tube in chest.airways.values():
        _paint_tube(grid, volume, Tube(tube.points, tube.radii + 1.6), 20)
    for tube in chest.airways.values():
        _paint_tube(grid, volume, tube, -980)
    # The oesophagus, collapsed or with a little gas.
    course = [(8, 30, 110), (10, 33, 20), (6, 30, -40), (14, 26, -125)]
    gullet = smooth_tube(course, np.full(4, 6.5))
    _paint_tube(grid, volume, gullet, 42)
    gas = float(study.rng("oesophagus").uniform(-700, 40))
    _paint_tube(grid, volume, Tube(gullet.points, np.full(len(gullet.points), 2.4)), gas)


def _paint_great_vessels(study: Study, volume: np.ndarray) -> None:
    grid, chest = study.grid, study.chest
    hu = chest.hu
    for tube in chest.veins.values():
        _paint_tube(grid, volume, tube, hu["left_heart"])
    _paint_tube(grid, volume, chest.systemic["inferior_cava"], hu["inferior_cava"])
    for name in ("left_brachiocephalic", "right_brachiocephalic", "cava"):
        _paint_tube(grid, volume, chest.systemic[name], hu["cava"])
    aorta = Tube(chest.aorta.points, chest.aorta.radii + 1.2)
    _paint_tube(grid, volume, aorta, 45)
    _paint_tube(grid, volume, chest.aorta, hu["aorta"])
    for tube in chest.arch_branches.values():
        _paint_tube(grid, volume, tube, hu["aorta"])
    # A filling defect outside the pulmonary arteries: thrombus at a catheter or in the atrium.
    if study.defect == "cava":
        cava = chest.systemic["cava"]
        points, radii = cava.at(np.linspace(0.1, 0.6, 6) * cava.arc[-1])
        _paint_tube(grid, volume, Tube(points, 0.62 * radii), 55)
    elif study.defect == "left_atrium":
        atrium = chest.heart["left_atrium"]
        x, y, z = atrium.centre
        spot = Ellipsoid((x + 0.45 * atrium.axes[0], y, z), (10.0, 8.0, 9.0))
        _paint_ellipsoid(grid, volume, spot, 50)


def _paint_lung_vessels(study: Study, volume: np.ndarray, lung: np.ndarray) -> None:
    """Segmental and finer vessels: each new branch leaves the nearest vessel towards its goal."""
    grid, chest = study.grid, study.chest
    rng = study.rng("lung vessels")
    half_width, half_depth, middle = _cavity_axes(study)
    z_grid = grid.z.astype(float)
    trees = (
        (list(chest.arteries.values())[3:], chest.hu["pulmonary"]),
        (list(chest.veins.values()), chest.hu["left_heart"]),
    )
    for roots, value in trees:
        nodes = np.concatenate([tube.points[2:] for tube in roots])
        calibre = np.concatenate([tube.radii[2:] for tube in roots])
        goals = []
        for side in (-1, 1):
            count = chest.lung_vessels
            z = rng.uniform(z_grid[0], z_grid[-1], count)
            radius = np.sqrt(rng.uniform(0.2, 0.9, count))
            angle = rng.uniform(-0.46, 0.46, count) * np.pi
            x = side * (18 + (np.interp(z, z_grid, half_width) - 20) * radius * np.cos(angle))
            y = np.interp(z, z_grid, middle)
            y = y + np.interp(z, z_grid, half_depth) * radius * np.sin(angle)
            goals.append(np.stack([x, y, z], axis=1))
        goals = np.concatenate(goals)
        # From the hilum outwards, so that the tree grows.
        goals = goals[np.argsort(np.abs(goals[:, 0]) + 0.4 * np.abs(goals[:, 2] + 20))]
        coverage = np.zeros(volume.shape, np.float32)
        for goal in goals:
            same_side = np.where(nodes[:, 0] * goal[0] > 0, 0, 1e6)
            nearest = int(np.argmin(((nodes - goal) ** 2).sum(axis=1) + same_side))
            start, wide = nodes[nearest], min(0.75 * calibre[nearest], 2.8)
            middle_point = 0.5 * (start + goal) + rng.normal(0, 4, 3)
            narrow = max(0.55 * wide, 0.7)
            axis = np.stack([start, middle_point, goal])
            radii = np.array([wide, 0.5 * (wide + narrow), narrow])
            branch = smooth_tube(axis, np.maximum(radii, 1.0), per_span=2)
            tube_coverage(grid, branch, _whole(grid), coverage)
            nodes = np.concatenate([nodes, branch.points[2:]])
            calibre = np.concatenate([calibre, branch.radii[2:]])
        coverage *= lung
        _paint(volume, coverage, np.float32(value))


def _paint_pulmonary_arteries(study: Study, volume: np.ndarray) -> None:
    grid, chest = study.grid, study.chest
    lumen = _all_tubes(grid, chest.arteries.values())
    if not lumen.any():  # a scan of a few slices may miss them
        return
    box = _bounding_box(lumen)
    inside = lumen[box]
    contrast = np.full(inside.shape, chest.hu["pulmonary"], np.float32)
    if study.acquisition.mixing:
        flow = smooth_noise(study.rng("mixing"), grid, 14.0)[box]
        np.clip(flow, 0, 1.5, out=flow)
        contrast *= 1 - study.acquisition.mixing / 1.5 * flow
    gaps = (*study.clots, *study.look_alikes)
    if gaps:
        coverage, value = (a[box] for a in _covered(grid, chest.arteries, gaps))
        contrast += coverage * (value - contrast)
    _paint(volume[box], inside, contrast)


def _bounding_box(coverage: np.ndarray) -> Box:
    """The smallest box with all that is covered."""
    ranges = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        inside = np.flatnonzero(coverage.max(axis=others))
        ranges.append(slice(int(inside[0]), int(inside[-1]) + 1))
    return tuple(ranges)


def acquire(study: Study, volume: np.ndarray) -> None:
    """Motion, the reconstruction's blur, noise, the circular field and rounding; in place.

    Args:
        study: of this phantom or another with its `grid`, `acquisition` and `rng`.
        volume: (slices, size, size) float32 in HU.
    """
    grid, scan = study.grid, study.acquisition
    rng = study.rng("noise")
    if scan.motion:
        shift = scan.motion / grid.pixel
        for k, slice_ in enumerate(volume):
            angle = rng.uniform(0, 2 * np.pi)
            move = np.float32([[1, 0, shift * np.cos(angle)], [0, 1, shift * np.sin(angle)]])
            ghost = cv2.warpAffine(slice_, move, slice_.shape, borderMode=cv2.BORDER_REPLICATE)
            volume[k] = 0.5 * (slice_ + ghost)
    grain = rng.standard_normal(volume.shape, dtype=np.float32)
    sigma = scan.grain * grid.size / 256
    # What a Gaussian blur leaves of white noise's standard deviation.
    left = 1 / (2 * np.sqrt(np.pi) * sigma)
    for slice_, noise in zip(volume, grain, strict=True):
        cv2.GaussianBlur(slice_, (0, 0), scan.blur / grid.pixel, dst=slice_)
        if scan.sharpening:
            slice_ += scan.sharpening * (slice_ - cv2.GaussianBlur(slice_, (0, 0), _EDGE_PIXELS))
        cv2.GaussianBlur(noise, (0, 0), sigma, dst=noise)
    grain *= np.float32(scan.noise / min(left, 1.0))
    volume += grain
    lowest = max(HU_MIN, scan.intercept) if not scan.signed else HU_MIN
    np.clip(volume, lowest, HU_MAX, out=volume)
    volume -= scan.intercept
    volume *= np.float32(1 / scan.slope)
    np.rint(volume, out=volume)
    volume *= scan.slope
    volume += scan.intercept
    if scan.round_field:
        volume[:, outside_field(grid)] = AIR_HU


def outside_field(grid: Grid) -> np.ndarray:
    """(size, size) bool: outside the circle that the scanner reconstructs."""
    offsets = np.arange(grid.size) - (grid.size - 1) / 2
    return offsets[:, None] ** 2 + offsets[None, :] ** 2 > (grid.size / 2) ** 2
