"""Stage 1 input: slices from shards and positives.h5 to the tensors that the networks see."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.utils.data import DataLoader

from clotline.data.shards import StoredPixels
from clotline.errors import ClotlineError
from clotline.grid import SIZE
from clotline.job.speed import SLICE_BATCHES_AHEAD
from clotline.labels import IMAGE_LABEL
from clotline.loading.batches import process_batches
from clotline.loading.planes import plane_columns
from clotline.loading.prefetch import ReadAhead, ReadInBatches, asked_ahead
from clotline.loading.preprocessing import View
from clotline.loading.ring_buffer import ReadByProcesses


class StoredSlices(ReadInBatches):
    """A table of stored slices, read a batch at a time.

    Attributes:
        view: how slices become inputs.
    """

    def __init__(self, table: pd.DataFrame, view: View, augment_seed: tuple[int, ...] | None):
        """Makes a data set of the rows of ``table``.

        Args:
            table: ``file`` (path of a shard), ``row`` in it, its checksum and the image label; for
                a view of several planes, that of `clotline.loading.planes.add_planes`.
            view: how slices become inputs.
            augment_seed: seeds the augmentation, each slice by its row of the table; None means
                the central view.

        Raises:
            ClotlineError: a file is missing or damaged, or has smaller slices than the view.
        """
        self.view = view
        files = list(dict.fromkeys(table["file"]))
        # Opened here: each loading process would have to check every file again.
        self._shards = [StoredPixels(file) for file in files]
        self._shard = table["file"].map({f: i for i, f in enumerate(files)}).to_numpy()
        rows, checksums = plane_columns(view.planes)
        self._rows = table[rows].to_numpy(np.int64)
        self._checksums = table[checksums].to_numpy(np.uint64)
        self._label = table[IMAGE_LABEL].to_numpy(np.float32)
        # All files are of one grid: another one makes all of them anew.
        size = min((shard.size for shard in self._shards), default=SIZE)
        if size < view.crop:
            raise ClotlineError(
                f"the network's crop is {view.crop} pixels, and the slices of {files[0]} have "
                f"{size}: train it and store its slices with the same data.size"
            )
        self._cuts = view.cuts(len(table), augment_seed, size)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one cut slice: (p, c, c), its planes from feet to head."""
        return self.view.planes, self.view.crop, self.view.crop

    def fetch(self, indices: list[int]) -> None:
        """Asks the disk for slices that are soon to be read."""
        for index in indices:
            for row in self._rows[index].tolist():
                self._shards[self._shard[index]].fetch(row)

    def read(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """The slices' (n, p, c, c) int16 Hounsfield units, cut, and their (n,) float32 labels.

        They become inputs on the network's device: as integers they are half as large on the way.
        """
        parts = np.empty((len(indices), *self.shape), np.int16)
        self.read_into(parts, indices)
        return torch.from_numpy(parts), torch.from_numpy(self.labels(indices))

    def read_into(self, parts: np.ndarray, indices: list[int]) -> None:
        """Writes the slices of `read` to existing memory."""
        # A slice is its neighbours' neighbour, and is read once for all of them.
        kept: dict[tuple[int, int], np.ndarray] = {}
        for planes, index in zip(parts, indices, strict=True):
            shard, cut = self._shard[index], self._cuts[index]
            stored = zip(self._rows[index].tolist(), self._checksums[index].tolist(), strict=True)
            for plane, (row, checksum) in zip(planes, stored, strict=True):
                pixels = kept.get((shard, row))
                if pixels is None:
                    pixels = self._shards[shard].read(row, checksum)
                    if len(planes) > 1:
                        kept[shard, row] = pixels
                plane[:] = self.view.cut(pixels, cut)

    def labels(self, indices: list[int]) -> np.ndarray:
        """The slices' image labels, (n,) float32."""
        return self._label[indices]


class SliceLoader:
    """Batches of (inputs, labels) on the device, in the order of a data set.

    Attributes:
        dataset: the slices.
    """

    def __init__(
        self,
        slices: StoredSlices,
        batch_size: int,
        fabric: Fabric,
        processes: int,
        train: bool = False,
    ):
        """Prepares to load; each iteration starts from the beginning.

        Args:
            slices: the data set.
            batch_size: slices in a batch.
            fabric: device.
            processes: loading processes beside this one; 0 means that this one loads.
            train: whether each batch must have the two slices that batch normalisation needs.
        """
        self.dataset = slices
        self._fabric = fabric
        batches = process_batches(range(len(slices)), batch_size, fabric, 2 if train else 1)
        # Each loading process has a next batch under way.
        asked = asked_ahead(batches, max(SLICE_BATCHES_AHEAD, processes))
        pin = fabric.device.type == "cuda"
        if processes:
            self._loader = ReadByProcesses(slices, asked, processes, pin)
        else:
            loader = DataLoader(slices, sampler=asked, batch_size=None, pin_memory=pin)
            self._loader = ReadAhead(loader)

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in self._loader:
            parts, labels = self._fabric.to_device(batch)
            yield self.dataset.view.inputs(parts), labels
