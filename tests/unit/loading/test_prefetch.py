import threading

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from clotline.loading.prefetch import ReadAhead


class Numbers(Dataset):
    """Squares, each noted when it is read."""

    def __init__(self):
        self.read = [threading.Event() for _ in range(6)]
        self.threads = set()

    def __len__(self):
        return len(self.read)

    def __getitem__(self, place):
        if place == 4:
            raise OSError("row 4 is damaged")
        self.threads.add(threading.current_thread())
        self.read[place].set()
        return torch.tensor([place**2])


def loader(places):
    return DataLoader(Numbers(), sampler=places, batch_size=None)


def test_batches_are_the_loaders_in_its_order_at_every_iteration():
    batches = ReadAhead(loader([2, 0, 3]))
    assert len(batches) == 3
    for _ in range(2):
        assert [batch.item() for batch in batches] == [4, 0, 9]


def test_no_batches_are_none():
    assert list(ReadAhead(loader([]))) == []


def test_the_next_batch_and_no_other_is_read_while_one_is_in_use():
    source = loader([0, 1, 2])
    batches = iter(ReadAhead(source))
    next(batches)
    assert source.dataset.read[1].wait(10)
    batches.close()  # waits for whatever was begun
    assert not source.dataset.read[2].is_set()


def test_an_error_comes_after_the_batches_before_it():
    batches = iter(ReadAhead(loader([3, 4, 5])))
    assert next(batches).item() == 9
    with pytest.raises(OSError, match="row 4 is damaged"):
        next(batches)


def test_the_thread_ends_with_an_iteration_that_is_given_up():
    source = loader([0, 1, 2, 3])
    batches = iter(ReadAhead(source))
    next(batches)
    batches.close()
    assert source.dataset.threads
    assert not any(thread.is_alive() for thread in source.dataset.threads)


def test_random_numbers_are_drawn_as_by_the_loader_itself():
    drawn = []
    for make in (lambda source: source, ReadAhead):
        torch.manual_seed(0)
        for _ in make(loader([0, 1])):
            drawn.append(torch.rand(1).item())
    assert drawn[:2] == drawn[2:]
