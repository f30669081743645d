"""Which slices an epoch of stage 1 is made of, and which file and row each is read from."""

from pathlib import Path

import numpy as np
import pandas as pd

from clotline.data.slice_table import positive_slices
from clotline.labels import IMAGE_LABEL
from clotline.loading.planes import plane_columns


def locate_slices(
    slices: pd.DataFrame, shard_folder: str | Path, positives: str | Path, planes: int = 1
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Where to read the positive and the negative slices of train and valid.

    Args:
        slices: slices.parquet; with more than one plane, that of
            `clotline.loading.planes.add_planes`.
        shard_folder: folder of the shards.
        positives: positives.h5, which lacks the positive slices' neighbours: with more than one
            plane all are read from the shards.
        planes: of a slice.

    Returns:
        Positives and negatives, each with ``file``, ``row``, ``split``, the image label, the
        checksum and those of its planes.
    """
    rows, checksums = plane_columns(planes)
    columns = ["file", *rows, "split", IMAGE_LABEL, *checksums]
    paths = {name: f"{shard_folder}/shard-{name}.h5" for name in slices["shard"].unique()}
    positive = positive_slices(slices)
    if planes == 1:
        positive = positive.assign(file=str(positives), row=np.arange(len(positive)))
    else:
        positive = positive.assign(file=positive["shard"].map(paths))
    negative = slices[(slices[IMAGE_LABEL] == 0) & slices["split"].isin(("train", "valid"))]
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
