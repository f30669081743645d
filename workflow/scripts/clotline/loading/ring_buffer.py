"""Batches that loading processes read into memory shared with the process that uses them."""

import itertools
import math
from collections.abc import Iterator, Sequence
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from clotline.job.processes import shared_memory
from clotline.job.speed import PREFETCHED


class ReadByProcesses:
    """Batches of slices, read by processes of their own.

    They lie in a ring buffer. DataLoader alone would make new shared memory for each batch, and
    clearing and mapping its pages takes as long as reading and decompressing the slices.
    """

    def __init__(self, slices: Dataset, batches: Sequence, processes: int, pin: bool):
        """Prepares to read; each iteration starts from the beginning.

        Args:
            slices: a `clotline.loading.slice_loader.StoredSlices`.
            batches: for each batch, indices of slices to read, and of those soon to be read.
            processes: that read; forked.
            pin: whether batches are copied to page-locked memory, as a GPU wants them.
        """
        self._slices = slices
        self._batches = batches
        self._processes = processes
        self._pin = pin

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Sequence[Tensor]]:
        """Gives parts and labels as of `StoredSlices.read`.

        Where they are not pinned, the parts of a batch are lost when the next one is asked for.
        """
        # DataLoader has at most PREFETCHED batches under way per process, and one is in use.
        ring = _Ring(self._slices, self._batches, self._processes * PREFETCHED + 1)
        return iter(
            DataLoader(
                ring,
                sampler=list(zip(itertools.cycle(range(len(ring))), self._batches)),
                batch_size=None,
                num_workers=self._processes,
                prefetch_factor=PREFETCHED,
                pin_memory=self._pin,
                # A process started in any other way would get a copy of the ring.
                multiprocessing_context="fork",
            )
        )


class _Ring(Dataset):
    """Memory for a few batches, one slot each, shared with the processes that this one forks."""

    def __init__(self, slices, batches: Sequence, slots: int):
        self._slices = slices
        size = max((len(indices) for indices, _ in batches), default=0)
        shape = (slots, size, *slices.shape)
        memory = shared_memory(2 * math.prod(shape))
        self.parts = np.frombuffer(memory, np.int16, math.prod(shape)).reshape(shape)
        self._number = next(_numbers)
        _rings[self._number] = self

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, item: tuple[int, tuple[list[int], list[int]]]) -> "_Filled":
        slot, (indices, soon) = item
        self._slices.fetch(soon)
        self._slices.read_into(self.parts[slot, : len(indices)], indices)
        return _Filled(self._number, slot, self._slices.labels(indices))


_numbers = itertools.count()
#: The rings in use, by their numbers, which are the same in the processes that read into them.
_rings: WeakValueDictionary[int, _Ring] = WeakValueDictionary()


class _Filled:
    """A slot that holds a batch; unpickled by the receiver, it becomes the batch's tensors.

    DataLoader's own thread can then pin them.
    """

    def __init__(self, ring: int, slot: int, labels: np.ndarray):
        self._batch = ring, slot, labels

    def __reduce__(self):
        return _batch_in, self._batch


def _batch_in(ring: int, slot: int, labels: np.ndarray) -> tuple[Tensor, Tensor]:
    parts = _rings[ring].parts[slot, : len(labels)]
    return torch.from_numpy(parts), torch.from_numpy(labels)
