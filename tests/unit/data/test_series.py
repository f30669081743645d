"""New studies of any names and folders."""

import os
import shutil
from zlib import crc32

import numpy as np
import pandas as pd
import pytest
from builders import write_dicom
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import MPEG2MPML, ExplicitVRBigEndian, SecondaryCaptureImageStorage

from clotline.data.series import MIN_SLICES, NothingChosenError, find_series, list_files
from clotline.errors import ClotlineError
from clotline.labels import IMAGE_LABEL, SERIES_UID, SOP_UID, STUDY_LABELS, STUDY_UID

PIXELS = np.zeros((8, 8), np.int16)


def pixels_of(*words):
    """A picture of its own for each slice: what is alike in all is a copy."""
    return PIXELS + np.int16(crc32(repr(words).encode()) % 1000)


def write_series(folder, study, series, count=MIN_SLICES, **tags):
    """Slices named by number, in an order that is not that of their positions."""
    for number in range(count):
        elements = {
            "StudyInstanceUID": study,
            "SeriesInstanceUID": series,
            "SOPInstanceUID": f"{series}.{number}",
            "InstanceNumber": number,
            "ImagePositionPatient": [0, 0, 2.5 * (number * 7 % count)],
        }
        pixels = pixels_of(study, series, folder.name if count == 1 else "", number)
        write_dicom(folder / f"{number}", pixels, **(elements | tags))


def find(folder, **arguments):
    return find_series(folder, list_files(folder), **arguments)


def chosen(folder):
    _, series, _ = find(folder)
    return series.loc[series["chosen"], SERIES_UID].tolist()


def test_series_are_found_by_their_headers_wherever_they_lie(tmp_path):
    write_series(tmp_path / "b/deep/er", "1.1", "1.1.1")
    write_series(tmp_path / "a", "2.1", "2.1.1")
    (tmp_path / "notes.txt").write_text("no DICOM")
    rows, series, left_out = find(tmp_path, workers=2)
    assert series[[STUDY_UID, SERIES_UID, "slices", "chosen"]].values.tolist() == [
        ["1.1", "1.1.1", MIN_SLICES, True],
        ["2.1", "2.1.1", MIN_SLICES, True],
    ]
    assert set(series["reason"]) == {"the only axial CT scan, without contrast agent"}
    assert len(rows) == 2 * MIN_SLICES
    assert rows.set_index(SOP_UID)["path"]["1.1.1.3"] == "b/deep/er/3"
    assert (rows[[IMAGE_LABEL, *STUDY_LABELS]] == -1).all(axis=None)
    assert left_out.values.tolist() == [["notes.txt", "not a DICOM file"]]


def test_of_several_series_the_one_with_contrast_then_the_longest_is_taken(tmp_path):
    write_series(tmp_path / "plain", "1", "1.1", count=30)
    write_series(tmp_path / "thick", "1", "1.2", count=20, ContrastBolusAgent="Iopamidol")
    write_series(tmp_path / "thin", "1", "1.3", count=24, ContrastBolusAgent="Iopamidol")
    _, series, left_out = find(tmp_path)
    reasons = series.set_index(SERIES_UID)["reason"].to_dict()
    assert chosen(tmp_path) == ["1.3"]
    assert reasons == {
        "1.1": "series 1.3 was preferred: contrast (said to be enhanced; here nothing said)",
        "1.2": "series 1.3 was preferred: positions (24; here 20)",
        "1.3": "one of 2 of equal standing, by positions (24, not 20), with contrast agent",
    }
    assert left_out["reason"].value_counts().to_dict() == {reasons["1.1"]: 30, reasons["1.2"]: 20}


def test_a_series_has_contrast_agent_where_one_of_its_slices_says_so(tmp_path):
    write_series(tmp_path / "plain", "1", "1.1", count=30)
    write_series(tmp_path / "scan", "1", "1.2", count=19)
    agent = {"SOPInstanceUID": "9", "ContrastBolusAgent": "Iopamidol"}
    agent["ImagePositionPatient"] = [0, 0, 47.5]
    write_series(tmp_path / "one", "1", "1.2", count=1, InstanceNumber=99, **agent)
    assert chosen(tmp_path) == ["1.2"]


@pytest.mark.parametrize(("vr", "volume"), [("LO", "80 ml"), ("DS", ["80", "40"])])
def test_a_volume_of_agent_that_is_not_one_number_refuses_no_file(tmp_path, vr, volume):
    agent = Dataset()
    agent.CodeMeaning = "Iohexol"
    agent.add(DataElement("ContrastBolusVolume", vr, volume))
    write_series(tmp_path, "1", "1.1", ContrastBolusAgentSequence=[agent])
    assert chosen(tmp_path) == ["1.1"]


def test_images_that_are_no_slices_do_not_make_a_series_longer(tmp_path):
    write_series(tmp_path / "axial", "1", "1.1", count=30)
    write_series(tmp_path / "mixed", "1", "1.2")
    coronal = {"SOPInstanceUID": "9", "ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}
    coronal["ContrastBolusAgent"] = "Iopamidol"
    write_series(tmp_path / "coronal", "1", "1.2", count=40, **coronal)
    _, series, _ = find(tmp_path)
    assert chosen(tmp_path) == ["1.1"]
    assert series.set_index(SERIES_UID)["slices"].to_dict() == {"1.1": 30, "1.2": MIN_SLICES}


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"Modality": "MR"}, "Modality is not CT: MR"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "a localizer, not a slice"),
        (
            {"SOPClassUID": SecondaryCaptureImageStorage},
            "SOPClassUID is not CT Image Storage: Secondary Capture Image Storage",
        ),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}, "not axial"),
        ({"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, "not axial"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0.766, 0.643]}, "not axial"),
        ({"ImageOrientationPatient": [0, 0, 0, 0, 0, 0]}, "not axial"),
        ({"ImageOrientationPatient": None}, "no ImageOrientationPatient"),
        ({"NumberOfFrames": 12}, "more than one frame: 12"),
        (
            {"count": MIN_SLICES - 1},
            f"too few slices: {MIN_SLICES - 1}; at least {MIN_SLICES} are needed",
        ),
    ],
)
def test_a_series_that_is_no_ctpa_is_left_out_with_the_reason(tmp_path, tags, reason):
    write_series(tmp_path / "good", "1", "1.1")
    write_series(tmp_path / "bad", "1", "1.2", **tags)
    _, series, left_out = find(tmp_path)
    assert chosen(tmp_path) == ["1.1"]
    assert series.set_index(SERIES_UID)["reason"]["1.2"] == reason
    assert set(left_out["reason"]) == {reason}


def test_a_tilted_gantry_is_still_axial(tmp_path):
    angle = np.radians(20)
    tilted = [1, 0, 0, 0, float(np.cos(angle)), float(np.sin(angle))]
    write_series(tmp_path, "1", "1.1", ImageOrientationPatient=tilted)
    assert chosen(tmp_path) == ["1.1"]


def test_a_localizer_within_a_series_is_left_out_alone(tmp_path):
    write_series(tmp_path / "slices", "1", "1.1")
    scout = {"SOPInstanceUID": "9", "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}
    write_series(tmp_path / "scout", "1", "1.1", count=1, **scout)
    rows, _, left_out = find(tmp_path)
    assert len(rows) == MIN_SLICES
    assert left_out.values.tolist() == [["scout/0", "a localizer, not a slice"]]


def test_a_copy_of_a_file_is_taken_once(tmp_path):
    write_series(tmp_path / "a", "1", "1.1")
    write_series(tmp_path / "b", "1", "1.1")
    rows, _, left_out = find(tmp_path)
    assert len(rows) == MIN_SLICES
    assert set(rows["path"].str[:2]) == {"a/"}
    assert left_out.values.tolist() == [
        [f"b/{name}", f"a copy of another file: a/{name}"]
        for name in sorted(map(str, range(MIN_SLICES)))
    ]


def test_files_that_do_not_say_where_they_lie_are_no_copies(tmp_path):
    nowhere = {"ImagePositionPatient": None, "InstanceNumber": None, "SOPInstanceUID": "9"}
    write_series(tmp_path, "1", "1.1", **nowhere)
    rows, _, left_out = find(tmp_path)
    assert len(rows) == MIN_SLICES
    assert left_out.empty


def test_slices_of_two_studies_with_one_uid_keep_it(tmp_path):
    for number in "12":
        write_series(tmp_path / number, number, f"{number}.1")
        write_dicom(
            tmp_path / number / "0",
            PIXELS,
            StudyInstanceUID=number,
            SeriesInstanceUID=f"{number}.1",
            SOPInstanceUID="9",
            ImagePositionPatient=[0, 0, 0],
        )
    rows, _, _ = find(tmp_path)
    assert len(rows) == 2 * MIN_SLICES
    assert (rows[SOP_UID] == "9").sum() == 2


@pytest.mark.parametrize("uid", ["", "1.2.3"], ids=["none", "one for all"])
def test_slices_without_a_uid_of_their_own_are_named_after_their_files(tmp_path, uid):
    write_series(tmp_path, "1", "1.1", SOPInstanceUID=uid)
    rows, _, left_out = find(tmp_path)
    assert rows[SOP_UID].is_unique
    assert rows[SOP_UID].str.fullmatch("file-[0-9a-f]{24}").all()
    assert len(rows) == MIN_SLICES
    assert left_out.empty
    again, _, _ = find(tmp_path)
    pd.testing.assert_frame_equal(rows, again)


@pytest.mark.parametrize("uid", ["../../etc", "a/b", "", "=1+1"])
def test_a_uid_that_could_leave_the_folder_is_refused(tmp_path, uid):
    write_series(tmp_path / "good", "1", "1.1")
    write_series(tmp_path / "bad", uid, "1.2", count=2)
    _, series, left_out = find(tmp_path)
    assert len(series) == 1
    assert set(left_out["reason"]) == {"no usable StudyInstanceUID"}


def test_other_encodings_are_read(tmp_path):
    write_series(tmp_path, "1", "1.1", syntax=ExplicitVRBigEndian)
    assert chosen(tmp_path) == ["1.1"]


def test_a_damaged_file_is_left_out_with_the_reason(tmp_path):
    write_series(tmp_path, "1", "1.1")
    content = (tmp_path / "0").read_bytes()
    (tmp_path / "broken").write_bytes(content[:140] + b"\xff" * 40)
    _, _, left_out = find(tmp_path)
    assert left_out["path"].tolist() == ["broken"]


def test_links_of_a_data_set_that_was_not_fetched_are_named(tmp_path):
    (tmp_path / "slice.dcm").symlink_to("../.git/annex/objects/SHA256E-s1--2.dcm")
    with pytest.raises(ClotlineError, match=r"(?s)a link to no file.*slice\.dcm.*datalad get"):
        find(tmp_path)


def test_no_ctpa_at_all_is_an_error_with_the_reasons(tmp_path):
    write_series(tmp_path, "1", "1.1", Modality="MR")
    (tmp_path / "notes.txt").write_text("no DICOM")
    with pytest.raises(ClotlineError) as caught:
        find(tmp_path)
    assert "none of 17 files is a slice of an axial CT scan of 16 positions" in str(caught.value)
    assert "16  Modality is not CT: MR; such as 0\n" in str(caught.value)
    assert "1  not a DICOM file; such as notes.txt\n" in str(caught.value)
    assert "Export the CT series of the study." in str(caught.value)


def test_a_file_that_cannot_be_read_still_belongs_to_its_study(tmp_path):
    """So that each study of a folder is accounted for."""
    film = {"syntax": MPEG2MPML, "PixelData": encapsulate([b"\x00\x00\x01\xb3"])}
    write_series(tmp_path / "film", "1", "1.1", 3, **film)
    write_series(tmp_path / "nameless", "2", "../2", 2)
    (tmp_path / "broken").write_bytes((tmp_path / "film/0").read_bytes()[:150])
    with pytest.raises(NothingChosenError) as caught:
        find(tmp_path)
    series = caught.value.series
    assert series[[STUDY_UID, SERIES_UID, "slices", "chosen", "reason"]].values.tolist() == [
        ["1", "1.1", 3, False, "no decoder for this encoding: MPEG2 Main Profile / Main Level"],
        ["2", "", 2, False, "no usable SeriesInstanceUID"],
    ]
    write_series(tmp_path / "good", "3", "3.1")
    _, series, left_out = find(tmp_path)
    assert series[STUDY_UID].tolist() == ["1", "2", "3"]
    assert len(left_out) == 3 + 2 + 1


def test_an_empty_folder_is_an_error(tmp_path):
    with pytest.raises(ClotlineError, match=r"\(predict\) holds no files"):
        list_files(tmp_path)


def test_a_name_that_is_no_utf8_text_is_left_out_and_listed(tmp_path):
    write_series(tmp_path / "good", "1", "1.1")
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/M\xfcller")
    shutil.copy(tmp_path / "good/0", odd)
    rows, _, left_out = find(tmp_path)
    assert len(rows) == MIN_SLICES
    assert left_out.values.tolist() == [["M\\xfcller", "its name is no UTF-8 text: rename it"]]
    left_out.to_csv(tmp_path / "left_out.csv")


@pytest.mark.parametrize(
    ("odd", "why"),
    [
        ({"RescaleType": "Z_EFF"}, "no Hounsfield units: RescaleType Z_EFF"),
        ({"RescaleSlope": None}, "no Hounsfield units: RescaleSlope None, RescaleIntercept"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "PhotometricInterpretation is not"),
        ({"PixelData": None}, "no PixelData"),
    ],
)
def test_a_series_that_cannot_be_decoded_is_not_taken(tmp_path, odd, why):
    write_series(tmp_path / "map", "1", "1.1", ContrastBolusAgent="Iopamidol", **odd)
    write_series(tmp_path / "scan", "1", "1.2")
    _, series, _ = find(tmp_path)
    assert chosen(tmp_path) == ["1.2"]
    assert series.set_index(SERIES_UID)["reason"]["1.1"].startswith(why)


NONE = ["NONE", "no", " Native ", "W/O", "NON-CONTRAST", "w/o contrast", "None given", "-", "0"]


@pytest.mark.parametrize("word", [*NONE, "N/A", "NO IV", "unenhanced", "kein KM"])
def test_a_word_for_no_contrast_agent_is_none(tmp_path, word):
    write_series(tmp_path / "plain", "1", "1.1", ContrastBolusAgent=word)
    write_series(tmp_path / "scan", "1", "1.2", ContrastBolusAgent="Iopamidol 370")
    assert chosen(tmp_path) == ["1.2"]


@pytest.mark.parametrize("agent", ["Non-ionic contrast", "NONIONIC", "Na diatrizoate", "Nativist"])
def test_the_name_of_an_agent_is_none_of_those_words(tmp_path, agent):
    write_series(tmp_path / "plain", "1", "1.1")
    write_series(tmp_path / "scan", "1", "1.2", ContrastBolusAgent=agent)
    assert chosen(tmp_path) == ["1.2"]


@pytest.mark.parametrize("far", [123456, 1e6])
def test_a_table_far_from_its_origin_has_as_many_positions(tmp_path, far):
    for number in range(20):
        write_series(
            tmp_path / str(number),
            *("1", "1.1", 1),
            ImagePositionPatient=[0, 0, far + number / 2],
            SOPInstanceUID=f"9.{number}",
        )
    _, series, _ = find(tmp_path)
    assert series["slices"].tolist() == [20]
    assert chosen(tmp_path) == ["1.1"]


def test_a_series_at_one_place_is_not_taken(tmp_path):
    at_one_place = {"ImagePositionPatient": [0, 0, 0], "ContrastBolusAgent": "Iopamidol"}
    write_series(tmp_path / "tracking", "1", "1.1", count=40, **at_one_place)
    write_series(tmp_path / "scan", "1", "1.2")
    _, series, _ = find(tmp_path)
    assert chosen(tmp_path) == ["1.2"]
    reasons = series.set_index(SERIES_UID)["reason"]
    assert reasons["1.1"] == "too few slices: 40 at 1 position; at least 16 are needed"


def test_as_many_positions_are_needed_as_slices(tmp_path):
    write_series(tmp_path / "short", "1", "1.1", count=MIN_SLICES - 1)
    again = {"ImagePositionPatient": [0, 0, 0], "SOPInstanceUID": "9", "InstanceNumber": 99}
    write_series(tmp_path / "more", "1", "1.1", count=1, **again)
    write_series(tmp_path / "enough", "1", "1.2")
    again["ContrastBolusAgent"] = "Iopamidol"
    write_series(tmp_path / "twice", "1", "1.2", count=1, **again)
    _, series, _ = find(tmp_path)
    assert chosen(tmp_path) == ["1.2"]
    # Of two pictures of one position the one with the higher number is of a second phase.
    assert series["slices"].tolist() == [MIN_SLICES, MIN_SLICES, 1]
    assert series["chosen"].tolist() == [False, True, False]
    assert series["reason"][0] == "too few slices: 16 at 15 positions; at least 16 are needed"


def test_projections_are_taken_last(tmp_path):
    mip = {"ImageType": ["DERIVED", "SECONDARY", "AXIAL", "MIP"], "ContrastBolusAgent": "Iopamidol"}
    write_series(tmp_path / "mip", "1", "1.1", count=30, **mip)
    assert chosen(tmp_path) == ["1.1"]
    write_series(tmp_path / "scan", "1", "1.2")
    assert chosen(tmp_path) == ["1.2"]


def test_of_copies_the_largest_is_kept(tmp_path):
    write_series(tmp_path / "b", "1", "1.1")
    shutil.copytree(tmp_path / "b", tmp_path / "a")
    shutil.copytree(tmp_path / "b", tmp_path / "c")
    for cut in (tmp_path / "a/3", tmp_path / "c/3"):
        os.truncate(cut, cut.stat().st_size - 20)
    rows, _, left_out = find(tmp_path)
    assert len(rows) == MIN_SLICES
    assert "b/3" in set(rows["path"])
    reasons = left_out.set_index("path")["reason"]
    assert {reasons["a/3"], reasons["c/3"]} & {"a damaged copy of another file: b/3"}


def test_numbers_that_are_written_differently_are_the_same(tmp_path):
    write_series(tmp_path / "a", "1", "1.1")
    for number in range(MIN_SLICES):
        place = f"-0.0\\0.000\\{2.5 * (number * 7 % MIN_SLICES):.6f}"
        elements = {"StudyInstanceUID": "1", "SeriesInstanceUID": "1.1"}
        write_dicom(
            *(tmp_path / f"b{number}", pixels_of("1", "1.1", "", number)),
            **elements,
            SOPInstanceUID=f"1.1.{number}",
            InstanceNumber=f"{number:04}",
            ImagePositionPatient=place.split("\\"),
        )
    rows, _, left_out = find(tmp_path)
    assert len(rows) == MIN_SLICES
    assert set(left_out["reason"].str.split(":").str[0]) == {"a copy of another file"}
    assert len(left_out) == MIN_SLICES


def test_two_studies_of_an_anonymiser_that_gives_all_the_same_series_are_two(tmp_path):
    write_series(tmp_path / "a", "1", "9.9")
    write_series(tmp_path / "b", "2", "9.9")
    rows, _, left_out = find(tmp_path)
    assert rows[STUDY_UID].value_counts().to_dict() == {"1": MIN_SLICES, "2": MIN_SLICES}
    assert left_out.empty


def test_a_gantry_tilt_of_thirty_degrees_is_axial(tmp_path):
    write_series(tmp_path, "1", "1.1", ImageOrientationPatient=[1, 0, 0, 0, 0.866, -0.5])
    assert chosen(tmp_path) == ["1.1"]


@pytest.mark.parametrize("orientation", [[-1, 0, 0, 0, 1, 0], [1, 0, 0, 0, -1, 0]])
def test_a_mirrored_series_is_axial(tmp_path, orientation):
    write_series(tmp_path, "1", "1.1", ImageOrientationPatient=orientation)
    assert chosen(tmp_path) == ["1.1"]
