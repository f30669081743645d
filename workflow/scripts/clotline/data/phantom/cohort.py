"""A cohort of phantom studies and its labels file, drawn without rendering a picture.

A study depends on the cohort's seed and its own index alone, so a longer cohort begins with the
studies of a shorter one, and so does its labels file with the new rows between the old ones.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

from clotline.labels import COLUMNS, IMAGE_LABEL, SERIES_UID, SOP_UID, STUDY_LABELS, STUDY_UID

from .anatomy import Chest, draw_chest
from .emboli import ACUTE_SHAPES, CHRONIC_SHAPES, Clot, draw_clots, visible_slices
from .geometry import Grid
from .hard import draw_look_alikes, draw_small_emboli, hard_range, hard_scan, harden_chest

#: Field of view in mm of the average study: 224 of 256 pixels are then about 290 mm.
_FIELD_OF_VIEW = 333.0

#: What the studies of a block of 25 are, shuffled block by block, so that every cohort has its
#: share of each: 44% with an embolism, of these 27% chronic and 18% both; 4% indeterminate.
_BLOCK = ["acute"] * 6 + ["chronic"] * 3 + ["both"] * 2 + ["indeterminate"] + ["negative"] * 13

ENCODINGS = ("explicit", "implicit", "big endian", "rle", "jpeg lossless")


@dataclass(frozen=True)
class Acquisition:
    """How the study was scanned and stored.

    Attributes:
        noise: standard deviation in HU.
        grain: correlation length of the noise, in pixels.
        blur: of the reconstruction kernel, in mm.
        motion: shift between the two positions that a moving slice mixes, in mm; 0 for none.
        mixing: share of contrast lost where unmixed blood flows by; 0 for none.
        table: y of the table's top in mm.
        round_field: whether pixels outside the circular field of view are padding.
        encoding: one of ENCODINGS.
        slope: RescaleSlope.
        intercept: RescaleIntercept in HU.
        signed: whether stored values are signed.
        downwards: whether the scan ran from head to feet: InstanceNumber falls with z.
        table_position: z of the DICOM patient axes at the phantom's z = 0, in mm.
        feet_first: whether the patient lay feet first.
        upside_down: whether rows run to the patient's right and columns to the front.
        sharpening: by how much the kernel raises edges: that share of what a blur takes away.
    """

    noise: float
    grain: float
    blur: float
    motion: float
    mixing: float
    table: float
    round_field: bool
    encoding: str
    slope: int
    intercept: int
    signed: bool
    downwards: bool
    table_position: float
    feet_first: bool
    upside_down: bool
    sharpening: float = 0.0


@dataclass(frozen=True)
class Study:
    """One drawn CT pulmonary angiogram.

    Attributes:
        seed: the cohort's.
        index: its number in the cohort.
        pe_type: acute, chronic, both, negative or indeterminate.
        grid: the voxels.
        chest: the patient.
        clots: the emboli; none of them is out of sight.
        defect: where a filling defect lies that is no embolism: "cava", "left_atrium" or "".
        acquisition: how it was scanned and stored.
        shown: (slices,) bool, which slices show an embolus, in scan order (ascending z).
        labels: the 13 labels of the examination.
        look_alikes: gaps in the arteries' contrast that are no emboli; the hard phantom's alone.
    """

    seed: int
    index: int
    pe_type: str
    grid: Grid
    chest: Chest
    clots: tuple[Clot, ...]
    defect: str
    acquisition: Acquisition
    shown: np.ndarray
    labels: dict[str, int]
    look_alikes: tuple[Clot, ...] = ()

    @property
    def positive(self) -> bool:
        """Whether the patient has a pulmonary embolism."""
        return bool(self.clots)

    @cached_property
    def uid(self) -> str:
        """StudyInstanceUID of the labels file: 12 hex digits."""
        return hex_uid(self.seed, self.index, "study")

    @cached_property
    def series_uid(self) -> str:
        """SeriesInstanceUID of the labels file: 12 hex digits."""
        return hex_uid(self.seed, self.index, "series")

    @cached_property
    def sop_uids(self) -> list[str]:
        """SOPInstanceUID of each slice in scan order, in the labels file: 12 hex digits."""
        return [hex_uid(self.seed, self.index, f"slice {k}") for k in range(self.grid.slices)]

    def rng(self, purpose: str) -> np.random.Generator:
        """Random numbers of this study for one purpose, always the same."""
        return rng_of(self.seed, self.index, purpose)


def hex_uid(*of: object) -> str:
    """A UID of the labels file, 12 hex digits, that follows from what it is of."""
    return _sha256(*of).hex()[:12]


def rng_of(*of: object) -> np.random.Generator:
    """Random numbers that follow from what they are for."""
    return np.random.default_rng(int.from_bytes(_sha256(*of)[:16], "little"))


def _sha256(*of: object) -> bytes:
    return hashlib.sha256(" ".join(map(str, of)).encode()).digest()


def draw_cohort(settings: Mapping) -> list[Study]:
    """Draws every study of a cohort.

    Args:
        settings: `studies`, how many; `seed`; `slices_min` and `slices_max` of a study;
            `difficulty`, plain or hard (`clotline.data.phantom.hard`).
    """
    low, high = int(settings.get("slices_min", 20)), int(settings.get("slices_max", 40))
    seed, hard = int(settings["seed"]), settings.get("difficulty", "plain") == "hard"
    return [_draw_study(seed, k, low, high, hard) for k in range(int(settings["studies"]))]


def _draw_study(seed: int, index: int, slices_min: int, slices_max: int, hard: bool) -> Study:
    block, member = divmod(index, len(_BLOCK))
    pe_type = _BLOCK[rng_of(seed, block, "block").permutation(len(_BLOCK))[member]]
    rng = rng_of(seed, index, "draw")
    chest = draw_chest(rng)
    grid = _draw_grid(rng, chest, slices_min, slices_max)
    acquisition = _draw_acquisition(rng, chest)
    if rng_of(seed, index, "orientation").random() < 0.05:
        acquisition = replace(acquisition, upside_down=True)
    if hard:
        own = rng_of(seed, index, "hard")
        chest = harden_chest(own, chest)
        grid = _within(grid, *hard_range(own, chest))
        acquisition = replace(acquisition, **hard_scan(own))
    quality = dict.fromkeys(("qa_motion", "qa_contrast", "flow_artifact"), 0)
    quality["flow_artifact"] = int(rng.random() < 0.18)
    if quality["flow_artifact"]:
        acquisition = replace(acquisition, mixing=rng.uniform(0.15, 0.35))
    poor = rng.random(2)
    strength = rng.uniform(0, 1)
    if pe_type == "indeterminate":
        fault = "qa_contrast" if poor[0] < 0.5 else "qa_motion"
        quality[fault] = 1
        if fault == "qa_contrast":
            chest = _with_contrast(chest, (75 + 50 * strength) / chest.hu["pulmonary"])
        else:
            acquisition = replace(acquisition, motion=11 + 6 * strength)
    elif poor[0] < 0.06:
        quality["qa_contrast"] = 1
        chest = _with_contrast(chest, (190 + 40 * strength) / chest.hu["pulmonary"])
    elif poor[1] < 0.08:
        quality["qa_motion"] = 1
        acquisition = replace(acquisition, motion=4 + 2 * strength)
    defect = ("cava", "left_atrium")[int(rng.integers(2))] if rng.random() < 0.04 else ""
    look_alikes: tuple[Clot, ...] = ()
    if hard:
        clots, shown = (), np.zeros(grid.slices, bool)
        if pe_type in ("acute", "chronic", "both"):
            rng = rng_of(seed, index, "emboli")
            clots, shown = draw_small_emboli(rng, grid, chest.arteries, pe_type)
        rng = rng_of(seed, index, "look-alikes")
        look_alikes = draw_look_alikes(rng, grid, chest.arteries, clots)
    else:
        clots, shown, chest = _draw_emboli(seed, index, pe_type, grid, chest)
    return Study(
        seed=seed,
        index=index,
        pe_type=pe_type,
        grid=grid,
        chest=chest,
        clots=clots,
        defect=defect,
        acquisition=acquisition,
        shown=shown,
        labels=_study_labels(pe_type, chest, clots, quality, defect),
        look_alikes=look_alikes,
    )


def _within(grid: Grid, bottom: float, top: float) -> Grid:
    """The same slices between other heights, in mm."""
    spacing = round((top - bottom) / (grid.slices - 1), 3)
    return replace(grid, bottom=round(bottom, 3), spacing=spacing)


def _with_contrast(chest: Chest, factor: float) -> Chest:
    """The chest with less contrast in all vessels, down to unenhanced blood."""
    vessels = ("pulmonary", "right_heart", "left_heart", "aorta", "cava")
    faded = {name: max(45.0, chest.hu[name] * factor) for name in vessels}
    return replace(chest, hu={**chest.hu, **faded})


def _draw_grid(rng: np.random.Generator, chest: Chest, slices_min: int, slices_max: int) -> Grid:
    slices = int(rng.integers(slices_min, slices_max + 1))
    bottom = min(chest.domes) - rng.uniform(10, 24)
    length = rng.uniform(94, 104) * chest.size - bottom
    size = 512 if rng.random() < 0.05 else 256
    field = _FIELD_OF_VIEW * rng.uniform(0.93, 1.09)
    return Grid(
        slices=slices,
        size=size,
        pixel=round(field / size, 6),
        spacing=round(length / (slices - 1), 3),
        bottom=round(bottom, 3),
        centre=(round(rng.normal(0, 6), 3), round(rng.normal(0, 6), 3)),
    )


def _draw_acquisition(rng: np.random.Generator, chest: Chest) -> Acquisition:
    encoding = str(rng.choice(ENCODINGS, p=[0.56, 0.14, 0.1, 0.1, 0.1]))
    slope, intercept, signed = (
        (1, -1024, False),
        (1, -1000, False),
        (1, 0, True),
        (1, -1024, True),
        (2, -1024, False),
    )[int(rng.choice(5, p=[0.45, 0.15, 0.2, 0.12, 0.08]))]
    return Acquisition(
        noise=rng.uniform(9, 20),
        grain=rng.uniform(0.6, 1.1),
        blur=rng.uniform(0.5, 1.0),
        motion=0.0,
        mixing=0.0,
        table=chest.body[1] + rng.uniform(0, 9),
        # Padding needs a value below air, which only signed values have to spare.
        round_field=bool(rng.random() < 0.5) and signed,
        encoding=encoding,
        slope=slope,
        intercept=intercept,
        signed=signed,
        downwards=bool(rng.random() < 0.5),
        table_position=round(rng.uniform(-1400, 300), 1),
        feet_first=bool(rng.random() < 0.3),
        upside_down=False,
    )


def _draw_emboli(
    seed: int, index: int, pe_type: str, grid: Grid, chest: Chest
) -> tuple[tuple[Clot, ...], np.ndarray, Chest]:
    """The clots, the slices that show one, and the chest with its clotted arteries wider."""
    shapes = {
        "acute": ACUTE_SHAPES,
        "chronic": CHRONIC_SHAPES,
        "both": (*ACUTE_SHAPES, *CHRONIC_SHAPES),
    }.get(pe_type, ())
    nothing = np.zeros(grid.slices, bool)
    if not shapes:
        return (), nothing, chest
    rng = rng_of(seed, index, "emboli")
    least = max(2, round(0.18 * grid.slices))
    while True:
        # A clotted artery is wider; so the patient has no less contrast to see than others.
        wider = rng.uniform(1.02, 1.1)
        arteries = {n: replace(t, radii=t.radii * wider) for n, t in chest.arteries.items()}
        clots, shown = [], nothing.copy()
        for clot in draw_clots(rng, arteries, shapes):
            seen = visible_slices(grid, clot, arteries)
            if seen.any():
                clots.append(clot)
                shown |= seen
        sorts = {clot.chronic for clot in clots}
        if shown.sum() >= least and len(sorts) == (2 if pe_type == "both" else 1):
            return tuple(clots), shown, replace(chest, arteries=arteries)


def _study_labels(
    pe_type: str, chest: Chest, clots: Sequence[Clot], quality: dict[str, int], defect: str
) -> dict[str, int]:
    strained = chest.ventricle_ratio >= 1
    return {
        **dict.fromkeys(STUDY_LABELS, 0),
        "negative_exam_for_pe": int(pe_type == "negative"),
        **quality,
        "rv_lv_ratio_gte_1": int(bool(clots) and strained),
        "rv_lv_ratio_lt_1": int(bool(clots) and not strained),
        "leftsided_pe": int(any(clot.on_side("left") for clot in clots)),
        "chronic_pe": int(pe_type == "chronic"),
        "true_filling_defect_not_pe": int(bool(defect)),
        "rightsided_pe": int(any(clot.on_side("right") for clot in clots)),
        "acute_and_chronic_pe": int(pe_type == "both"),
        "central_pe": int(any(clot.central for clot in clots)),
        "indeterminate": int(pe_type == "indeterminate"),
    }


def labels_table(cohort: Sequence[Study]) -> pd.DataFrame:
    """The labels file: a row a slice, 17 columns in the published order, rows in no useful order.

    The rows are sorted by their SOPInstanceUID, a hash: a study more leaves the others' order.
    """
    rows = []
    for study in cohort:
        for sop_uid, shown in zip(study.sop_uids, study.shown, strict=True):
            rows.append(
                {
                    STUDY_UID: study.uid,
                    SERIES_UID: study.series_uid,
                    SOP_UID: sop_uid,
                    IMAGE_LABEL: int(shown),
                    **study.labels,
                }
            )
    rows.sort(key=lambda row: row[SOP_UID])
    return pd.DataFrame(rows, columns=list(COLUMNS))
