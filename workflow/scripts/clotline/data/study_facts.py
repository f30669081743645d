"""How each study was made, as far as its stored slices tell: what shift is seen by."""

import math
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from clotline.data.attenuation import LOOKED_AT
from clotline.data.fact_names import CATEGORIES, COVERAGE, NOISE, QUANTITIES, SPACING
from clotline.data.lone_shard import stored_slices
from clotline.data.noise import noise_of
from clotline.data.shards import (
    BLOOD,
    CHECKSUM,
    KERNEL,
    ORIENTATION,
    PIXEL,
    POSITION,
    THICKNESS,
    StoredPixels,
)
from clotline.job.processes import end_with_parent
from clotline.labels import STUDY_UID

#: What is needed of a stored slice.
_COLUMNS = (
    "shard", "row", CHECKSUM, POSITION, ORIENTATION, PIXEL, THICKNESS, KERNEL, BLOOD,
)  # fmt: skip


def study_facts(
    slices: pd.DataFrame, shards: Mapping[str, str | Path], workers: int = 1, step=iter
) -> pd.DataFrame:
    """One row a study: `QUANTITIES` (NaN where not known) and `CATEGORIES` (empty).

    Args:
        slices: stored slices: study UID, ``shard``, ``row``, and the columns of
            `clotline.data.shards.STORED_COLUMNS`.
        shards: shard name to its file.
        workers: processes that look at pixels.
        step: wraps the iterator over studies, for progress.

    Returns:
        UID; slice thickness, distance between slices, HU of the blood, noise in HU (of some slices,
        by `clotline.data.noise.noise_of`), extent along the scan axis, all medians of the slices;
        where rows and columns run, and the kernels.

    Raises:
        ClotlineError: a shard is missing or damaged.
    """
    groups = slices[[STUDY_UID, *_COLUMNS]].groupby(STUDY_UID, sort=False)
    uids, tables = zip(*groups, strict=True) if len(slices) else ((), ())
    files = {name: str(path) for name, path in shards.items()}
    with ProcessPoolExecutor(workers, initializer=_start) as pool:
        facts = list(step(pool.map(partial(_facts_of, files), tables, chunksize=8)))
    columns = [*QUANTITIES, *CATEGORIES]
    table = pd.DataFrame(facts, columns=columns).astype(dict.fromkeys(QUANTITIES, "float64"))
    table.insert(0, STUDY_UID, list(uids))
    return table.astype(dict.fromkeys((STUDY_UID, *CATEGORIES), "str"))


def facts_of_shard(path: str | Path, workers: int = 1) -> pd.DataFrame:
    """The same of the studies of a shard that stands alone.

    Args:
        path: the shard.
        workers: processes that look at pixels.

    Raises:
        ClotlineError: it is missing or damaged.
    """
    slices = stored_slices(path)
    return study_facts(slices, dict.fromkeys(slices["shard"], path), workers)


def _start() -> None:
    end_with_parent()
    cv2.setNumThreads(1)


def _facts_of(files: Mapping[str, str], slices: pd.DataFrame) -> dict:
    steps = np.diff(np.unique(slices[POSITION].dropna()))
    spacing = float(np.median(steps)) if len(steps) else math.nan
    extent = slices[POSITION].max() - slices[POSITION].min() + spacing
    return {
        THICKNESS: slices[THICKNESS].median(),
        SPACING: round(spacing, 4),
        BLOOD: slices[BLOOD].median(),
        NOISE: _noise(files, slices),
        COVERAGE: round(extent, 2),
        ORIENTATION: ", ".join(sorted(set(slices[ORIENTATION]) - {""})),
        KERNEL: ", ".join(sorted(set(slices[KERNEL]) - {""})),
    }


def _noise(files: Mapping[str, str], slices: pd.DataFrame) -> float:
    """The median of slices from end to end."""
    chosen = np.unique(np.linspace(0, len(slices) - 1, LOOKED_AT).round().astype(int))
    # A study lies in one shard as a whole.
    stored, found = StoredPixels(files[slices["shard"].iloc[0]]), []
    for row in slices.iloc[chosen].to_dict("records"):
        pixels = stored.read(row["row"], row[CHECKSUM])
        field = row[PIXEL] * stored.size
        found.append(noise_of(pixels, None if math.isnan(field) else field))
    known = [noise for noise in found if not math.isnan(noise)]
    return float(np.median(known)) if known else math.nan
