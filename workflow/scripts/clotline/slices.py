"""Stage 1 input: slices from shards and positives.h5 to the tensors that the networks see."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from clotline.dicom import SIZE
from clotline.labels import IMAGE_LABEL
from clotline.shards import CHECKSUM, StoredPixels, positive_slices
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

    def central(self, pixels: np.ndarray) -> np.ndarray:
        """(256, 256) int16 HU to the (s, s) float32 input of validation and feature extraction."""
        margin = (SIZE - self.crop) // 2
        return self._normalise(pixels, margin, margin)

    def augmented(self, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(256, 256) int16 HU to a randomly cropped and flipped (s, s) float32 input."""
        top, left = rng.integers(0, SIZE - self.crop, size=2, endpoint=True)
        view = self._normalise(pixels, top, left)
        return view[::-1] if self.vertical_flip and rng.random() < 0.5 else view

    def _normalise(self, pixels: np.ndarray, top: int, left: int) -> np.ndarray:
        low = self.window_level - self.window_width / 2
        view = pixels[top : top + self.crop, left : left + self.crop].astype(np.float32)
        view -= low
        view *= 1 / self.window_width
        view.clip(0, 1, out=view)
        if self.input_size != self.crop:
            view = cv2.resize(view, (self.input_size,) * 2, interpolation=cv2.INTER_AREA)
        view -= MEAN
        view *= 1 / STD
        return view


class StoredSlices(Dataset):
    """A table of stored slices as (input, label) pairs.

    Files are opened on first use, so that each loading process has handles of its own.
    """

    def __init__(self, table: pd.DataFrame, view: View, augment_seed: tuple[int, ...] | None):
        """Makes a data set of the rows of ``table``.

        Args:
            table: ``file`` (path of a shard), ``row`` in it, its checksum and the image label.
            view: how slices become inputs.
            augment_seed: seeds the augmentation, each slice by its place in the table; None means
                the central view.
        """
        self._files = list(dict.fromkeys(table["file"]))
        self._file = table["file"].map({f: i for i, f in enumerate(self._files)}).to_numpy()
        self._row = table["row"].to_numpy()
        self._checksum = table[CHECKSUM].to_numpy()
        self._label = torch.from_numpy(table[IMAGE_LABEL].to_numpy(np.float32))
        self._view = view
        self._augment_seed = augment_seed
        self._shards: dict = {}

    def __len__(self) -> int:
        return len(self._row)

    def __getitem__(self, place: int) -> tuple[Tensor, Tensor]:
        """The slice's (1, s, s) float32 input and its label, a float32 scalar."""
        number = self._file[place]
        if number not in self._shards:
            self._shards[number] = StoredPixels(self._files[number])
        pixels = self._shards[number].read(self._row[place], self._checksum[place])
        if self._augment_seed is None:
            view = self._view.central(pixels)
        else:
            rng = np.random.default_rng((*self._augment_seed, place))
            view = np.ascontiguousarray(self._view.augmented(pixels, rng))
        return torch.from_numpy(view[None]), self._label[place]

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_shards": {}}


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


def slice_loader(
    slices: StoredSlices, batch_size: int, threads: int, fabric: Fabric, train: bool = False
) -> DataLoader:
    """Batches of ``slices`` in their order.

    Args:
        slices: the data set.
        batch_size: slices in a batch.
        threads: threads of the job. On a GPU all of them load; on a CPU one does, for the
            network needs the others.
        fabric: device.
        train: whether each batch must have the two slices that batch normalisation needs.
    """
    cuda = fabric.device.type == "cuda"
    return DataLoader(
        slices,
        batch_sampler=process_batches(range(len(slices)), batch_size, fabric, 2 if train else 1),
        num_workers=max(1, threads // fabric.world_size) if cuda else 1,
        pin_memory=cuda,
    )
