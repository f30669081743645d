"""Labels of a cohort, and the scans that they belong to."""

import pandas as pd
import pytest

from clotline.data.cohort import (
    FITTED,
    HELD_OUT,
    PART,
    PE_PRESENT,
    TARGETS,
    match_labels,
    parts_of,
    read_cohort,
    studies_of,
)
from clotline.errors import ClotlineError
from clotline.labels import SERIES_UID, SOP_UID, STUDY_LABELS, STUDY_UID
from clotline.workflow.cohort_description import SHIPPED, load_description

NO_SERIES = pd.DataFrame({STUDY_UID: [], "chosen": [], "reason": []}).astype({"chosen": bool})
NOTHING_LEFT_OUT = pd.DataFrame({"path": [], "reason": []}, dtype=str)


def describe(folder, **keys):
    """The complete description of a cohort with a table, some of its keys changed."""
    return load_description(folder, None) | keys


def write(folder, text, name="labels.csv"):
    (folder / name).write_text(text)
    return folder


def rows_of(paths):
    """One slice of each study: StudyInstanceUID to the path of its file."""
    table = pd.DataFrame({STUDY_UID: list(paths), "path": list(paths.values())})
    return table.assign(**{SERIES_UID: table[STUDY_UID], SOP_UID: "1", "frame": 0})


def matched(folder, paths, series=NO_SERIES, left_out=NOTHING_LEFT_OUT, share=0.3, **keys):
    description = describe(folder, **keys)
    cohort = read_cohort(folder, description)
    return match_labels(cohort, rows_of(paths), series, left_out, description, share)


def test_one_column_is_enough_and_all_else_is_unknown(tmp_path):
    cohort = read_cohort(write(tmp_path, "study,PE\na,1\nb,0\nc,\n"), describe(tmp_path))
    assert cohort.studies[PE_PRESENT].to_dict() == {"a": 1, "b": 0}
    assert (cohort.studies[list(STUDY_LABELS)] == -1).all(axis=None)
    assert cohort.missing == [("labels.csv, line 4", "no label is known")]


@pytest.mark.parametrize("separator", [";", "\t"])
def test_tables_of_spreadsheets_are_read_whatever_the_case_of_a_column(tmp_path, separator):
    text = separator.join(["Study_ID", "pe"]) + "\n" + separator.join(["a", "TRUE"]) + "\n"
    cohort = read_cohort(write(tmp_path, text), describe(tmp_path))
    assert cohort.studies[PE_PRESENT].to_dict() == {"a": 1}


def test_pe_present_follows_from_the_two_labels_that_tell_of_it(tmp_path):
    text = "study,negative_exam_for_pe,indeterminate\na,0,0\nb,1,0\nc,0,1\nd,0,\n"
    cohort = read_cohort(write(tmp_path, text), describe(tmp_path))
    assert cohort.studies[PE_PRESENT].to_dict() == {"a": 1, "b": 0, "c": 0, "d": -1}


def test_a_word_that_is_neither_yes_nor_no_is_an_error_and_never_false(tmp_path):
    write(tmp_path, "study,PE\na,1\nb,maybe\nc,maybe\n")
    with pytest.raises(ClotlineError) as caught:
        read_cohort(tmp_path, describe(tmp_path))
    said = str(caught.value)
    assert "labels.csv, line 3: PE is 'maybe' (2 such rows)" in said and "words" in said


def test_censored_is_masked(tmp_path):
    write(tmp_path, "study,PE\na,TRUE\nb,FALSE\nc,Censored\n")
    cohort = read_cohort(tmp_path, describe(tmp_path))
    assert cohort.studies[PE_PRESENT].to_dict() == {"a": 1, "b": 0}


def test_rows_that_contradict_each_other_are_listed_and_unknown_contradicts_nothing(tmp_path):
    write(tmp_path, "study,PE\na,1\nb,0\na,0\nb,\n")
    cohort = read_cohort(tmp_path, describe(tmp_path))
    assert cohort.studies[PE_PRESENT].to_dict() == {"b": 0}
    reason = "contradicting labels: pe_present differs up to line 4"
    assert cohort.missing == [("labels.csv, line 2", reason)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("study,label\na,1\n", "no column of labels: it has study, label"),
        ("name,PE\na,1\n", "no column StudyInstanceUID or study"),
        ("study,PE\n,1\n", "line 2: the study (column study) has no name"),
        ("study,PE\n", "has no rows"),
    ],
)
def test_a_table_that_cannot_be_used_says_why(tmp_path, text, said):
    with pytest.raises(ClotlineError) as caught:
        read_cohort(write(tmp_path, text), describe(tmp_path))
    assert said in str(caught.value)


def test_a_missing_table_names_those_that_are_there(tmp_path):
    write(tmp_path, "study,PE\na,1\n", "other.csv")
    with pytest.raises(ClotlineError, match=r"no file labels.csv.*The folder has other.csv"):
        read_cohort(tmp_path, describe(tmp_path))


def test_a_table_of_slices_labels_slices_and_studies(tmp_path):
    text = "StudyInstanceUID,SOPInstanceUID,label\na,1,0\na,2,1\nb,1,0\nb,2,0\nc,1,0\nc,2,\n"
    write(tmp_path, text)
    keys = {"labels": {"pe_present": "label"}, "slice": "SOPInstanceUID"}
    cohort = read_cohort(tmp_path, describe(tmp_path, **keys))
    assert cohort.slices == {"a": {"1": 0, "2": 1}, "b": {"1": 0, "2": 0}, "c": {"1": 0, "2": -1}}
    # Of c nobody knows: its second slice may show one.
    assert cohort.studies[PE_PRESENT].to_dict() == {"a": 1, "b": 0}


PATHS = {
    "1.2": "a/1.dcm", "file-77": "scans/case 7.nii.gz", "1.9": "b/x/1.dcm", "file-78": "C8.NII.GZ",
}  # fmt: skip


def test_studies_are_found_by_uid_or_by_a_name_on_their_path(tmp_path):
    rows = rows_of(PATHS)
    found = studies_of(rows, ["1.2", "case 7", "b", "other", "C8"], describe(tmp_path))
    assert found == {"1.2": {"1.2"}, "file-77": {"case 7"}, "1.9": {"b"}, "file-78": {"C8"}}


@pytest.mark.parametrize(
    ("pattern", "path", "name"),
    [
        ("CTPA/{study}.nii.gz", "CTPA/im1.nii.gz", "im1"),
        ("CT_scans/{study}", "CT_scans/PAT001/D0001.dcm", "PAT001"),
        ("images/*/{study}", "images/GE (DICOM files)/01GE/s/1", "01GE"),
        ("images/*{number}.nrrd", "images/e0032.nrrd", "32"),
        ("imagesTr/{study}_0000.nii.gz", "imagesTr/pe_01_0000.nii.gz", "pe_01"),
        ("{study}.zip", "p1.zip//a/b.dcm", "p1"),
        ("images/{study}", "other/a/1.dcm", None),
    ],
)
def test_a_pattern_says_where_the_files_of_a_study_lie(tmp_path, pattern, path, name):
    rows = rows_of({"1.2": path})
    found = studies_of(rows, ["im1", "PAT001", "01GE", "32", "pe_01", "p1", "a"],
                       describe(tmp_path, files=pattern))  # fmt: skip
    assert found == {"1.2": set() if name is None else {name}}


def test_what_has_not_both_scan_and_labels_is_listed_with_the_reason(tmp_path):
    write(tmp_path, "study,PE\na,1\nb,0\nc,1\nd,0\n1.7,0\n")
    series = pd.DataFrame({STUDY_UID: ["1.7"], "chosen": [False], "reason": ["not axial"]})
    left_out = pd.DataFrame({"path": ["scans/d.png"], "reason": ["not a DICOM file"]})
    left_out["path"] = "d/picture.png"
    paths = {"1.1": "a/1.dcm", "1.2": "b/1.dcm", "1.3": "b/2.dcm", "1.4": "z/1.dcm"}
    found = matched(tmp_path, paths, series, left_out)
    assert found.labels[STUDY_UID].tolist() == ["1.1"]
    assert found.rows[STUDY_UID].tolist() == ["1.1"]
    why = found.unlabelled.set_index(STUDY_UID)["reason"].to_dict()
    assert why == {
        "1.2": "not labelled: 2 studies of the folder have one name in the labels",
        "1.3": "not labelled: 2 studies of the folder have one name in the labels",
        "1.4": "not labelled: the labels name neither its UID nor its files",
    }
    # By the line of the table: a name could be a patient's.
    assert dict(found.missing[["labels", "reason"]].to_numpy()) == {
        "labels.csv, line 3": "no scan of it is in the folder",
        "labels.csv, line 4": "no scan of it is in the folder",
        "labels.csv, line 5": "its file was left out: not a DICOM file",
        "labels.csv, line 6": "no scan of it was taken: not axial",
    }


def test_labels_of_other_studies_are_an_error_that_says_how_they_were_looked_for(tmp_path):
    write(tmp_path, "study,PE\nx,1\ny,0\n")
    with pytest.raises(ClotlineError) as caught:
        matched(tmp_path, {"1.1": "a/1.dcm"})
    said = str(caught.value)
    assert "none of 2 labelled studies (the first: labels.csv, line 2)" in said
    assert "StudyInstanceUID, or a name on the files' paths" in said


def test_studies_of_a_patient_stay_in_one_part_and_no_patient_is_kept(tmp_path):
    lines = [f"s{n},{n % 2},anna{n // 3}" for n in range(90)]
    write(tmp_path, "\n".join(["study,PE,patient", *lines]))
    found = matched(tmp_path, {f"1.{n}": f"s{n}/1.dcm" for n in range(90)})
    parts = found.labels.set_index(STUDY_UID)[PART]
    for first in range(0, 90, 3):
        assert parts[[f"1.{first + k}" for k in range(3)]].nunique() == 1
    assert set(parts) == {FITTED, HELD_OUT}
    assert found.patients == (30, 30)
    assert list(found.labels) == [STUDY_UID, *TARGETS, PART]
    assert "anna" not in found.labels.to_csv() + found.rows.to_csv()


def test_a_patient_is_one_however_the_cells_are_padded_and_no_name_is_no_patient(tmp_path):
    who = ["P1", "p1 ", " P1", " ", " ", ""]
    write(tmp_path, "study,PE,patient\n" + "".join(f"s{n},1,{p}\n" for n, p in enumerate(who)))
    found = matched(tmp_path, {f"1.{n}": f"s{n}/1.dcm" for n in range(6)})
    assert found.patients == (1, 1)
    assert found.labels[PART][:3].nunique() == 1


def test_what_one_row_of_a_study_leaves_out_another_says(tmp_path):
    rows = ["a,1,,,", "a,1,P1,F,63", "b,0,P1,,", "c,0,P2,M,"]
    write(tmp_path, "\n".join(["study,PE,patient,sex,age", *rows]))
    cohort = read_cohort(tmp_path, describe(tmp_path))
    assert cohort.studies["patient"].to_dict() == {"a": "P1", "b": "P1", "c": "P2"}
    assert cohort.people.loc["a"].tolist() == ["F", "63", ""]


def test_a_share_of_the_studies_is_met_in_whatever_order_they_come():
    groups = pd.Series([f"1.2.{n}" for n in range(40)])
    parts = parts_of(groups, 0.3)
    assert (parts == FITTED).sum() == 12
    backwards = parts_of(groups[::-1], 0.3)
    assert backwards[::-1].tolist() == parts.tolist()
    assert set(parts_of(groups, 0)) == {HELD_OUT}
    patients = pd.Series([f"p{n // 3}" for n in range(40)])
    assert (parts_of(patients, 0.3) == FITTED).sum() in (11, 12, 13)


def test_all_shipped_descriptions_can_be_used(tmp_path):
    names = [path.stem for path in SHIPPED.glob("*.yaml")]
    assert "table" in names
    for name in names:
        assert load_description(tmp_path, name)["title"] != "A labelled cohort"


def test_a_cohorts_own_description_is_taken_first(tmp_path):
    write(tmp_path, "title: Ours\nlabels: {pe_present: X}\n", "cohort.yaml")
    assert load_description(tmp_path, None)["title"] == "Ours"
    assert load_description(tmp_path, "table")["title"] != "Ours"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tabel: a.csv\n", "tabel is no known key; did you mean table?"),
        ("labels: {pe: PE}\n", "labels.pe is no label of Clotline"),
        ("table: null\n", "table and masks are both null"),
        ("files: images/*.nii\n", "{study} or {number} must say where the name stands"),
        ("mask_order: file names\n", "mask_order is file names, and masks is null"),
        ("- a\n", "it must be a section with keys of its own"),
        ("a: [\n", "cannot be read"),
    ],
)
def test_a_description_that_cannot_be_used_says_why(tmp_path, text, said):
    write(tmp_path, text, "cohort.yaml")
    with pytest.raises(ClotlineError) as caught:
        load_description(tmp_path, None)
    assert said in str(caught.value)


def test_an_unknown_data_set_names_those_that_are_known(tmp_path):
    with pytest.raises(ClotlineError, match=r"cohort is inspekt.*known are .*table"):
        load_description(tmp_path, "inspekt")
