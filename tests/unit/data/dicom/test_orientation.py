import numpy as np
import pytest
from builders import write_dicom

from clotline.data.dicom.ct_slice import read_slice
from clotline.data.dicom.orientation import patient_orientation, stored_orientation, upright

# A patient in 256 × 256 pixels as slices are stored: all pixels differ.
PATIENT = np.arange(256 * 256).reshape(256, 256).astype(np.int32)

#: ImageOrientationPatient, its letters, and the patient as such a file holds it.
AXIAL = {
    "usual": ([1, 0, 0, 0, 1, 0], "LP", PATIENT),
    "mirrored": ([-1, 0, 0, 0, 1, 0], "RP", PATIENT[:, ::-1]),
    "upside down": ([1, 0, 0, 0, -1, 0], "LA", PATIENT[::-1]),
    "prone": ([-1, 0, 0, 0, -1, 0], "RA", PATIENT[::-1, ::-1]),
    "on its side": ([0, 1, 0, 1, 0, 0], "PL", PATIENT.T),
    "quarter turned": ([0, 1, 0, -1, 0, 0], "PR", PATIENT[:, ::-1].T),
    "quarter turned back": ([0, -1, 0, 1, 0, 0], "AL", PATIENT[::-1].T),
    "on its side, prone": ([0, -1, 0, -1, 0, 0], "AR", PATIENT[::-1, ::-1].T),
    "tilted gantry": ([1, 0, 0, 0, 0.9, -0.44], "LP", PATIENT),
    "an eighth turned": ([0.7, 0.7, 0, -0.7, 0.7, 0], "LP", PATIENT),
}


def axes(numbers):
    return tuple(numbers[:3]), tuple(numbers[3:])


@pytest.mark.parametrize(("numbers", "letters", "stored"), AXIAL.values(), ids=AXIAL)
def test_axial_slices_are_turned_to_show_the_patients_left_on_the_right(numbers, letters, stored):
    assert patient_orientation(axes(numbers)) == letters
    assert stored_orientation(letters) == "LP"
    # As a decoder gives it: turning a view back would give the patient's own memory.
    turned = upright(stored.copy(order="C"), letters)
    assert (turned == PATIENT).all()
    assert turned.flags.c_contiguous


@pytest.mark.parametrize(
    ("numbers", "letters"),
    [
        ([1, 0, 0, 0, 0, -1], "LF"),
        ([0, 1, 0, 0, 0, -1], "PF"),
        ([0, -1, 0, 0, 0, 1], "AH"),
        ([0.6, 0.1, 0.8, 0.7, 0.1, -0.6], "HL"),
    ],
    ids=["coronal", "sagittal", "sagittal from below", "both nearest to the left"],
)
def test_what_is_not_axial_stays_as_it_is(numbers, letters):
    assert patient_orientation(axes(numbers)) == stored_orientation(letters) == letters
    assert upright(PATIENT, letters) is PATIENT


@pytest.mark.parametrize(("numbers", "letters", "stored"), AXIAL.values(), ids=AXIAL)
def test_a_file_is_read_turned_and_says_how_it_was(tmp_path, numbers, letters, stored):
    pixels = (stored % 4096).astype(np.int16)
    path = write_dicom(tmp_path / "slice.dcm", pixels, ImageOrientationPatient=numbers)
    found = read_slice(path)
    assert found.orientation == letters
    assert (found.pixels == PATIENT % 4096).all()


@pytest.mark.parametrize("tag", [None, "", [1, 0, 0], [1, 0, 0, 2, 0, 0], ["nan"] * 6])
def test_without_usable_axes_a_slice_stays_as_it_is(tmp_path, tag):
    pixels = (PATIENT % 4096).astype(np.int16)
    path = write_dicom(tmp_path / "slice.dcm", pixels, ImageOrientationPatient=tag)
    found = read_slice(path)
    assert (found.orientation, found.position) == ("", None)
    assert (found.pixels == pixels).all()
