"""Reading ahead: batches read, or requested from the disk, before they are needed."""

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from torch.utils.data import DataLoader, Dataset


def asked_ahead(batches: list[list[int]], ahead: int) -> list[tuple[list[int], list[int]]]:
    """Batches for a `ReadInBatches`: the disk is asked for each one ``ahead`` batches early."""
    together = list(itertools.chain(*batches[: 1 + ahead]))
    soon = [together, *batches[1 + ahead :], *[[]] * ahead][: len(batches)]
    return list(zip(batches, soon, strict=True))


class ReadInBatches(Dataset):
    """A data set that reads many items at once, by its methods ``fetch`` and ``read``.

    A DataLoader gives it lists of indices instead of single ones.
    """

    def __getitem__(self, batch: tuple[list[int], list[int]]):
        """What ``read`` gives for some items, after asking the disk for others.

        Args:
            batch: indices of items to read, and of those that are soon to be read.
        """
        indices, soon = batch
        self.fetch(soon)
        return self.read(indices)


class ReadAhead:
    """The batches of a loader that has no processes of its own, read one ahead.

    The network then waits for a batch only where reading takes longer than computing. Files are
    read, and slices decompressed, without Python's lock, so that a thread is enough.
    """

    def __init__(self, loader: DataLoader):
        """Prepares to read; each iteration starts from the beginning."""
        self._loader = loader

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator:
        # Not in the thread: it draws from torch's global random numbers.
        batches = iter(self._loader)
        with ThreadPoolExecutor(1, "read-ahead") as thread:
            coming = thread.submit(next, batches, _END)
            while (batch := coming.result()) is not _END:
                coming = thread.submit(next, batches, _END)
                yield batch


_END = object()
