"""Batches that processes read into memory which they share with the process that uses them."""

import itertools
import mmap
from collections.abc import Iterator, Sequence
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

#: Batches that each process reads ahead.
PREFETCHED = 2


class ReadByProcesses:
    """Batches of slices, read by processes of their own.

    All batches lie in the same few places of memory, one after the other. DataLoader alone would
    make new shared memory for each, and to clear and map its pages takes as long as to read and
    decompress the slices.
    """

    def __init__(self, slices: Dataset, batches: Sequence, processes: int, pin: bool):
        """Prepares to read; each iteration starts anew.

        Args:
            slices: a `clotline.slices.StoredSlices`.
            batches: places in it to read, and places that are soon to be read, of each batch.
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
        # DataLoader has so many batches on their way at most; one more is in use.
        rooms = _Rooms(self._slices, self._batches, self._processes * PREFETCHED + 1)
        return iter(
            DataLoader(
                rooms,
                sampler=list(zip(itertools.cycle(range(len(rooms))), self._batches)),
                batch_size=None,
                num_workers=self._processes,
                prefetch_factor=PREFETCHED,
                pin_memory=self._pin,
                # What a process gets in another way is a copy.
                multiprocessing_context="fork",
            )
        )


class _Rooms(Dataset):
    """Memory for a few batches, which each process that is forked from this one sees."""

    def __init__(self, slices, batches: Sequence, count: int):
        self._slices = slices
        size = max((len(places) for places, _ in batches), default=0)
        shape = (count, size, *slices.shape)
        # Not a file in /dev/shm, of which containers often have a few megabytes only.
        memory = mmap.mmap(-1, max(1, 2 * int(np.prod(shape))))
        self._parts = np.frombuffer(memory, np.int16, np.prod(shape)).reshape(shape)
        self._number = next(_numbers)
        _used[self._number] = self

    def __len__(self) -> int:
        return len(self._parts)

    def __getitem__(self, item: tuple[int, tuple[list[int], list[int]]]) -> "_Read":
        room, (places, soon) = item
        self._slices.fetch(soon)
        self._slices.read_into(self._parts[room, : len(places)], places)
        return _Read(self._number, room, self._slices.labels(places))

    def batch(self, room: int, labels: np.ndarray) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(self._parts[room, : len(labels)]), torch.from_numpy(labels)


_numbers = itertools.count()
#: Those in use, by their numbers, which are the same in the processes that read into them.
_used: WeakValueDictionary[int, _Rooms] = WeakValueDictionary()


class _Read:
    """A batch in one of the rooms; where it arrives, in place of it come its tensors."""

    def __init__(self, rooms: int, room: int, labels: np.ndarray):
        self._batch = rooms, room, labels

    def __reduce__(self):
        return _batch_in, self._batch


def _batch_in(rooms: int, room: int, labels: np.ndarray) -> tuple[Tensor, Tensor]:
    return _used[rooms].batch(room, labels)
