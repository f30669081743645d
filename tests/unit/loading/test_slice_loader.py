import pickle

import cv2
import numpy as np
import pytest
import torch
from builders import cnn_section, write_noise

from clotline.data.shards import StoredPixels, read_rows
from clotline.loading.preprocessing import View
from clotline.loading.scaling import MEAN, STD
from clotline.loading.slice_loader import SliceLoader, StoredSlices


def view(crop=256, input_size=None, vertical_flip=False, level=0.0, width=2000.0, **keys):
    return View(level, width, crop, input_size or crop, vertical_flip, **keys)


#: Every kind of augmentation at once.
AUGMENTED = {
    "vertical_flip": True, "horizontal_flip": True, "scale": 0.2, "rotate": 20, "contrast": 0.2,
    "cutout": 0.4,
}  # fmt: skip


def in_window(inputs):
    """Network inputs back to the window's 0 to 1."""
    return inputs * STD + MEAN


def inputs_of(chosen, pixels, cut):
    """One slice's (s, s) input."""
    part = np.ascontiguousarray(chosen.cut(pixels, cut))
    return chosen.inputs(torch.from_numpy(part)[None, None])[0, 0].numpy()


def central(chosen, pixels):
    return inputs_of(chosen, pixels, chosen.cuts(1, None)[0])


def augmented(chosen, pixels, count, seed=(0,)):
    return [inputs_of(chosen, pixels, cut) for cut in chosen.cuts(count, seed)]


def ramp():
    """A slice whose every pixel says where it lies: HU = row - column."""
    rows, columns = np.indices((256, 256))
    return (rows - columns).astype(np.int16)


@pytest.fixture(scope="module")
def shard(tmp_path_factory):
    """A shard of 12 slices of noise; its pixels and where it lies."""
    path = tmp_path_factory.mktemp("slices") / "shard-000.h5"
    return path, write_noise(path)


def table_of(path, rows):
    return read_rows(path).iloc[rows].assign(file=str(path), row=rows)


def test_the_view_takes_its_settings_from_a_backbones_entry():
    section = cnn_section(window_level=40, window_width=400, crop=200, input_size=100)
    assert View.of(section) == View(40, 400, 200, 100, True)


def test_the_window_maps_its_ends_to_0_and_1_and_holds_what_lies_beyond():
    pixels = np.zeros((256, 256), np.int16)
    pixels[0, :6] = (-251, -250, 100, 450, 451, 32767)
    inputs = central(view(level=100, width=700), pixels)
    assert inputs.dtype == np.float32
    assert in_window(inputs)[0, :6] == pytest.approx([0, 0, 0.5, 1, 1, 1], abs=1e-6)
    assert in_window(inputs)[1, 0] == pytest.approx(250 / 700, abs=1e-6)


def test_the_stored_slice_is_never_changed():
    pixels = ramp()
    augmented(view(crop=128, vertical_flip=True), pixels, 4)
    central(view(), pixels)
    assert (pixels == ramp()).all()


def test_the_central_crop_leaves_the_same_margin_on_all_sides():
    inputs = in_window(central(view(crop=224), ramp())) * 2000 - 1000
    assert inputs == pytest.approx(ramp()[16:240, 16:240], abs=1e-3)


@pytest.mark.parametrize(("crop", "size"), [(128, 64), (224, 96), (224, 80), (256, 32), (224, 223)])
def test_a_smaller_input_is_averaged_by_area(crop, size):
    pixels = np.random.default_rng(0).integers(-900, 900, (256, 256)).astype(np.int16)
    inputs = in_window(central(view(crop=crop, input_size=size), pixels)) * 2000 - 1000
    margin = (256 - crop) // 2
    part = pixels[margin : margin + crop, margin : margin + crop].astype(np.float32)
    expected = cv2.resize(part, (size, size), interpolation=cv2.INTER_AREA)
    assert inputs == pytest.approx(expected, abs=2e-2)


def test_the_augmented_view_is_a_crop_at_any_place_or_its_mirror_image_upside_down():
    chosen, flipped = view(crop=250, vertical_flip=True), 0
    corners = set()
    for found in augmented(chosen, ramp(), 200):
        found = np.rint(in_window(found) * 2000 - 1000).astype(int)
        flip = found[0, 0] > found[-1, 0]
        found = found[::-1] if flip else found
        flipped += flip
        # The ramp tells row - column of the corner; every place must be one of the seven by seven.
        assert (found - found[0, 0] == ramp()[:250, :250]).all()
        corners.add(found[0, 0])
    assert corners == set(range(-6, 7))
    assert 70 < flipped < 130


def test_rows_and_columns_of_the_crop_are_drawn_apart():
    cuts = view(crop=254).cuts(60, (0,))
    assert set(map(tuple, cuts["corner"])) == {(i, j) for i in range(3) for j in range(3)}


def test_without_the_flip_no_slice_is_turned_over():
    for found in augmented(view(crop=250), ramp(), 30):
        assert found[0, 0] < found[-1, 0]


def test_stored_slices_give_the_central_part_and_the_label_in_the_order_asked_for(shard):
    path, pixels = shard
    slices = StoredSlices(table_of(path, [5, 2, 2, 9]), view(crop=200), None)
    assert len(slices) == 4
    parts, labels = slices.read([0, 1, 2, 3])
    assert (parts.shape, parts.dtype) == ((4, 1, 200, 200), torch.int16)
    assert labels.dtype == torch.float32
    assert labels.tolist() == [1, 0, 0, 1]
    for part, row in zip(parts, [5, 2, 2, 9], strict=True):
        assert (part[0].numpy() == pixels[row, 28:228, 28:228]).all()
    assert torch.equal(slices.read([3, 0])[0], parts[[3, 0]])


@pytest.mark.parametrize("keys", [{"vertical_flip": True}, AUGMENTED], ids=["published", "all"])
def test_augmentation_depends_on_seed_and_place_alone(shard, keys):
    path, _ = shard
    chosen = view(crop=100, **keys)

    def parts(batches, seed):
        slices = StoredSlices(table_of(path, [3] * 8), chosen, seed)
        return torch.cat([slices.read(places)[0] for places in batches])

    forward = parts([[0, 1, 2, 3, 4, 5, 6, 7]], (1, 0))
    backward = parts([[7, 6, 5], [4], [3, 2, 1, 0]], (1, 0))
    assert torch.equal(forward, backward.flip(0))
    assert not torch.equal(forward, parts([range(8)], (1, 1)))
    assert not torch.equal(forward, parts([range(8)], (2, 0)))
    assert len({part.numpy().tobytes() for part in forward}) > 4


@pytest.mark.parametrize("processes", [0, 1, 2])
def test_any_number_of_loading_processes_gives_the_same_batches_in_order(shard, fabric, processes):
    path, _ = shard
    chosen = view(crop=64, input_size=32, **AUGMENTED)
    slices = StoredSlices(table_of(path, range(12)), chosen, (0, 0))
    parts, labels = slices.read(range(12))
    batches = list(SliceLoader(slices, 5, fabric, processes))
    assert [len(labels) for _, labels in batches] == [5, 5, 2]
    assert torch.equal(torch.cat([x for x, _ in batches]), chosen.inputs(parts))
    assert torch.equal(torch.cat([y for _, y in batches]), labels)


@pytest.mark.parametrize("processes", [0, 1])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 7])
def test_the_disk_is_asked_once_for_each_slice_two_batches_before_it_is_read(
    shard, fabric, monkeypatch, tmp_path, count, processes
):
    # A file, for a process that loads has the list of its own.
    log = (tmp_path / "done").open("a", buffering=1)
    read = StoredPixels.read

    def note(what, row):
        print(what, row, file=log)

    monkeypatch.setattr(StoredPixels, "fetch", lambda _, row: note("fetch", row))
    monkeypatch.setattr(
        StoredPixels, "read", lambda p, row, *_: note("read", row) or read(p, row, *_)
    )
    slices = StoredSlices(table_of(shard[0], range(count)), view(crop=64), None)
    assert len(list(SliceLoader(slices, 1, fabric, processes))) == count
    lines = map(str.split, (tmp_path / "done").read_text().splitlines())
    done = [(what, int(row)) for what, row in lines]
    assert sorted(done) == sorted((what, row) for what in ("fetch", "read") for row in range(count))
    for row in range(count):
        before = done[: done.index(("read", row))]
        assert [("fetch", soon) in before for soon in range(count)] == [
            soon <= row + 2 for soon in range(count)
        ]


def test_a_data_set_that_is_sent_to_another_process_opens_its_files_there(shard):
    path, _ = shard
    slices = StoredSlices(table_of(path, [1]), view(), None)
    expected = slices.read([0])[0]
    assert torch.equal(pickle.loads(pickle.dumps(slices)).read([0])[0], expected)


@pytest.mark.parametrize(("n", "train", "batches"), [(11, True, 2), (11, False, 3), (12, True, 3)])
def test_a_last_training_batch_of_one_slice_joins_the_one_before(shard, fabric, n, train, batches):
    slices = StoredSlices(table_of(shard[0], range(n)), view(crop=64), None)
    loader = SliceLoader(slices, 5, fabric, 0, train=train)
    assert len(loader) == batches
    assert sum(len(labels) for _, labels in loader) == n
