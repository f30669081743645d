import errno
import gc
import os
import random

import h5py
import numpy as np
import pytest
from hostile import fill_disk, flip_bit, small_disk
from hypothesis import example, given
from hypothesis import strategies as st

from clotline.data.hdf5 import (
    NewHDF5,
    _Disk,
    byte_sum,
    byte_sums,
    open_hdf5,
    read_attributes,
    write_column,
)
from clotline.errors import ClotlineError


@pytest.mark.parametrize(
    ("content", "published"),
    [(b"", 0x2D06800538D394C2), (b"a", 0xE6C632B61E964E1F), (b"abc", 0x78AF5F94892F3950)],
)
def test_the_checksum_of_bytes_is_xxh3s(content, published):
    assert byte_sum(content) == published
    assert byte_sum(memoryview(content)) == published


@given(st.binary(min_size=16, max_size=200))
def test_the_checksum_sees_words_that_have_changed_places(content):
    swapped = content[8:16] + content[:8] + content[16:]
    assert (byte_sum(swapped) == byte_sum(content)) == (swapped == content)


@given(st.binary(min_size=1, max_size=200), st.integers(0, 10**6))
def test_the_checksum_sees_every_flipped_bit(content, seed):
    assert byte_sum(flip_bit(content, random.Random(seed))) != byte_sum(content)


@pytest.mark.parametrize("width", [1, 3, 4, 1280])
def test_rows_have_the_checksums_of_their_bytes(width):
    rows = np.random.default_rng(0).normal(size=(5, width)).astype(np.float16)
    assert byte_sums(rows).tolist() == [byte_sum(row.tobytes()) for row in rows]


def test_attributes_come_back_as_they_were(tmp_path):
    with NewHDF5(tmp_path / "a.h5", "form", 3, backbone="é", count=7):
        pass
    with h5py.File(tmp_path / "a.h5") as file:
        assert read_attributes(file) == {
            "format": "form", "version": 3, "backbone": "é", "count": 7,
        }  # fmt: skip


def test_a_column_is_guarded_by_hdf5_and_one_without_rows_can_be_written(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        write_column(file, "some", np.arange(5))
        write_column(file, "none", np.arange(0))
        assert file["some"].fletcher32
        assert file["none"].shape == (0,)


def test_a_file_without_its_main_dataset_is_refused(tmp_path):
    with NewHDF5(tmp_path / "a.h5", "form", 1):
        pass
    with pytest.raises(ClotlineError, match="cannot be used"):
        open_hdf5(tmp_path / "a.h5", "form", 1, main="pixels")


PLACES = st.integers(0, 2**20 + 3000)
STEPS = st.one_of(
    st.tuples(st.just("seek"), PLACES),
    st.tuples(st.just("write"), st.sampled_from((0, 1, 72_000, 2**20, 5 * 2**19))),
    st.tuples(st.just("read"), st.sampled_from((1, 5000))),
    st.tuples(st.just("truncate"), PLACES),
    st.tuples(st.just("end"), st.just(0)),
    st.tuples(st.just("flush"), st.just(0)),
)


@given(st.lists(STEPS, max_size=12))
@example([("write", 72_000), ("seek", 10), ("read", 5000)])
def test_what_a_thread_writes_is_what_was_written_in_its_order(tmp_path_factory, steps):
    """A plain file knows what must come out, step by step."""
    folder = tmp_path_factory.mktemp("disk")
    disk = _Disk(folder / "ours")
    with (folder / "plain").open("w+b", buffering=0) as plain:
        for number, (step, value) in enumerate(steps):
            results = []
            for file in (plain, disk):
                if step == "seek":
                    file.seek(value)
                elif step == "write":
                    memory = bytearray([number + 1]) * value
                    assert file.write(memory) == value
                    memory[:] = bytes(value)  # as HDF5 does, which uses it again
                elif step == "read":
                    content = bytearray(value)
                    results.append((file.readinto(content), content))
                elif step == "truncate":
                    results.append(file.truncate(value))
                elif step == "end":
                    results.append(file.seek(0, os.SEEK_END))
                else:
                    file.flush()
                results.append(file.tell())
            half = len(results) // 2
            assert results[:half] == results[half:]
    disk.close()
    assert (folder / "ours").read_bytes() == (folder / "plain").read_bytes()


@pytest.mark.parametrize("left", [0, 100_000, 500_000])
@pytest.mark.parametrize("checked", [True, False], ids=["checked", "noticed at the end"])
def test_a_full_disk_is_raised_however_hdf5_takes_it(tmp_path, left, checked):
    """HDF5 by itself loses such an error where a data set is closed, or crashes."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    rows = np.random.default_rng(0).integers(0, 255, (60, 1000, 40), np.uint8)
    with small_disk(tmp_path / "disk", 3_000_000) as disk:
        fill_disk(disk, left)
        with pytest.raises(OSError, match="No space left"), NewHDF5(disk / "a.h5", "f", 1) as file:
            shape, chunks = (60, 1000, 40), (1, 1000, 40)
            file.create_dataset("x", shape=shape, chunks=chunks, dtype="u1")
            for number, row in enumerate(rows):
                file["x"][number] = row
                if checked:
                    file.check()
            # Space that is free again must not make a file with holes pass for complete.
            (disk / ".ballast").unlink()
        gc.collect()


def test_nothing_is_written_after_a_failed_write_and_the_first_failure_is_kept(
    tmp_path, monkeypatch
):
    really_write, calls = os.pwrite, []

    def fail_at_the_second(file, block, start):
        calls.append(start)
        if len(calls) > 1:
            raise OSError(len(calls), "no more")
        return really_write(file, block, start)

    monkeypatch.setattr(os, "pwrite", fail_at_the_second)
    disk = _Disk(tmp_path / "a")
    for _ in range(5):
        disk.write(bytes(2**20))
    disk.flush()
    assert calls == [0, 2**20]
    assert disk.failed.errno == 2
    disk.close()
    assert (tmp_path / "a").stat().st_size == 2**20


def test_what_was_not_written_for_a_failure_is_read_as_zeros(tmp_path, monkeypatch):
    """HDF5 must get what it asks for, whatever it is: the failure is raised in the end."""
    disk = _Disk(tmp_path / "a")
    disk.write(b"abc")
    disk.flush()

    def fail(*_):
        raise OSError(errno.ENOSPC, "no more")

    monkeypatch.setattr(os, "pwrite", fail)
    disk.write(b"defg")
    disk.seek(1)
    content = bytearray(b"x" * 6)
    assert disk.readinto(content) == 6
    assert content == b"bc" + bytes(4)
    assert disk.tell() == 7
    disk.close()


def test_a_new_file_has_the_same_bytes_every_time(tmp_path):
    for name in ("a.h5", "b.h5"):
        with NewHDF5(tmp_path / name, "form", 1, backbone="x") as file:
            write_column(file, "rows", np.arange(1000))
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
