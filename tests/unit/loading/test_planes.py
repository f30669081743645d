"""Which slices are the planes of a slice's input, and how they reach the network."""

import numpy as np
import pandas as pd
import pytest
import torch
from builders import checkpoint_of, cnn_section, write_noise
from hypothesis import given
from hypothesis import strategies as st

from clotline.data.features_file import open_features
from clotline.data.shards import CHECKSUM, POSITION, StoredPixels, read_rows
from clotline.labels import IMAGE_LABEL, SERIES_UID, SOP_UID, STUDY_UID
from clotline.loading.planes import add_planes, plane_columns
from clotline.loading.preprocessing import View
from clotline.loading.sampling import LabelEpochs, locate_slices
from clotline.loading.scaling import MEAN, STD
from clotline.loading.slice_loader import SliceLoader, StoredSlices
from clotline.models.activation import map_slices
from clotline.models.backbones import build_classifier
from clotline.models.extractor import as_extractor
from clotline.models.features import extract_shard_features


def scan(positions, study="s", series="s.1", first=0):
    """Slices of one scan, as slices.parquet has them; each checksum is 100 more than its row."""
    rows = np.arange(first, first + len(positions))
    return pd.DataFrame(
        {STUDY_UID: study, SERIES_UID: series, "row": rows, POSITION: np.array(positions, float)}
    ).assign(**{CHECKSUM: (rows + 100).astype(np.uint64)})


def planes_of(slices, planes=3, distance_mm=None):
    """The rows of each slice's planes; the checksums must be theirs."""
    rows, checksums = plane_columns(planes)
    table = add_planes(slices, planes, distance_mm)
    assert (table[rows].to_numpy() + 100 == table[checksums].to_numpy()).all()
    return table[rows].to_numpy().tolist()


def test_the_planes_are_the_next_slices_and_the_slice_itself_at_the_ends():
    assert planes_of(scan([0, 1, 2, 3])) == [[0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 3]]
    assert planes_of(scan([0, 1, 2]), 5) == [[0, 0, 0, 1, 2], [0, 0, 1, 2, 2], [0, 1, 2, 2, 2]]
    assert planes_of(scan([7])) == [[0, 0, 0]]


def test_no_neighbour_is_of_another_scan():
    slices = pd.concat(
        [
            scan([0, 1], "a", "a.1"),
            scan([0, 1], "a", "a.2", 2),
            scan([0, 1], "b", "b.1", 4),
        ],
        ignore_index=True,
    )
    for distance in (None, 1):
        found = planes_of(slices, 3, distance)
        assert found == [[0, 0, 1], [0, 1, 1], [2, 2, 3], [2, 3, 3], [4, 4, 5], [4, 5, 5]]


@pytest.mark.parametrize("distance", [None, 4])
def test_nor_is_one_of_another_scan_of_the_same_series(distance):
    first, second = scan(range(0, 20, 2)), scan(range(4, 14, 2), first=10)
    both = pd.concat([first, second], ignore_index=True)
    apart = planes_of(first, 3, distance) + planes_of(second, 3, distance)
    assert planes_of(both, 3, distance) == apart


def test_a_gap_has_no_neighbours_beyond_it():
    found = planes_of(scan([0, 1, 2, 9, 10, 11]))
    assert found[2:4] == [[1, 2, 2], [3, 3, 4]]
    assert planes_of(scan([0, 1, 2, 9, 10, 11]), 3, 1.0)[2:4] == [[1, 2, 2], [3, 3, 4]]
    # Twice the usual step is none.
    assert planes_of(scan([0, 1, 2, 4, 5, 6]))[2] == [1, 2, 3]


def test_a_distance_takes_the_slices_nearest_to_there():
    assert planes_of(scan(np.arange(6) * 0.6), 3, 1.25)[2] == [0, 2, 4]
    assert planes_of(scan([0, 1, 2, 2.4, 5]), 3, 2)[:3] == [[0, 0, 2], [0, 1, 3], [0, 2, 4]]
    assert planes_of(scan([0, 5, 10]), 3, 1) == [[0, 0, 0], [1, 1, 1], [2, 2, 2]]


def test_without_positions_the_next_slices_are_taken():
    for distance in (None, 2.5):
        for positions in ([np.nan] * 3, [0, np.nan, 2]):
            assert planes_of(scan(positions), 3, distance) == [[0, 0, 1], [0, 1, 2], [1, 2, 2]]
        assert planes_of(scan([np.nan]), 3, distance) == [[0, 0, 0]]


@given(
    st.lists(st.floats(0.1, 20), min_size=0, max_size=30),
    st.sampled_from([3, 5]),
    st.none() | st.floats(0.1, 10),
)
def test_planes_are_in_order_around_the_slice_itself(steps, planes, distance):
    positions = np.cumsum([0.0, *steps])
    found = np.array(planes_of(scan(positions), planes, distance))
    assert (found[:, planes // 2] == np.arange(len(positions))).all()
    assert (np.diff(found, axis=1) >= 0).all()
    assert found.min() >= 0 and found.max() < len(positions)
    if distance is not None:
        for offset in range(planes):
            places = positions + (offset - planes // 2) * distance
            away = np.abs(positions[:, None] - places).min(0)
            assert np.abs(positions[found[:, offset]] - places) == pytest.approx(away)


def test_one_plane_changes_nothing_and_no_slices_have_no_planes():
    slices = scan([0, 1])
    assert add_planes(slices, 1, None) is slices
    assert planes_of(slices[:0]) == []
    assert plane_columns(1) == (["row"], [CHECKSUM])


#: Three planes through two windows.
KEYS = {"crop": 64, "input_size": 32, "planes": 3, "further_windows": [[40.0, 400.0]]}


@pytest.fixture(scope="module")
def shard(tmp_path_factory):
    """A shard of 12 slices of noise, 1 mm apart; its pixels and where it lies."""
    path = tmp_path_factory.mktemp("planes") / "shard-000.h5"
    return path, write_noise(path)


def table_of(path):
    rows = read_rows(path)
    return add_planes(rows.assign(file=str(path), row=range(len(rows))), 3, None)


def test_each_channel_is_a_plane_through_a_window(shard):
    path, pixels = shard
    view = View.of(cnn_section(**KEYS | {"input_size": 64}))
    slices = StoredSlices(table_of(path), view, None)
    parts, labels = slices.read([0, 5])
    assert parts.shape == (2, *slices.shape) == (2, 3, 64, 64)
    assert labels.tolist() == [0, 1]
    for part, rows in zip(parts.numpy(), ([0, 0, 1], [4, 5, 6]), strict=True):
        assert np.array_equal(part, pixels[rows, 96:160, 96:160])
    inputs = view.inputs(parts)
    assert inputs.shape == (2, 6, 64, 64)
    for at, (level, width) in ((0, (100, 700)), (3, (40, 400))):
        window = ((parts.float() - level) / width + 0.5).clamp(0, 1)
        torch.testing.assert_close(inputs[:, at : at + 3] * STD + MEAN, window)


def test_the_planes_of_a_slice_are_changed_alike(shard):
    keys = {"rotate": 20, "scale": 0.2, "contrast": 0.2, "cutout": 0.3, "horizontal_flip": True}
    table = table_of(shard[0])
    rows, checksums = plane_columns(3)
    for names in (rows, checksums):
        table[names[0]] = table[names[2]] = table[names[1]]
    parts, _ = StoredSlices(table, View.of(cnn_section(**KEYS, **keys)), (0, 0)).read(range(12))
    assert torch.equal(parts[:, 0], parts[:, 1]) and torch.equal(parts[:, 2], parts[:, 1])
    one = StoredSlices(table, View.of(cnn_section(**KEYS | {"planes": 1}, **keys)), (0, 0))
    assert torch.equal(one.read(range(12))[0][:, 0], parts[:, 1])


@pytest.mark.parametrize("processes", [0, 2])
def test_any_number_of_loading_processes_gives_the_same_planes(shard, fabric, processes):
    view = View.of(cnn_section(**KEYS, rotate=20.0))
    slices = StoredSlices(table_of(shard[0]), view, (0, 0))
    batches = list(SliceLoader(slices, 5, fabric, processes))
    expected = view.inputs(slices.read(range(12))[0])
    assert torch.equal(torch.cat([inputs for inputs, _ in batches]), expected)


def test_a_slice_is_read_once_for_a_batch_in_order(shard, monkeypatch):
    slices = StoredSlices(table_of(shard[0]), View.of(cnn_section(**KEYS)), None)
    read, rows = StoredPixels.read, []
    monkeypatch.setattr(StoredPixels, "read", lambda p, r, c: rows.append(r) or read(p, r, c))
    slices.read(range(4))
    assert rows == [0, 1, 2, 3, 4]


def test_training_reads_positives_and_their_neighbours_from_the_shards(shard):
    path, pixels = shard
    slices = read_rows(path).assign(shard="000", row=range(12), split="train")
    positive, negative = locate_slices(add_planes(slices, 3, None), path.parent, "none.h5", 3)
    assert set(positive["file"]) == set(negative["file"]) == {str(path)}
    epoch = LabelEpochs(positive, negative, 0, (6, 6)).table(0)
    parts, labels = StoredSlices(epoch, View.of(cnn_section(**KEYS)), None).read(range(12))
    for part, label, row in zip(parts.numpy(), labels, epoch["row"], strict=True):
        expected = pixels[np.clip([row - 1, row, row + 1], 0, 11), 96:160, 96:160]
        assert np.array_equal(part, expected)
        assert label == row % 2


@pytest.mark.parametrize(
    ("library", "architecture"),
    [
        ("torchvision", "resnet18"),
        ("efficientnet-pytorch", "efficientnet-b0"),
        ("timm", "resnet10t"),
    ],
)
@pytest.mark.parametrize("channels", [1, 2, 3, 6])
def test_the_first_layer_answers_a_grey_image_as_that_of_three_channels(
    library, architecture, channels
):
    def first(planes, windows):
        torch.manual_seed(0)
        keys = {"library": library, "architecture": architecture, "planes": planes}
        windows = [[0.0, 100.0]] * (windows - 1)
        model = build_classifier(cnn_section(**keys, further_windows=windows))
        return next(m for m in model.modules() if isinstance(m, torch.nn.Conv2d))

    own = first(3, 1)
    assert own.weight.shape[1] == own.in_channels == 3
    found = first(1 if channels < 3 else 3, channels if channels < 3 else channels // 3)
    assert found.weight.shape[1] == found.in_channels == channels
    if channels == 3:
        assert torch.equal(found.weight, own.weight)
    image = torch.randn(1, 1, 16, 16)
    with torch.no_grad():
        expected = own(image.expand(-1, 3, -1, -1))
        answer = found(image.expand(-1, channels, -1, -1))
    torch.testing.assert_close(answer, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", ["resnet18", "mobilenet_v3_small"])
def test_features_and_maps_are_of_all_channels(shard, tmp_path, architecture):
    path, _ = shard
    section = cnn_section(architecture=architecture, **KEYS | {"input_size": 64})
    torch.manual_seed(0)
    model = build_classifier(section).eval()
    checkpoint = tmp_path / "network.pt"
    checkpoint_of(section, model.state_dict(), model.width).save(checkpoint)
    extract_shard_features(checkpoint, path, tmp_path / "features.h5", "network", 0, 1)
    view, table = View.of(section), table_of(path)
    with torch.no_grad():
        inputs = view.inputs(StoredSlices(table, view, None).read(range(12))[0])
        expected, logits = model.features(inputs).numpy(), model(inputs).numpy()
    with open_features(tmp_path / "features.h5") as file:
        assert file["features"][:] == pytest.approx(expected, rel=0.05, abs=0.02)
    slices = read_rows(path).assign(file=str(path), row=range(12))
    activation = map_slices(checkpoint, slices, 0, 1)
    assert activation.maps.shape == (12, 2, 2)
    assert activation.logits == pytest.approx(logits, rel=1e-3, abs=1e-4)
    assert [uid[2] for uid in activation.uids] == slices[SOP_UID].tolist()


def test_an_extractor_takes_the_networks_channels():
    model = build_classifier(cnn_section(architecture="mobilenet_v3_small", planes=3))
    assert as_extractor(model, 64).features(torch.zeros(1, 3, 64, 64)).shape == (1, model.width)


def test_planes_leave_the_labels_as_they_are(shard):
    table = table_of(shard[0])
    assert table[IMAGE_LABEL].tolist() == read_rows(shard[0])[IMAGE_LABEL].tolist()
