"""What the system refuses is never told as damage: whoever then deletes loses GPU hours."""

import errno
import fcntl
import os
import resource
from contextlib import contextmanager

import h5py
import numpy as np
import pandas as pd
import pytest
import torch

from clotline.data.activation_file import Activation, read_activation, write_activation
from clotline.data.features_file import StoredFeatures, create_features, write_features
from clotline.data.hdf5 import reading
from clotline.data.shards import ShardWriter, StoredPixels, read_rows
from clotline.data.tables import read_table, write_table
from clotline.errors import ClotlineError
from clotline.job.files import refusal, unusable
from clotline.models.bundle import unpack_bundle
from clotline.models.checkpoint import load_checkpoint, load_tensors, save_checkpoint


def write_some_features(path):
    with create_features(path, 3, 2, "resnext50", "abc") as file:
        write_features(file, 0, np.ones((3, 2), np.float16))


def write_empty_shard(path):
    with ShardWriter(path):
        pass


FILES = {
    "shard": (write_empty_shard, read_rows),
    "pixels": (write_empty_shard, StoredPixels),
    "features": (write_some_features, StoredFeatures),
    "maps": (
        lambda path: write_activation(
            path, Activation(np.ones((1, 3, 3)), np.ones(1), [("a", "b", "c")], 32), "b"
        ),
        read_activation,
    ),
    "checkpoint": (lambda path: save_checkpoint(path, {"weights": {}}), load_checkpoint),
    "tensors": (lambda path: torch.save({"a": torch.ones(2)}, path), load_tensors),
    "table": (lambda path: write_table(pd.DataFrame({"a": [1]}), path), read_table),
    "bundle": (lambda path: path.write_bytes(b"PK"), lambda path: unpack_bundle(path, ".")),
}


@contextmanager
def too_many_open_files(path):
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Those that are open stay so.
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        yield errno.EMFILE, "ulimit -n"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@contextmanager
def no_permission(path):
    path.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield errno.EACCES, "permission"
    finally:
        os.seteuid(user)


@contextmanager
def a_folder_in_its_place(path):
    path.unlink()
    path.mkdir()
    yield errno.EISDIR, "It is a folder"


@pytest.mark.parametrize("refuse", [too_many_open_files, no_permission, a_folder_in_its_place])
@pytest.mark.parametrize(("write", "read"), FILES.values(), ids=FILES)
def test_a_refusal_is_told_with_what_to_do_and_not_as_damage(tmp_path, write, read, refuse):
    path = tmp_path / "file"
    write(path)
    # What a reader imports on the way needs files, too.
    with pytest.raises(ClotlineError) if read is FILES["bundle"][1] else nothing():
        read(path)
    with refuse(path) as (number, remedy), pytest.raises(ClotlineError) as caught:
        read(path)
    said = str(caught.value)
    assert said.startswith(f"{path} cannot be read: {os.strerror(number)} (errno {number})")
    assert "keep it" in said and remedy in said
    for word in ("rm ", "cannot be used", "remake", "damaged", "intact copy"):
        assert word not in said


@contextmanager
def nothing():
    yield


@pytest.mark.parametrize("kind", ["shard", "pixels", "features", "maps"])
def test_what_is_only_read_needs_no_lock(tmp_path, kind):
    """Another process's lock stands for a file system that gives none: HDF5 asks the same way."""
    write, read = FILES[kind]
    path = tmp_path / "file"
    write(path)
    with path.open("rb+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError):
            h5py.File(path, "r", locking=True)
        read(path)


LOCKED = "Unable to synchronously open file (unable to lock file, errno = {}, error message = 'x')"


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EAGAIN, 524])
def test_a_lock_that_is_refused_nevertheless_is_no_damage(tmp_path, number):
    with pytest.raises(ClotlineError) as caught, reading(tmp_path / "a.h5"):
        raise OSError(LOCKED.format(number))
    assert "HDF5_USE_FILE_LOCKING=FALSE" in str(caught.value)
    assert "keep it" in str(caught.value)


@pytest.mark.parametrize("kind", [OSError, KeyError, RuntimeError])
def test_a_stale_handle_in_the_middle_of_reading_is_no_damage(tmp_path, kind):
    words = "Can't synchronously read data (file read failed: errno = 116, error message = 'Stale')"
    with pytest.raises(ClotlineError) as caught, reading(tmp_path / "a.h5"):
        raise kind(words)
    assert "Stale file handle (errno 116)" in str(caught.value)
    assert "keep it" in str(caught.value)


def test_a_read_that_fails_in_the_middle_is_no_damage(tmp_path):
    path = tmp_path / "a.h5"
    write_some_features(path)
    file = StoredFeatures(path)
    # The descriptor that HDF5 reads by becomes that of a folder.
    folder = os.open(tmp_path, os.O_RDONLY)
    os.dup2(folder, file._file.id.get_vfd_handle())
    os.close(folder)
    with pytest.raises(ClotlineError, match="errno 21") as caught:
        file.read(slice(0, 3))
    assert "keep it" in str(caught.value)


@pytest.mark.parametrize("kind", ["shard", "features", "checkpoint", "table"])
def test_what_is_damaged_is_still_told_as_damage(tmp_path, kind):
    write, read = FILES[kind]
    path = tmp_path / "file"
    write(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ClotlineError, match="cannot be used"):
        read(path)


@pytest.mark.parametrize("kind", [kind for kind in FILES if kind not in ("bundle", "table")])
def test_a_file_that_is_not_there_is_told_as_that(tmp_path, kind):
    with pytest.raises(ClotlineError, match=r"there is no (file|checkpoint) "):
        FILES[kind][1](tmp_path / "none")


def test_lack_of_memory_while_reading_is_neither():
    error = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 B")
    assert unusable("a.pt", error) is error
    assert refusal(OSError(errno.ENOMEM, "Cannot allocate memory")) is None
    assert refusal(ValueError("file signature not found")) is None


def test_the_error_behind_an_error_counts():
    wrapped = ValueError("a table of it")
    wrapped.__cause__ = PermissionError(errno.EACCES, "Permission denied")
    assert refusal(wrapped) == errno.EACCES
