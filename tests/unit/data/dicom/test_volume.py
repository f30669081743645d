"""NIfTI and NRRD volumes give what the same slices give as DICOM files."""

import bz2
import gzip
import random
from contextlib import suppress
from itertools import permutations, product

import nibabel
import numpy as np
import pytest
from builders import write_dicom
from chests import chest_picture
from hostile import flip_bit

from clotline.data.dicom import volume
from clotline.data.dicom.ct_slice import read_slice
from clotline.data.dicom.rejection import SliceError
from clotline.data.dicom.volume import VolumeFile

#: Of DICOM: columns, rows and slices of the volume below lie so in the patient, in mm.
SPACING, CORNER = (0.8, 0.7, 2.5), (-170.0, -150.0, 40.0)
TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def pictures(count=5):
    """(count, rows, columns) int16 HU, in which nothing is symmetrical."""
    stack = np.stack([chest_picture(256)] * count)
    stack[:, 10:30, 200:240] = 500
    stack += np.arange(count, dtype=np.int16)[:, None, None]
    return stack


def lps_affine():
    affine = np.diag([*SPACING, 1.0])
    affine[:3, 3] = CORNER
    return affine


def write_nifti(path, stack, order=(0, 1, 2), flips=(1, 1, 1), affine=None, **header):
    """Writes pictures with the axes of the volume in any order and direction."""
    array = stack.transpose(2, 1, 0)
    affine = (lps_affine() if affine is None else affine).copy()
    for axis, flip in enumerate(flips):
        if flip < 0:
            affine[:3, 3] += affine[:3, axis] * (array.shape[axis] - 1)
            affine[:3, axis] *= -1
            array = np.flip(array, axis)
    array, affine = array.transpose(order), affine[:, [*order, 3]]
    image = nibabel.Nifti1Image(array, TO_RAS @ affine)
    image.header.set_xyzt_units("mm")
    for name, value in header.items():
        image.header[name] = value
    nibabel.save(image, path)
    return path


def expected(folder, stack, number):
    return read_slice(
        write_dicom(
            folder / f"{number}.dcm",
            stack[number],
            ImagePositionPatient=[*CORNER[:2], CORNER[2] + SPACING[2] * number],
            PixelSpacing=[SPACING[1], SPACING[0]],
        )
    )


def reason(path, number=1):
    with pytest.raises(SliceError) as caught:
        read_slice(path, number)
    return str(caught.value)


@pytest.mark.parametrize("order", [*permutations(range(3))])
def test_axes_in_any_order_and_direction_give_the_slices_of_dicom(tmp_path, order):
    stack = pictures()
    dicom = [expected(tmp_path, stack, number) for number in range(5)]
    for flips in product((1, -1), repeat=3):
        path = write_nifti(tmp_path / "scan.nii", stack, order, flips)
        found = sorted((read_slice(path, n) for n in range(1, 6)), key=lambda s: s.position)
        for here, there in zip(found, dicom, strict=True):
            assert np.array_equal(here.pixels, there.pixels)
            assert here.position == pytest.approx(there.position, abs=1e-4)
            assert here.traits.spacing == there.traits.spacing


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float32, np.float64])
def test_integers_and_fractions_of_hounsfield_units_are_read(tmp_path, dtype):
    stack = pictures().astype(dtype)
    assert np.array_equal(
        read_slice(write_nifti(tmp_path / "scan.nii", stack), 3).pixels,
        expected(tmp_path, pictures(), 2).pixels,
    )


def test_slope_and_intercept_are_applied(tmp_path):
    stored = ((pictures().astype(int) + 1024) // 2).astype(np.uint16)
    path = write_nifti(tmp_path / "scan.nii", stored)
    content = bytearray(path.read_bytes())
    content[112:120] = np.array([2, -1024], "<f4").tobytes()
    path.write_bytes(content)
    even = stored.astype(np.int16) * 2 - 1024
    assert np.array_equal(read_slice(path, 1).pixels, expected(tmp_path, even, 0).pixels)


def test_an_oblique_volume_keeps_its_tilt_and_one_on_its_side_is_not_axial(tmp_path):
    for degrees, spans in ((20, True), (40, False)):
        angle = np.radians(degrees)
        turned = np.eye(4)
        turned[1:3, 1:3] = [
            [np.cos(angle), -np.sin(angle)],
            [np.sin(angle), np.cos(angle)],
        ]
        path = write_nifti(tmp_path / "scan.nii", pictures(), affine=turned @ lps_affine())
        header = VolumeFile(path).frame(1)
        normal = np.cross(*np.reshape(header.numbers("ImageOrientationPatient"), (2, 3)))
        assert np.degrees(np.arccos(normal[2])) == pytest.approx(degrees, abs=0.01)
        steps = [read_slice(path, n).position for n in (1, 2)]
        assert abs(steps[1] - steps[0]) == pytest.approx(SPACING[2], abs=1e-3) or not spans


@pytest.mark.parametrize(("unit", "mm"), [("meter", 1000), ("micron", 0.001), ("unknown", 1)])
def test_lengths_are_in_mm_whatever_the_file_has(tmp_path, unit, mm):
    affine = lps_affine()
    affine[:3] /= mm
    image = nibabel.Nifti1Image(pictures().transpose(2, 1, 0), TO_RAS @ affine)
    image.header.set_xyzt_units(unit)
    nibabel.save(image, tmp_path / "scan.nii")
    found = read_slice(tmp_path / "scan.nii", 2)
    assert found.traits.spacing == (0.7, 0.8)
    assert found.position == pytest.approx(42.5, abs=1e-3)


def test_what_is_no_number_is_air_with_a_remark(tmp_path):
    stack = pictures().astype(np.float32)
    stack[:, :20] = np.nan
    found = read_slice(write_nifti(tmp_path / "scan.nii", stack), 1)
    assert (found.pixels[:5] == -1000).all()
    assert found.remarks == ("values that are not a number: taken as air",)


def test_a_volume_without_an_orientation_says_so(tmp_path):
    path = write_nifti(tmp_path / "scan.nii", pictures())
    content = bytearray(path.read_bytes())
    content[252:256] = bytes(4)  # qform_code, sform_code
    path.write_bytes(content)
    assert read_slice(path, 1).remarks == (
        "no orientation (qform and sform are 0): left and right are not known",
    )


def test_two_forms_that_lay_a_volume_apart_are_remarked_on_and_the_sform_is_taken(tmp_path):
    path = write_nifti(tmp_path / "scan.nii", pictures())
    image = nibabel.load(path)
    there = image.affine.copy()
    image.set_qform(there, 1)
    for mm, remarks in ((0.5, 0), (40, 1)):
        moved = there.copy()
        moved[2, 3] += mm
        image.set_sform(moved, 2)
        nibabel.save(image, tmp_path / "two.nii")
        found = read_slice(tmp_path / "two.nii", 1)
        assert found.position == pytest.approx(CORNER[2] + mm, abs=1e-3)
        assert len(found.remarks) == remarks
    assert found.remarks[0].startswith("qform and sform lay it up to 40 mm apart: the sform is")
    # No rotation has such a quaternion: the sform alone says where it lies.
    image.header["quatern_b"] = 2
    nibabel.save(image, tmp_path / "two.nii")
    found = read_slice(tmp_path / "two.nii", 1)
    assert (found.position, found.remarks) == (pytest.approx(CORNER[2] + mm, abs=1e-3), ())


def test_other_values_dimensions_and_damage_are_refused_with_the_reason(tmp_path):
    stack = pictures()
    path = tmp_path / "scan.nii"
    mask = (stack > 400).astype(np.uint8)
    assert reason(write_nifti(path, mask)) == (
        "no Hounsfield units: values of 0 to 1, where air has -1000"
    )
    assert reason(write_nifti(path, stack + 1024)).startswith("no Hounsfield units: values of 24")
    four = np.stack([stack.transpose(2, 1, 0)] * 2, -1)
    nibabel.save(nibabel.Nifti1Image(four, TO_RAS @ lps_affine()), path)
    assert reason(path).startswith("a volume of 4 dimensions (256 × 256 × 5 × 2): three are needed")
    whole = write_nifti(path, stack).read_bytes()
    path.write_bytes(whole[:-2])
    assert reason(path).startswith("unreadable: ")
    path.write_bytes(whole)
    assert reason(path, 6) == "no such slice: 6; the volume has 5"
    path.write_bytes(whole[:344] + b"ni1\0" + whole[348:])
    assert reason(path) == "a volume in two files (hdr and img): convert it to one, .nii"
    assert reason(path, None) == reason(path)


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_values_that_would_begin_within_the_header_are_refused(tmp_path, kind):
    """Where they begin is not known: readers differ. They would be shifted, and the first none."""
    path = tmp_path / "scan.nii"
    kind(pictures().transpose(2, 1, 0), TO_RAS @ lps_affine()).to_filename(path)
    content = bytearray(path.read_bytes())
    start, end = (108, 112) if kind is nibabel.Nifti1Image else (168, 176)
    content[start:end] = bytes(end - start)
    path.write_bytes(content)
    assert reason(path) == "unreadable: its values begin within its header, at 0 bytes"


def test_a_file_with_any_bit_of_its_header_turned_over_is_read_or_refused(tmp_path):
    whole, rng = write_nifti(tmp_path / "scan.nii", pictures(2)).read_bytes(), random.Random(0)
    for number in range(60):
        path = tmp_path / f"{number}.nii"
        path.write_bytes(flip_bit(whole[:352], rng) + whole[352:])
        with suppress(SliceError):
            assert read_slice(path, 1).pixels.shape == (256, 256)
        path.unlink()


def nrrd(stack, encoding="raw", pack=bytes, **fields):
    """An NRRD as 3D Slicer writes it."""
    lines = {
        "type": "short",
        "dimension": 3,
        "space": "left-posterior-superior",
        "sizes": " ".join(map(str, stack.shape[::-1])),
        "space directions": " ".join(
            "(" + ",".join(str(mm * (k == axis)) for k in range(3)) + ")"
            for axis, mm in enumerate(SPACING)
        ),
        "kinds": "domain domain domain",
        "endian": "little",
        "encoding": encoding,
        "space origin": "(" + ",".join(map(str, CORNER)) + ")",
    }
    head = "\n".join(f"{k}: {v}" for k, v in (lines | fields).items() if v is not None)
    return f"NRRD0004\n{head}\n\n".encode() + pack(stack.tobytes())


@pytest.mark.parametrize(
    ("encoding", "pack"), [("raw", bytes), ("gzip", gzip.compress), ("bzip2", bz2.compress)]
)
def test_an_nrrd_gives_the_slices_of_dicom(tmp_path, encoding, pack):
    stack, path = pictures(), tmp_path / "scan.nrrd"
    path.write_bytes(nrrd(stack, encoding, pack))
    for number in range(5):
        here, there = read_slice(path, number + 1), expected(tmp_path, stack, number)
        assert np.array_equal(here.pixels, there.pixels)
        assert here.position == there.position
        assert here.orientation == there.orientation


def test_an_nrrd_of_another_space_is_turned(tmp_path):
    stack, path = pictures(), tmp_path / "scan.nrrd"
    directions = " ".join(f"({x},{y},{z})" for x, y, z in np.diag(SPACING) * [-1, -1, 1])
    fields = {"space": "RAS", "space directions": directions, "space origin": "(170,150,40)"}
    path.write_bytes(nrrd(stack, **fields))
    assert np.array_equal(read_slice(path, 1).pixels, expected(tmp_path, stack, 0).pixels)


@pytest.mark.parametrize(
    ("fields", "expected_reason"),
    [
        ({"space": None}, "no orientation: the NRRD's space is not named"),
        ({"space": "scanner-xyz"}, "no orientation: the NRRD's space is scanner-xyz"),
        ({"data file": "/etc/passwd"}, "a volume in two files (a detached NRRD header)"),
        ({"byte skip": -1}, "an NRRD with a skip before its data"),
        ({"encoding": "hex"}, "an NRRD in an encoding that is not read: hex"),
        ({"type": "block"}, "an NRRD of a type that is not read: block"),
        ({"sizes": "256 256 6"}, "unreadable: the file ends before its values do"),
        ({"sizes": "256 256"}, "a volume of 2 dimensions (256 × 256): three are needed"),
    ],
)
def test_what_an_nrrd_cannot_be_read_by_is_named(tmp_path, fields, expected_reason):
    path = tmp_path / "scan.nrrd"
    path.write_bytes(nrrd(pictures(), **fields))
    assert reason(path).startswith(expected_reason)


def test_packed_values_have_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(volume, "MAX_PACKED", 600_000)
    path = tmp_path / "scan.nrrd"
    path.write_bytes(nrrd(pictures(), "gzip", gzip.compress))
    assert reason(path) == "too large: 655,360 bytes of packed values, the limit is 600,000"
