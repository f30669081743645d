"""Folders as hospitals, archives and anonymisers give them: what is taken, and what is told."""

import gzip
import re
import shutil
import zipfile

import nibabel
import numpy as np
import pandas as pd
import pytest
from builders import pixels_of, write_enhanced
from chests import chest_picture, write_scan
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, MediaStorageDirectoryStorage

from clotline.data.archives import Limits, unpacked
from clotline.data.ingest import write_shard
from clotline.data.series import find_series, list_files, named_series
from clotline.data.shards import POSITION
from clotline.data.study import decode_study
from clotline.errors import ClotlineError
from clotline.labels import SERIES_UID, STUDY_UID

AGENT = {"ContrastBolusAgent": "Iopamidol"}
ORIGINAL = ["ORIGINAL", "PRIMARY", "AXIAL"]


def find(folder, **arguments):
    return find_series(folder, list_files(folder), **arguments)


def taken(folder, **arguments):
    """The one study that is taken: its rows, its slices' numbers in order, and its notes."""
    rows, _, _ = find(folder, **arguments)
    study = decode_study(rows, folder)
    assert not study.rejected
    return study, pixels_of(study)[:, 4, 0].tolist(), study.notes


def of_series(folder, **arguments):
    rows, _, _ = find(folder, **arguments)
    return sorted(set(rows[SERIES_UID]))


def test_two_acquisitions_of_one_series_are_two_scans_and_the_enhanced_one_is_taken(tmp_path):
    write_scan(tmp_path / "a", blood=45, AcquisitionNumber=1)
    write_scan(
        tmp_path / "b",
        AcquisitionNumber=2,
        InstanceNumber=lambda k: 21 + k,
        SOPInstanceUID=lambda k: f"1.2.{k}",
        **AGENT,
    )
    study, numbers, _ = taken(tmp_path)
    assert numbers == list(range(20))
    assert pixels_of(study)[:, 128, 128].min() > 250
    _, series, left_out = find(tmp_path)
    assert series["scan"].tolist() == ["AcquisitionNumber 1", "AcquisitionNumber 2"]
    assert series["blood_hu"].tolist() == [45, 300]
    assert left_out["reason"].unique().tolist() == [series["reason"][0]]
    assert "(AcquisitionNumber 2) was preferred: lungs and contrast" in series["reason"][0]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({}, {"InstanceNumber": lambda k: 21 + k}),
        ({}, {"InstanceNumber": lambda k: 21 + k, "step": 2.0, "count": 30, "SliceThickness": 3}),
        ({"AcquisitionTime": "120000", "InstanceNumber": lambda k: 2 * k},
         {"AcquisitionTime": "120100", "InstanceNumber": lambda k: 2 * k + 1}),
        ({"AcquisitionTime": lambda k: f"120000.{k:02}", "InstanceNumber": None},
         {"AcquisitionTime": lambda k: f"120100.{k:02}", "InstanceNumber": None}),
    ],
)  # fmt: skip
def test_two_scans_that_nothing_names_are_never_shuffled(tmp_path, first, second):
    """Of one series and acquisition, with slices between each other."""
    write_scan(tmp_path / "a", blood=45, **first)
    step = second.get("step", 3.0)
    places = {"ImagePositionPatient": lambda k: [-180, -180, step * k + 1.5]}
    write_scan(tmp_path / "b", SOPInstanceUID=lambda k: f"1.2.{k}", **places, **second)
    study, numbers, _ = taken(tmp_path)
    assert numbers == list(range(second.get("count", 20)))
    assert pixels_of(study)[:, 128, 128].min() > 250


def test_the_ctpa_is_taken_before_a_venous_phase_of_more_slices(tmp_path):
    write_scan(tmp_path, "1.2", count=18)
    write_scan(tmp_path, "1.1", count=40, blood=170)
    assert of_series(tmp_path) == ["1.2"]


def test_a_scan_that_shows_the_bases_of_the_lungs_is_not_taken_before_the_chest(tmp_path):
    write_scan(tmp_path, "1.2", count=18)
    write_scan(tmp_path, "1.1", count=60, lungs=lambda number: number > 50, **AGENT)
    assert of_series(tmp_path) == ["1.2"]
    _, _, notes = taken(tmp_path, named=["1.1"])
    (told,) = [note for note in notes if note.startswith("the scan does not hold the lungs")]
    assert told.endswith("of its 177 mm, where 200 mm and more are usual")


def test_the_scan_is_taken_before_virtual_non_contrast_images_of_more_slices(tmp_path):
    write_scan(tmp_path, "1.2", count=18, ImageType=ORIGINAL, **AGENT)
    kind = ["DERIVED", "SECONDARY", "AXIAL", "MAT_REMOVED"]
    write_scan(tmp_path, "1.1", count=20, blood=45, ImageType=kind, **AGENT)
    assert of_series(tmp_path) == ["1.2"]


@pytest.mark.parametrize(
    "tags",
    [
        {"ImageType": ["DERIVED", "SECONDARY", "PROJECTION IMAGE", "CSA MIP", "CSAPARALLEL"]},
        {"ImageType": ["DERIVED", "PRIMARY", "VOLUME", "MAX_IP"]},
        {"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "CT_SOM5 MPR"], "SliceThickness": 15},
        {"ImageType": ["DERIVED", "SECONDARY", "REFORMATTED", "AVERAGE"]},
        {"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "VMI"], "blood": 1100},
        {"RescaleType": "100ug/cm3"},
        {"BodyPartExamined": "NECK", "SeriesDescription": "CTA carotids"},
        {"ConvolutionKernel": "B70f"},
        {"SliceThickness": 10},
    ],
)
def test_more_slices_of_something_else_are_not_taken(tmp_path, tags):
    write_scan(tmp_path, "1.2", count=18, ImageType=ORIGINAL, ConvolutionKernel="B30f", **AGENT)
    write_scan(
        tmp_path, "1.1", **({"ImageType": ORIGINAL, "ConvolutionKernel": "B30f"} | AGENT | tags)
    )
    assert of_series(tmp_path) == ["1.2"]


@pytest.mark.parametrize("word", [None, "NONCONTRAST", "NINGUNO", "Iopamidol"])
def test_the_pixels_tell_the_native_scan_whatever_the_header_says(tmp_path, word):
    write_scan(tmp_path, "1.2", count=18)
    write_scan(tmp_path, "1.1", blood=45, ContrastBolusAgent=word)
    assert of_series(tmp_path) == ["1.2"]


def test_an_agent_in_the_code_sequence_is_seen_where_pixels_are_alike(tmp_path):
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "C-B0322", "SRT", "Iohexol"
    sequence = DataElement(0x00180012, "SQ", Sequence([code]))
    write_scan(
        tmp_path, "1.2", count=18, ContrastBolusAgent="", ContrastBolusAgentSequence=sequence
    )
    write_scan(tmp_path, "1.1")
    assert of_series(tmp_path) == ["1.2"]


@pytest.mark.parametrize(
    ("tags", "enhanced"),
    [
        ({"ContrastBolusVolume": "80"}, True),
        ({"ContrastBolusVolume": "0"}, False),
        ({"ContrastFlowRate": "4"}, True),
        ({"ContrastBolusAgent": "Iohexol", "ContrastBolusRoute": "ORAL"}, False),
    ],
)
def test_volume_flow_and_route_tell_contrast(tmp_path, tags, enhanced):
    write_scan(tmp_path, "1.2", count=18, **tags)
    write_scan(tmp_path, "1.1", ContrastBolusAgent="NONE" if enhanced else None)
    assert of_series(tmp_path) == ["1.2" if enhanced else "1.1"]


def test_what_looks_unenhanced_is_never_taken_without_a_note(tmp_path):
    write_scan(tmp_path, blood=45, **AGENT)
    _, _, notes = taken(tmp_path)
    assert "looks unenhanced: blood of about 45 HU, where a CTPA has 150 HU or more" in notes


def test_a_study_sent_twice_has_each_slice_once(tmp_path):
    write_scan(tmp_path / "first", **AGENT)
    write_scan(tmp_path / "again", SOPInstanceUID=lambda k: f"1.2.{k}", **AGENT)
    _, numbers, _ = taken(tmp_path)
    assert numbers == list(range(20))
    _, _, left_out = find(tmp_path)
    assert left_out["reason"][0].startswith("a copy of another file: ")
    assert len(left_out) == 20


def test_positions_count_and_not_files(tmp_path):
    for name in ("first", "again"):
        lung = {"SOPInstanceUID": lambda k, name=name: f"1.{len(name)}.{k}"}
        write_scan(tmp_path / name, "1.1", count=18, **lung)
    write_scan(tmp_path, "1.2", count=20)
    assert of_series(tmp_path) == ["1.2"]


def test_two_patients_of_the_same_uids_are_refused_with_both_files_named(tmp_path):
    same = {"StudyInstanceUID": "1", "SeriesInstanceUID": "2", "SOPInstanceUID": "3"}
    write_scan(tmp_path / "A", **same)
    write_scan(tmp_path / "B", blood=200, **same)
    with pytest.raises(ClotlineError) as caught:
        find(tmp_path)
    assert "different content: A/1.1-000 and B/1.1-000" in str(caught.value)


def test_two_patients_slice_by_slice_are_refused_with_both_files_named(tmp_path):
    same = {"StudyInstanceUID": "1", "SeriesInstanceUID": "2"}
    write_scan(tmp_path / "A", **same)
    shifted = {"ImagePositionPatient": lambda k: [-180, -180, 3.0 * k + 1.5]}
    write_scan(tmp_path / "B", blood=200, SOPInstanceUID=lambda k: f"4.{k}", **same, **shifted)
    with pytest.raises(ClotlineError, match=r"different content: A/1\.1-000 and B/1\.1-000"):
        find(tmp_path)


def test_two_reconstructions_of_one_series_without_uids_are_two_scans(tmp_path):
    for kernel, blood in (("soft", 300), ("lung", 420)):
        write_scan(tmp_path / kernel, blood=blood, SOPInstanceUID=None, ConvolutionKernel=kernel)
    rows, series, _ = find(tmp_path)
    assert set(rows["path"].str[:4]) == {"soft"}
    assert len(rows) == 20
    assert series["kernel"].tolist() == ["sharp", "soft"]


def test_two_fields_of_view_of_one_series_are_two_scans(tmp_path):
    write_scan(tmp_path / "wide")
    zoom = {"PixelSpacing": [2.0, 2.0], "SOPInstanceUID": lambda k: f"1.2.{k}"}
    write_scan(tmp_path / "zoom", InstanceNumber=lambda k: 21 + k, **zoom)
    rows, _, _ = find(tmp_path)
    assert set(rows["path"].str[:4]) == {"wide"}
    assert len(rows) == 20


def test_one_picture_of_another_matrix_is_left_out(tmp_path):
    write_scan(tmp_path)
    write_scan(tmp_path, count=1, first=20, side=96, name="odd")
    _, numbers, _ = taken(tmp_path)
    assert numbers == list(range(20))


def test_bolus_tracking_within_the_series_is_left_out(tmp_path):
    write_scan(tmp_path, AcquisitionNumber=3)
    for number in range(12):
        monitoring = [*ORIGINAL, "CT_SOM5 MON"] if number % 2 else ORIGINAL
        write_scan(
            *(tmp_path, f"9.{number:02}"),
            **{"SeriesInstanceUID": "1.1", "AcquisitionNumber": 2, "InstanceNumber": 100 + number},
            **{"SliceThickness": 10, "ImageType": monitoring, "SOPInstanceUID": f"8.{number}"},
            count=1,
            first=9,
            blood=40 + number,
        )
    _, numbers, _ = taken(tmp_path)
    assert numbers == list(range(20))


def test_one_scan_in_two_series_is_put_together(tmp_path):
    write_scan(tmp_path, "1.2", count=9)
    write_scan(tmp_path, "1.1", count=11, first=9)
    study, numbers, notes = taken(tmp_path)
    assert numbers == list(range(20))
    assert study.rows[POSITION].is_monotonic_increasing
    assert "one scan in 2 series: put together" in notes
    assert set(study.rows[SERIES_UID]) == {"1.1", "1.2"}


def test_a_series_uid_for_each_file_is_put_together(tmp_path):
    for number in range(20):
        write_scan(tmp_path, f"1.{number}", count=1, first=number)
    _, numbers, _ = taken(tmp_path)
    assert numbers == list(range(20))


def test_a_study_uid_for_each_file_is_named(tmp_path):
    write_scan(tmp_path, StudyInstanceUID=lambda k: f"7.{k}")
    with pytest.raises(ClotlineError) as caught:
        find(tmp_path)
    assert "each file in a study of its own: 20 StudyInstanceUIDs" in str(caught.value)
    assert "Anonymise again" in str(caught.value)


def test_positions_that_are_all_the_same_are_not_known(tmp_path):
    write_scan(
        tmp_path,
        ImagePositionPatient=[-180, -180, 0],
        SliceLocation=lambda k: 3 * k,
        InstanceNumber=lambda k: 30 - k,
    )
    _, numbers, notes = taken(tmp_path)
    assert numbers == list(range(20))
    assert notes[0].startswith("20 slices have the same ImagePositionPatient: ordered by SliceLoc")


@pytest.mark.parametrize("location", [lambda k: 3 * k, None])
def test_a_slice_without_a_position_stays_where_its_location_or_number_says(tmp_path, location):
    def corner(number):
        return None if number == 7 else [-180, -180, 3.0 * number]

    write_scan(tmp_path, ImagePositionPatient=corner, SliceLocation=location)
    study, numbers, notes = taken(tmp_path)
    assert numbers == list(range(20))
    said = "SliceLocation" if location else "InstanceNumber"
    assert notes[0].startswith("1 of 20 slices lack a usable ImagePositionPatient")
    assert notes[0].endswith(f"ordered by {said}")
    assert study.rows[POSITION].isna().tolist() == [number == 7 for number in range(20)]


def test_a_slice_without_an_orientation_is_left_out_and_its_gap_told(tmp_path):
    def axes(number):
        return None if number == 7 else [1, 0, 0, 0, 1, 0]

    write_scan(tmp_path, ImageOrientationPatient=axes)
    _, numbers, notes = taken(tmp_path)
    assert numbers == [number for number in range(20) if number != 7]
    assert [note for note in notes if note.startswith("missing slices: about 1 in 1 gap")]


@pytest.mark.parametrize("count", [1, 2, 15])
def test_a_few_slices_are_left_out_with_what_to_do(tmp_path, count):
    write_scan(tmp_path, count=count)
    with pytest.raises(ClotlineError) as caught:
        find(tmp_path)
    assert f"too few slices: {count}; at least 16 are needed" in str(caught.value)
    assert "Export the whole series." in str(caught.value)


def test_monochrome1_and_pixels_that_are_not_square_are_read(tmp_path):
    write_scan(
        tmp_path, PhotometricInterpretation="MONOCHROME1", PixelSpacing=[360 / 64, 360 / 64 * 0.8]
    )
    study, numbers, notes = taken(tmp_path)
    assert len(numbers) == 20
    assert any(note.startswith("pixels that are not square: 5.625 × 4.5 mm") for note in notes)
    # The body lies across 330 of 360 mm, now of 288: in 256 pixels of the longer side.
    inside = (pixels_of(study)[10, 32:] > -500).any(0)
    assert inside.sum() == pytest.approx(330 * 0.8 / 360 * 256, abs=6)


def test_named_series_are_taken_and_unknown_ones_are_an_error(tmp_path):
    write_scan(tmp_path, "1.1")
    write_scan(tmp_path, "1.2", blood=45)
    assert of_series(tmp_path) == ["1.1"]
    assert of_series(tmp_path, named=["1.2"]) == ["1.2"]
    _, _, notes = taken(tmp_path, named=["1.2"])
    assert "series named by the configuration: series 1.1 would have been chosen" in notes
    with pytest.raises(ClotlineError, match=r"series names 9\.9, and no CT image"):
        find(tmp_path, named=["9.9"])


def test_a_series_whose_words_alone_speak_against_it_can_be_named(tmp_path):
    write_scan(tmp_path, "1.1", SeriesDescription="Thorax KM, perfusion?")
    write_scan(tmp_path, "1.2", RescaleType="100ug/cm3")
    with pytest.raises(ClotlineError, match="no scan: a map of a dual-energy or perfusion scan"):
        find(tmp_path)
    _, numbers, notes = taken(tmp_path, named=["1.1"])
    assert numbers == list(range(20))
    assert "no plain scan: a map of a dual-energy or perfusion scan was taken" in notes
    with pytest.raises(ClotlineError, match=r"1\.2, which cannot be taken: no Hounsfield units"):
        find(tmp_path, named=["1.2"])


@pytest.mark.parametrize("given", ["1.2,1.3", "1.2 1.3", ["1.2", "1.3"]])
def test_series_are_named_as_one_text_or_a_list(given):
    assert named_series(given) == ["1.2", "1.3"]
    assert named_series(None) == []


def test_a_study_without_a_ctpa_is_named_on_the_screen(tmp_path, caplog):
    for number in range(3):
        odd = {"ImageOrientationPatient": None} if number == 1 else {}
        write_scan(tmp_path / str(number), f"1.{number}", f"7.{number}", **odd)
    rows, _, _ = find(tmp_path)
    assert rows[STUDY_UID].nunique() == 2
    (text,) = [record.getMessage() for record in caplog.records]
    assert text == "1 of 3 studies have no CTPA and are left out: 7.1: no ImageOrientationPatient"


def test_where_nothing_is_usable_one_screen_says_what_lies_there_and_what_to_do(tmp_path):
    (tmp_path / "study.rar").write_bytes(b"Rar!\x1a\x07")
    for number in range(3):
        (tmp_path / f"{number}.hdr").write_bytes(bytes(344) + b"ni1\0")
    write_scan(tmp_path, Modality="MR")
    with pytest.raises(ClotlineError) as caught:
        find(tmp_path)
    lines = str(caught.value).splitlines()
    assert len(lines) < 15
    assert lines[1].split() == [
        "20",
        "Modality",
        "is",
        "not",
        "CT:",
        "MR;",
        "such",
        "as",
        "1.1-000",
    ]
    assert "3  a volume in two files (hdr and img): convert it to one, .nii; such as 0" in lines[3]
    assert "Convert it to one file, .nii or .nrrd." in lines[4]
    assert "1  an archive: RAR; such as study.rar" in lines[5]
    assert "Unpack it, and name the folder that it gives." in lines[6]


def write_dicomdir(path):
    """A DICOMDIR without records: what tells it are the elements of its own group."""
    dataset = Dataset()
    dataset.FileSetID = "STUDY"
    dataset.OffsetOfTheFirstDirectoryRecordOfTheRootDirectoryEntity = 0
    dataset.DirectoryRecordSequence = []
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.save_as(path, enforce_file_format=True)


def test_a_medium_in_an_archive_gives_the_bits_of_its_files(tmp_path):
    medium, packed = tmp_path / "medium", tmp_path / "packed"
    write_scan(medium / "DICOM")
    write_dicomdir(medium / "DICOMDIR")
    (medium / "viewer.exe").write_bytes(b"MZ")
    packed.mkdir()
    shutil.make_archive(str(packed / "study"), "zip", medium)
    plain_rows, _, left_out = find(medium)
    assert left_out["path"].tolist() == ["viewer.exe"]
    plain = decode_study(plain_rows, medium)
    with unpacked(packed, list_files(packed)) as found:
        rows, _, left_out = find_series(found.folder, found.files, refused=found.refused)
    assert left_out.values.tolist() == [["study.zip//viewer.exe", "not a DICOM file"]]
    assert sorted(rows["path"])[0] == "study.zip//DICOM/1.1-000"
    with unpacked(packed, only=set(rows["path"])) as found:
        study = decode_study(rows, found.folder)
    assert not study.rejected
    assert np.array_equal(pixels_of(study), pixels_of(plain))
    assert study.columns == plain.columns
    assert study.notes == plain.notes


def test_a_dicomdir_alone_and_a_bomb_are_named_where_nothing_else_is_there(tmp_path):
    write_dicomdir(tmp_path / "DICOMDIR")
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(2**21))
    with (
        unpacked(tmp_path, list_files(tmp_path), limits=Limits(size=2**20)) as found,
        pytest.raises(ClotlineError) as caught,
    ):
        find_series(found.folder, found.files, refused=found.refused)
    text = str(caught.value)
    assert "Copy the whole medium: a DICOMDIR only names the files beside it." in text
    assert "an archive that cannot be unpacked: more than 1,048,576 bytes when unpacked" in text


def test_volumes_are_studies_named_after_their_files(tmp_path):
    stack = np.stack([chest_picture(64)] * 20)
    stack[:, 1, :4] = np.arange(20)[:, None]
    affine = np.diag([-5.625, -5.625, 3.0, 1.0])
    for name, array in (("Doe^John.nii", stack), ("mask.nii", (stack > 0).astype(np.uint8))):
        nibabel.save(nibabel.Nifti1Image(array.transpose(2, 1, 0), affine), tmp_path / name)
    packed = tmp_path / "Doe^John.nii"
    (tmp_path / "Doe^John.nii.gz").write_bytes(gzip.compress(packed.read_bytes()))
    packed.unlink()
    with unpacked(tmp_path, list_files(tmp_path)) as found:
        rows, series, left_out = find_series(found.folder, found.files)
        study = decode_study(rows, found.folder)
    assert left_out.values.tolist() == [
        ["mask.nii", "no Hounsfield units: values of 0 to 1, where air has -1000"]
    ]
    (uid,) = set(rows[STUDY_UID]) | set(rows[SERIES_UID])
    assert re.fullmatch(r"file-[0-9a-f]{24}", uid)
    assert study.columns["SOPInstanceUID"] == [f"{uid}#{number}" for number in range(1, 21)]
    # Here alone a name stands, as in the list of what is left out.
    assert series["scan"].tolist() == ["Doe^John.nii.gz//Doe^John.nii"]
    assert pixels_of(study)[:, 4, 0].tolist() == list(range(20))
    assert study.columns[POSITION] == [3.0 * number for number in range(20)]
    assert [note for note in study.notes if note.startswith("a short scan")]
    assert "Doe" not in "".join(study.notes)


def enhanced_phases(*bloods):
    """Frames of scans one after the other, each as of `chests.write_scan`, and their groups."""
    stored, frames = [], []
    for number, blood in enumerate(bloods, 1):
        for k in range(20):
            stored.append(chest_picture(64, blood))
            stored[-1][1, :4] = k
            place = {"ImagePositionPatient": [-180, -180, 3.0 * k]}
            content = {"FrameAcquisitionNumber": number, "StackID": "1"}
            frames.append({"PlanePositionSequence": place, "FrameContentSequence": content})
    return np.array(stored), frames


def test_the_enhanced_scan_of_an_enhanced_ct_file_is_taken_frame_by_frame(tmp_path):
    stored, frames = enhanced_phases(45, 300)
    uids = {"StudyInstanceUID": "1", "SeriesInstanceUID": "1.1", "SOPInstanceUID": "1.1.1"}
    shared = {"PixelMeasuresSequence": {"PixelSpacing": [5.625] * 2, "SliceThickness": 3}}
    write_enhanced(tmp_path / "scan", stored, frames=frames, shared=shared, **uids)
    localizer = {"CTImageFrameTypeSequence": {"FrameType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}}
    uids |= {"SeriesInstanceUID": "1.2", "SOPInstanceUID": "1.2.1"}
    write_enhanced(tmp_path / "scout", stored[:2], shared=localizer, **uids)
    rows, series, left_out = find(tmp_path)
    assert rows["path"].unique().tolist() == ["scan"]
    assert sorted(rows["frame"]) == list(range(21, 41))
    study = decode_study(rows, tmp_path)
    assert pixels_of(study)[:, 4, 0].tolist() == list(range(20))
    assert study.columns["SOPInstanceUID"] == [f"1.1.1#{number}" for number in range(21, 41)]
    assert not [note for note in study.notes if "SOPInstanceUID" in note]
    assert series["scan"].tolist() == ["AcquisitionNumber 1", "AcquisitionNumber 2", ""]
    assert series["blood_hu"].tolist()[:2] == [45, 300]
    reasons = left_out.set_index("path")["reason"]
    assert reasons["scout"] == "a localizer, not a slice"
    assert reasons.index.tolist()[:2] == ["scan#1", "scan#10"]
    assert "was preferred: lungs and contrast" in reasons["scan#1"]


def test_training_keeps_every_slice_and_never_makes_phases_neighbours(tmp_path):
    """The same reading for a labels file: nothing is left out, each scan is in order by itself."""
    write_scan(tmp_path / "a", blood=45, AcquisitionNumber=1)
    second = {"AcquisitionNumber": 2, "InstanceNumber": lambda k: 21 + k}
    write_scan(tmp_path / "b", SOPInstanceUID=lambda k: f"1.2.{k}", **second)
    paths = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("1.1-*"))
    rows = pd.DataFrame({"path": paths, STUDY_UID: "1", SERIES_UID: "1.1"})
    rows = rows.assign(SOPInstanceUID=paths, pe_present_on_image=0)
    study = decode_study(rows, tmp_path)
    assert pixels_of(study)[:, 4, 0].tolist() == [*range(20), *range(20)]
    assert pixels_of(study)[:, 128, 128].round(-1).tolist() == [40] * 20 + [300] * 20
    assert "several scans in one series, one after the other: 20, 20 slices" in study.notes


def test_strict_refuses_what_is_doubtful_and_keeps_the_rest(tmp_path):
    inside = {"count": 60, "lungs": lambda number: 3 <= number < 57}
    write_scan(tmp_path / "good", "1.1", "1", **inside)
    write_scan(tmp_path / "native", "2.1", "2", blood=45, **inside)
    rows, _, _ = find(tmp_path)
    rows = rows.assign(split="new")
    rejects, notes = write_shard(rows, tmp_path, tmp_path / "shard.h5", 1, strict=True)
    assert set(rejects[STUDY_UID]) == {"2"}
    assert len(rejects) == 60
    assert rejects["reason"][0].startswith("refused by predict_strict: looks unenhanced: blood of")
    assert notes[STUDY_UID].tolist() == ["2"]
    rejects, _ = write_shard(rows, tmp_path, tmp_path / "shard.h5", 1)
    assert rejects.empty


def test_metal_and_a_large_matrix_are_read(tmp_path):
    stored = chest_picture(1024)
    stored[:60, :60] = 30_000
    write_scan(tmp_path, count=16, side=1024, PixelData=stored.tobytes())
    study, numbers, _ = taken(tmp_path)
    assert len(numbers) == 16
    assert pixels_of(study).max() == 30_000
    assert np.median(pixels_of(study)[:, 128, 128]) == 300
