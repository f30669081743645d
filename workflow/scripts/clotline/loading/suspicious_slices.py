"""Input of joint training: studies as features, and the slices that a backbone computes anew."""

from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import pandas as pd
import torch
from lightning_fabric import Fabric
from torch import Tensor

from clotline.data.features_file import StoredFeatures
from clotline.job.progress import progress
from clotline.loading.batches import process_batches
from clotline.loading.planes import add_planes
from clotline.loading.prefetch import ReadInBatches
from clotline.loading.preprocessing import View
from clotline.loading.slice_loader import StoredSlices
from clotline.loading.study_loader import FeatureSequences, StudyLoader


class SuspiciousBatch(NamedTuple):
    """Studies, their slices one after the other, some of them as pixels, too.

    Attributes:
        features: (all slices, width) float, as stored.
        counts: number of slices of each study.
        rows: (chosen slices,) int64, the rows of ``features`` that the backbone computes anew.
        slices: (chosen slices, p, c, c) int16 Hounsfield units, cut, in the same order.
    """

    features: Tensor
    counts: list[int]
    rows: Tensor
    slices: Tensor


def most_suspicious(
    studies: pd.DataFrame, features: str | Path, head: np.ndarray, most: int
) -> list[np.ndarray]:
    """The slices of each study to which stage 1 gives the highest logits.

    Args:
        studies: of `clotline.data.slice_table.locate_studies`.
        features: features file of the backbone.
        head: (width,) weights of the backbone's head; its bias changes no order.
        most: slices of a study; of a shorter one all are taken.

    Returns:
        For each study (at most ``most``,) int64 numbers of its slices, ascending. Of equal logits
        the slice nearer to the feet is taken.

    Raises:
        ClotlineError: the features file is missing or damaged.
    """
    stored, chosen = StoredFeatures(features), []
    spans = list(zip(studies["first"].tolist(), studies["count"].tolist(), strict=True))
    for first, count in progress(spans, len(spans), "most suspicious slices", "studies"):
        logits = stored.read(slice(first, first + count)).astype(np.float64) @ head
        chosen.append(np.sort(np.argsort(-logits, kind="stable")[:most]))
    return chosen


def all_slices(studies: pd.DataFrame) -> list[np.ndarray]:
    """The numbers of all slices of each study, as of `most_suspicious`."""
    return [np.arange(count) for count in studies["count"]]


def stored_slices_of(
    slices: pd.DataFrame,
    studies: pd.DataFrame,
    chosen: list[np.ndarray],
    shard_folder: str | Path,
    view: View,
) -> pd.DataFrame:
    """Where the chosen slices of all studies are stored, as `StoredSlices` takes it.

    Args:
        slices: slices.parquet.
        studies: of `clotline.data.slice_table.locate_studies`.
        chosen: numbers of each study's slices.
        shard_folder: folder of the shards.
        view: how slices become inputs.
    """
    table = add_planes(slices, view.planes, view.plane_distance_mm)
    rows = [first + numbers for first, numbers in zip(studies["first"], chosen, strict=True)]
    table = table.iloc[np.concatenate([np.empty(0, np.int64), *rows])]
    paths = {name: f"{shard_folder}/shard-{name}.h5" for name in table["shard"].unique()}
    return table.assign(file=table["shard"].map(paths))


class SuspiciousSlices(ReadInBatches):
    """Studies as sequences of features, with the pixels of each one's chosen slices."""

    def __init__(
        self,
        sequences: FeatureSequences,
        table: pd.DataFrame,
        view: View,
        chosen: list[np.ndarray],
        augment_seed: tuple[int, ...] | None = None,
    ):
        """Makes a data set of studies.

        Args:
            sequences: the studies' features.
            table: of `stored_slices_of`.
            view: how slices become inputs.
            chosen: numbers of each study's slices, ascending.
            augment_seed: seeds the augmentation; None means the central view.
        """
        self.view = view
        self._sequences, self._table, self._chosen = sequences, table, chosen
        self._slices = StoredSlices(table, view, augment_seed)
        self._ends = np.cumsum([0, *map(len, chosen)])

    def __len__(self) -> int:
        return len(self._sequences)

    @property
    def counts(self) -> list[int]:
        """Number of slices of each study."""
        return self._sequences.counts

    @property
    def width(self) -> int:
        """Features of a slice."""
        return self._sequences.width

    def targets(self) -> np.ndarray:
        """All targets, as of `FeatureSequences.targets`."""
        return self._sequences.targets()

    def augmented(self, seed: tuple[int, ...]) -> Self:
        """The same studies, their chosen slices changed by the draws of a seed."""
        return type(self)(self._sequences, self._table, self.view, self._chosen, seed)

    def fetch(self, indices: list[int]) -> None:
        """Asks the disk for studies that are soon to be read."""
        self._sequences.fetch(indices)
        self._slices.fetch(self._stored(indices))

    def read(self, indices: list[int]) -> tuple[SuspiciousBatch, Tensor]:
        """The studies, and their targets as of `FeatureSequences.read`."""
        studies, targets = self._sequences.read(indices)
        starts = np.cumsum([0, *studies.counts[:-1]])
        rows = [self._chosen[i] + start for i, start in zip(indices, starts, strict=True)]
        pixels, _ = self._slices.read(self._stored(indices))
        return SuspiciousBatch(*studies, torch.from_numpy(np.concatenate(rows)), pixels), targets

    def _stored(self, indices: list[int]) -> list[int]:
        """The studies' rows of the table."""
        return [row for i in indices for row in range(self._ends[i], self._ends[i + 1])]

    def batches(
        self, batch_size: int, fabric: Fabric, order: np.ndarray | None = None
    ) -> StudyLoader:
        """Batches of (studies, targets in the network's output order)."""
        order = range(len(self)) if order is None else order.tolist()
        return StudyLoader(self, process_batches(order, batch_size, fabric), fabric)
