"""Masks of emboli, laid on the slices of a scan."""

import h5py
import nibabel
import nrrd
import numpy as np
import pandas as pd
import pytest
import scipy.io

from clotline.data.dicom.rejection import SliceError
from clotline.data.masks import slice_labels

#: Which slices of the made scan show an embolus, from feet to head.
SHOWN = [0, 0, 1, 1, 0, 0, 1, 0]
COUNT, STEP, BOTTOM = len(SHOWN), 2.5, -40.0


def scan(**columns):
    table = pd.DataFrame(
        {
            "position_mm": BOTTOM + STEP * np.arange(COUNT),
            "path": [f"D{n:04}.dcm" for n in range(COUNT)],
            "frame": 0,
            "slices": COUNT,
        }
    )
    return table.assign(**columns)


def mask_of(shown=SHOWN):
    """(rows, columns, slices) with one marked voxel where an embolus is."""
    mask = np.zeros((6, 5, len(shown)), np.uint8)
    mask[2, 3, np.flatnonzero(shown)] = 3  # clots have numbers of their own
    return mask


def laid(path, slices=None, **keys):
    description = {"mask_order": "geometry", "mask_variable": "Mask"} | keys
    return slice_labels(path, scan() if slices is None else slices, description).tolist()


@pytest.mark.parametrize("downwards", [False, True])
@pytest.mark.parametrize("across", [(0, 1, 2), (2, 0, 1)])
def test_a_nifti_mask_is_laid_by_where_it_lies_whatever_its_axes(tmp_path, downwards, across):
    mask, affine = mask_of(), np.diag([-0.7, -0.7, STEP, 1.0])
    affine[2, 3] = BOTTOM
    if downwards:
        mask = mask[:, :, ::-1]
        affine[2, 2], affine[2, 3] = -STEP, BOTTOM + STEP * (COUNT - 1)
    order = list(across)
    image = nibabel.Nifti1Image(mask.transpose(order), affine[:, [*order, 3]])
    nibabel.save(image, tmp_path / "mask.nii.gz")
    assert laid(tmp_path / "mask.nii.gz") == SHOWN
    # Slices that were not stored shift none of the others.
    kept = scan().iloc[[0, 2, 3, 7]]
    assert laid(tmp_path / "mask.nii.gz", kept) == [0, 1, 1, 0]


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32])
def test_a_mask_with_slope_and_intercept_marks_what_is_not_zero_by_them(tmp_path, dtype):
    """As of fractions that were saved with the header of their scan."""
    affine = np.diag([-0.7, -0.7, STEP, 1.0])
    affine[2, 3] = BOTTOM
    header = nibabel.Nifti1Image(np.zeros((6, 5, COUNT), dtype), affine).header
    mask = (mask_of() != 0).astype(np.float64)
    nibabel.save(nibabel.Nifti1Image(mask, affine, header), tmp_path / "mask.nii.gz")
    assert laid(tmp_path / "mask.nii.gz") == SHOWN


def test_what_is_no_number_in_a_mask_marks_nothing(tmp_path):
    affine = np.diag([-0.7, -0.7, STEP, 1.0])
    affine[2, 3] = BOTTOM
    mask = np.where(mask_of(), 1, np.nan).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(mask, affine), tmp_path / "mask.nii")
    assert laid(tmp_path / "mask.nii") == SHOWN


def test_an_nrrd_mask_is_read_too(tmp_path):
    header = {
        "space": "left-posterior-superior",
        "space directions": np.diag([0.7, 0.7, STEP]),
        "space origin": [0, 0, BOTTOM],
    }
    nrrd.write(str(tmp_path / "mask.nrrd"), mask_of(), header)
    assert laid(tmp_path / "mask.nrrd") == SHOWN


def test_a_mask_that_lies_elsewhere_is_refused_with_both_places(tmp_path):
    affine = np.diag([-0.7, -0.7, STEP, 1.0])
    affine[2, 3] = BOTTOM + 20
    nibabel.save(nibabel.Nifti1Image(mask_of(), affine), tmp_path / "mask.nii")
    with pytest.raises(SliceError, match=r"from -20.0 to -2.5 mm .* from -40.0 to -22.5 mm"):
        laid(tmp_path / "mask.nii")


def test_a_scan_of_unknown_positions_has_no_mask_by_geometry(tmp_path):
    nibabel.save(nibabel.Nifti1Image(mask_of(), np.eye(4)), tmp_path / "mask.nii")
    with pytest.raises(SliceError, match="positions of the scan's slices are not known"):
        laid(tmp_path / "mask.nii", scan(position_mm=np.nan))


@pytest.mark.parametrize("version", ["5", "7.3"])
def test_a_matlab_mask_follows_the_names_of_the_files(tmp_path, version):
    path = tmp_path / "PAT001.mat"
    # By its name the first file lies at the head.
    downwards = scan(path=[f"D{n:04}.dcm" for n in reversed(range(COUNT))])
    mask = mask_of()[:, :, ::-1]
    if version == "5":
        scipy.io.savemat(path, {"Mask": mask})
    else:
        with h5py.File(path, "w", userblock_size=512) as file:
            file["Mask"] = mask.T
        with path.open("r+b") as file:
            file.write(b"MATLAB 7.3 MAT-file, Platform: made by a test")
    assert laid(path, downwards, mask_order="file names") == SHOWN


@pytest.mark.parametrize(("order", "turned"), [("feet to head", 1), ("head to feet", -1)])
def test_a_mask_can_follow_the_scan_from_either_end(tmp_path, order, turned):
    # Its header says nothing that could be used.
    image = nibabel.Nifti1Image(mask_of()[:, :, ::turned], np.eye(4))
    nibabel.save(image, tmp_path / "mask.nii.gz")
    assert laid(tmp_path / "mask.nii.gz", mask_order=order) == SHOWN


def test_a_mask_of_other_slices_cannot_follow_by_number(tmp_path):
    scipy.io.savemat(tmp_path / "a.mat", {"Mask": mask_of(SHOWN[1:])})
    with pytest.raises(SliceError, match="the mask has 7 slices and the scan 8"):
        laid(tmp_path / "a.mat", mask_order="file names")
    scipy.io.savemat(tmp_path / "b.mat", {"Mask": mask_of()})
    with pytest.raises(SliceError, match="2 slices of the scan were not stored"):
        laid(tmp_path / "b.mat", scan().iloc[:6], mask_order="file names")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"Other": mask_of()}, "has no variable Mask"),
        ({"Mask": mask_of()[0]}, "a mask of 2 dimensions"),
    ],
)
def test_a_matlab_file_without_a_mask_says_so(tmp_path, content, said):
    scipy.io.savemat(tmp_path / "a.mat", content)
    with pytest.raises(SliceError, match=said):
        laid(tmp_path / "a.mat", mask_order="file names")


def test_a_damaged_mask_is_named(tmp_path):
    (tmp_path / "mask.mat").write_bytes(b"no mask" * 100)
    with pytest.raises(SliceError):
        laid(tmp_path / "mask.mat", mask_order="file names")


def test_a_matlab_mask_needs_an_order(tmp_path):
    scipy.io.savemat(tmp_path / "a.mat", {"Mask": mask_of()})
    with pytest.raises(SliceError, match="name the order"):
        laid(tmp_path / "a.mat")
