import h5py
import numpy as np
import pytest

from clotline.errors import ClotlineError
from clotline.features import (
    CHUNK_ROWS,
    create_features,
    merge_features,
    open_features,
)


def part(path, first, rows, width=3, backbone="resnext50", checkpoint="abc"):
    with create_features(path, rows, width, backbone, checkpoint) as file:
        file["features"][:] = np.arange(first, first + rows)[:, None] + [0.0, 0.25, 0.5]
    return path


@pytest.mark.parametrize("sizes", [(5,), (1, 2, 3), (CHUNK_ROWS + 6, 3, 2 * CHUNK_ROWS, 1)])
def test_merged_features_keep_the_order_of_parts_and_rows(tmp_path, sizes):
    firsts = np.cumsum([0, *sizes])
    parts = [
        part(tmp_path / f"{i}.h5", first, size)
        for i, (first, size) in enumerate(zip(firsts, sizes, strict=False))
    ]
    assert merge_features(parts, tmp_path / "all.h5") == sum(sizes)
    with open_features(tmp_path / "all.h5") as file:
        values = file["features"][:]
        about = dict(file.attrs)
    assert (values == np.arange(sum(sizes))[:, None] + np.array([0, 0.25, 0.5])).all()
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
    for content in (None, b"", b"no HDF5"):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ClotlineError, match="cannot be read") as caught:
            open_features(path)
        assert str(path) in str(caught.value)
        assert "delete it" in str(caught.value)
    with h5py.File(path, "w") as file:
        file.attrs.update(format="clotline-features", version=99)
    with pytest.raises(ClotlineError, match=r"is no clotline-features of version 1"):
        open_features(path)
