"""The semi-synthetic cohort: real vessel trees, lungs and emboli, rendered as CT.

What lies where is a patient's: masks of the lungs, the pulmonary arteries and veins, and the emboli
of a CT pulmonary angiogram. What is around them, the attenuation of all tissue, the noise and the
kernel are drawn. Studies come in pairs of the same drawing: the positive one shows some of the
tree's emboli, its negative twin has contrast where they are, so that nothing else in a study tells
whether there is an embolism. Lengths in mm, attenuation in Hounsfield units (HU).
"""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np

from bench import trees
from bench.trees import (
    ARTERY,
    LEAST_MM2,
    LUNG,
    VEIN,
    Tree,
    find_trees,
    masks_of,
    read_tree,
    split_trees,
)
from clotline.data.phantom.cohort import Acquisition, hex_uid, labels_table, rng_of
from clotline.data.phantom.files import write_slices
from clotline.data.phantom.geometry import Grid
from clotline.data.phantom.hard import hard_scan
from clotline.data.phantom.render import acquire, smooth_noise
from clotline.errors import ClotlineError
from clotline.evaluation.metrics import SIZES
from clotline.grid import AIR_HU
from clotline.job.files import atomic, sha256
from clotline.job.progress import progress
from clotline.labels import COLUMNS, IMAGE_LABEL, SPLITS, STUDY_UID, UIDS
from clotline.workflow.code_digest import code_digest

#: The cohort that shows what a recipe is worth, and one to test with.
WHOLE = {"pairs": 58, "seed": 1, "slices_min": 60, "slices_max": 64, "size": 256}
TINY = WHOLE | {"pairs": 4, "slices_min": 24, "slices_max": 24}

#: Drawings that are tried for a band of positive slices before another band is taken.
_TRIES = 200


@dataclass(frozen=True)
class Study:
    """One study of a pair; both have all in common but ``visible`` and the labels.

    Attributes:
        seed: of the cohort.
        tree: name of the case.
        pair: its number among those of the tree.
        grid: the voxels; (0, 0) is the middle of the lungs.
        turn: of the patient about the scan's axis, in radians.
        scale: of the patient's size.
        thickness: of a slice in mm.
        hu: attenuation of each tissue.
        acquisition: how it was scanned and stored.
        visible: (emboli, slices) bool, which emboli are drawn in which slice.
        labels: the 13 labels of the examination.
    """

    seed: int
    tree: str
    pair: int
    grid: Grid
    turn: float
    scale: float
    thickness: float
    hu: dict[str, float]
    acquisition: Acquisition
    visible: np.ndarray
    labels: dict[str, int]

    @property
    def shown(self) -> np.ndarray:
        """(slices,) bool: which slices show an embolus, in scan order (ascending z)."""
        return self.visible.any(axis=0)

    @cached_property
    def uid(self) -> str:
        """StudyInstanceUID of the labels file: 12 hex digits."""
        return self._uid("study")

    @cached_property
    def series_uid(self) -> str:
        """SeriesInstanceUID of the labels file: 12 hex digits."""
        return self._uid("series")

    @cached_property
    def sop_uids(self) -> list[str]:
        """SOPInstanceUID of each slice in scan order, in the labels file: 12 hex digits."""
        return [self._uid(f"slice {k}") for k in range(self.grid.slices)]

    def _uid(self, what: str) -> str:
        twin = "positive" if self.visible.any() else "negative"
        return hex_uid(self.seed, self.tree, self.pair, twin, what)

    def rng(self, purpose: str) -> np.random.Generator:
        """Random numbers for one purpose, the same for both studies of a pair."""
        return rng_of(self.seed, self.tree, self.pair, purpose)


def draw_pair(tree: Tree, settings: dict, pair: int) -> tuple[Study, Study]:
    """Draws a study and its negative twin.

    Which emboli are drawn is chosen so that the positive slices are of a band of `SIZES`, each band
    by turns; where the tree's emboli do not give that in `_TRIES` drawings, of the next one, and
    after the last of the first.

    Args:
        tree: the patient.
        settings: ``seed``, ``slices_min`` and ``slices_max``, and ``size`` of a slice in pixels.
        pair: number of the pair, from 0.

    Returns:
        The positive study and the negative one.

    Raises:
        ClotlineError: no slice of the tree shows an embolus.
    """
    rng = rng_of(settings["seed"], tree.name, pair, "draw")
    bands = list(SIZES.values())
    for turn in range(len(bands)):
        low, high = bands[(pair + turn) % len(bands)]
        for _ in range(_TRIES):
            study = _draw_scan(rng, tree, settings, pair)
            most = int(min(high, study.grid.slices))
            if low > most:
                break
            visible = _draw_emboli(rng, tree, study, int(rng.integers(low, most + 1)), most)
            if low <= visible.any(axis=0).sum():
                labels = study_labels(tree, visible, study.labels["flow_artifact"])
                return replace(study, visible=visible, labels=labels), study
    raise ClotlineError(f"{tree.name}: no slice shows {LEAST_MM2:g} mm² of an embolus")


def _draw_scan(rng: np.random.Generator, tree: Tree, settings: dict, pair: int) -> Study:
    """The negative study: the patient, the scan and the contrast."""
    slices = int(rng.integers(settings["slices_min"], settings["slices_max"] + 1))
    scale = rng.uniform(0.92, 1.08)
    lowest, highest = tree.height * scale
    # From all of the lungs to less than half of them: then emboli fill most of the slices.
    length = (highest - lowest) * rng.uniform(0.45, 1)
    bottom = lowest + rng.uniform(0, highest - lowest - length)
    # The ladder's crop of 176 of 256 pixels is to hold the vessels.
    field = tree.width * scale / rng.uniform(0.62, 0.76)
    spacing = round(length / (slices - 1), 3)
    artery = rng.uniform(180, 480)
    mixing = rng.uniform(0.15, 0.35) if rng.random() < 0.18 else 0.0
    nothing = np.zeros((len(tree.left), slices), bool)
    return Study(
        seed=settings["seed"],
        tree=tree.name,
        pair=pair,
        grid=Grid(
            slices=slices,
            size=settings["size"],
            pixel=round(field / settings["size"], 6),
            spacing=spacing,
            bottom=round(bottom, 3),
            centre=(round(rng.normal(0, 6), 3), round(rng.normal(0, 6), 3)),
        ),
        turn=np.deg2rad(rng.uniform(-6, 6)),
        scale=scale,
        thickness=min(spacing, rng.uniform(1, 3)),
        hu={
            "artery": artery,
            "vein": max(80.0, artery * rng.uniform(0.5, 1.1)),
            "cava": artery * rng.uniform(0.8, 1.6),
            "embolus": rng.uniform(30, 70),
            "lung": rng.uniform(-880, -810),
            "muscle": rng.uniform(45, 65),
            "liver": rng.uniform(60, 110),
            "fat": rng.uniform(-115, -90),
            "bone": rng.uniform(250, 500),
        },
        acquisition=_draw_acquisition(rng, mixing),
        visible=nothing,
        labels=study_labels(tree, nothing, int(mixing > 0)),
    )


def _draw_acquisition(rng: np.random.Generator, mixing: float) -> Acquisition:
    """Noise and kernel of the hard phantom; stored plainly, for that is not what is compared."""
    return Acquisition(
        **hard_scan(rng),
        motion=0.0,
        mixing=mixing,
        table=0.0,
        round_field=False,
        encoding="explicit",
        slope=1,
        intercept=-1024,
        signed=False,
        downwards=False,
        table_position=0.0,
        feet_first=False,
        upside_down=False,
    )


def _thin_slices(tree: Tree, study: Study) -> np.ndarray:
    """(slices, thin) bool: which slices of the masks each slice of a study is the mean of."""
    away = np.abs(tree.z - study.grid.z[:, None] / study.scale)
    near = away <= study.thickness / study.scale / 2
    return near | (away == away.min(axis=1, keepdims=True))


def _draw_emboli(
    rng: np.random.Generator, tree: Tree, study: Study, wanted: int, most: int
) -> np.ndarray:
    """Emboli until as many slices as wanted show one, at most so many.

    Returns:
        (emboli, slices) bool: which are drawn where.
    """
    near = _thin_slices(tree, study)
    areas = tree.areas @ near.T / near.sum(axis=1) * study.scale**2
    could = areas >= LEAST_MM2
    visible = np.zeros_like(could)
    for number in rng.permutation(len(could)):
        shown = visible.any(axis=0)
        if shown.sum() >= wanted:
            break
        if (shown | could[number]).sum() <= most:
            visible[number] = could[number]
    return visible


def study_labels(tree: Tree, visible: np.ndarray, flow_artifact: int) -> dict[str, int]:
    """The 13 labels of the examination.

    Sides and centrality are those of the emboli that are drawn: an embolus is on a side, or
    central, if a fifth of it is in that half of the chest, or in arteries of 14 mm and more. Masks
    say neither how old an embolus is nor how wide the ventricles are: all are acute, with a
    ratio below 1.

    Args:
        tree: the patient.
        visible: (emboli, slices) bool, which emboli are drawn where.
        flow_artifact: 1 where contrast is mixed unevenly.
    """
    drawn = visible.any(axis=1)
    return {
        **dict.fromkeys((c for c in COLUMNS if c not in (*UIDS, IMAGE_LABEL)), 0),
        "negative_exam_for_pe": int(not drawn.any()),
        "flow_artifact": flow_artifact,
        "rv_lv_ratio_lt_1": int(drawn.any()),
        "leftsided_pe": int((drawn & tree.left).any()),
        "rightsided_pe": int((drawn & tree.right).any()),
        "central_pe": int((drawn & tree.central).any()),
    }


def coverage(tree: Tree, study: Study) -> np.ndarray:
    """How much of each voxel is of what the masks hold.

    Returns:
        (4, slices, size, size) float32 from 0 to 1: lungs, arteries with all emboli of the tree,
        veins, and the emboli that the study shows.
    """
    grid = study.grid
    # Twice as fine, then averaged: the masks' pixels are smaller than those of a slice.
    step = grid.pixel / 2 / (study.scale * tree.pixel)
    cos, sin = np.cos(study.turn) * step, np.sin(study.turn) * step
    x, y = (float(v[0]) / grid.pixel * 2 - 0.5 for v in (grid.x, grid.y))
    column, row = tree.centre
    move = np.array([
        [cos, sin, cos * x + sin * y + column],
        [-sin, cos, cos * y - sin * x + row],
    ])  # fmt: skip
    out = np.empty((4, grid.slices, grid.size, grid.size), np.float32)
    for k, near in enumerate(_thin_slices(tree, study)):
        labels, embolus = tree.labels[near], tree.embolus[near]
        drawn = np.r_[False, study.visible[:, k]]
        layers = [*(labels & bit > 0 for bit in (LUNG, ARTERY, VEIN)), drawn[embolus]]
        mean = np.stack([layer.mean(axis=0, dtype=np.float32) for layer in layers], axis=-1)
        fine = (2 * grid.size, 2 * grid.size)
        fine = cv2.warpAffine(mean, move, fine, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        fine = cv2.resize(fine, (grid.size, grid.size), interpolation=cv2.INTER_AREA)
        out[:, k] = fine.transpose(2, 0, 1)
    return out


def render(tree: Tree, study: Study) -> np.ndarray:
    """Renders a study.

    Returns:
        (slices, size, size) int16, Hounsfield units in scan order (ascending z), as its files have
        them.
    """
    lungs, arteries, veins, emboli = coverage(tree, study)
    grid, hu, scan = study.grid, study.hu, study.acquisition
    texture = smooth_noise(study.rng("texture"), grid, 7.0)
    volume = _chest(tree, study, lungs, texture)
    # Lung is denser towards the back, where blood sinks, and mottled by vessels too fine to see.
    parenchyma = hu["lung"] + 16 * texture + 0.4 * grid.y[:, None]
    _lay(volume, lungs, parenchyma)
    flow = np.clip(smooth_noise(study.rng("mixing"), grid, 14.0), 0, 1.5) / 1.5
    contrast = hu["artery"] * (1 - scan.mixing * flow)
    volume += arteries * (contrast - volume) + veins * (hu["vein"] - volume)
    volume += emboli * (hu["embolus"] - contrast)
    acquire(study, volume)
    return volume.astype(np.int16)


def _lay(volume: np.ndarray, alpha: np.ndarray, value: np.ndarray | float) -> None:
    """Lays a value in HU over a volume where alpha, from 0 to 1, says; in place."""
    volume += alpha * (value - volume)


def _chest(tree: Tree, study: Study, lungs: np.ndarray, texture: np.ndarray) -> np.ndarray:
    """What is about the lungs, in no patient's likeness: (slices, size, size) float32 in HU.

    The chest cavity is the lungs' convex hull, and an oval of fat and muscle is around it, with
    oblique ribs, a sternum and a spine. Between the lungs there are fat, the aorta and the superior
    vena cava above the middle of the hilum, the heart below it; under the lungs' domes there is
    one soft organ. Airways are not drawn.
    """
    grid, hu = study.grid, study.hu
    rng = study.rng("chest")
    x, y, z = grid.x[None, :], grid.y[:, None], grid.z[:, None, None]

    def soft(depth: np.ndarray) -> np.ndarray:
        """Depth below a surface in mm to coverage."""
        return np.clip(depth / grid.pixel + 0.5, 0, 1)

    inside = _hulls(lungs > 0.5)
    depth = np.stack([_depth(slice_, grid.pixel) for slice_ in inside])
    middle = np.stack([_depth(slice_, grid.pixel) for slice_ in inside & (lungs < 0.5)])
    (first, last), (front, back) = (
        axis[np.flatnonzero(inside.any((0, along)))[[0, -1]]]
        for axis, along in ((grid.x, 1), (grid.y, 2))
    )
    fat, wall = rng.uniform(6, 22), rng.uniform(14, 20)
    half_width, half_depth = (last - first) / 2 + wall, (back - front) / 2 + wall
    oval = np.abs((x - (first + last) / 2) / (half_width + fat)) ** 2.5
    oval = oval + np.abs((y - (front + back) / 2) / (half_depth + fat)) ** 2.5
    oval = (1 - oval**0.4) * (half_depth + fat)
    volume = np.full(lungs.shape, AIR_HU, np.float32)
    _lay(volume, soft(oval), hu["fat"])
    _lay(volume, soft(oval - fat) * (1 - 0.6 * np.clip(texture - 0.8, 0, 1)), hu["muscle"])
    _lay(volume, soft(depth), hu["fat"] + 40 + 12 * texture)
    # Each rib falls from the spine to the side and on to the front.
    rib = np.cos(2 * np.pi * ((z - 0.5 * y + 0.3 * np.abs(x)) / 27 + rng.uniform())) - 0.3
    rib = np.minimum(4 - np.abs(depth + 6), 6 * rib)
    _lay(volume, soft(rib) * (y > front + 12), hu["bone"])
    sternum = 5 * (1 - np.hypot(x / 16, (y - front + 4) / 5))
    _lay(volume, soft(sternum), 0.7 * hu["bone"])
    spine, centre = back - 32, front + 0.4 * (back - front)
    below = z < tree.hilum * study.scale - 10
    # Right chambers lie in front of an oblique septum, left ones behind it.
    axes = 0.52 * half_width, 0.42 * (back - front), 65 * study.scale
    away = np.hypot((x - 15) / axes[0], (y - centre) / axes[1])
    away = np.hypot(away, (z - tree.hilum * study.scale + 50) / axes[2])
    heart = np.minimum(middle - 7, axes[0] * (1 - away))
    septum = np.clip((x - 15 + 0.8 * (y - centre)) / 8, -1, 1)
    chambers = np.where(septum > 0, hu["vein"], hu["artery"])
    chambers = 90 + np.abs(septum) ** 4 * (chambers - 90)
    organs = soft(middle - 2) * below
    _lay(volume, organs * ((y < spine - 10) | (np.abs(x) > 30)), hu["liver"])
    _lay(volume, soft(heart + 5) * organs, hu["muscle"] + 30)
    _lay(volume, soft(heart) * below, 0.95 * chambers)
    aorta, cava = 0.95 * hu["vein"], hu["cava"]
    for at, radius, value, where in (
        ((24, spine - 16), 11, aorta, np.ones_like(below)),
        ((-8, front + 0.36 * (back - front)), 15, aorta, ~below),
        ((-34, front + 0.42 * (back - front)), 8, cava, ~below),
    ):
        around = radius - np.hypot(x - at[0], y - at[1])
        _lay(volume, soft(around + 1.5) * where, hu["muscle"])
        _lay(volume, soft(around) * where, value)
    for reach, value in ((17, hu["bone"]), (14.5, 0.5 * hu["bone"])):
        body = reach * (1 - np.hypot(x / reach, (y - spine) / (0.8 * reach)))
        _lay(volume, soft(body), value)
    arch = 9 - np.hypot(x / 1.4, y - spine - 22)
    _lay(volume, soft(arch), 0.8 * hu["bone"])
    _lay(volume, soft(arch - 3), 30)
    return volume


def _hulls(lungs: np.ndarray) -> np.ndarray:
    """(slices, size, size) bool: the chest cavity, the lungs' convex hull.

    Under the slice where it is widest it stays as wide: there it holds what lifts the diaphragm.
    """
    hulls = np.stack([_hull(slice_) for slice_ in lungs])
    widest = int(np.argmax(hulls.sum((1, 2))))
    for k in range(widest - 1, -1, -1):
        hulls[k] |= hulls[k + 1]
    return hulls


def _hull(mask: np.ndarray) -> np.ndarray:
    hull = np.zeros(mask.shape, np.uint8)
    points = cv2.findNonZero(mask.astype(np.uint8))
    if points is not None:
        cv2.fillConvexPoly(hull, cv2.convexHull(points), 1)
    return hull > 0


def _depth(mask: np.ndarray, pixel: float) -> np.ndarray:
    """Depth inside a mask in mm, negative outside: (rows, columns) float32."""
    inside, outside = (
        cv2.distanceTransform(m.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        for m in (mask, ~mask)
    )
    return (inside - outside) * pixel


@dataclass(frozen=True)
class SemiSynthetic:
    """The semi-synthetic cohort as a ladder climbs it (`bench.ladder.Cohort`).

    Attributes:
        folder: of the masks.
        settings: ``pairs`` of studies of each tree, those of `draw_pair`, and the digests
            of the ``masks``.
    """

    folder: Path
    settings: dict

    part: ClassVar = "semisynthetic"
    heading: ClassVar = "The ladder, on semi-synthetic studies"
    split: ClassVar = {"column": "split"}

    @classmethod
    def of(cls, folder: Path, settings: dict) -> "SemiSynthetic":
        """The cohort of the masks in a folder.

        Raises:
            ClotlineError: as of `masks_of`.
        """
        return cls(folder, settings | {"masks": masks_of(folder)})

    @cached_property
    def split_of(self) -> dict[str, str]:
        """Tree to its split."""
        return split_trees(self.folder)

    @property
    def recipe(self) -> list:
        """All that the files follow from."""
        code = [sha256(path) for path in (__file__, trees.__file__)]
        return [self.settings, self.split, *code, code_digest("phantom.py")]

    def with_studies(self, studies: int) -> "SemiSynthetic":
        """The same with about so many studies: as many pairs of each tree."""
        pairs = max(1, round(studies / 2 / len(find_trees(self.folder))))
        return replace(self, settings=self.settings | {"pairs": pairs})

    def config(self) -> dict:
        """The sections ``phantom`` and ``data`` of the configuration."""
        data = {"labels": "data/train.csv", "dicom": "data/train", "split": self.split}
        return {"phantom": None, "data": data}

    def write(self, folder: Path) -> None:
        """Writes the DICOM files and the labels file, with the split of each row.

        Args:
            folder: that the paths of `config` start at.

        Raises:
            ClotlineError: a mask cannot be read.
        """
        studies, splits = [], {}
        for name in progress(self.split_of, len(self.split_of), "rendering", "trees"):
            tree = read_tree(self.folder, name)
            for pair in range(self.settings["pairs"]):
                for study in draw_pair(tree, self.settings, pair):
                    write_slices(study, render(tree, study), folder / "data/train")
                    studies.append(study)
                    splits[study.uid] = self.split_of[name]
        table = labels_table(studies)
        table["split"] = table[STUDY_UID].map(splits)
        with atomic(folder / "data/train.csv") as path:
            table.to_csv(path, index=False)

    def describe(self) -> str:
        """Where the studies come from, as sentences."""
        splits = list(self.split_of.values())
        counts = ", ".join(f"{splits.count(split)} {split}" for split in SPLITS)
        return (
            f"Lungs, vessels and emboli are the masks of {len(splits)} patients ({counts}); "
            "all else is drawn. Half of the studies are the negative twins of the others, and "
            "differ from them in the emboli alone. Emboli are those that a network found (AANet, "
            "in CAD-PE); all are called acute, with a ratio of the ventricles below 1. As few "
            "patients test, intervals are for other studies of these and not for other patients."
        )
