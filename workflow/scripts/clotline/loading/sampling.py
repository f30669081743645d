"""Which slices an epoch of stage 1 is made of, and which file and row each is read from."""

from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
import pandas as pd

from clotline.data.slice_table import positive_slices
from clotline.labels import IMAGE_LABEL, STUDY_UID
from clotline.loading.planes import plane_columns
from clotline.sections.cnn import CNNSection


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
        Positives and negatives, each with the study's UID, ``file``, ``row``, ``split``, the image
        label, the checksum and those of its planes.
    """
    rows, checksums = plane_columns(planes)
    columns = [STUDY_UID, "file", *rows, "split", IMAGE_LABEL, *checksums]
    paths = {name: f"{shard_folder}/shard-{name}.h5" for name in slices["shard"].unique()}
    positive = positive_slices(slices)
    if planes == 1:
        positive = positive.assign(file=str(positives), row=np.arange(len(positive)))
    else:
        positive = positive.assign(file=positive["shard"].map(paths))
    negative = slices[(slices[IMAGE_LABEL] == 0) & slices["split"].isin(("train", "valid"))]
    negative = negative.assign(file=negative["shard"].map(paths))
    return positive[columns], negative[columns]


class Rotation:
    """Draws of some of a number of things, without replacement until each was drawn.

    A random permutation is used up over successive epochs, then a new one begins. An epoch that
    spans two permutations takes from the second first what it has not yet taken from the first.
    """

    def __init__(self, size: int, total: int, seed: tuple[int, ...]):
        """Prepares to draw ``size`` of ``total`` an epoch."""
        self._size = size
        self._total = total
        self._seed = seed

    def drawn(self, epoch: int) -> np.ndarray:
        """(size,) indices of what ``epoch`` has; any epoch can be asked for."""
        size, total = self._size, self._total
        start, stop = epoch * size, (epoch + 1) * size
        drawn = np.empty(0, dtype=np.int64)
        used = drawn  # what the epoch at the permutation's beginning took from the one before
        for number in range(-(-stop // total)):
            order = np.random.default_rng((*self._seed, number)).permutation(total)
            seen = np.isin(order, used)
            order = np.concatenate([order[~seen], order[seen]])
            first = number * total
            drawn = np.concatenate([drawn, order[max(start - first, 0) : max(stop - first, 0)]])
            # What the epoch that this permutation's end cuts took of it. One that began in an
            # earlier permutation takes all of this one, and lacks what it lacked before.
            cut = (first + total) // size * size - first
            if cut >= 0:
                used = order[cut:]
        return drawn


class Epochs(ABC):
    """The slices of each epoch of training.

    Attributes:
        share: of positive slices, of all epochs together.
    """

    def __init__(self, seed: int, share: float):
        self._seed = seed
        self.share = share

    def table(self, epoch: int) -> pd.DataFrame:
        """The slices of ``epoch``, from 0 on, in the order of training; of all epochs as many."""
        chosen = self._chosen(epoch)
        rng = np.random.default_rng((self._seed, epoch, 1))
        return chosen.iloc[rng.permutation(len(chosen))]

    @abstractmethod
    def _chosen(self, epoch: int) -> pd.DataFrame:
        """Its slices in any order."""


class LabelEpochs(Epochs):
    """Epochs of so many positives and so many negatives, rotating through both.

    As published they have all positives and as many negatives.
    """

    def __init__(
        self,
        positives: pd.DataFrame,
        negatives: pd.DataFrame,
        seed: int,
        counts: tuple[int, int],
    ):
        """Prepares the epochs.

        Args:
            positives: the train split's positives of `locate_slices`.
            negatives: its negatives.
            seed: draws them.
            counts: positives and negatives of an epoch.
        """
        positive, negative = counts
        super().__init__(seed, positive / (positive + negative))
        self._positives, self._negatives = positives, negatives
        # An epoch of all positives has them in their own order before they are mixed.
        whole = positive == len(positives)
        rotation = Rotation(positive, len(positives), (seed, 0, 0))
        self._of_positives = None if whole else rotation
        self._of_negatives = Rotation(negative, len(negatives), (seed,))

    def _chosen(self, epoch: int) -> pd.DataFrame:
        positives = self._positives
        if self._of_positives is not None:
            positives = positives.iloc[self._of_positives.drawn(epoch)]
        negatives = self._negatives.iloc[self._of_negatives.drawn(epoch)]
        return pd.concat([positives, negatives], ignore_index=True)


class StudyEpochs(Epochs):
    """Epochs of so many slices of each study, rotating through them; of a shorter one all."""

    def __init__(self, slices: pd.DataFrame, seed: int, count: int):
        """Prepares the epochs.

        Args:
            slices: the train split's of `locate_slices`.
            seed: draws them.
            count: of a study.
        """
        groups = pd.Series(range(len(slices))).groupby(slices[STUDY_UID].to_numpy(), sort=False)
        studies = [of_study.to_numpy() for _, of_study in groups]
        taken = [min(count, len(rows)) for rows in studies]
        labels = slices[IMAGE_LABEL].to_numpy()
        means = [labels[rows].mean() for rows in studies]
        super().__init__(seed, float(np.average(means, weights=taken)))
        self._slices = slices
        self._studies = [
            (rows, Rotation(size, len(rows), (seed, 0, 0, number)))
            for number, (rows, size) in enumerate(zip(studies, taken, strict=True))
        ]

    def _chosen(self, epoch: int) -> pd.DataFrame:
        chosen = [rows[rotation.drawn(epoch)] for rows, rotation in self._studies]
        return self._slices.iloc[np.concatenate(chosen)].reset_index(drop=True)


def training_epochs(
    section: CNNSection, positives: pd.DataFrame, negatives: pd.DataFrame, seed: int
) -> Epochs:
    """The epochs of a backbone's training, as its ``epoch_slices`` and other keys have them.

    Args:
        section: of the configuration.
        positives: the train split's positives of `locate_slices`.
        negatives: its negatives.
        seed: draws them.
    """
    if section.study_slices is not None:
        slices = pd.concat([positives, negatives], ignore_index=True)
        return StudyEpochs(slices, seed, section.study_slices)
    return LabelEpochs(positives, negatives, seed, section.epoch_counts(len(positives)))


def validation_slices(
    positives: pd.DataFrame, negatives: pd.DataFrame, seed: int, share: float = 0.5
) -> pd.DataFrame:
    """The valid split's positives and negatives in training's proportion: one fixed set.

    So that a loss of training and one of validation can be compared.

    Args:
        positives: the valid split's positives of `locate_slices`.
        negatives: its negatives; where there are too few, all.
        seed: draws the negatives.
        share: of the positives, above 0.
    """
    rng = np.random.default_rng(seed)
    size = min(round(len(positives) * (1 - share) / share), len(negatives))
    drawn = np.sort(rng.permutation(len(negatives))[:size])
    return pd.concat([positives, negatives.iloc[drawn]], ignore_index=True)
