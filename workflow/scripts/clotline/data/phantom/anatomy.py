"""One patient's chest as it is drawn from chance: sizes, vessels, contrast and look-alikes.

Lengths in mm in the patient's axes (x to the left, y to the back, z to the head), with the origin
where the pulmonary trunk divides, in the middle of the body. Attenuation in Hounsfield units (HU).
Nothing here knows whether the patient has an embolism.
"""

from dataclasses import dataclass, field

import numpy as np

from .geometry import Ellipsoid, Tube, smooth_tube

#: Pulmonary arteries: control points (x, y, z) and radii in mm. Each begins inside its parent.
#: Order matters: the first three are the trunk and the main arteries.
ARTERIES: dict[str, list[tuple[float, float, float, float]]] = {
    "trunk": [(14, -54, -42, 13), (22, -47, -24, 13.5), (24, -34, -8, 13.5), (17, -17, 1, 13)],
    "left_main": [(17, -17, 1, 12), (33, -4, 7, 11), (48, 12, 8, 10.5), (54, 24, -2, 9.5)],
    "right_main": [(17, -17, 1, 12), (0, -9, 0, 11), (-20, -3, -3, 10.5), (-42, 2, -7, 10)],
    "left_lower": [(54, 24, -2, 9.5), (57, 30, -18, 8.5), (59, 33, -36, 7), (62, 38, -54, 5.5)],
    "right_lower": [(-42, 2, -7, 10), (-54, 14, -20, 8.8), (-59, 23, -38, 7.5), (-63, 31, -58, 5)],
    "left_upper": [(44, 8, 8, 7.5), (56, 2, 20, 6.5), (65, -4, 34, 5.5), (70, -6, 50, 3.5)],
    "right_upper": [(-30, -1, -4, 7.5), (-46, -4, 9, 6.8), (-58, -6, 24, 6), (-66, -6, 44, 3.5)],
    "left_lingula": [(57, 29, -14, 6), (68, 12, -24, 5), (82, -10, -34, 4), (92, -30, -44, 2.5)],
    "right_middle": [(-56, 16, -24, 6), (-68, 2, -32, 5), (-82, -18, -42, 4), (-88, -36, -50, 2.5)],
    "left_superior": [(58, 31, -20, 5.5), (68, 44, -14, 4.5), (80, 54, -8, 3)],
    "right_superior": [(-57, 20, -30, 5.5), (-70, 38, -24, 4.5), (-84, 50, -16, 3)],
    "left_anterior": [(58, 1, 22, 5), (70, -18, 22, 4.2), (80, -40, 24, 2.5)],
    "right_anterior": [(-52, -5, 16, 5), (-66, -22, 16, 4.2), (-76, -42, 18, 2.5)],
    "left_posterior": [(62, -2, 30, 4.8), (76, 14, 36, 4), (88, 28, 40, 2.5)],
    "right_posterior": [(-56, -6, 22, 4.8), (-72, 10, 28, 4), (-86, 28, 32, 2.5)],
    "left_basal_lateral": [(61, 36, -48, 5), (78, 38, -64, 4.2), (92, 36, -84, 2.5)],
    "right_basal_lateral": [(-62, 29, -54, 5), (-80, 32, -66, 4.2), (-94, 32, -80, 2.5)],
    "left_basal_posterior": [(61, 37, -50, 5), (62, 50, -70, 4.2), (64, 58, -92, 2.5)],
    "right_basal_posterior": [(-62, 30, -56, 5), (-60, 46, -72, 4.2), (-58, 56, -92, 2.5)],
    "left_basal_anterior": [(60, 34, -42, 4.8), (78, 18, -58, 4), (92, 6, -76, 2.5)],
    "right_basal_anterior": [(-61, 26, -48, 4.8), (-78, 8, -58, 4), (-94, -6, -68, 2.5)],
}

_VEINS = {
    "left_superior": [(24, 6, -36, 8), (46, -4, -24, 7), (62, -16, -4, 5), (74, -24, 18, 3)],
    "right_superior": [(-22, 4, -36, 8), (-44, -10, -24, 7), (-62, -20, -4, 5), (-74, -22, 18, 3)],
    "left_inferior": [(24, 16, -48, 8), (44, 32, -56, 6.5), (66, 46, -66, 4.5), (78, 50, -84, 2.5)],
    "right_inferior": [
        (-18, 16, -48, 8),
        (-42, 32, -56, 6.5),
        (-66, 42, -66, 4.5),
        (-80, 46, -82, 2),
    ],
}

_AORTA = [
    (-2, -34, -46, 15),
    (-11, -36, -20, 16),
    (-14, -34, 8, 15.5),
    (-10, -28, 30, 15),
    (2, -14, 44, 14),
    (16, 6, 46, 13),
    (25, 24, 34, 12.5),
    (27, 32, 10, 12),
    (25, 36, -30, 11.5),
    (18, 40, -75, 11),
    (10, 42, -125, 10.5),
]

_SYSTEMIC = {
    # superior vena cava and what joins it
    "cava": [(-30, -22, 52, 8.5), (-32, -20, 20, 9), (-31, -18, -10, 9.5), (-28, -14, -36, 10)],
    "right_brachiocephalic": [(-30, -22, 52, 8), (-36, -26, 72, 7.5), (-46, -26, 96, 7.5)],
    "left_brachiocephalic": [
        (-30, -24, 52, 7.5),
        (0, -42, 60, 7),
        (26, -36, 72, 7),
        (40, -26, 96, 7),
    ],
    "inferior_cava": [(-24, 0, -74, 12), (-26, 6, -125, 12)],
}
_ARCH_BRANCHES = {
    "brachiocephalic": [(-6, -26, 44, 6.5), (-14, -18, 64, 6.5), (-24, -12, 96, 5.5)],
    "left_carotid": [(6, -12, 50, 4.5), (10, -8, 70, 4.5), (16, -6, 100, 4.5)],
    "left_subclavian": [(17, 8, 50, 5.5), (24, 10, 72, 5.5), (36, 10, 100, 5.5)],
}
_AIRWAYS = {
    "trachea": [(2, 10, 112, 8.5), (3, 12, 60, 8.5), (5, 18, 14, 8.5)],
    "right_bronchus": [(5, 18, 14, 8), (-14, 19, 2, 7), (-36, 18, -8, 6), (-46, 22, -30, 4.5)],
    "left_bronchus": [(5, 18, 14, 8), (20, 20, 0, 6.5), (40, 22, -12, 6), (48, 27, -34, 4.5)],
    "right_upper_bronchus": [(-22, 19, -2, 5), (-40, 14, 8, 4.2), (-56, 8, 18, 3)],
    "left_upper_bronchus": [(36, 21, -10, 5), (50, 10, -8, 4.2), (64, 0, 2, 3)],
}


@dataclass(frozen=True)
class Chest:
    """Everything about one patient but the emboli.

    Attributes:
        size: scale of the skeleton, lungs and vessels' course, 1 for the average.
        body: half-width, half-depth of the body in mm.
        fat: thickness of the fat below the skin in mm.
        muscle: thickness of the muscle of the chest wall in mm.
        breasts: thickness of the breasts in mm, 0 for none.
        domes: z of the right and the left dome of the diaphragm in mm.
        arteries: pulmonary arteries by name.
        veins: pulmonary veins by name.
        aorta: the thoracic aorta.
        arch_branches: arteries that leave the arch.
        systemic: systemic veins by name.
        airways: trachea and bronchi by name.
        heart: chambers by name: left, right (ventricles), right_atrium, left_atrium.
        myocardium: thickness of the left ventricle's wall in mm.
        ventricle_ratio: right over left ventricle's diameter, measured inside the walls.
        nodes: lymph nodes, with their attenuation in HU.
        hu: attenuation in HU by tissue.
        lung_vessels: fine vessels per lung, arteries and veins each.
    """

    size: float
    body: tuple[float, float]
    fat: float
    muscle: float
    breasts: float
    domes: tuple[float, float]
    arteries: dict[str, Tube]
    veins: dict[str, Tube]
    aorta: Tube
    arch_branches: dict[str, Tube]
    systemic: dict[str, Tube]
    airways: dict[str, Tube]
    heart: dict[str, Ellipsoid]
    myocardium: float
    ventricle_ratio: float
    nodes: list[tuple[Ellipsoid, float]]
    hu: dict[str, float] = field(default_factory=dict)
    lung_vessels: int = 60


def cavity_axes(chest: Chest, z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The oval of the chest cavity at some heights.

    Args:
        chest: the patient.
        z: (n,) float, in mm.

    Returns:
        Half-width, half-depth and middle (y), each (n,) float in mm.
    """
    rise = np.clip((z / chest.size + 30) / 150, 0, 1)  # narrows towards the apex
    round_ = np.sqrt(np.clip(1 - rise**2.6, 0.05, 1))
    wall = chest.fat + chest.muscle
    half_width = (chest.body[0] - wall - 6) * round_ * (1 - 0.06 * rise)
    half_depth = (chest.body[1] - wall - 4) * (0.35 + 0.65 * round_)
    return half_width, half_depth, 2 + 16 * rise**2


def draw_chest(rng: np.random.Generator) -> Chest:
    """Draws one patient's anatomy and contrast, before and apart from any embolism."""
    size = rng.uniform(0.92, 1.08)
    # One bend for all: neighbours stay neighbours, and joints stay joints.
    bend = rng.normal(0, 0.05, (3, 3))
    shift = rng.normal(0, 2.5, 3)

    def tube(points: list[tuple[float, float, float, float]], calibre: float) -> Tube:
        table = np.array(points, float)
        axis = size * table[:, :3]
        return smooth_tube(axis + axis @ bend.T + shift, table[:, 3] * calibre)

    pulmonary = size * rng.uniform(1.0, 1.32)
    venous = size * rng.uniform(0.85, 1.2)
    arteries = {}
    for name, points in ARTERIES.items():
        own = 1.0 if name == "trunk" or name.endswith("main") else rng.uniform(0.92, 1.12)
        arteries[name] = tube(points, pulmonary * own)
    body = (size * rng.uniform(143, 166), size * rng.uniform(104, 122))
    fat, muscle = rng.uniform(5, 22), rng.uniform(9, 18)
    heart, myocardium, ratio = _draw_heart(rng, size, front=fat + muscle + 12 - body[1])
    pulmonary_hu = rng.uniform(280, 460)
    return Chest(
        size=size,
        body=body,
        fat=fat,
        muscle=muscle,
        breasts=rng.choice([0.0, rng.uniform(12, 35)]),
        domes=(rng.uniform(-86, -66), rng.uniform(-94, -74)),
        arteries=arteries,
        veins={name: tube(points, venous) for name, points in _VEINS.items()},
        aorta=tube(_AORTA, size * rng.uniform(0.85, 1.25)),
        arch_branches={n: tube(p, size * rng.uniform(0.9, 1.1)) for n, p in _ARCH_BRANCHES.items()},
        systemic={n: tube(p, rng.uniform(0.85, 1.15)) for n, p in _SYSTEMIC.items()},
        airways={name: tube(points, rng.uniform(0.88, 1.1)) for name, points in _AIRWAYS.items()},
        heart=heart,
        myocardium=myocardium,
        ventricle_ratio=ratio,
        nodes=_draw_nodes(rng, arteries),
        hu={
            "pulmonary": pulmonary_hu,
            "right_heart": pulmonary_hu * rng.uniform(0.85, 1.1),
            "cava": rng.choice([pulmonary_hu * rng.uniform(1.1, 1.9), rng.uniform(120, 250)]),
            "left_heart": pulmonary_hu * rng.uniform(0.55, 1.05),
            "aorta": pulmonary_hu * rng.uniform(0.4, 1.1),  # an early to a late bolus
            "inferior_cava": rng.uniform(60, 130),
            "myocardium": rng.uniform(85, 125),
            "muscle": rng.uniform(42, 68),
            "fat": rng.uniform(-112, -92),
            "mediastinum": rng.uniform(-95, -40),
            "lung": rng.uniform(-890, -800),
            "liver": rng.uniform(48, 95),
            "spleen": rng.uniform(60, 120),
            "marrow": rng.uniform(130, 260),
            "cortex": rng.uniform(380, 600),
        },
        lung_vessels=int(rng.integers(60, 115)),
    )


def _draw_heart(
    rng: np.random.Generator, size: float, front: float
) -> tuple[dict[str, Ellipsoid], float, float]:
    """The chambers; the ventricles side by side along the left one's short axis.

    Args:
        rng: random numbers.
        size: the patient's scale.
        front: y of the chest wall's inside in mm; the heart lies behind it.
    """
    scale = size * rng.uniform(0.9, 1.15)
    turn = np.deg2rad(rng.uniform(-50, -32))  # the long axis points left and forward
    along = np.array([np.cos(turn), np.sin(turn)])
    short = np.array([np.sin(turn), -np.cos(turn)])  # towards the front and right
    middle = np.array([44.0, -26.0]) * scale + rng.normal(0, 3, 2)
    level = rng.uniform(-74, -66) * size
    left_short = scale * rng.uniform(16, 21)
    myocardium = rng.uniform(8, 11)
    # Most hearts lie clearly on one side of 1, with or without an embolism.
    ratio = rng.choice([rng.uniform(0.66, 0.92), rng.uniform(1.08, 1.5)], p=[0.6, 0.4])
    right_width = ratio * 2 * left_short
    # The right ventricle lies around the septum: a fifth of its ellipse is hidden behind the wall.
    away = left_short + myocardium + 0.4 * right_width
    right = middle + away * short - 8 * scale * along
    excess = front - (right[1] - 0.6 * right_width)
    if excess > 0:
        back = np.array([0.0, excess])
        middle, right = middle + back, right + back

    def chamber(at, axes, turned=0.0, z=level) -> Ellipsoid:
        return Ellipsoid((float(at[0]), float(at[1]), float(z)), tuple(map(float, axes)), turned)

    heart = {
        "left": chamber(middle, (38 * scale, left_short, 25 * scale), turn),
        "right": chamber(right, (38 * scale, 0.6 * right_width, 27 * scale), turn),
        "right_atrium": chamber(
            np.array([-30.0, -20.0]) * scale, (21 * scale, 26 * scale, 27 * scale), z=level + 8
        ),
        "left_atrium": chamber(
            np.array([3.0, 9.0]) * scale, (29 * scale, 16 * scale, 19 * scale), z=level + 27
        ),
    }
    return heart, myocardium, float(ratio)


def _draw_nodes(
    rng: np.random.Generator, arteries: dict[str, Tube]
) -> list[tuple[Ellipsoid, float]]:
    """Lymph nodes that touch the arteries from outside: the size and HU of clots."""
    hosts = ["left_main", "right_main", "left_lower", "right_lower", "left_upper", "right_upper"]
    nodes = []
    for _ in range(int(rng.integers(1, 5))):
        tube = arteries[hosts[int(rng.integers(len(hosts)))]]
        points, radii = tube.at(rng.uniform(0.3, 0.95, 1) * tube.arc[-1])
        axes = rng.uniform(4, 10, 3)
        direction = rng.normal(size=3)
        direction /= np.linalg.norm(direction)
        centre = points[0] + direction * (radii[0] + 0.95 * axes.min())
        node = Ellipsoid(tuple(centre), tuple(axes), rng.uniform(0, np.pi))
        nodes.append((node, rng.uniform(30, 85)))
    return nodes
