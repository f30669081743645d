import errno
import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from hostile import small_disk

from clotline.job import disk
from clotline.job.disk import describe_size, disk_of, full_disk, is_full, warn_if_short


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (6_240_000_000, "6.2 GB")],
)
def test_sizes_are_given_in_decimal_units(count, text):
    assert describe_size(count) == text


def test_the_disk_of_a_file_still_to_be_written_is_that_of_its_nearest_folder(tmp_path):
    path = tmp_path / "no" / "such" / "file"
    assert disk_of(path).is_mount()
    assert tmp_path.is_relative_to(disk_of(path))
    assert disk.free_bytes(path) == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.1)


def test_a_warning_comes_only_where_the_need_is_more_than_the_free_space(tmp_path, caplog):
    warn_if_short(tmp_path / "a.h5", 1000)
    assert not caplog.records
    warn_if_short(tmp_path / "a.h5", 10**18)
    (record,) = caplog.records
    text = record.getMessage()
    assert f"the disk {disk_of(tmp_path)} may run full" in text
    assert f"{tmp_path / 'a.h5'} needs about 1000000.0 TB" in text
    assert "are free" in text


def chained(cause):
    try:
        try:
            raise cause
        except Exception:
            raise RuntimeError("closing failed")  # noqa: B904
    except RuntimeError as error:
        return error


def test_a_full_disk_is_told_from_other_errors_by_the_error_or_what_led_to_it():
    for number in (errno.ENOSPC, errno.EDQUOT):
        assert is_full(OSError(number, os.strerror(number)))
        assert is_full(chained(OSError(number, os.strerror(number))))
    assert is_full(RuntimeError("error message = 'No space left on device'"))
    assert not is_full(OSError(errno.EACCES, "Permission denied"))
    assert not is_full(chained(ValueError("No space left on device")))


def test_a_write_to_a_device_that_is_always_full_is_told():
    full = Path("/dev/full")
    with pytest.raises(OSError) as caught, full.open("wb") as file:
        file.write(bytes(100_000))
    assert is_full(caught.value)


def test_the_message_names_disk_need_free_space_and_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "free_bytes", lambda path: 2_000_000)
    text = str(full_disk(tmp_path / "a.h5", need=10_000_000, written=1_000_000))
    assert f"the disk {disk_of(tmp_path)} is full" in text
    assert f"{tmp_path / 'a.h5'} needs about 10.0 MB, and 3.0 MB were free for it" in text
    assert "run the same command again" in text
    text = str(full_disk(tmp_path / "a.h5", need=1_000_000, written=1_000_000))
    assert "needs more than 3.0 MB" in text


def test_hdf5_tells_of_a_full_disk(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    with small_disk(tmp_path / "disk", 2_000_000) as folder, pytest.raises(Exception) as caught:
        file = h5py.File(folder / "a.h5", "w")
        file["x"] = np.zeros(4_000_000, np.uint8)
        file.close()
    assert is_full(caught.value)
