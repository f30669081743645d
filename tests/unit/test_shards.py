import random
import time
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from builders import DATA, dicom_path, labels_of, pixels_of, write_cohort, write_dicom
from hostile import TORTURE, Cases, flip_bit

from clotline.errors import ClotlineError
from clotline.hdf5 import NewHDF5
from clotline.labels import IMAGE_LABEL, SERIES_UID, SOP_UID, STUDY_LABELS, STUDY_UID, UIDS
from clotline.plan import make_plan, planned_rows
from clotline.shards import (
    POSITION,
    StoredPixels,
    collect_slices,
    copy_positives,
    decode_study,
    open_shard,
    positive_slices,
    read_rows,
    write_shard,
)

STUDIES = {"aa": [0, 1, 1, 0], "bb": [0] * 5, "cc": [1, 0, 1], "dd": [0, 1]}
SPLITS = {"aa": "train", "bb": "train", "cc": "test", "dd": "valid"}


class Cohort:
    """A small data set in two shards of two studies, decoded."""

    def __init__(self, folder):
        labels = labels_of(STUDIES)
        self.folder = folder
        self.dicom = folder / "dicom"
        self.made = write_cohort(labels, self.dicom).set_index(SOP_UID)
        labels["part"] = labels[STUDY_UID].map(SPLITS)
        split = DATA["split"] | {"column": "part"}
        plan = make_plan(labels, {"slices_per_shard": 9, "split": split})
        self.planned = planned_rows(labels, plan)
        self.shards, self.rejects = {}, {}
        for number in (0, 1):
            name = f"{number:03}"
            self.shards[name] = folder / f"shard-{name}.h5"
            self.rejects[name] = folder / f"shard-{name}.rejects.csv"
            listed, _ = write_shard(self.rows(number), self.dicom, self.shards[name], 1)
            listed.to_csv(self.rejects[name], index=False)

    def rows(self, number):
        return self.planned[self.planned["shard"] == number]

    def slices(self):
        return collect_slices(self.shards, self.rejects, self.planned)[0]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return Cohort(tmp_path_factory.mktemp("cohort"))


def study_of(folder, count=3, labels=None, **tags):
    """Writes one study's files; ``tags`` map a name to a function of the slice's number."""
    labels = labels_of({"s": [0] * count}) if labels is None else labels
    for number, (_, row) in enumerate(labels.iterrows()):
        stored = np.full((256, 256), number, np.int16)
        values = {name: value(number) for name, value in tags.items()}
        write_dicom(dicom_path(folder, row), stored, **values)
    return labels


def content_of(path):
    """Everything in a shard: attributes, columns as bytes and the slices' chunks as stored."""
    with open_shard(path) as file:
        found = {"attributes": dict(file.attrs)}
        file.visititems(
            lambda name, item: (
                found.update({name: item[:].tobytes()})
                if isinstance(item, h5py.Dataset) and name != "pixels"
                else None
            )
        )
        chunks, count = file["pixels"].id, len(file["pixels"])
        found["pixels"] = [chunks.read_direct_chunk((row, 0, 0)) for row in range(count)]
    return found


def order(study):
    """The number that `study_of` gave each stored slice."""
    return pixels_of(study)[:, 0, 0].tolist()


def test_a_shard_gives_back_what_was_decoded(cohort):
    for path in cohort.shards.values():
        rows = read_rows(path)
        made = cohort.made.loc[rows[SOP_UID]]
        with open_shard(path) as file:
            pixels = file["pixels"][:]
        assert pixels.shape == (len(rows), 256, 256)
        assert pixels.dtype == np.int16
        assert (pixels == made["hu"].to_numpy()[:, None, None]).all()
        assert rows[IMAGE_LABEL].tolist() == made[IMAGE_LABEL].tolist()
        assert rows[STUDY_UID].tolist() == made[STUDY_UID].tolist()
        assert rows[SERIES_UID].tolist() == made[SERIES_UID].tolist()
        assert rows[POSITION].tolist() == made["z"].tolist()


def test_slices_stand_in_order_along_the_scan_axis(cohort):
    assert not cohort.made["z"].is_monotonic_increasing
    for path in cohort.shards.values():
        for _, study in read_rows(path).groupby(STUDY_UID):
            assert study[POSITION].is_monotonic_increasing
            assert study[POSITION].is_unique


def test_the_study_table_says_where_each_study_lies_and_its_labels(cohort):
    with open_shard(cohort.shards["001"]) as file:
        studies = {name: file[f"studies/{name}"][:] for name in file["studies"]}
    assert studies[STUDY_UID].astype(str).tolist() == ["cc", "dd"]
    assert studies["first_row"].tolist() == [0, 3]
    assert studies["count"].tolist() == [3, 2]
    for name in STUDY_LABELS:
        assert studies[name].tolist() == [cohort.made.loc[s, name] for s in ("cc.1.0", "dd.1.0")]


def test_each_slice_is_one_chunk_in_bitshuffle_and_lz4(cohort):
    with open_shard(cohort.shards["000"]) as file:
        assert file["pixels"].chunks == (1, 256, 256)
        assert file["pixels"].attrs["unit"] == b"HU"
        assert "32008" in file["pixels"]._filters


def test_the_same_slices_give_the_same_bytes_at_another_time(tmp_path):
    labels = study_of(tmp_path)
    rows = planned_rows(labels, make_plan(labels, DATA))
    paths = [tmp_path / "first.h5", tmp_path / "second.h5"]
    for path in paths:
        write_shard(rows, tmp_path, path, 1)
        # HDF5 counts seconds.
        time.sleep(1.1)
    assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize("workers", [2, 3])
def test_the_number_of_workers_changes_nothing_that_is_stored(cohort, tmp_path, workers):
    write_shard(cohort.rows(0), cohort.dicom, tmp_path / "again.h5", workers)
    assert content_of(tmp_path / "again.h5") == content_of(cohort.shards["000"])


def test_the_order_of_a_studys_rows_changes_nothing_that_is_stored(cohort, tmp_path):
    turned = pd.concat(
        [rows.iloc[::-1] for _, rows in cohort.rows(0).groupby(STUDY_UID, sort=False)]
    )
    write_shard(turned, cohort.dicom, tmp_path / "again.h5", 1)
    assert content_of(tmp_path / "again.h5") == content_of(cohort.shards["000"])


def test_rejected_slices_are_listed_with_the_reason_and_the_others_stored(tmp_path):
    labels = study_of(tmp_path, 5, ImagePositionPatient=lambda i: [0, 0, i])
    paths = [dicom_path(tmp_path, row) for _, row in labels.iterrows()]
    paths[1].unlink()
    paths[3].write_text("no DICOM" * 99)
    listed, notes = write_shard(labels, tmp_path, tmp_path / "shard.h5", 1)
    assert listed[SOP_UID].tolist() == ["s.1.1", "s.1.3"]
    assert listed["path"].tolist() == ["s/s.1/s.1.1.dcm", "s/s.1/s.1.3.dcm"]
    assert listed["reason"].tolist() == ["no such file", "not a DICOM file"]
    assert notes.empty
    rows = read_rows(tmp_path / "shard.h5")
    assert rows[SOP_UID].tolist() == ["s.1.0", "s.1.2", "s.1.4"]
    assert len(rows) + len(listed) == len(labels)


def test_a_study_without_a_usable_slice_leaves_no_trace_in_the_shard(tmp_path):
    labels = labels_of({"good": [0, 1], "bad": [0, 0], "fine": [1]})
    study_of(tmp_path, labels=labels[labels[STUDY_UID] != "bad"])
    listed, _ = write_shard(labels, tmp_path, tmp_path / "shard.h5", 1)
    assert len(listed) == 2
    with open_shard(tmp_path / "shard.h5") as file:
        assert file[f"studies/{STUDY_UID}"].asstr()[:].tolist() == ["good", "fine"]
        assert file["studies/first_row"][:].tolist() == [0, 2]


def test_a_shard_without_a_usable_slice_is_an_error_that_names_folder_and_reason(tmp_path):
    labels = labels_of({"s": [0, 0]})
    with pytest.raises(ClotlineError) as caught:
        write_shard(labels, tmp_path / "nowhere", tmp_path / "shard.h5", 1)
    message = str(caught.value)
    assert "none of the 2 slices could be stored. no such file (2)" in message
    assert f"Is {tmp_path / 'nowhere'} the right folder" in message


def test_slices_are_ordered_by_location_where_one_has_no_position(tmp_path):
    labels = study_of(
        tmp_path,
        ImagePositionPatient=lambda i: None if i == 1 else [0, 0, i],
        SliceLocation=lambda i: 10 - i,
    )
    study = decode_study(labels, tmp_path)
    assert order(study) == [2, 1, 0]
    assert study.rows[POSITION].tolist() == [8, 9, 10]
    assert "ordered by SliceLocation" in study.notes[0]


def test_slices_are_ordered_by_instance_number_where_there_is_no_position_at_all(tmp_path):
    labels = study_of(
        tmp_path, ImagePositionPatient=lambda i: None, InstanceNumber=lambda i: (2, 3, 1)[i]
    )
    study = decode_study(labels, tmp_path)
    assert order(study) == [2, 0, 1]
    assert study.rows[POSITION].tolist() == [1, 2, 3]
    assert "ordered by InstanceNumber" in study.notes[0]


def test_slices_are_ordered_by_uid_as_a_last_resort_and_the_shard_says_so(tmp_path):
    labels = study_of(tmp_path, ImagePositionPatient=lambda i: None).iloc[[2, 0, 1]]
    assert order(decode_study(labels, tmp_path)) == [0, 1, 2]
    _, notes = write_shard(labels, tmp_path, tmp_path / "shard.h5", 1)
    assert [
        "s",
        "no position and no InstanceNumber: ordered by SOPInstanceUID",
    ] in notes.values.tolist()


def test_equal_positions_are_ordered_by_instance_number_and_then_by_uid(tmp_path):
    labels = study_of(
        tmp_path,
        4,
        ImagePositionPatient=lambda i: [0, 0, 5 if i else 9],
        InstanceNumber=lambda i: (1, 4, 3, 3)[i],
    )
    for rows in (labels, labels.iloc[::-1]):
        assert order(decode_study(rows, tmp_path)) == [2, 3, 1, 0]


def test_series_of_one_study_are_not_mixed(tmp_path):
    labels = labels_of({"s": [0] * 4})
    labels[SERIES_UID] = ["s.2", "s.1", "s.2", "s.1"]
    study_of(tmp_path, labels=labels, ImagePositionPatient=lambda i: [0, 0, -i])
    assert order(decode_study(labels, tmp_path)) == [3, 1, 2, 0]


def test_every_stored_slice_is_collected_with_its_place_and_split(cohort):
    slices, rejected = collect_slices(cohort.shards, cohort.rejects, cohort.planned)
    assert len(slices) == len(cohort.planned) == 14
    assert rejected.empty
    assert slices["shard"].tolist() == ["000"] * 9 + ["001"] * 5
    assert slices["row"].tolist() == [*range(9), *range(5)]
    assert (slices["split"] == slices[STUDY_UID].map(SPLITS)).all()
    rows = pd.concat([read_rows(path) for path in cohort.shards.values()], ignore_index=True)
    assert slices[list(rows.columns)].equals(rows)


def test_a_rejected_slice_is_accounted_for(tmp_path):
    labels = study_of(tmp_path, 3).assign(shard=0, split="train")
    dicom_path(tmp_path, labels.iloc[1]).unlink()
    listed, _ = write_shard(labels, tmp_path, tmp_path / "shard.h5", 1)
    listed.to_csv(tmp_path / "rejects.csv", index=False)
    slices, rejected = collect_slices(
        {"000": tmp_path / "shard.h5"}, {"000": tmp_path / "rejects.csv"}, labels
    )
    assert slices[SOP_UID].tolist() == ["s.1.0", "s.1.2"]
    assert rejected[[SOP_UID, "reason"]].values.tolist() == [["s.1.1", "no such file"]]


def refuse(cohort, planned=None, rejects=None):
    planned = cohort.planned if planned is None else planned
    with pytest.raises(ClotlineError) as caught:
        collect_slices(cohort.shards, cohort.rejects | (rejects or {}), planned)
    assert "Delete results/data/shards" in str(caught.value)
    return str(caught.value)


def test_a_planned_row_that_is_nowhere_is_an_error(cohort):
    more = cohort.planned.iloc[[0]].assign(**{SOP_UID: "aa.1.99"})
    message = refuse(cohort, pd.concat([cohort.planned, more]))
    assert "of 15 rows of the labels file, 1 are neither stored nor rejected and 0" in message


def test_a_stored_row_that_was_not_planned_is_an_error(cohort):
    refuse(cohort, cohort.planned.iloc[1:])


def test_a_stored_row_of_another_name_than_the_planned_one_is_an_error(cohort):
    other = cohort.planned.copy()
    other.loc[0, SOP_UID] = "aa.1.99"
    assert "1 are neither" in refuse(cohort, other)


def test_a_row_both_stored_and_rejected_is_an_error(cohort, tmp_path):
    path = tmp_path / "rejects.csv"
    row = cohort.rows(0)[list(UIDS)].iloc[[2]].assign(path="x", reason="y")
    row.to_csv(path, index=False)
    assert "1 are both" in refuse(cohort, rejects={"000": path})


def test_positives_are_the_slices_with_a_clot_in_train_and_valid(cohort, tmp_path):
    slices = cohort.slices()
    path = tmp_path / "positives.h5"
    assert copy_positives(cohort.shards, slices, path) == 3
    wanted = positive_slices(slices)
    assert (wanted[IMAGE_LABEL] == 1).all()
    assert set(wanted[STUDY_UID]) == {"aa", "dd"}
    copied = read_rows(path)
    assert copied.equals(wanted[list(copied.columns)])
    with open_shard(path) as file:
        assert file["split"].asstr()[:].tolist() == ["train", "train", "valid"]
        values = file["pixels"][:, 0, 0].tolist()
        assert file["studies/first_row"][:].tolist() == [0, 2]
        assert file["studies/count"][:].tolist() == [2, 1]
        assert file["studies/central_pe"][:].tolist() == [1, 1]
    assert values == cohort.made.loc[copied[SOP_UID], "hu"].tolist()


def test_positives_are_copied_chunk_by_chunk_without_a_change_of_a_byte(cohort, tmp_path):
    slices = cohort.slices()
    path = tmp_path / "positives.h5"
    copy_positives(cohort.shards, slices, path)
    with open_shard(path) as target:
        for number, row in positive_slices(slices).iterrows():
            with open_shard(cohort.shards[row["shard"]]) as source:
                expected = source["pixels"].id.read_direct_chunk((row["row"], 0, 0))
            assert target["pixels"].id.read_direct_chunk((number, 0, 0)) == expected


def test_progress_is_told_of_every_shard_with_positives(cohort, tmp_path):
    seen = []

    def step(shards):
        for item in shards:
            seen.append(item[0])
            yield item

    copy_positives(cohort.shards, cohort.slices(), tmp_path / "positives.h5", step)
    assert seen == ["000", "001"]


def test_a_missing_or_damaged_shard_is_an_error_that_says_what_to_do(cohort, tmp_path):
    path = tmp_path / "shard.h5"
    whole = cohort.shards["000"].read_bytes()
    with pytest.raises(ClotlineError, match=f"there is no file {path}"):
        open_shard(path)
    for content in (b"", b"no HDF5", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(ClotlineError, match=f"{path} cannot be used"):
            open_shard(path)


def test_a_shard_of_the_workflow_is_made_anew_by_the_command_in_the_message(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = Path("results/data/shards/shard-000.h5")
    path.parent.mkdir(parents=True)
    path.touch()
    with pytest.raises(ClotlineError) as caught:
        open_shard(path)
    assert str(caught.value).endswith(
        f"To make it anew, rm {path} and run the same snakemake command again"
    )


def test_a_flipped_bit_in_a_shard_is_found_when_it_is_read_or_copied(cohort, tmp_path):
    source, slices = cohort.shards["000"], cohort.slices()
    slices = slices[slices["shard"] == "000"]
    content = source.read_bytes()
    rng, cases = random.Random(1), Cases()
    for number in range(150 * TORTURE):
        path = tmp_path / f"{number}.h5"
        path.write_bytes(flip_bit(content, rng))
        with cases.one(path):
            pd.testing.assert_frame_equal(read_rows(path), read_rows(source))
            pixels = StoredPixels(path)
            for row in slices.itertuples():
                expected = cohort.made["hu"][row.SOPInstanceUID]
                assert (pixels.read(row.row, row.checksum) == expected).all()
            copy_positives({"000": path}, slices, tmp_path / "positives.h5")
        path.unlink()
    assert cases.refused > 50 * TORTURE


def test_a_shard_that_is_made_anew_is_read_anew(cohort, tmp_path):
    path = tmp_path / "shard.h5"
    for name in ("000", "001"):
        path.write_bytes(cohort.shards[name].read_bytes())
        slices = cohort.slices()
        first = slices[slices["shard"] == name].iloc[0]
        expected = cohort.made["hu"][first["SOPInstanceUID"]]
        assert (StoredPixels(path).read(first["row"], first["checksum"]) == expected).all()


@pytest.mark.parametrize(("form", "version"), [("other", 1), ("clotline-shard", 1), (None, None)])
def test_a_shard_of_another_format_or_version_is_refused(tmp_path, form, version):
    path = tmp_path / "shard.h5"
    with h5py.File(path, "w") as file:
        if form:
            file.attrs.update(format=form, version=version)
    with pytest.raises(ClotlineError) as caught:
        open_shard(path)
    assert f"has format {form} version {version}, not clotline-shard 2" in str(caught.value)


def notes_of(folder, labels):
    return decode_study(labels, folder).notes


def along(step):
    return lambda number: [0, 0, step * number]


def test_a_study_in_order_has_no_note(tmp_path):
    labels = study_of(tmp_path, ImagePositionPatient=along(1), InstanceNumber=lambda i: 9 - i)
    assert notes_of(tmp_path, labels) == []


def test_several_series_in_a_study_are_noted(tmp_path):
    labels = labels_of({"s": [0] * 4})
    labels[SERIES_UID] = ["s.2", "s.1", "s.2", "s.1"]
    study_of(tmp_path, labels=labels, ImagePositionPatient=along(1))
    assert notes_of(tmp_path, labels) == ["several series: one after the other"]


def test_equal_positions_are_noted(tmp_path):
    labels = study_of(tmp_path, ImagePositionPatient=lambda i: [0, 0, i // 2])
    assert notes_of(tmp_path, labels) == [
        "slices at the same position: ordered by InstanceNumber, then SOPInstanceUID"
    ]


def test_one_sop_instance_uid_for_all_slices_is_noted_and_all_are_stored(tmp_path):
    labels = study_of(tmp_path, ImagePositionPatient=along(1), SOPInstanceUID=lambda i: "1.2")
    study = decode_study(labels, tmp_path)
    assert study.notes == ["headers of several slices name the same SOPInstanceUID"]
    assert study.rows[SOP_UID].tolist() == labels[SOP_UID].tolist()


def test_headers_of_several_series_in_one_are_noted_and_all_are_stored(tmp_path):
    labels = study_of(
        tmp_path, ImagePositionPatient=along(1), SeriesInstanceUID=lambda i: f"1.{i // 2}"
    )
    study = decode_study(labels, tmp_path)
    assert study.notes == ["headers of one series name several SeriesInstanceUIDs"]
    assert len(study.rows) == 3


@pytest.mark.parametrize("uid", ["../../outside", "/etc/passwd", "..", "../../.."])
@pytest.mark.parametrize("column", UIDS)
def test_no_path_leaves_the_data_folder(tmp_path, column, uid):
    """Whatever a UID is, though the labels file's check lets none of these pass."""
    folder = tmp_path / "data" / "dicom"
    labels = study_of(folder, 1)
    for place in (tmp_path, tmp_path / "data"):
        write_dicom(place / "outside.dcm", np.zeros((256, 256), np.int16))
    study = decode_study(labels.assign(**{column: uid}), folder)
    assert study.rows.empty
    assert study.rejects["reason"].item() in ("leads out of the data folder", "no such file")


def test_links_within_the_data_folder_are_followed_and_others_are_not(tmp_path):
    labels = labels_of({"inner": [0], "outer": [0], "file": [0]})
    folder = tmp_path / "dicom"
    study_of(folder, labels=labels.iloc[:1])
    study_of(tmp_path / "elsewhere", labels=labels.iloc[1:])
    (folder / "moved").symlink_to(folder / "inner")
    (folder / "outer").symlink_to(tmp_path / "elsewhere" / "outer")
    link = dicom_path(folder, labels.iloc[2])
    link.parent.mkdir(parents=True)
    link.symlink_to(dicom_path(tmp_path / "elsewhere", labels.iloc[2]))
    moved = labels.iloc[[0]].assign(**{STUDY_UID: "moved"})
    rows = pd.concat([labels, moved])
    study = decode_study(rows, folder)
    assert study.rows[STUDY_UID].tolist() == ["inner", "moved"]
    assert study.rejects["reason"].tolist() == ["leads out of the data folder"] * 2


def test_the_data_folder_itself_may_be_a_link(tmp_path):
    labels = study_of(tmp_path / "disk")
    (tmp_path / "dicom").symlink_to(tmp_path / "disk")
    assert len(decode_study(labels, tmp_path / "dicom").rows) == 3


def test_notes_of_a_shard_name_their_study(tmp_path):
    labels = labels_of({"one": [0, 0], "two": [0, 0]})
    study_of(tmp_path, labels=labels, ImagePositionPatient=lambda i: None if i == 2 else [0, 0, i])
    _, notes = write_shard(labels, tmp_path, tmp_path / "shard.h5", 1)
    assert notes.values.tolist() == [
        ["two", "no position and no InstanceNumber: ordered by SOPInstanceUID"],
        ["two", "slices at the same position: ordered by InstanceNumber, then SOPInstanceUID"],
    ]


def test_files_without_a_row_in_the_labels_file_are_noted(tmp_path):
    labels = study_of(tmp_path, ImagePositionPatient=along(1))
    note = "files without a row in the labels file: left out"
    assert decode_study(labels.iloc[:2], tmp_path).notes == [note]
    assert decode_study(labels, tmp_path).notes == []


@pytest.mark.parametrize(
    ("shape", "kind", "chunks"),
    [
        ((3, 128, 128), "i2", (1, 128, 128)),
        ((3, 256, 256), "f4", (1, 256, 256)),
        ((3, 256, 256), "i2", (3, 256, 256)),
    ],
)
def test_a_shard_whose_pixels_are_something_else_is_refused(tmp_path, shape, kind, chunks):
    path = tmp_path / "shard.h5"
    with NewHDF5(path, "clotline-shard", 2) as file:
        file.create_dataset("pixels", shape=shape, dtype=kind, chunks=chunks)
    with pytest.raises(ClotlineError, match="cannot be used: its pixels are"):
        StoredPixels(path)
