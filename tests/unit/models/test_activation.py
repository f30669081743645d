import h5py
import numpy as np
import pytest
import torch
from builders import cnn_section
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from clotline.data.activation_file import (
    Activation,
    read_activation,
    read_activations,
    write_activation,
)
from clotline.errors import ClotlineError
from clotline.models.activation import activation_maps, last_feature_map
from clotline.models.backbones import Classifier, OverPlanes, build_classifier


class Blocks(nn.Module):
    """Averages blocks of 4 x 4 pixels into two channels, the second the first's negative."""

    def __init__(self, activation=None):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 4, stride=4, bias=False)
        self.activation = activation or nn.Identity()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(2, 1000)
        with torch.no_grad():
            self.conv.weight[0] = 1 / 16
            self.conv.weight[1] = -1 / 16

    def forward(self, slices):
        features = self.activation(self.activation(self.conv(slices)))
        return self.fc(self.flatten(self.pool(features)))


def classifier(weights=(1.0, 0.0), **arguments):
    model = Classifier(Blocks(**arguments))
    with torch.no_grad():
        model.head.weight[:] = torch.tensor([weights])
        model.head.bias[:] = 0.5
    return model


def loader(slices, batch_size=2):
    return DataLoader(TensorDataset(slices, torch.zeros(len(slices))), batch_size)


def lit(*places, size=12, value=9.0):
    """Slices, each with one block of 4 x 4 pixels lit."""
    slices = torch.zeros(len(places), 1, size, size)
    for number, (row, column) in enumerate(places):
        slices[number, 0, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = value
    return slices


def test_the_map_is_each_places_share_of_the_logit(fabric):
    places = [(0, 0), (2, 1), (1, 2)]
    maps, logits = activation_maps(classifier().train(), loader(lit(*places)), fabric)
    assert maps.shape == (3, 3, 3)
    for made, place in zip(maps, places, strict=True):
        assert np.unravel_index(made.argmax(), made.shape) == place
        assert np.count_nonzero(made) == 1
    # A linear layer after the mean: the places' shares and the bias sum to the logit.
    assert maps.sum((1, 2)) + 0.5 == pytest.approx(logits)


def test_what_lowers_the_logit_is_not_on_the_map(fabric):
    maps, logits = activation_maps(classifier((0.0, 1.0)), loader(lit((1, 1))), fabric)
    assert (logits < 0.5).all()
    assert (maps == 0).all()


def test_no_slices_give_no_maps(fabric):
    maps, logits = activation_maps(classifier(), loader(lit()), fabric)
    assert (len(maps), len(logits)) == (0, 0)


def test_a_module_used_twice_is_passed_over():
    model = classifier(activation=nn.ReLU())
    found = last_feature_map(model, torch.zeros(1, 1, 12, 12))
    # What enters the pooling is what leaves the second activation.
    assert found.module is model.backbone.pool
    assert found.enters
    assert found.shape == (3, 3)


def test_the_map_of_a_module_used_twice_is_not_taken_though_it_is_the_last():
    class Twice(Blocks):
        def forward(self, slices):
            return self.activation(self.activation(self.conv(slices))).mean((2, 3))

    model = Twice(nn.ReLU())
    found = last_feature_map(model, torch.zeros(1, 1, 12, 12))
    assert found.module is model.conv
    assert not found.enters
    assert found.shape == (3, 3)


@pytest.mark.parametrize(
    ("library", "architecture", "stride"),
    [
        ("torchvision", "resnet18", 32),
        ("torchvision", "densenet121", 32),
        ("efficientnet-pytorch", "efficientnet-b0", 32),
    ],
)
def test_the_last_map_of_real_networks_is_found_and_has_gradients(
    fabric, library, architecture, stride
):
    torch.manual_seed(0)
    model = build_classifier(cnn_section(library=library, architecture=architecture))
    slices = torch.randn(2, 1, 96, 96)
    found = last_feature_map(model.eval(), slices)
    assert found.shape == (96 // stride,) * 2
    maps, logits = activation_maps(model, loader(slices), fabric)
    assert maps.shape == (2, 3, 3)
    assert np.isfinite(maps).all()
    with torch.inference_mode():
        assert logits == pytest.approx(model(slices).numpy(), abs=1e-5)


class Volumes(nn.Module):
    """Averages blocks of 4 x 4 pixels of each plane."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(1, 1, (1, 4, 4), stride=(1, 4, 4), bias=False)
        self.pool = nn.AdaptiveAvgPool3d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(1, 1000)
        nn.init.constant_(self.conv.weight, 1 / 16)

    def forward(self, slices):
        return self.fc(self.flatten(self.pool(self.conv(slices))))


def test_the_map_of_a_video_network_is_the_mean_of_its_planes(fabric):
    model = Classifier(OverPlanes(Volumes(), 3))
    nn.init.ones_(model.head.weight)
    whole = lit((1, 2)).expand(-1, 3, -1, -1)
    planes = [whole * (torch.arange(3) == plane)[:, None, None] for plane in range(3)]
    maps, _ = activation_maps(model, loader(torch.cat([whole, *planes])), fabric)
    assert maps[0, 1, 2] > 0
    for own in maps[1:]:
        np.testing.assert_allclose(own, maps[0] / 3, atol=1e-7)


@pytest.mark.parametrize("architecture", ["r3d_18", "swin3d_t"])
def test_the_last_map_of_video_networks_is_found(fabric, architecture):
    torch.manual_seed(0)
    section = cnn_section(library="torchvision-video", architecture=architecture, planes=5)
    model = build_classifier(section).eval()
    slices = torch.randn(2, 5, 96, 96)
    found = last_feature_map(model, slices)
    side = 96 // (16 if architecture == "r3d_18" else 32)
    assert found.shape == (side, side)
    maps, logits = activation_maps(model, loader(slices), fabric)
    assert maps.shape == (2, side, side)
    assert np.isfinite(maps).all()
    assert maps.any()
    with torch.inference_mode():
        assert logits == pytest.approx(model(slices).numpy(), abs=1e-4)


def test_an_earlier_map_has_more_places():
    model = build_classifier(cnn_section()).eval()
    assert last_feature_map(model, torch.zeros(1, 1, 96, 96), least=5).shape == (6, 6)


def test_too_small_an_input_is_said():
    with pytest.raises(ClotlineError, match="raise its input_size"):
        last_feature_map(classifier(), torch.zeros(1, 1, 4, 4))


def test_no_hook_stays_behind():
    model = classifier()
    last_feature_map(model, torch.zeros(1, 1, 12, 12))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_maps_are_read_as_written_and_found_by_slice(tmp_path):
    maps = np.arange(24, dtype=np.float32).reshape(4, 2, 3)
    # Each study numbers its slices from 1.
    uids = [("a", "s", "1"), ("a", "s", "2"), ("b", "s", "1"), ("b", "t", f"{'1' * 64}#12")]
    written = Activation(maps, np.array([-1.5, 0, 1, 2], np.float32), uids, 224)
    write_activation(tmp_path / "m.h5", written, "resnext50")
    found = read_activation(tmp_path / "m.h5").of([uids[3], uids[1]])
    assert (found.maps == maps[[3, 1]]).all()
    assert found.logits.tolist() == [2, 0]
    assert (found.uids, found.crop) == ([uids[3], uids[1]], 224)
    write_activation(tmp_path / "again.h5", written, "resnext50")
    assert (tmp_path / "again.h5").read_bytes() == (tmp_path / "m.h5").read_bytes()


def test_maps_are_named_by_their_files_alone_or_in_a_folder(tmp_path):
    for name in ("resnext50", "densenet121"):
        maps = Activation(np.ones((1, 2, 2)), np.zeros(1), [(name, "s", "1")], 224)
        write_activation(tmp_path / f"{name}.h5", maps, name)
    assert list(read_activations([tmp_path / "resnext50.h5"])) == ["resnext50"]
    found = read_activations([tmp_path])
    assert {name: maps.uids[0][0] for name, maps in found.items()} == {
        "densenet121": "densenet121",
        "resnext50": "resnext50",
    }


def test_values_beyond_float16_are_its_largest(tmp_path):
    maps = np.full((1, 1, 1), 1e9, np.float32)
    write_activation(tmp_path / "m.h5", Activation(maps, np.zeros(1), [("a", "s", "1")], 224), "b")
    assert read_activation(tmp_path / "m.h5").maps.max() == 65504


def test_a_missing_or_foreign_file_of_maps_is_named(tmp_path):
    path = tmp_path / "m.h5"
    with pytest.raises(ClotlineError, match="there is no file"):
        read_activation(path)
    with h5py.File(path, "w") as file:
        file.attrs["format"] = "other"
    with pytest.raises(ClotlineError, match="not clotline-activation 2"):
        read_activation(path)
