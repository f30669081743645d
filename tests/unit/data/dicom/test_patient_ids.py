from pathlib import Path

import numpy as np
import pytest
from builders import write_dicom
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from clotline.data.dicom import patient_ids
from clotline.data.dicom.patient_ids import hashed_patient_ids

PIXELS = np.zeros((8, 8), np.int16)


def write(folder, name, patient, **tags):
    return str(write_dicom(folder / f"{name}.dcm", PIXELS, PatientID=patient, **tags))


def test_the_same_patient_has_the_same_hash_and_nothing_of_the_id_is_in_it(tmp_path):
    files = {name: [write(tmp_path, name, who)] for name, who in ("aX", "bY", "cX")}
    found = hashed_patient_ids(files, [tmp_path])
    assert found["a"] == found["c"] != found["b"]
    assert all(len(value) == 16 and value != b"X" for value in found.values())
    # Another salt each time: a hash of one run says nothing in another.
    assert hashed_patient_ids(files, [tmp_path])["a"] != found["a"]


def test_padding_and_case_make_no_other_patient(tmp_path):
    files = {name: [write(tmp_path, name, who)] for name, who in (("a", "ab1 "), ("b", " AB1"))}
    found = hashed_patient_ids(files, [tmp_path])
    assert found["a"] == found["b"]


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_other_encodings_are_read(tmp_path, syntax):
    plain = write(tmp_path, "plain", "X")
    other = write(tmp_path, "other", "X", syntax=syntax)
    found = hashed_patient_ids({"a": [plain], "b": [other]}, [tmp_path])
    assert found["a"] == found["b"]


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_an_id_after_many_references_is_read(tmp_path, monkeypatch, syntax, undefined):
    """A reformatted slice refers to the thousands of slices that it was made of."""
    monkeypatch.setattr(patient_ids, "_HEAD", 4096)
    sources = [Dataset() for _ in range(60)]
    for number, source in enumerate(sources):
        source.ReferencedSOPClassUID = CTImageStorage
        source.ReferencedSOPInstanceUID = f"1.2.840.113619.2.55.3.1234567890.123.{number:012}"
        source.is_undefined_length_sequence_item = undefined
    sequence = DataElement("SourceImageSequence", "SQ", Sequence(sources))
    sequence.is_undefined_length = undefined
    far = write(tmp_path, "far", "X", syntax=syntax, SourceImageSequence=sequence)
    found = hashed_patient_ids({"a": [far], "b": [write(tmp_path, "near", "X")]}, [tmp_path])
    assert found["a"] == found["b"]


def test_a_file_without_file_meta_is_read(tmp_path):
    whole = write(tmp_path, "whole", "X", syntax=ImplicitVRLittleEndian)
    content = Path(whole).read_bytes()
    # The data set begins after the meta group, whose length its first element tells.
    start = 132 + 12 + int.from_bytes(content[140:144], "little")
    (tmp_path / "bare.dcm").write_bytes(content[start:])
    found = hashed_patient_ids({"a": [whole], "b": [str(tmp_path / "bare.dcm")]}, [tmp_path])
    assert found["a"] == found["b"]


def test_what_has_no_id_or_cannot_be_read_is_left_out_and_the_next_file_tells(tmp_path):
    (tmp_path / "junk.dcm").write_bytes(b"\xff" * 500)
    junk, empty = str(tmp_path / "junk.dcm"), write(tmp_path, "empty", "")
    files = {
        "none": [str(tmp_path / "missing.dcm"), junk, empty],
        "later": [junk, write(tmp_path, "x", "X")],
    }
    assert list(hashed_patient_ids(files, [tmp_path])) == ["later"]


def test_links_out_of_the_folder_are_not_followed(tmp_path):
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    path = write(outside, "a", "X")
    folder.mkdir()
    Path(folder / "link.dcm").symlink_to(path)
    files = {"a": [str(folder / "link.dcm")]}
    assert hashed_patient_ids(files, [folder]) == {}
    assert len(hashed_patient_ids(files, [folder, outside])) == 1
