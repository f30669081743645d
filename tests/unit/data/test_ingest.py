import os
import shutil
import time
import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from builders import dicom_path, labels_of, pixels_of, write_cohort, write_dicom, write_study
from chests import chest_picture

from clotline.data import decoders, ingest
from clotline.data.chunks import Chunk
from clotline.data.decoders import decode_studies
from clotline.data.dicom.ct_slice import read_slice
from clotline.data.folder import DataFolder
from clotline.data.ingest import write_shard
from clotline.data.shards import (
    BLOOD,
    KERNEL,
    ORIENTATION,
    PIXEL,
    POSITION,
    THICKNESS,
    open_shard,
    read_rows,
)
from clotline.data.study import decode_study
from clotline.errors import ClotlineError
from clotline.labels import SERIES_UID, SOP_UID, STUDY_UID, UIDS

LACKING = "slices lack a usable ImagePositionPatient or ImageOrientationPatient"
UNORDERED = f"{LACKING}, and nothing else orders them: by SOPInstanceUID"
SIDES = "slices without a usable ImageOrientationPatient: left and right are not known"
NAN = pytest.approx(np.nan, nan_ok=True)


def order(study):
    """The number that `write_study` gave each stored slice."""
    return pixels_of(study)[:, 0, 0].tolist()


def notes_of(folder, labels):
    return decode_study(labels, folder).notes


def along(step):
    return lambda number: [0, 0, step * number]


def test_rejected_slices_are_listed_with_the_reason_and_the_others_stored(tmp_path):
    labels = write_study(tmp_path, 5, ImagePositionPatient=lambda i: [0, 0, i])
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


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({}, [NAN, NAN, "", NAN]),
        ({"PixelSpacing": [0.7, 0.7], "SliceThickness": 1.25}, [0.7, 1.25, "", NAN]),
        # The longer side of the picture is that of the stored one.
        ({"PixelSpacing": [2, 1], "ConvolutionKernel": ["Br40d", "3"]}, [2, NAN, "Br40d 3", NAN]),
        ({"ConvolutionKernel": "weiß\n"}, [NAN, NAN, "wei?", NAN]),
    ],
)
def test_how_a_slice_was_made_is_stored_with_it(tmp_path, tags, expected):
    values = {name: lambda _, value=value: value for name, value in tags.items()}
    labels = write_study(tmp_path, 2, ImagePositionPatient=along(1), **values)
    write_shard(labels, tmp_path, tmp_path / "shard.h5", 1)
    rows = read_rows(tmp_path / "shard.h5")
    for row in rows[[PIXEL, THICKNESS, KERNEL, BLOOD]].values.tolist():
        assert row == expected


def test_the_blood_of_a_scan_is_stored_with_each_of_its_slices(tmp_path):
    labels = labels_of({"s": [0] * 20})
    for number, (_, row) in enumerate(labels.iterrows()):
        write_dicom(
            dicom_path(tmp_path, row),
            chest_picture(blood=310),
            ImagePositionPatient=[0, 0, 2.0 * number],
            PixelSpacing=[360 / 256] * 2,
        )
    blood = decode_study(labels, tmp_path).rows[BLOOD]
    assert blood.nunique() == 1
    assert blood[0] == pytest.approx(310, abs=20)


def test_a_study_of_which_nothing_is_left_is_named_with_the_list_of_rejects(tmp_path, caplog):
    labels = labels_of({"good": [0, 1], "bad": [0, 0], "fine": [1]})
    write_cohort(labels, tmp_path)
    for _, row in labels[labels[SOP_UID] != labels[SOP_UID][0]].iterrows():
        if row[STUDY_UID] != "fine":
            dicom_path(tmp_path, row).unlink()
    names = ("shard", "rejects", "notes")
    ingest.store_slices(
        labels, tmp_path, SimpleNamespace(**{name: tmp_path / name for name in names}), 1
    )
    text = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert text == [
        f"3 slices of 2 studies could not be taken, listed in {tmp_path / 'rejects'}",
        "nothing is left of 1 study: bad",
    ]


def test_a_study_without_a_usable_slice_leaves_no_trace_in_the_shard(tmp_path):
    labels = labels_of({"good": [0, 1], "bad": [0, 0], "fine": [1]})
    write_study(tmp_path, labels=labels[labels[STUDY_UID] != "bad"])
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
    labels = write_study(
        tmp_path,
        ImagePositionPatient=lambda i: None if i == 1 else [0, 0, i],
        SliceLocation=lambda i: 10 - i,
    )
    study = decode_study(labels, tmp_path)
    # The others' positions say that it falls towards the head.
    assert order(study) == [0, 1, 2]
    assert study.rows[POSITION].tolist() == [0, NAN, 2]
    assert study.notes == [f"1 of 3 {LACKING}: ordered by SliceLocation"]


def test_where_files_are_named_links_lead_where_they_lead(tmp_path):
    labels = write_study(tmp_path / "elsewhere", 2)
    folder = tmp_path / "new"
    folder.mkdir()
    names = ["a", "b"]
    for name, (_, row) in zip(names, labels.iterrows(), strict=True):
        (folder / name).symlink_to(dicom_path(tmp_path / "elsewhere", row))
    study = decode_study(labels.assign(path=names), folder)
    assert len(study.rows) == 2


def test_slices_are_ordered_by_instance_number_where_there_is_no_position_at_all(tmp_path):
    labels = write_study(
        tmp_path, ImagePositionPatient=lambda i: None, InstanceNumber=lambda i: (2, 3, 1)[i]
    )
    study = decode_study(labels, tmp_path)
    assert order(study) == [2, 0, 1]
    # The number of a slice is no position.
    assert study.rows[POSITION].isna().all()
    assert study.notes == [
        f"3 of 3 {LACKING}: ordered by InstanceNumber, perhaps from head to feet"
    ]


def test_slices_without_any_position_are_at_their_location_where_its_direction_is_known(tmp_path):
    labels = write_study(
        tmp_path,
        ImageOrientationPatient=lambda i: None,
        ImagePositionPatient=lambda i: [0, 0, 5 * (i // 2)],
        SliceLocation=lambda i: 10 - i,
    )
    study = decode_study(labels, tmp_path)
    assert order(study) == [0, 1, 2]
    assert study.rows[POSITION].tolist() == [-10, -9, -8]
    assert study.notes == [f"3 of 3 {LACKING}: ordered by SliceLocation", SIDES]


def test_slices_without_an_orientation_are_ordered_by_their_height(tmp_path):
    labels = write_study(
        tmp_path,
        ImageOrientationPatient=lambda i: None,
        ImagePositionPatient=lambda i: [0, 0, i],
        InstanceNumber=lambda i: 9 - i,
    )
    study = decode_study(labels, tmp_path)
    assert order(study) == [0, 1, 2]
    assert study.rows[POSITION].tolist() == [0, 1, 2]
    note = f"3 of 3 {LACKING}: ordered by the height of ImagePositionPatient"
    assert study.notes == [note, SIDES]


def test_what_does_not_tell_slices_apart_does_not_order_them(tmp_path):
    labels = write_study(
        tmp_path,
        6,
        ImagePositionPatient=lambda i: None if i == 2 else [0, 0, i],
        SliceLocation=lambda i: 0,
        InstanceNumber=lambda i: 6 - i,
    )
    study = decode_study(labels, tmp_path)
    # The known positions say where the head is.
    assert order(study) == [0, 1, 2, 3, 4, 5]
    assert study.rows[POSITION].tolist() == [0, 1, NAN, 3, 4, 5]
    assert study.notes == [f"1 of 6 {LACKING}: ordered by InstanceNumber"]


def test_one_location_for_all_slices_orders_none(tmp_path):
    labels = write_study(tmp_path, ImagePositionPatient=lambda i: None, SliceLocation=lambda i: 7)
    study = decode_study(labels.iloc[[2, 0, 1]], tmp_path)
    assert order(study) == [0, 1, 2]
    assert study.rows[POSITION].isna().all()
    assert f"3 of 3 {UNORDERED}" in study.notes


def test_a_slice_that_nothing_places_is_put_last(tmp_path):
    labels = write_study(tmp_path, 5, ImagePositionPatient=lambda i: [0, 0, -i] if i != 2 else None)
    study = decode_study(labels, tmp_path)
    assert order(study) == [4, 3, 1, 0, 2]
    assert study.rows[POSITION].tolist() == [-4, -3, -1, 0, NAN]
    assert study.notes == [f"1 of 5 {LACKING}, and nothing else orders them: put last"]


def test_each_series_is_ordered_by_what_it_has_and_in_its_own_direction(tmp_path):
    labels = labels_of({"s": [0] * 8})
    labels.loc[4:, SERIES_UID] = "s.2"
    write_study(
        tmp_path,
        labels=labels,
        ImagePositionPatient=lambda i: [0, 0, i % 4] if i != 7 else None,
        InstanceNumber=lambda i: 4 - i if i < 4 else i - 3,
    )
    study = decode_study(labels, tmp_path)
    assert order(study) == list(range(8))
    assert study.rows[POSITION].tolist() == [0, 1, 2, 3, 0, 1, 2, NAN]
    assert study.notes == [
        f"1 of 4 {LACKING}: ordered by InstanceNumber",
        "several series: one after the other",
    ]


def test_slices_are_ordered_by_uid_as_a_last_resort_and_the_shard_says_so(tmp_path):
    labels = write_study(tmp_path, ImagePositionPatient=lambda i: None).iloc[[2, 0, 1]]
    assert order(decode_study(labels, tmp_path)) == [0, 1, 2]
    _, notes = write_shard(labels, tmp_path, tmp_path / "shard.h5", 1)
    assert ["s", f"3 of 3 {UNORDERED}"] in notes.values.tolist()
    assert read_rows(tmp_path / "shard.h5")[POSITION].isna().all()


def test_equal_positions_are_ordered_by_instance_number_and_then_by_uid(tmp_path):
    labels = write_study(
        tmp_path,
        4,
        ImagePositionPatient=lambda i: [0, 0, 5 if i else 9],
        InstanceNumber=lambda i: (1, 4, 3, 3)[i],
    )
    for rows in (labels, labels.iloc[::-1]):
        assert order(decode_study(rows, tmp_path)) == [2, 3, 1, 0]


def test_no_slices_pixels_stay_while_the_next_is_read(tmp_path):
    seen = []

    def read(path):
        assert sum(pixels() is not None for pixels in seen) <= 1
        found = read_slice(path)
        seen.append(weakref.ref(found.pixels))
        return found

    study = decode_study(write_study(tmp_path, 4), tmp_path, read)
    assert len(study.chunks) == len(seen) == 4


def test_series_of_one_study_are_not_mixed(tmp_path):
    labels = labels_of({"s": [0] * 4})
    labels[SERIES_UID] = ["s.2", "s.1", "s.2", "s.1"]
    write_study(tmp_path, labels=labels, ImagePositionPatient=lambda i: [0, 0, -i])
    assert order(decode_study(labels, tmp_path)) == [3, 1, 2, 0]


def test_a_study_in_order_has_no_note(tmp_path):
    labels = write_study(tmp_path, ImagePositionPatient=along(1), InstanceNumber=lambda i: 9 - i)
    assert notes_of(tmp_path, labels) == []


def test_several_series_in_a_study_are_noted(tmp_path):
    labels = labels_of({"s": [0] * 4})
    labels[SERIES_UID] = ["s.2", "s.1", "s.2", "s.1"]
    write_study(tmp_path, labels=labels, ImagePositionPatient=along(1))
    assert notes_of(tmp_path, labels) == ["several series: one after the other"]


def test_equal_positions_are_noted(tmp_path):
    labels = write_study(tmp_path, ImagePositionPatient=lambda i: [0, 0, i // 2])
    assert notes_of(tmp_path, labels) == [
        "slices at the same position: ordered by InstanceNumber, then SOPInstanceUID"
    ]


def test_one_sop_instance_uid_for_all_slices_is_noted_and_all_are_stored(tmp_path):
    labels = write_study(tmp_path, ImagePositionPatient=along(1), SOPInstanceUID=lambda i: "1.2")
    study = decode_study(labels, tmp_path)
    assert study.notes == ["headers of several slices name the same SOPInstanceUID"]
    assert study.rows[SOP_UID].tolist() == labels[SOP_UID].tolist()


def test_headers_of_several_series_in_one_are_noted_and_all_are_stored(tmp_path):
    labels = write_study(
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
    labels = write_study(folder, 1)
    for place in (tmp_path, tmp_path / "data"):
        write_dicom(place / "outside.dcm", np.zeros((256, 256), np.int16))
    study = decode_study(labels.assign(**{column: uid}), folder)
    assert study.rows.empty
    assert study.rejects["reason"].item() in ("leads out of the data folder", "no such file")


def test_links_within_the_data_folder_are_followed_and_others_are_not(tmp_path):
    labels = labels_of({"inner": [0], "outer": [0], "file": [0]})
    folder = tmp_path / "dicom"
    write_study(folder, labels=labels.iloc[:1])
    write_study(tmp_path / "elsewhere", labels=labels.iloc[1:])
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


def write_annex(dataset, labels):
    """A data set as DataLad has it: links to files that are named after their contents."""
    write_study(dataset / "content", labels=labels)
    for _, row in labels.iterrows():
        content = dicom_path(dataset / "content", row)
        target = dataset / ".git/annex/objects" / row[SOP_UID] / "MD5E-s1.dcm"
        target.parent.mkdir(parents=True)
        content.replace(target)
        link = dicom_path(dataset / "train", row)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(target, link.parent))
    return dataset / "train"


def test_a_data_set_of_links_is_read_where_a_key_names_their_root(tmp_path):
    labels = labels_of({"aa": [0, 1], "bb": [0]})
    folder = write_annex(tmp_path / "set", labels)
    rows = labels.assign(split="train")
    with pytest.raises(ClotlineError) as caught:
        write_shard(rows, folder, tmp_path / "shard.h5", 1)
    first = dicom_path(folder, labels.iloc[0])
    assert f"{first} is a link to {first.resolve()}: " in str(caught.value)
    assert "data.links_root" in str(caught.value)
    allowed = DataFolder(str(folder), str(tmp_path / "set"))
    listed, _ = write_shard(rows, allowed, tmp_path / "shard.h5", 1)
    assert (len(listed), len(read_rows(tmp_path / "shard.h5"))) == (0, 3)
    # Another root than theirs lets nothing through.
    (tmp_path / "other").mkdir()
    study = decode_study(labels, DataFolder(str(folder), str(tmp_path / "other")))
    assert study.rejects["reason"].tolist() == ["leads out of the data folder"] * 3


def test_links_to_content_that_was_not_fetched_say_how_to_fetch_it(tmp_path):
    labels = labels_of({"aa": [0, 1]})
    folder = write_annex(tmp_path / "set", labels)
    shutil.rmtree(tmp_path / "set/.git/annex/objects")
    with pytest.raises(ClotlineError, match="git annex get"):
        write_shard(labels.assign(split="train"), folder, tmp_path / "shard.h5", 1)


def test_the_data_folder_itself_may_be_a_link(tmp_path):
    labels = write_study(tmp_path / "disk")
    (tmp_path / "dicom").symlink_to(tmp_path / "disk")
    assert len(decode_study(labels, tmp_path / "dicom").rows) == 3


def test_notes_of_a_shard_name_their_study(tmp_path):
    labels = labels_of({"one": [0, 0], "two": [0, 0]})
    write_study(
        tmp_path, labels=labels, ImagePositionPatient=lambda i: None if i == 2 else [0, 0, i]
    )
    _, notes = write_shard(labels, tmp_path, tmp_path / "shard.h5", 1)
    assert notes.values.tolist() == [
        ["two", f"1 of 2 {LACKING}, and nothing else orders them: put last"],
    ]


TURNED = "slices turned until the patient's left is on the right and the back below"


@pytest.mark.parametrize(
    ("axes", "stored", "notes"),
    [
        ([1, 0, 0, 0, 1, 0], "LP", []),
        ([-1, 0, 0, 0, -1, 0], "LP", [TURNED]),
        ([1, 0, 0, 0, 0, -1], "LF", ["slices that are not axial: stored as they are"]),
    ],
    ids=["usual", "prone", "coronal"],
)
def test_how_slices_lie_is_stored_and_what_is_unusual_noted(tmp_path, axes, stored, notes):
    labels = write_study(
        tmp_path,
        ImagePositionPatient=lambda i: [0, i, i],
        ImageOrientationPatient=lambda i: axes if i else [1, 0, 0, 0, 1, 0],
    )
    study = decode_study(labels, tmp_path)
    assert study.notes == notes
    assert sorted(study.rows[ORIENTATION]) == sorted(["LP", stored, stored])
    write_shard(labels, tmp_path, tmp_path / "shard.h5", 1)
    rows = read_rows(tmp_path / "shard.h5")
    assert rows[ORIENTATION].tolist() == study.rows[ORIENTATION].tolist()


def test_without_an_orientation_left_and_right_are_not_known(tmp_path):
    labels = write_study(
        tmp_path,
        SliceLocation=lambda i: i,
        ImageOrientationPatient=lambda i: None if i == 1 else [1, 0, 0, 0, 1, 0],
    )
    study = decode_study(labels, tmp_path)
    assert study.rows[ORIENTATION].tolist() == ["LP", "", "LP"]
    assert SIDES in study.notes


def test_files_without_a_row_in_the_labels_file_are_noted(tmp_path):
    labels = write_study(tmp_path, ImagePositionPatient=along(1))
    note = "files without a row in the labels file: left out"
    assert decode_study(labels.iloc[:2], tmp_path).notes == [note]
    assert decode_study(labels, tmp_path).notes == []


def test_a_file_of_another_kind_in_a_series_folder_is_not_noted(tmp_path):
    labels = write_study(tmp_path, ImagePositionPatient=along(1))
    dicom_path(tmp_path, labels.iloc[0]).with_name("README").write_text("scans of 2019")
    assert decode_study(labels, tmp_path).notes == []


def test_of_files_with_names_of_their_own_none_is_missing_in_a_labels_file(tmp_path):
    labels = write_study(tmp_path, ImagePositionPatient=along(1))
    named = labels.assign(path=[f"{'/'.join(uids)}.dcm" for uids in labels[list(UIDS)].to_numpy()])
    for number, path in enumerate(named["path"]):
        (tmp_path / path).rename((tmp_path / path).with_name(f"IM{number}.dcm"))
    named["path"] = [f"{Path(path).parent}/IM{n}.dcm" for n, path in enumerate(named["path"])]
    found = decode_study(named, tmp_path)
    assert len(found.chunks) == len(named)
    assert found.notes == []


# Of no chunk, of a few and of all: one takes about a thousand bytes.
@pytest.mark.parametrize("shared_bytes", [1, 3000, 2**20])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_decoded_study_stays_until_the_next_one_is_asked_for(
    tmp_path, monkeypatch, workers, shared_bytes
):
    monkeypatch.setattr(decoders, "SHARED_BYTES", shared_bytes)
    labels = labels_of({f"s{number}": [0] * 5 for number in range(3 * workers + 6)})
    write_cohort(labels, tmp_path)
    studies = [rows for _, rows in labels.groupby(STUDY_UID, sort=False)]
    for rows, found in zip(studies, decode_studies(studies, tmp_path, workers), strict=True):
        time.sleep(0.05)  # the processes go on meanwhile
        expected = decode_study(rows, tmp_path)
        assert [Chunk(bytes(c.content), c.checksum) for c in found.chunks] == expected.chunks
        pd.testing.assert_frame_equal(found.rows, expected.rows)
        shared = [isinstance(chunk.content, memoryview) for chunk in found.chunks]
        sizes = [len(chunk.content) for chunk in found.chunks]
        assert shared == (np.cumsum(sizes) <= shared_bytes).tolist()


def test_what_is_wrong_with_files_and_was_put_up_with_is_told_once_a_study(tmp_path):
    longer = {"PixelData": lambda i: np.full((256, 256), i, np.int16).tobytes() + bytes(i)}
    labels = write_study(tmp_path, 4, ImagePositionPatient=along(1), **longer)
    study = decode_study(labels, tmp_path)
    assert order(study) == [0, 1, 2, 3]
    assert study.notes == [
        "files that are not as they should be: PixelData is longer than its image: what follows it "
        "was left out"
    ]
