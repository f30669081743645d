"""Stage 1 input: slices from shards and positives.h5 to the tensors that the networks see."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.utils.data import DataLoader

from clotline.ahead import ReadAhead, ReadInBatches, asked_ahead
from clotline.grid import SIZE
from clotline.labels import IMAGE_LABEL
from clotline.shards import CHECKSUM, StoredPixels, positive_slices
from clotline.shared import ReadByProcesses
from clotline.training import process_batches

#: Mean and standard deviation of ImageNet images, averaged over the channels (torchvision's
#: values), for pixels in 0 to 1.
MEAN, STD = 0.449, 0.226


@dataclass(frozen=True)
class View:
    """How a stored slice becomes a network's input.

    Attributes:
        window_level, window_width: intensity window in Hounsfield units, mapped to 0 to 1.
        crop: side of the square cut out, in pixels.
        input_size: side of the input, in pixels.
        vertical_flip: whether training flips half of the slices.
    """

    window_level: float
    window_width: float
    crop: int
    input_size: int
    vertical_flip: bool

    @classmethod
    def of(cls, section: dict) -> "View":
        """The view of one ``cnn`` entry of the configuration."""
        return cls(**{name: section[name] for name in cls.__dataclass_fields__})

    def cuts(self, count: int, seed: tuple[int, ...] | None) -> np.ndarray:
        """Where each of ``count`` slices is cut.

        Args:
            count: number of slices.
            seed: of random places and flips; None means the centre.

        Returns:
            (count, 3) int: top row, left column, and whether the cut is turned upside down.
        """
        margin = SIZE - self.crop
        if seed is None:
            return np.tile((margin // 2, margin // 2, 0), (count, 1))
        rng = np.random.default_rng(seed)
        corners = rng.integers(0, margin, (count, 2), endpoint=True)
        flips = rng.integers(0, 1, (count, 1), endpoint=True) * self.vertical_flip
        return np.hstack([corners, flips])

    def cut(self, pixels: np.ndarray, top: int, left: int, flip: bool) -> np.ndarray:
        """The part of a (256, 256) slice that one row of `cuts` names, (c, c)."""
        part = pixels[top : top + self.crop, left : left + self.crop]
        return part[::-1] if flip else part

    def inputs(self, parts: Tensor) -> Tensor:
        """Cut slices to the network's inputs.

        Args:
            parts: (n, 1, c, c) int16 Hounsfield units, on any device.

        Returns:
            (n, 1, s, s) float32 on that device.
        """
        values = parts.float().sub_(self.window_level - self.window_width / 2)
        values.mul_(1 / self.window_width).clamp_(0, 1)
        if self.input_size != self.crop:
            weights = _area_weights(self.crop, self.input_size, parts.device)
            values = weights @ values @ weights.T
        return values.sub_(MEAN).mul_(1 / STD)


@functools.cache
def _area_weights(old: int, new: int, device: torch.device) -> Tensor:
    """(new, old) float32: the share that each old pixel has in a new one, along one axis."""
    ends = np.arange(new + 1)[:, None] * old / new
    pixels = np.arange(old)
    overlaps = np.minimum(ends[1:], pixels + 1) - np.maximum(ends[:-1], pixels)
    shares = np.maximum(overlaps, 0) * new / old
    return torch.from_numpy(shares.astype(np.float32)).to(device)


#: Batches that the disk is asked for while one is read; where more processes read, one for each.
BATCHES_AHEAD = 2


class StoredSlices(ReadInBatches):
    """A table of stored slices, read a batch at a time.

    Attributes:
        view: how slices become inputs.
    """

    def __init__(self, table: pd.DataFrame, view: View, augment_seed: tuple[int, ...] | None):
        """Makes a data set of the rows of ``table``.

        Args:
            table: ``file`` (path of a shard), ``row`` in it, its checksum and the image label.
            view: how slices become inputs.
            augment_seed: seeds the augmentation, each slice by its place in the table; None means
                the central view.
        """
        self.view = view
        files = list(dict.fromkeys(table["file"]))
        # Here and not by the processes that load, each of which would look at every file anew.
        self._shards = [StoredPixels(file) for file in files]
        self._shard = table["file"].map({f: i for i, f in enumerate(files)}).to_numpy()
        self._row = table["row"].to_numpy()
        self._checksum = table[CHECKSUM].to_numpy()
        self._label = table[IMAGE_LABEL].to_numpy(np.float32)
        self._cuts = view.cuts(len(table), augment_seed)

    def __len__(self) -> int:
        return len(self._row)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one cut slice: (1, c, c)."""
        return 1, self.view.crop, self.view.crop

    def fetch(self, places: list[int]) -> None:
        """Asks the disk for slices that are soon to be read."""
        for place in places:
            self._shards[self._shard[place]].fetch(self._row[place])

    def read(self, places: list[int]) -> tuple[Tensor, Tensor]:
        """The slices' (n, 1, c, c) int16 Hounsfield units, cut, and their (n,) float32 labels.

        They become inputs where the network is: as integers they are half as large on the way.
        """
        parts = np.empty((len(places), *self.shape), np.int16)
        self.read_into(parts, places)
        return torch.from_numpy(parts), torch.from_numpy(self.labels(places))

    def read_into(self, parts: np.ndarray, places: list[int]) -> None:
        """Writes the slices of `read` to memory that is there already."""
        for part, place in zip(parts[:, 0], places, strict=True):
            pixels = self._shards[self._shard[place]].read(self._row[place], self._checksum[place])
            part[:] = self.view.cut(pixels, *self._cuts[place])

    def labels(self, places: list[int]) -> np.ndarray:
        """The slices' image labels, (n,) float32."""
        return self._label[places]


def locate_slices(
    slices: pd.DataFrame, shard_folder: str | Path, positives: str | Path
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Where to read the positive and the negative slices of train and valid.

    Args:
        slices: slices.parquet.
        shard_folder: folder of the shards.
        positives: positives.h5.

    Returns:
        Positives and negatives, each with ``file``, ``row``, ``split``, the image label and the
        checksum.
    """
    columns = ["file", "row", "split", IMAGE_LABEL, CHECKSUM]
    positive = positive_slices(slices)
    positive = positive.assign(file=str(positives), row=np.arange(len(positive)))
    negative = slices[(slices[IMAGE_LABEL] == 0) & slices["split"].isin(("train", "valid"))]
    paths = {name: f"{shard_folder}/shard-{name}.h5" for name in negative["shard"].unique()}
    negative = negative.assign(file=negative["shard"].map(paths))
    return positive[columns], negative[columns]


class BalancedEpochs:
    """Training epochs of all positives and as many negatives, rotating through the negatives.

    Negatives are drawn without replacement: a random permutation is used up over successive
    epochs, then a new one begins. An epoch that spans two permutations takes from the second
    first what it has not yet taken from the first.
    """

    def __init__(self, positives: int, negatives: int, seed: int):
        self._positives = positives
        self._negatives = negatives
        self._seed = seed

    def negatives(self, epoch: int) -> np.ndarray:
        """(positives,) indices of the negatives of ``epoch``; any epoch can be asked for."""
        size, total = self._positives, self._negatives
        start, stop = epoch * size, (epoch + 1) * size
        drawn = np.empty(0, dtype=np.int64)
        used = drawn  # what the epoch at the permutation's beginning took from the one before
        for number in range(-(-stop // total)):
            order = np.random.default_rng((self._seed, number)).permutation(total)
            seen = np.isin(order, used)
            order = np.concatenate([order[~seen], order[seen]])
            first = number * total
            drawn = np.concatenate([drawn, order[max(start - first, 0) : max(stop - first, 0)]])
            # What the epoch that this permutation's end cuts took of it. An epoch larger than
            # the permutation takes everything anyway.
            cut = (first + total) // size * size - first
            used = order[cut:] if size <= total else order[:0]
        return drawn

    def table(self, epoch: int, positives: pd.DataFrame, negatives: pd.DataFrame) -> pd.DataFrame:
        """The slices of ``epoch`` in the order of training.

        Args:
            epoch: from 0 on.
            positives: the train split's positives of `locate_slices`.
            negatives: its negatives.
        """
        chosen = pd.concat([positives, negatives.iloc[self.negatives(epoch)]], ignore_index=True)
        rng = np.random.default_rng((self._seed, epoch, 1))
        return chosen.iloc[rng.permutation(len(chosen))]


def balanced_validation(
    positives: pd.DataFrame, negatives: pd.DataFrame, seed: int
) -> pd.DataFrame:
    """The valid split's positives and as many negatives (or, if fewer, all): one fixed set.

    Args:
        positives: the valid split's positives of `locate_slices`.
        negatives: its negatives.
        seed: draws the negatives.
    """
    rng = np.random.default_rng(seed)
    size = min(len(positives), len(negatives))
    drawn = np.sort(rng.permutation(len(negatives))[:size])
    return pd.concat([positives, negatives.iloc[drawn]], ignore_index=True)


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
        """Prepares to load; each iteration starts anew.

        Args:
            slices: the data set.
            batch_size: slices in a batch.
            fabric: device.
            processes: that read, beside this one; 0 is this one alone.
            train: whether each batch must have the two slices that batch normalisation needs.
        """
        self.dataset = slices
        self._fabric = fabric
        batches = process_batches(range(len(slices)), batch_size, fabric, 2 if train else 1)
        # Of several processes, each has the next of its own on the way.
        asked = asked_ahead(batches, max(BATCHES_AHEAD, processes))
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


def loading_processes(threads: int, fabric: Fabric) -> int:
    """How many processes load for each that trains.

    On a CPU none: reading is a hundredth of a network's work there, and what a process forks, and
    both go on writing to, the kernel copies page by page.

    Args:
        threads: of the job. On a GPU all of them load.
        fabric: device.
    """
    return max(1, threads // fabric.world_size) if fabric.device.type == "cuda" else 0


def inference_batch_size(on_cpu: int, fabric: Fabric) -> int:
    """Slices in a batch that is not trained on; a GPU has enough to do with no fewer than 256.

    Args:
        on_cpu: what it is on a CPU.
        fabric: device.
    """
    return 256 if fabric.device.type == "cuda" else on_cpu
