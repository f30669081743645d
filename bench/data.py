"""What is measured on: a phantom in files as a scanner writes them, made-up features and labels."""

import itertools
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from clotline.data.features_file import create_features, write_features
from clotline.data.ingest import write_shard
from clotline.data.labels_file import read_labels
from clotline.data.phantom.cohort import draw_cohort, labels_table
from clotline.data.phantom.files import write_study
from clotline.data.plan import make_plan, planned_rows
from clotline.data.shards import CHECKSUM, ShardWriter, StoredPixels, read_rows, read_study_labels
from clotline.job.processes import end_with_parent
from clotline.labels import COLUMNS, IMAGE_LABEL, SERIES_UID, SOP_UID, STUDY_LABELS, STUDY_UID

SIDE = 512
#: Slices of a study: about RSNA's mean of 246 where whole studies matter, fewer where slices do.
STUDY_SLICES = 40
RSNA_STUDY_SLICES = 246
PROCESSES = 2
#: Studies, slices and positive slices of the RSNA set.
RSNA_STUDIES, RSNA_SLICES, RSNA_POSITIVE = 7_279, 1_790_594, 96_540
#: Features of both CNNs together.
WIDTH = 3328

_ALL_IN_ONE = {
    "slices_per_shard": 10**9,
    "split": {"column": None, "train": 0.75, "valid": 0.15, "test": 0.1},
}


def _scanned(study):
    """The study in uncompressed files of 512 × 512 pixels with a soft kernel's noise."""
    grid = replace(study.grid, size=SIDE, pixel=study.grid.pixel * study.grid.size / SIDE)
    scan = replace(study.acquisition, encoding="explicit", noise=20.0, grain=0.7, round_field=False)
    return replace(study, grid=grid, acquisition=scan)


def _write(job) -> None:
    write_study(*job)


@dataclass(frozen=True)
class Cohort:
    """Studies on disk.

    Attributes:
        folder: for what is made of them.
        dicom: the folder of the DICOM files.
        rows: of `clotline.data.plan.planned_rows`.
    """

    folder: Path
    dicom: Path
    rows: pd.DataFrame

    @cached_property
    def shard(self) -> Path:
        """All of it as a shard."""
        path = self.folder / "shard-000.h5"
        if not path.exists():
            write_shard(self.rows, self.dicom, path, PROCESSES)
        return path

    @cached_property
    def stored(self) -> pd.DataFrame:
        """The shard's rows as in slices.parquet."""
        rows = read_rows(self.shard)
        return rows.assign(shard="000", row=range(len(rows)), split="train", file=str(self.shard))


def make_cohort(folder: Path, slices: int) -> Cohort:
    """Writes at least so many slices, in whole studies."""
    studies = -(-slices // STUDY_SLICES)
    settings = {"studies": studies, "seed": 7}
    settings |= {"slices_min": STUDY_SLICES, "slices_max": STUDY_SLICES}
    cohort = [_scanned(study) for study in draw_cohort(settings)]
    dicom = folder / "dicom"
    dicom.mkdir(parents=True)
    with ProcessPoolExecutor(PROCESSES, initializer=end_with_parent) as pool:
        list(pool.map(_write, [(study, dicom) for study in cohort]))
    labels = labels_table(cohort)
    return Cohort(folder, dicom, planned_rows(labels, make_plan(labels, _ALL_IN_ONE)))


def real_cohort(realct: Path, folder: Path) -> Cohort:
    """Studies in the competition's layout, their labels in train.csv and their files in train."""
    labels = read_labels(realct / "train.csv")
    rows = planned_rows(labels, make_plan(labels, _ALL_IN_ONE))
    return Cohort(folder, realct / "train", rows)


def repeat_shard(cohort: Cohort, path: Path, slices: int, positive: float = 0.5) -> pd.DataFrame:
    """A shard of so many slices, the cohort's studies again and again; gives its rows.

    Args:
        cohort: where the pixels come from.
        path: shard to write.
        slices: at least so many.
        positive: fraction of slices that are called positive.
    """
    source, labels = read_rows(cohort.shard), read_study_labels(cohort.shard)
    written = 0
    pixels = StoredPixels(cohort.shard)
    studies = itertools.cycle(source.groupby(STUDY_UID, sort=False))
    with ShardWriter(path) as writer:
        while written < slices:
            uid, part = next(studies)
            chunks = [pixels.chunk(row, part[CHECKSUM][row]) for row in part.index]
            study = part.assign(**{STUDY_UID: f"{uid}.{written}"})
            study[IMAGE_LABEL] = (np.arange(len(part)) < positive * len(part)).astype(np.int8)
            writer.append(study, labels.loc[uid].to_dict(), chunks)
            written += len(part)
    rows = read_rows(path)
    return rows.assign(shard="000", row=range(len(rows)), split="train", file=str(path))


def make_features(path: Path, rows: int, width: int, seed: int = 0) -> Path:
    """A features file of so many rows: numbers like those behind a ReLU."""
    rng = np.random.default_rng(seed)
    # One block again and again: making 6 billion random numbers would take longer than using them.
    block = np.maximum(rng.standard_normal((4096, width), dtype=np.float32), 0).astype(np.float16)
    with create_features(path, rows, width, f"made-up-{width}", "0" * 64) as file:
        row = 0
        while row < rows:
            row = write_features(file, row, block[: rows - row])
    return path


def make_studies(count: int, slices: int, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    """Studies as of `clotline.data.slice_table.locate_studies`, and their slices' image labels.

    Args:
        count: number of studies.
        slices: of all of them, divided at random.
        seed: of sizes and labels.
    """
    rng = np.random.default_rng(seed)
    low = min(60, slices // count)
    sizes = low + rng.multinomial(slices - low * count, np.full(count, 1 / count))
    studies = pd.DataFrame({STUDY_UID: [f"{k:012x}" for k in range(count)], "split": "train"})
    studies["first"] = np.r_[0, np.cumsum(sizes)[:-1]]
    studies["count"] = sizes
    for label in STUDY_LABELS:
        studies[label] = rng.integers(0, 2, count)
    return studies, (rng.random(slices) < 0.05).astype(np.int8)


def publish_features(features: Path, studies: pd.DataFrame, path: Path) -> list[list[str]]:
    """The same features as one float32 dataset a slice; gives the names, study by study."""
    names = []
    with h5py.File(features) as source, h5py.File(path, "w") as file:
        for uid, first, count in studies[[STUDY_UID, "first", "count"]].itertuples(index=False):
            names.append([f"{uid}/{slice_:04}" for slice_ in range(count)])
            values = source["features"][first : first + count].astype(np.float32)
            for name, row in zip(names[-1], values, strict=True):
                file[name] = row
    return names


def write_rsna_sized_labels(path: Path) -> None:
    """A labels file with as many studies, slices and positive slices as RSNA's, made up."""
    rng = np.random.default_rng(0)
    sizes = 60 + rng.multinomial(
        RSNA_SLICES - 60 * RSNA_STUDIES, np.full(RSNA_STUDIES, 1 / RSNA_STUDIES)
    )
    study = np.repeat(np.arange(RSNA_STUDIES), sizes)
    candidates = np.flatnonzero(study % 3 == 0)
    positive = np.isin(np.arange(RSNA_SLICES), rng.choice(candidates, RSNA_POSITIVE, replace=False))
    names = np.array([f"{number:012x}" for number in range(RSNA_STUDIES)])[study]
    labels = pd.DataFrame({STUDY_UID: names, SERIES_UID: names})
    labels[SOP_UID] = [f"{number:012x}" for number in range(RSNA_SLICES)]
    labels = labels.reindex(columns=list(COLUMNS), fill_value=0)
    labels[IMAGE_LABEL] = positive.astype(int)
    labels["negative_exam_for_pe"] = (study % 3 != 0).astype(int)
    labels.to_csv(path, index=False)
