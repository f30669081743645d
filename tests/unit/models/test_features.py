import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from clotline.data.features_file import open_features
from clotline.data.hdf5 import read_attributes
from clotline.errors import ClotlineError
from clotline.models.devices import make_fabric
from clotline.models.features import extract_features


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


def test_features_are_written_in_the_loaders_order_in_evaluation_mode(tmp_path, fabric):
    path = tmp_path / "f.h5"
    extract_features(Stub().train(), loader(11), path, "resnext50", "abc", fabric)
    with open_features(path) as file:
        values = file["features"][:]
        about = read_attributes(file)
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


class Matrix(Stub):
    """One feature a slice, by an operation that mixed precision does in 16 bits."""

    width = 1

    def features(self, slices):
        found = slices.flatten(1) @ self.scale.expand(slices[0].numel(), 1)
        self.kind = found.dtype
        return found


@pytest.mark.parametrize(
    ("precision", "kind"), [("32-true", torch.float32), ("bf16-mixed", torch.bfloat16)]
)
def test_features_are_computed_in_the_fabrics_precision(tmp_path, precision, kind):
    model = Matrix()
    path = tmp_path / "f.h5"
    extract_features(model, loader(2), path, "b", "abc", make_fabric(precision, 0, 1))
    assert model.kind == kind


class Identity(Stub):
    """A slice's pixels as they come."""

    width = 4

    def features(self, slices):
        return slices.flatten(1)


def test_slices_are_loaded_in_float32_whatever_the_precision(tmp_path):
    class Loader(DataLoader):
        def __iter__(self):
            # A product, as in a slice that is made smaller.
            return ((x @ torch.eye(2), y) for x, y in super().__iter__())

    slices = torch.full((1, 1, 2, 2), 1 + 2**-9)
    path = tmp_path / "f.h5"
    loaded = Loader(TensorDataset(slices, torch.zeros(1)), 1)
    extract_features(Identity(), loaded, path, "b", "abc", make_fabric("bf16-mixed", 0, 1))
    with open_features(path) as file:
        assert (file["features"][:] == 1 + 2**-9).all()
