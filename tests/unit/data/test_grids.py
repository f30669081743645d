"""Slices of more pixels and of the lungs alone: stored, read, copied, and the published ones."""

import h5py
import numpy as np
import pandas as pd
import pytest
from builders import dicom_path, labels_of, pixels_of, write_dicom, write_study
from chests import chest_picture

from clotline.data.dicom.ct_slice import read_slice, resample
from clotline.data.folder import DataFolder
from clotline.data.ingest import write_shard
from clotline.data.lone_shard import stored_slices
from clotline.data.lungs import MARGIN_MM, SEARCHED
from clotline.data.positives import copy_positives
from clotline.data.shards import (
    BLOOD,
    BOX_COLUMNS,
    CHECKSUM,
    PIXEL,
    STORED_COLUMNS,
    StoredPixels,
    boxes_of,
    read_rows,
    shard_grid,
)
from clotline.data.study import decode_study
from clotline.errors import ClotlineError
from clotline.grid import LUNGS, PICTURE, PUBLISHED, SIZES, Box, Grid, grid_of
from clotline.job.disk import SLICE_BYTES, slice_bytes
from clotline.labels import IMAGE_LABEL, SERIES_UID, SOP_UID, STUDY_UID
from clotline.loading.preprocessing import View
from clotline.loading.slice_loader import StoredSlices
from clotline.workflow.config import load_config

#: Of a drawn chest in a picture of 360 mm, whose lungs are 248 mm wide and 160 mm high.
WIDTH_MM, FIELD_MM = 248, 360
AROUND = Grid(256, LUNGS)
ALL = [Grid(size, crop) for size in SIZES for crop in ("none", "lungs")]

WHOLE_NOTE = "pictures stored whole, not cropped to the lungs"


def write_chests(folder, count=12, side=512, uid="s", labels=None, picture=chest_picture, **tags):
    """The files of one study of chests, and their labels."""
    labels = labels_of({uid: [0, 1] * (count // 2)}) if labels is None else labels
    for number, (_, row) in enumerate(labels.iterrows()):
        pixels = picture(side) if callable(picture) else picture
        pixels[0, :9] = number
        elements = {
            "ImagePositionPatient": [-180, -180, 3 * number],
            "PixelSpacing": [FIELD_MM / side] * 2,
        }
        elements |= {
            name: value(number) if callable(value) else value for name, value in tags.items()
        }
        write_dicom(dicom_path(folder, row), pixels, **elements)
    return labels


@pytest.fixture
def chests(tmp_path):
    return write_chests(tmp_path / "dicom"), tmp_path / "dicom"


def test_the_published_grid_is_the_default():
    assert grid_of(load_config({})["data"]) == PUBLISHED == Grid(256, "none")


def test_the_published_grids_shard_is_as_it_was(chests, tmp_path):
    labels, folder = chests
    write_shard(labels, folder, tmp_path / "plain.h5", 1)
    write_shard(labels, folder, tmp_path / "named.h5", 1, grid=PUBLISHED)
    assert (tmp_path / "plain.h5").read_bytes() == (tmp_path / "named.h5").read_bytes()
    with h5py.File(tmp_path / "plain.h5") as file:
        assert file.attrs["version"] == 6
        assert sorted(file) == sorted([*STORED_COLUMNS, "pixels", "studies"])
        assert file["pixels"].shape == (12, 256, 256)
        # Four pixels of the file are one.
        expected = resample(chest_picture(512).astype(np.float32))
        assert np.array_equal(file["pixels"][5][1:], expected[1:])
    assert read_rows(tmp_path / "plain.h5")[PIXEL].unique() == pytest.approx([1.406])


@pytest.mark.parametrize("grid", ALL, ids=str)
def test_a_shard_of_each_grid_gives_back_what_was_decoded(chests, tmp_path, grid):
    labels, folder = chests
    path = tmp_path / "shard-000.h5"
    listed, notes = write_shard(labels, folder, path, 1, grid=grid)
    assert not len(listed) and not notes["note"].str.startswith(WHOLE_NOTE).any()
    assert shard_grid(path) == grid
    rows, stored = read_rows(path), StoredPixels(path)
    assert stored.size == grid.size
    decoded = pixels_of(decode_study(labels, folder, grid=grid), grid.size)
    for row, checksum in enumerate(rows[CHECKSUM]):
        assert np.array_equal(stored.read(row, checksum), decoded[row])
    boxes = boxes_of(rows)
    assert len(set(boxes)) == 1
    box = boxes[0]
    if grid.crop == LUNGS:
        assert set(BOX_COLUMNS) <= set(rows)
        assert box.side * FIELD_MM == pytest.approx(WIDTH_MM + 2 * MARGIN_MM, abs=4)
    else:
        assert not set(BOX_COLUMNS) & set(rows)
        assert box == PICTURE
    for path in folder.rglob("*.dcm"):
        read = read_slice(path, size=grid.size, box=box)
        assert any(np.array_equal(read.pixels, pixels) for pixels in decoded)
    shown = box.pixels(512)[2] / 512
    assert rows[PIXEL].unique() == pytest.approx([0.703 * 512 * shown / grid.size], abs=1e-5)


def test_what_the_pixels_say_of_blood_is_the_same_in_every_grid(tmp_path):
    labels = write_chests(tmp_path, count=20)
    found = {decode_study(labels, tmp_path, grid=grid).rows[BLOOD].iloc[0] for grid in ALL}
    assert len(found) == 1
    assert found.pop() == pytest.approx(300, abs=5)


def grating(side):
    """A chest whose heart is striped, each second column of the file's."""
    pixels = chest_picture(side)
    y, x = (np.mgrid[:side, :side] + 0.5) * FIELD_MM / side - FIELD_MM / 2
    heart = np.hypot(y / 25, (x - 10) / 25) < 1
    pixels[heart] += (
        np.where(np.arange(side) % 2, 200, -200).astype(np.int16)[None].repeat(side, 0)[heart]
    )
    return pixels


def contrast_of(pixels, box):
    """Standard deviation in HU along the rows, in the middle of the heart."""
    size = len(pixels)
    row, column = (
        int((0.5 + mm / FIELD_MM - edge) / box.side * size)
        for mm, edge in ((0, box.top), (10, box.left))
    )
    return pixels[row - 2 : row + 3, column - 8 : column + 8].std()


@pytest.mark.parametrize(
    ("grid", "least", "most"),
    [
        (Grid(256), 0, 10),
        (Grid(512), 199, 201),
        # It shows 368 pixels of the file.
        (Grid(256, LUNGS), 0, 70),
        (Grid(384, LUNGS), 90, 201),
        (Grid(512, LUNGS), 140, 201),
    ],
    ids=str,
)
def test_pixels_are_those_of_the_file_and_not_made_of_256(tmp_path, grid, least, most):
    labels = write_chests(tmp_path, picture=grating)
    study = decode_study(labels, tmp_path, grid=grid)
    box = boxes_of(study.rows)[0]
    assert least <= contrast_of(pixels_of(study, grid.size)[4], box) <= most


def test_a_part_of_as_many_pixels_as_the_grid_is_the_files_own(tmp_path):
    stored = np.random.default_rng(0).integers(-1000, 1000, (1024, 1024)).astype(np.int16)
    path = write_dicom(tmp_path / "slice.dcm", stored, PixelSpacing=[0.35, 0.35])
    part = read_slice(path, size=512, box=Box(0.25, 0.125, 0.5))
    assert np.array_equal(part.pixels, stored[128:640, 256:768])
    assert part.shown == 0.5


@pytest.mark.parametrize(
    "axes", [[-1, 0, 0, 0, -1, 0], [-1, 0, 0, 0, 1, 0], [0, 1, 0, 1, 0, 0], [0, -1, 0, 1, 0, 0]]
)
def test_the_box_is_of_the_picture_as_it_is_turned(tmp_path, axes):
    stored = np.random.default_rng(0).integers(-1000, 1000, (512, 512)).astype(np.int16)
    tags = {"PixelSpacing": [0.7, 0.7], "ImageOrientationPatient": axes}
    path = write_dicom(tmp_path / "slice.dcm", stored, **tags)
    whole = read_slice(path, size=512).pixels
    box = Box(100 / 512, 50 / 512, 256 / 512)
    assert np.array_equal(read_slice(path, box=box).pixels, whole[50:306, 100:356])


def test_the_box_does_not_depend_on_the_order_of_rows(chests, tmp_path):
    labels, folder = chests
    write_shard(labels, folder, tmp_path / "a.h5", 1, grid=AROUND)
    write_shard(labels[::-1], folder, tmp_path / "b.h5", 1, grid=AROUND)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_the_box_does_not_depend_on_the_names_of_files(tmp_path):
    """Of more slices than are searched the same ones are, where predict finds them elsewhere."""
    labels = labels_of({"s": [0] * 2 * SEARCHED})
    rng, paths = np.random.default_rng(0), []
    for number, (_, row) in enumerate(labels.iterrows()):
        pixels = np.roll(chest_picture(128), rng.integers(-12, 12), 1)
        tags = {"ImagePositionPatient": [0, 0, number], "PixelSpacing": [2.8, 2.8]}
        path = write_dicom(dicom_path(tmp_path, row), pixels, **tags)
        paths.append(f"elsewhere/{rng.integers(10**9)}")
        (tmp_path / paths[-1]).parent.mkdir(exist_ok=True)
        (tmp_path / paths[-1]).symlink_to(path)
    named = decode_study(labels, tmp_path, grid=AROUND).rows
    other = decode_study(labels.assign(path=paths, frame=0), DataFolder(str(tmp_path)), grid=AROUND)
    assert boxes_of(named) == boxes_of(other.rows)
    assert len(set(boxes_of(named))) == 1


def test_each_series_of_a_study_has_its_own_box(tmp_path):
    labels = labels_of({"s": [0] * 24})
    labels.loc[12:, SERIES_UID] = "s.2"
    first = write_chests(tmp_path, labels=labels[:12])
    moved = np.roll(chest_picture(512), 20, 1)
    write_chests(tmp_path, labels=labels[12:], picture=moved)
    study = decode_study(labels, tmp_path, grid=AROUND)
    boxes = study.rows.groupby(SERIES_UID)["box_left"].unique()
    assert [len(lefts) for lefts in boxes] == [1, 1]
    assert boxes["s.2"][0] - boxes["s.1"][0] == pytest.approx(20 / 512, abs=1 / 128)
    assert len(first) == 12


def test_a_study_without_lungs_is_stored_whole_with_a_note(tmp_path):
    labels = write_chests(tmp_path / "dicom", picture=lambda side: chest_picture(side, lungs=False))
    path = tmp_path / "shard.h5"
    listed, notes = write_shard(labels, tmp_path / "dicom", path, 1, grid=AROUND)
    assert not len(listed)
    assert f"{WHOLE_NOTE}: lungs in 0 of the 12 slices searched" in notes["note"].tolist()
    rows = read_rows(path)
    assert boxes_of(rows) == [PICTURE] * 12
    write_shard(labels, tmp_path / "dicom", tmp_path / "plain.h5", 1)
    assert rows[CHECKSUM].tolist() == read_rows(tmp_path / "plain.h5")[CHECKSUM].tolist()


def test_predict_strict_refuses_a_study_that_could_not_be_cropped(tmp_path):
    lungless = write_chests(
        tmp_path, uid="a", picture=lambda side: chest_picture(side, lungs=False)
    )
    labels = pd.concat([lungless, write_chests(tmp_path, uid="b")], ignore_index=True)
    listed, _ = write_shard(labels, tmp_path, tmp_path / "shard.h5", 1, strict=True, grid=AROUND)
    assert listed[listed["reason"].str.contains(WHOLE_NOTE)][STUDY_UID].tolist() == ["a"] * 12


def test_pictures_along_another_plane_are_not_searched_for_lungs(tmp_path):
    coronal = {
        "ImageOrientationPatient": [1, 0, 0, 0, 0, -1],
        "ImagePositionPatient": lambda number: [-180, 3 * number, 180],
    }
    labels = write_chests(tmp_path, **coronal)
    study = decode_study(labels, tmp_path, grid=AROUND)
    assert boxes_of(study.rows) == [PICTURE] * 12
    assert any(note.startswith(WHOLE_NOTE) for note in study.notes)


def test_a_file_that_cannot_be_read_is_rejected_once(chests):
    labels, folder = chests
    dicom_path(folder, labels.iloc[3]).write_text("no DICOM" * 99)
    dicom_path(folder, labels.iloc[5]).unlink()
    study = decode_study(labels, folder, grid=AROUND)
    assert study.rejects[SOP_UID].tolist() == ["s.1.3", "s.1.5"]
    assert len(study.chunks) == 10
    assert len(set(boxes_of(study.rows)) | {PICTURE}) == 2


def test_a_study_of_files_that_cannot_be_read_has_no_note(tmp_path):
    labels = labels_of({"s": [0] * 3})
    study = decode_study(labels, tmp_path, grid=AROUND)
    assert len(study.rejected) == 3 and not study.notes


def test_several_processes_give_the_same_shard(chests, tmp_path):
    labels, folder = chests
    labels = pd.concat([labels, write_chests(folder, uid="t")], ignore_index=True)
    grid = Grid(384, LUNGS)
    write_shard(labels, folder, tmp_path / "one.h5", 1, grid=grid)
    write_shard(labels, folder, tmp_path / "three.h5", 3, grid=grid)
    assert (tmp_path / "one.h5").read_bytes() == (tmp_path / "three.h5").read_bytes()


@pytest.mark.parametrize("grid", [Grid(512), Grid(384, LUNGS)], ids=str)
def test_positives_are_copied_with_their_grid(chests, tmp_path, grid):
    labels, folder = chests
    path = tmp_path / "shard-000.h5"
    write_shard(labels, folder, path, 1, grid=grid)
    slices = stored_slices(path).assign(split="train")
    assert copy_positives({"000": path}, slices, tmp_path / "positives.h5") == 6
    assert shard_grid(tmp_path / "positives.h5") == grid
    copied, original = StoredPixels(tmp_path / "positives.h5"), StoredPixels(path)
    rows = slices[slices[IMAGE_LABEL] == 1]
    for place, row in enumerate(rows.to_dict("records")):
        pixels = original.read(row["row"], row[CHECKSUM])
        assert np.array_equal(copied.read(place, row[CHECKSUM]), pixels)
    assert boxes_of(read_rows(tmp_path / "positives.h5")) == boxes_of(rows)


def loaded(path, crop, **keys):
    view = View(100.0, 700.0, crop, crop, vertical_flip=False, **keys)
    return StoredSlices(stored_slices(path).assign(file=path), view, None)


@pytest.mark.parametrize("crop", [448, 512])
def test_the_loader_cuts_the_middle_of_larger_slices(chests, tmp_path, crop):
    labels, folder = chests
    path = tmp_path / "shard-000.h5"
    write_shard(labels, folder, path, 1, grid=Grid(512))
    slices, stored = loaded(path, crop), StoredPixels(path)
    parts, _ = slices.read([7])
    pixels = stored.read(7, stored_slices(path)[CHECKSUM][7])
    margin = (512 - crop) // 2
    part = pixels[margin : margin + crop, margin : margin + crop]
    assert np.array_equal(parts[0, 0].numpy(), part)


def test_a_crop_that_is_larger_than_the_slices_is_refused(chests, tmp_path):
    labels, folder = chests
    path = tmp_path / "shard-000.h5"
    write_shard(labels, folder, path, 1)
    with pytest.raises(ClotlineError) as caught:
        loaded(path, 384)
    message = str(caught.value)
    assert "the network's crop is 384 pixels, and the slices of" in message
    assert "have 256" in message and "the same data.size" in message


def test_random_cuts_reach_all_of_larger_slices():
    view = View(100.0, 700.0, 448, 448, vertical_flip=False)
    corners = view.cuts(2000, (0,), 512)["corner"]
    assert corners.min() == 0 and corners.max() == 64


def test_larger_slices_are_turned_and_scaled_in_their_own_size():
    view = View(100.0, 700.0, 512, 512, vertical_flip=False, rotate=30, scale=0.3)
    pixels = np.full((512, 512), 100, np.int16)
    cut = view.cut(pixels, view.cuts(1, (1,), 512)[0])
    assert cut.shape == (512, 512)
    assert (cut == 100).mean() > 0.5


@pytest.mark.parametrize("size", SIZES)
def test_a_slices_bytes_go_with_its_area(size):
    assert slice_bytes(size) == pytest.approx(SLICE_BYTES * size * size / 65536)


def test_uniform_slices_are_stored_as_they_are(tmp_path):
    labels = write_study(tmp_path, 4)
    study = decode_study(labels, tmp_path, grid=Grid(512, LUNGS))
    assert pixels_of(study, 512)[:, 0, 0].tolist() == [0, 1, 2, 3]
