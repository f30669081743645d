import os
import time

import pandas as pd
import pytest
import torch
from builders import write_noise

from clotline.data.shards import CHECKSUM, read_rows
from clotline.errors import ClotlineError
from clotline.job.speed import PREFETCHED
from clotline.loading.preprocessing import View
from clotline.loading.ring_buffer import ReadByProcesses
from clotline.loading.slice_loader import StoredSlices


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Rows of noise, each a few times."""
    path = tmp_path_factory.mktemp("slices") / "shard-000.h5"
    write_noise(path, slices=12)
    rows = read_rows(path).assign(file=str(path), row=range(12))
    return pd.concat([rows] * 5, ignore_index=True)


def stored(table):
    return StoredSlices(table, View(0.0, 2000.0, 64, 64, vertical_flip=True), (0, 0))


def read_by(slices, processes, places):
    return ReadByProcesses(slices, [(batch, batch) for batch in places], processes, pin=False)


def in_threes(slices):
    return [list(range(at, min(at + 3, len(slices)))) for at in range(0, len(slices), 3)]


@pytest.mark.parametrize("processes", [1, 2])
def test_batches_are_those_of_the_data_set_at_every_iteration(table, processes):
    slices = stored(table)
    places = in_threes(slices)
    batches = read_by(slices, processes, places)
    assert len(batches) == len(places) > 2 * (processes * PREFETCHED + 1)
    for _ in range(2):
        for found, batch in zip(batches, places, strict=True):
            for mine, expected in zip(found, slices.read(batch), strict=True):
                assert mine.dtype == expected.dtype
                assert torch.equal(mine, expected)


def test_batches_of_several_sizes_and_none_at_all(table):
    slices = stored(table)
    sizes = [[0], [1, 2, 3, 4], [], [5, 6]]
    assert [len(parts) for parts, _ in read_by(slices, 1, sizes)] == [1, 4, 0, 2]
    assert list(read_by(slices, 1, [])) == []


def test_a_batch_in_use_stays_however_long_while_others_are_read(table):
    slices = stored(table)
    places = in_threes(slices)
    for (parts, _), batch in zip(read_by(slices, 1, places), places, strict=True):
        time.sleep(0.05)  # for a process to read all that it is asked for
        assert torch.equal(parts, slices.read(batch)[0])


def test_labels_stay_for_ever(table):
    slices = stored(table)
    labels = [labels for _, labels in read_by(slices, 2, in_threes(slices))]
    assert torch.equal(torch.cat(labels), torch.from_numpy(slices.labels(list(range(len(slices))))))


def test_iterations_do_not_disturb_each_other_and_one_may_be_given_up(table):
    slices = stored(table)
    places = in_threes(slices)
    batches = read_by(slices, 2, places)
    given_up = iter(batches)
    next(given_up)
    for number, ((parts, _), batch) in enumerate(zip(batches, places, strict=True)):
        if number < 10:
            next(given_up)
            time.sleep(0.05)  # for its processes to read the next
        assert torch.equal(parts, slices.read(batch)[0])


def test_a_damaged_slice_is_an_error_of_the_batch_that_has_it(table):
    damaged = table.assign(**{CHECKSUM: table[CHECKSUM].where(table.index != 40, 7)})
    batches = iter(read_by(stored(damaged), 2, in_threes(table)))
    for _ in range(13):
        next(batches)
    with pytest.raises(ClotlineError, match="row 4 does not fit its checksum"):
        next(batches)


def test_no_batch_lies_where_shared_files_do(table):
    """Containers often have a few megabytes of it, and a process that finds none is killed."""

    def in_use():
        status = os.statvfs("/dev/shm")
        return (status.f_blocks - status.f_bfree) * status.f_bsize

    before = in_use()
    slices = StoredSlices(table, View(0.0, 2000.0, 256, 256, vertical_flip=True), (0, 0))
    halves = [list(range(30)), list(range(30, 60))]
    for parts, _ in read_by(slices, 2, halves):
        assert in_use() - before < parts.numel()  # half of a batch's bytes
