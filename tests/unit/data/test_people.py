"""Groups of studies, by scanner, scan and patient."""

import os

import numpy as np
import pandas as pd
import pytest
from builders import write_dicom, write_enhanced

from clotline.data.cohort import read_cohort
from clotline.data.people import groups_of, people_of, years
from clotline.labels import STUDY_UID
from clotline.workflow.cohort_description import load_description


def write_study(folder, uid, **tags):
    write_dicom(folder / uid / "1.dcm", np.zeros((8, 8), np.int16), **tags)


@pytest.fixture
def told(tmp_path):
    write_study(
        tmp_path, "1.1", PatientSex="F", PatientAge="063Y", Manufacturer="Siemens",
        ManufacturerModelName="Siemens Force",
    )  # fmt: skip
    write_study(tmp_path, "1.2", PatientSex="M", Manufacturer="GE", ManufacturerModelName="Apex")
    write_study(tmp_path, "1.3")
    (tmp_path / "labels.csv").write_text("study,PE,age\n1.1,1,\n1.2,0,38\n1.3,0,77\n")
    description = load_description(tmp_path, None)
    rows = pd.DataFrame({STUDY_UID: ["1.1", "1.2", "1.3"]})
    rows["path"] = rows[STUDY_UID] + "/1.dcm"
    return people_of(read_cohort(tmp_path, description), rows, tmp_path, description)


def test_the_table_comes_before_the_header(told):
    assert told.loc["1.1"].tolist() == ["F", "063Y", "Siemens Force"]
    assert told.loc["1.2"].tolist() == ["M", "38", "GE Apex"]
    assert told.loc["1.3", ["sex", "age"]].tolist() == ["", "77"]


def test_a_file_of_many_slices_says_it_too_however_large(tmp_path):
    """96 MiB in three frames, all of it a hole."""
    path = write_enhanced(
        tmp_path / "1.1" / "1.dcm", np.zeros((3, 1, 1), np.int16), frames=[{}] * 3,
        Rows=4096, Columns=4096, PatientSex="F", PatientAge="063Y", ManufacturerModelName="Apex",
    )  # fmt: skip
    head, length = path.read_bytes()[: -3 * 2], 3 * 2**25
    path.write_bytes(head[:-4] + length.to_bytes(4, "little"))
    os.truncate(path, len(head) + length)
    (tmp_path / "labels.csv").write_text("study,PE\n1.1,1\n")
    description = load_description(tmp_path, None)
    rows = pd.DataFrame({STUDY_UID: ["1.1"], "path": ["1.1/1.dcm"]})
    told = people_of(read_cohort(tmp_path, description), rows, tmp_path, description)
    assert told.loc["1.1"].tolist() == ["F", "063Y", "Apex"]


def test_groups_of_scans_and_of_people(told):
    slices = pd.DataFrame(
        {
            STUDY_UID: ["1.1", "1.1", "1.2", "1.3"],
            "thickness_mm": [1.0, 1.0, 1.25, np.nan],
            "blood_hu": [340.0, 340.0, 99.0, np.nan],
            "position_mm": [0.0, 1.5, 0.0, 0.0],
        }
    )
    groups = {name: found.to_dict() for name, found in groups_of(slices, told).items()}
    assert groups["Sex"] == {"1.1": "female", "1.2": "male", "1.3": ""}
    assert groups["Age"] == {
        "1.1": "60 to 74 years", "1.2": "under 40 years", "1.3": "75 years or more",
    }  # fmt: skip
    assert groups["Slice thickness"] == {
        "1.1": "up to 1 mm", "1.2": "more than 1 to 2 mm", "1.3": "",
    }  # fmt: skip
    assert groups["Contrast"] == {
        "1.1": "blood of 300 HU or more", "1.2": "blood below 100 HU", "1.3": "",
    }  # fmt: skip
    # Of what nobody knows there is no family.
    slices["thickness_mm"] = np.nan
    assert "Slice thickness" not in groups_of(slices, told)


@pytest.mark.parametrize(
    ("text", "value"),
    [("63", 63), ("063Y", 63), ("018M", 1.5), ("63.5", 63.5), ("", None), ("old", None)],
)
def test_ages(text, value):
    assert years(text) == pytest.approx(value) if value else np.isnan(years(text))
