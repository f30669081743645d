import pandas as pd
import pytest

from clotline.data.patient_counts import count_patients, describe_patients
from clotline.labels import STUDY_UID

PLAN = pd.DataFrame(
    {STUDY_UID: list("abcdef"), "split": ["train", "train", "test", "train", "valid", "test"]}
)
SOURCE = "the PatientID of the DICOM files"


def counts(**patients):
    return count_patients(pd.Series(patients, dtype="object"), PLAN, SOURCE)


def test_patients_with_several_studies_and_in_several_splits_are_counted():
    found = counts(a=b"1", b=b"1", c=b"2", d=b"2", e=b"2")
    assert found == {
        "source": SOURCE, "studies": 6, "known": 5, "patients": 2, "repeated": 2, "of_repeated": 5,
        "split": 1, "of_split": 3,
    }  # fmt: skip
    assert describe_patients(found) == (
        "By the PatientID of the DICOM files, 5 of 6 studies are of 2 patients; 1 patient is in "
        "more than one split, with 3 studies: what is learned of them in training is tested on "
        "them. Set data.split.group to split by patient."
    )


def test_repeats_within_a_split_leak_nothing():
    found = counts(a=b"1", b=b"1", c=b"2")
    assert (found["repeated"], found["split"]) == (1, 0)
    assert describe_patients(found).endswith("2 patients, none of whom is in more than one split.")


@pytest.mark.parametrize("patients", [{}, dict.fromkeys("abcdef", b"1")])
def test_of_files_that_tell_none_apart_nothing_is_said(patients):
    found = counts(**patients)
    assert (found["known"], found["split"]) == (0, 0)
    assert describe_patients(found) == (
        "Patients are not known: the PatientID of the DICOM files tells none apart."
    )
