"""Stage 2 input: studies as sequences of slice features."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.utils.data import DataLoader

from clotline.data.features_file import StoredFeatures, open_features
from clotline.job.files import unusable
from clotline.job.progress import progress
from clotline.job.speed import ROWS_TOGETHER, STUDY_BATCHES_AHEAD
from clotline.labels import STUDY_LABELS
from clotline.loading.batches import process_batches
from clotline.loading.prefetch import ReadAhead, ReadInBatches, asked_ahead


class StudyBatch(NamedTuple):
    """Studies, their slices one after the other.

    Attributes:
        features: (all slices, width) float.
        counts: number of slices of each study.
    """

    features: Tensor
    counts: list[int]


class Moments(NamedTuple):
    """Mean and standard deviation of each feature over slices, (width,) float32 each."""

    mean: Tensor
    std: Tensor


#: Studies whose features are summed at a time.
STUDIES_TOGETHER = 16


class FeatureSequences(ReadInBatches):
    """Studies as sequences of features, read from the features files a batch at a time."""

    def __init__(
        self, studies: pd.DataFrame, files: list[str], level: str, image_labels: np.ndarray
    ):
        """Makes a data set of the rows of ``studies``.

        Args:
            studies: of `clotline.data.slice_table.locate_studies`.
            files: features files whose features are joined, in this order.
            level: image, study or joint.
            image_labels: (n,) the image labels of all rows of slices.parquet.
        """
        self._first = studies["first"].to_numpy()
        self._count = studies["count"].to_numpy()
        self._labels = studies[list(STUDY_LABELS)].to_numpy(np.float32)
        self._image_labels = image_labels
        self._level = level
        self._paths = files
        self._features: list | None = None
        self.width = 0
        for path in files:
            with open_features(path) as file:
                rows, width = file["features"].shape
            if rows != len(image_labels):
                raise unusable(
                    path, f"it has {rows:,} rows and slices.parquet {len(image_labels):,}"
                )
            self.width += width

    def __len__(self) -> int:
        return len(self._first)

    @property
    def counts(self) -> list[int]:
        """Number of slices of each study."""
        return self._count.tolist()

    def fetch(self, indices: list[int]) -> None:
        """Asks the disk for studies that are soon to be read."""
        for span in self._spans(indices):
            for file in self._files():
                file.fetch(span)

    def read(self, indices: list[int]) -> tuple[StudyBatch, Tensor]:
        """The studies' features in float16, and their targets, of `targets`, in float32.

        They are converted on the network's device: as stored they are small on the way.
        """
        counts, spans = self._count[indices].tolist(), self._spans(indices)
        features = np.empty((sum(counts), self.width), np.float16)
        row = 0
        for span, count in zip(spans, counts, strict=True):
            parts = [file.read(span) for file in self._files()]
            np.concatenate(parts, axis=1, out=features[row : row + count])
            row += count
        targets = torch.from_numpy(self._targets(indices).astype(np.float32))
        return StudyBatch(torch.from_numpy(features), counts), targets

    def targets(self) -> np.ndarray:
        """All targets in the order of the studies.

        Returns:
            Image level: (all slices,); study level: (studies, 9); joint: (all slices, 10), the
            nine labels of each slice's study, then the slice's own.
        """
        return self._targets(np.arange(len(self)))

    def _targets(self, indices: np.ndarray | list[int]) -> np.ndarray:
        if self._level == "study":
            return self._labels[indices]
        slices = np.concatenate([self._image_labels[span] for span in self._spans(indices)])
        if self._level == "image":
            return slices
        return np.column_stack([self._labels[indices].repeat(self._count[indices], 0), slices])

    def moments(self) -> Moments:
        """Mean and standard deviation of each feature over all slices of the studies."""
        sums, squares, count = np.zeros(self.width), np.zeros(self.width), 0
        batches = np.array_split(np.arange(len(self)), -(-len(self) // STUDIES_TOGETHER))
        for rows in progress(batches, len(batches), "statistics of features", "batches"):
            features = self.read(rows)[0].features.numpy().astype(np.float64)
            sums += features.sum(0)
            squares += np.square(features).sum(0)
            count += len(features)
        mean = sums / count
        # Rounding may bring that of a constant feature below zero.
        variance = np.maximum(squares / count - mean**2, 0)
        return Moments(*(torch.from_numpy(v.astype(np.float32)) for v in (mean, np.sqrt(variance))))

    def _spans(self, indices: list[int]) -> list[slice]:
        """The studies' rows."""
        ends = zip(self._first[indices].tolist(), self._count[indices].tolist(), strict=True)
        return [slice(first, first + count) for first, count in ends]

    def _files(self) -> list[StoredFeatures]:
        """Opened by the process that reads them."""
        if self._features is None:
            self._features = [StoredFeatures(path) for path in self._paths]
        return self._features

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_features": None}

    def batches(
        self, batch_size: int, fabric: Fabric, order: np.ndarray | None = None
    ) -> "StudyLoader":
        """Batches of (studies, targets in the network's output order)."""
        order = range(len(self)) if order is None else order.tolist()
        return StudyLoader(self, process_batches(order, batch_size, fabric), fabric)


class StudyLoader:
    """Batches of (studies, targets) on the device, the features in the network's precision."""

    def __init__(self, sequences: FeatureSequences, batches: list[list[int]], fabric: Fabric):
        """Prepares to load; each iteration starts from the beginning.

        Args:
            sequences: the data set.
            batches: for each batch, the indices of its studies.
            fabric: device and precision.
        """
        self._fabric = fabric
        asked = asked_ahead(batches, STUDY_BATCHES_AHEAD)
        loader = DataLoader(sequences, sampler=asked, batch_size=None)
        # On a CPU a reading thread takes a core from the network, whose threads all wait for it.
        self._loader = ReadAhead(loader) if fabric.device.type == "cuda" else loader

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[tuple[StudyBatch, Tensor]]:
        precision = self._fabric.strategy.precision
        for batch in self._loader:
            studies, targets = self._fabric.to_device(batch)
            # Lightning does the same where the network is called, more slowly.
            dtype = precision.convert_input(studies.features[:0]).dtype
            yield studies._replace(features=converted(studies.features, dtype)), targets


def converted(features: Tensor, dtype: torch.dtype) -> Tensor:
    """The same features in another type.

    On a CPU torch converts float16 to bfloat16 three times faster by way of float32, with the same
    bits: it has vector instructions for those two steps only.
    """
    if (features.dtype, dtype) != (torch.float16, torch.bfloat16) or features.device.type != "cpu":
        return features.to(dtype)
    result = torch.empty_like(features, dtype=dtype)
    values = torch.empty(ROWS_TOGETHER, features.shape[1])
    parts = zip(result.split(ROWS_TOGETHER), features.split(ROWS_TOGETHER), strict=True)
    for target, source in parts:
        target.copy_(values[: len(source)].copy_(source))
    return result
