import h5py
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from clotline.errors import ClotlineError
from clotline.features import (
    CHUNK_ROWS,
    create_features,
    extract_features,
    merge_features,
    open_features,
)


class Stub(nn.Module):
    """Two features a slice: its first pixel times ``scale``, and whether it is in training."""

    width = 2

    def __init__(self, scale=1.0):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

    def features(self, slices):
        value = slices[:, 0, 0, 0] * self.scale
        return torch.stack([value, torch.full_like(value, float(self.training))], 1)

    def forward(self, slices):
        raise AssertionError("the head is not wanted")


def loader(count, batch_size=4):
    slices = torch.arange(float(count))[:, None, None, None].expand(-1, 1, 2, 2)
    return DataLoader(TensorDataset(slices, torch.zeros(count)), batch_size)


def part(path, first, rows, width=3, backbone="resnext50", checkpoint="abc"):
    with create_features(path, rows, width, backbone, checkpoint) as file:
        file["features"][:] = np.arange(first, first + rows)[:, None] + [0.0, 0.25, 0.5]
    return path


def test_features_are_written_in_the_loaders_order_in_evaluation_mode(tmp_path, fabric):
    path = tmp_path / "f.h5"
    extract_features(Stub().train(), loader(11), path, "resnext50", "abc", fabric)
    with open_features(path) as file:
        values = file["features"][:]
        about = dict(file.attrs)
    assert values.dtype == np.float16
    assert values.tolist() == [[i, 0] for i in range(11)]
    assert (about["backbone"], about["checkpoint"]) == ("resnext50", "abc")


@pytest.mark.parametrize("value", [np.nan, -np.inf, 1e6], ids=["nan", "infinite", "too large"])
def test_features_that_float16_cannot_hold_are_an_error_with_the_rows(tmp_path, fabric, value):
    values = torch.zeros(11, 1, 2, 2)
    values[9] = value
    slices = DataLoader(TensorDataset(values, torch.zeros(11)), batch_size=4)
    with pytest.raises(ClotlineError) as caught:
        extract_features(Stub(), slices, tmp_path / "f.h5", "resnext50", "abc", fabric)
    message = str(caught.value)
    assert "resnext50 gives infinite or NaN features from row 8 on" in message
    assert "Lower its lr" in message


def test_the_largest_float16_is_taken(tmp_path, fabric):
    path = tmp_path / "f.h5"
    extract_features(Stub(65504.0), loader(2), path, "b", "abc", fabric)
    with open_features(path) as file:
        assert file["features"][1, 0] == 65504


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
