import os
import pickle
import random

import h5py
import numpy as np
import pytest
from hostile import TORTURE, Cases, Touch, flip_bit

from clotline.data.features_file import (
    BLOCK_ROWS,
    FORMAT,
    VERSION,
    StoredFeatures,
    create_features,
    merge_features,
    open_features,
    write_features,
)
from clotline.data.hdf5 import read_attributes
from clotline.errors import ClotlineError


def part(path, first, rows, width=3, backbone="resnext50", checkpoint="abc"):
    with create_features(path, rows, width, backbone, checkpoint) as file:
        values = np.arange(first, first + rows)[:, None] + np.array([0.0, 0.25, 0.5])
        write_features(file, 0, values.astype(np.float16))
    return path


@pytest.mark.parametrize("sizes", [(5,), (1, 2, 3), (BLOCK_ROWS + 6, 3, 2 * BLOCK_ROWS, 1)])
def test_merged_features_keep_the_order_of_parts_and_rows(tmp_path, sizes):
    firsts = np.cumsum([0, *sizes])
    parts = [
        part(tmp_path / f"{i}.h5", first, size)
        for i, (first, size) in enumerate(zip(firsts, sizes, strict=False))
    ]
    assert merge_features(parts, tmp_path / "all.h5") == sum(sizes)
    with open_features(tmp_path / "all.h5") as file:
        values = file["features"][:]
        about = read_attributes(file)
    expected = np.arange(sum(sizes))[:, None] + np.array([0, 0.25, 0.5])
    assert (values == expected.astype(np.float16)).all()
    assert (about["backbone"], about["checkpoint"]) == ("resnext50", "abc")


def test_the_caller_can_follow_the_merging(tmp_path):
    parts = [part(tmp_path / f"{i}.h5", 0, 2) for i in range(3)]
    seen = []
    merge_features(parts, tmp_path / "all.h5", step=lambda paths: map(seen_by(seen), paths))
    assert seen == parts


def seen_by(seen):
    def note(path):
        seen.append(path)
        return path

    return note


@pytest.mark.parametrize("other", [{"checkpoint": "def"}, {"backbone": "efficientnet_b0"}])
def test_features_of_different_checkpoints_are_not_merged(tmp_path, other):
    parts = [part(tmp_path / "0.h5", 0, 2), part(tmp_path / "1.h5", 2, 2, **other)]
    with pytest.raises(ClotlineError) as caught:
        merge_features(parts, tmp_path / "all.h5")
    assert "come from different checkpoints" in str(caught.value)
    assert f"delete {tmp_path}" in str(caught.value)
    assert not (tmp_path / "all.h5").exists()


def test_a_missing_damaged_or_foreign_features_file_is_named(tmp_path):
    path = tmp_path / "f.h5"
    with pytest.raises(ClotlineError, match=f"there is no file {path}"):
        open_features(path)
    for content in (b"", b"no HDF5"):
        path.write_bytes(content)
        with pytest.raises(ClotlineError, match=f"{path} cannot be used"):
            open_features(path)
    with h5py.File(path, "w") as file:
        file.attrs.update(format="clotline-features", version=99)
    with pytest.raises(ClotlineError, match=r"clotline-features version 99, not clotline-features"):
        open_features(path)


def test_the_disk_is_asked_for_the_bytes_of_the_rows(tmp_path, monkeypatch):
    path, asked = part(tmp_path / "0.h5", 0, 20), []

    def note(file, start, size, advice):
        assert advice == os.POSIX_FADV_WILLNEED
        asked.append(os.pread(file, size, start))

    features = StoredFeatures(path)
    monkeypatch.setattr(os, "posix_fadvise", note)
    features.fetch(slice(4, 9))
    assert asked == [features.read(slice(4, 9)).tobytes()]


def test_features_in_chunks_are_refused(tmp_path):
    path = part(tmp_path / "0.h5", 0, 4)
    with h5py.File(path, "a") as file:
        values = file["features"][:]
        del file["features"]
        file.create_dataset("features", data=values, chunks=(2, 3))
    with pytest.raises(ClotlineError, match=f"{path} cannot be used.*do not lie row after row"):
        StoredFeatures(path)


def test_a_flipped_bit_is_found_when_features_are_read_or_merged(tmp_path):
    path = part(tmp_path / "0.h5", 0, 150)
    content = path.read_bytes()
    expected = StoredFeatures(path).read(slice(0, 150))
    rng, cases = random.Random(1), Cases()
    for number in range(200 * TORTURE):
        damaged = tmp_path / f"{number}.h5"
        damaged.write_bytes(flip_bit(content, rng))
        with cases.one(damaged):
            merge_features([damaged], tmp_path / "all.h5")
            assert (StoredFeatures(damaged).read(slice(0, 150)) == expected).all()
    assert cases.refused > 50 * TORTURE


@pytest.mark.parametrize("kind", ["link", "external", "virtual"])
def test_features_that_lie_in_another_file_are_refused(tmp_path, kind):
    """A crafted file must not make the workflow read what it was not given."""
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(12))
    elsewhere = part(tmp_path / "other.h5", 0, 2)
    path = tmp_path / "f.h5"
    with h5py.File(path, "w") as file:
        file.attrs.update(format=FORMAT, version=VERSION)
        if kind == "link":
            file["features"] = h5py.ExternalLink(str(elsewhere), "features")
        elif kind == "external":
            outside = [(str(secret), 0, 12)]
            file.create_dataset("features", shape=(2, 3), dtype="f2", external=outside)
        else:
            layout = h5py.VirtualLayout(shape=(2, 3), dtype="f2")
            layout[:] = h5py.VirtualSource(elsewhere, "features", shape=(2, 3))
            file.create_virtual_dataset("features", layout)
    with pytest.raises(ClotlineError, match="its features lie in another file"):
        open_features(path)


def test_a_pickled_object_in_a_features_file_never_runs(tmp_path):
    touched, path = tmp_path / "touched", tmp_path / "f.h5"
    path.write_bytes(pickle.dumps(Touch(touched)))
    with pytest.raises(ClotlineError, match="cannot be used"):
        open_features(path)
    with h5py.File(path, "w") as file:
        file.attrs.update(format=FORMAT, version=VERSION, backbone="x", checkpoint="y")
        opaque = np.void(pickle.dumps(Touch(touched)))
        file.create_dataset("features", data=np.array([[opaque]]))
        file.create_dataset("checksum", data=np.zeros(1, "u8"))
    with pytest.raises(ClotlineError, match="cannot be used"):
        StoredFeatures(path).read(slice(0, 1))
    assert not touched.exists()
