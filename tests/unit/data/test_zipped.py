"""Slices that lie in a ZIP file give what they give in a folder, and no more of it is read."""

import os
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from builders import dicom_path, labels_of, write_cohort
from file_server import serve

from clotline.data import labels_file, zipped
from clotline.data.folder import is_zip
from clotline.data.ingest import NothingStoredError, write_shard
from clotline.data.patients import first_studies
from clotline.errors import ClotlineError
from clotline.job.files import sha256
from clotline.labels import STUDY_UID


@pytest.fixture
def cohort(tmp_path):
    """Labels, their DICOM folder and the ZIP file of it, with twenty times as much beside it."""
    folder = tmp_path / "dicom"
    labels = write_cohort(labels_of({f"s{k}": [0, 1, 0] for k in range(6)}), folder)
    noise = np.random.default_rng(0)
    path = tmp_path / "all.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number, (_, row) in enumerate(labels.iterrows()):
            file = dicom_path(folder, row)
            method = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)[number % 2]
            archive.write(file, f"set/train/{file.relative_to(folder)}", method)
            archive.writestr(f"set/test/{number}", noise.bytes(20 * file.stat().st_size))
    return labels, folder, path


@pytest.fixture
def scratch(scratch):
    """Where slices are unpacked; nothing is left there."""
    yield scratch
    assert not list(scratch.iterdir())


def shard_of(labels, source, path):
    """What is written of some slices: digest of the shard, rejects and notes."""
    rejects, notes = write_shard(labels, source, path, 2)
    return sha256(path), rejects, notes


def test_a_shard_of_a_zip_file_has_the_bits_of_that_of_its_folder(cohort, scratch, tmp_path):
    labels, folder, path = cohort
    expected = shard_of(labels, folder, tmp_path / "expected.h5")
    found = shard_of(labels, path, tmp_path / "found.h5")
    assert found[0] == expected[0]
    pd.testing.assert_frame_equal(found[1], expected[1])
    pd.testing.assert_frame_equal(found[2], expected[2])


def test_of_a_server_the_list_and_what_is_needed_is_read(cohort, scratch, tmp_path, monkeypatch):
    labels, folder, path = cohort
    monkeypatch.setattr(zipped, "_GAP", 2**10)
    monkeypatch.setattr(zipped, "_LONGEST_HEADER", 2**8)
    few = labels[labels[STUDY_UID].isin(["s1", "s4"])]
    expected = shard_of(few, folder, tmp_path / "expected.h5")
    with serve(path) as served:
        found = shard_of(few, served.address, tmp_path / "found.h5")
    assert found[0] == expected[0]
    assert sum(served.asked) < path.stat().st_size / 20


def test_the_last_member_of_a_small_file_is_fetched_though_more_is_asked_for(
    cohort, scratch, tmp_path, monkeypatch
):
    labels, folder, _ = cohort
    monkeypatch.setattr(zipped, "_WAITS", ())
    few = labels[labels[STUDY_UID] == "s1"]
    path = tmp_path / "small.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for _, row in few.iterrows():
            archive.write(dicom_path(folder, row), str(dicom_path(Path(), row)))
    last = archive.infolist()[-1]
    # So little of the list follows that the longest header would not fit.
    assert path.stat().st_size < last.header_offset + last.compress_size + zipped._LONGEST_HEADER
    expected = shard_of(few, folder, tmp_path / "expected.h5")
    with serve(path) as served:
        assert shard_of(few, served.address, tmp_path / "found.h5")[0] == expected[0]


def test_what_cannot_be_had_is_rejected_with_the_true_reason(cohort, scratch, tmp_path):
    labels, folder, path = cohort
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        members = [member for member in archive.infolist() if "train" in member.filename]
    for number, damage in ((1, "content"), (2, "name"), (3, "header"), (5, "password")):
        start = members[number].header_offset
        if damage == "content":
            content[start + 200 : start + 210] = bytes(10)
        elif damage == "name":
            name = members[number].filename.encode()
            content = bytearray(bytes(content).replace(name, name[:-5] + b"x.dcm"))
        elif damage == "header":
            content[start : start + 4] = b"none"
        else:
            # In the list of members, 8 bytes after its entry's begin (APPNOTE.TXT, 4.3.12).
            entry = bytes(content).rindex(members[number].filename.encode()) - 46
            content[entry + 8] |= 1
    path.write_bytes(content)
    rejects, _ = write_shard(labels, path, tmp_path / "shard.h5", 2)
    uids = [dicom_path(folder, labels.iloc[k]).relative_to(folder).as_posix() for k in (1, 2, 3, 5)]
    reasons = dict(zip(rejects["path"], rejects["reason"], strict=True))
    assert sorted(reasons) == sorted(uids)
    assert reasons[uids[0]].startswith("damaged in the ZIP file: ")
    assert reasons[uids[1]] == f"not in {path}"
    assert reasons[uids[2]] == "damaged in the ZIP file: no member begins there"
    assert reasons[uids[3]] == "damaged in the ZIP file: it has a password"


def test_a_server_that_falters_is_asked_again(cohort, scratch, tmp_path, monkeypatch):
    labels, folder, path = cohort
    monkeypatch.setattr(zipped, "_WAITS", (0, 0))
    expected = shard_of(labels, folder, tmp_path / "expected.h5")
    with serve(path) as served:
        served.faults.extend([503, 206])
        assert shard_of(labels, served.address, tmp_path / "found.h5")[0] == expected[0]
        for faults, told in (([404], "404"), ([503] * 3, "503"), ([200], "no range requests")):
            served.faults.extend(faults)
            with pytest.raises(ClotlineError, match=told):
                write_shard(labels, served.address, tmp_path / "other.h5", 1)
    assert not (tmp_path / "other.h5").exists()


def test_a_file_that_is_none_of_these_slices_is_said(cohort, scratch, tmp_path):
    labels, *_ = cohort
    other = tmp_path / "other.zip"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("else", "")
    with pytest.raises(NothingStoredError, match=r"not in .*other.zip .*Is .* the right ZIP file"):
        write_shard(labels, other, tmp_path / "shard.h5", 1)
    other.write_text("text")
    with pytest.raises(ClotlineError, match="is no ZIP file"):
        write_shard(labels, other, tmp_path / "shard.h5", 1)


def test_a_disk_without_room_is_said(cohort, monkeypatch, tmp_path):
    labels, _, path = cohort

    def full(*_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(zipped.Path, "write_bytes", full)
    (rows,) = zipped.with_members([labels[labels[STUDY_UID] == "s1"]], str(path))
    with (
        pytest.raises(ClotlineError, match=r"no room for studies of .*CLOTLINE_SCRATCH"),
        zipped.unzipped(rows, str(path)),
    ):
        pass


def test_a_folder_may_be_called_as_a_zip_file_is(tmp_path):
    (tmp_path / "a.zip").mkdir()
    assert not is_zip(tmp_path / "a.zip")
    assert is_zip(tmp_path / "b.ZIP")
    assert is_zip("https://server/file")
    assert not is_zip(tmp_path)


def test_a_list_takes_some_studies(tmp_path):
    labels = labels_of({"s1": [0, 1], "s2": [0, 0, 0], "s3": [1]})
    labels.to_csv(tmp_path / "train.csv", index=False)
    listed = tmp_path / "list.txt"
    data = {
        "labels": str(tmp_path / "train.csv"),
        "studies": str(listed),
        "split": {"column": None, "group": None},
    }
    listed.write_text("s3\n\ns1\n")
    taken = labels_file.read_planned_labels(data)
    assert taken[STUDY_UID].astype(str).tolist() == ["s1", "s1", "s3"]
    assert taken.index.tolist() == [0, 1, 2]
    assert taken[STUDY_UID].cat.categories.tolist() == ["s1", "s3"]
    listed.write_text("s3\ns9\n")
    with pytest.raises(ClotlineError, match=r"lists 1 of 2 studies that .* no labels of, as s9"):
        labels_file.read_planned_labels(data)
    listed.write_text("\n")
    with pytest.raises(ClotlineError, match="names no study"):
        labels_file.read_planned_labels(data)


def test_patients_are_not_looked_for_in_a_zip_file(cohort):
    labels, _, path = cohort
    data = {
        "labels": __file__,
        "dicom": str(path),
        "links_root": None,
        "studies": None,
        "split": {"group": "PatientID"},
    }
    with pytest.raises(ClotlineError, match="not looked for in a ZIP file"):
        first_studies(labels, data)
