#!/usr/bin/env bash
# imageio 2.38.2 applies a DICOM slice's rescale slope and intercept in the smallest integer type
# that its values seem to need, with two traps. A slice without negative values gets int8 below 256
# and int16 below 65536, not uint8 and uint16: what is above 127 in a crop of soft tissue, or in a
# mask of 0 and 255, comes back negative. And volread takes the type of a whole series from its
# first slice: of signed HU with a blank slice first (0 HU), all others are put into int8; air of
# -1000 HU is then 24 and a vessel of 300 HU is 44. imread gives slices of one series in several
# types, so that a stack of them is right where volread is not.
# For CT read by imageio: right or wrong by what is in the first slice, without an error.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    imageio==2.38.2 pydicom==3.0.2 numpy==2.4.6

"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import contextlib
import io
import sys
from importlib.metadata import version
from pathlib import Path

import imageio
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

print(", ".join(f"{name} {version(name)}" for name in ("imageio", "pydicom", "numpy")))
folder = Path(sys.argv[1])


def write_series(name, slices):
    series = folder / name
    series.mkdir()
    uids = [generate_uid() for _ in range(3)]
    for number, hu in enumerate(slices, start=1):
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, generate_uid()
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = uids
        ds.PatientName = ds.PatientID = "phantom"
        ds.Modality, ds.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.SeriesNumber, ds.InstanceNumber = 2, number
        ds.ImagePositionPatient = [0, 0, number]
        ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        ds.PixelSpacing, ds.SliceThickness = [1, 1], 1
        ds.Rows, ds.Columns = hu.shape
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.BitsAllocated = ds.BitsStored = 16
        ds.HighBit, ds.PixelRepresentation = 15, 1
        ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = 1, 0, "HU"
        ds.PixelData = hu.astype("<i2").tobytes()
        ds["PixelData"].VR = "OW"
        ds.save_as(series / f"{number}.dcm", enforce_file_format=True)
    return series


def by_pydicom(path):
    ds = pydicom.dcmread(path)
    return pydicom.pixels.apply_rescale(ds.pixel_array, ds).astype(int)


def quietly(read, path):
    """imageio tells its progress."""
    with contextlib.redirect_stdout(io.StringIO()):
        return np.asarray(read(path))


def values(array):
    """The values of one slice, each once."""
    return np.unique(array).tolist()


body = np.full((16, 16), -1000)
body[2:14, 2:14] = 40
body[6:10, 6:10] = 300
crop = body[4:12, 4:12].clip(max=200)
mask = np.where(body == 300, 255, 0)

held = True
for name, hu, seen_before in (
    ("a slice of a body", body, [-1000, 40, 300]),
    ("a crop of soft tissue", crop, [-56, 40]),
    ("a mask of 0 and 255", mask, [-1, 0]),
):
    path = write_series(name, [hu]) / "1.dcm"
    right, seen = by_pydicom(path), quietly(imageio.v2.imread, path)
    assert (right == hu).all()
    print(f"\n{name}, imread\n  expected: {values(right)}")
    print(f"  seen:     {values(seen)}, {seen.dtype}")
    held &= values(seen) == seen_before

for name, first, seen_before in (
    ("a body in three slices", body, [-1000, 40, 300]),
    ("the first of three blank", np.zeros_like(body), [24, 40, 44]),
):
    series = write_series(name, [first, body, body])
    paths = sorted(series.iterdir())
    right = np.stack([by_pydicom(path) for path in paths])
    assert (right[1:] == body).all()
    seen = quietly(lambda path: imageio.v2.volread(path, "DICOM"), str(series))
    slices = [quietly(imageio.v2.imread, path) for path in paths]
    print(f"\n{name}, volread: the second\n  expected: {values(right[1])}")
    print(f"  seen:     {values(seen[1])}, {seen.dtype}; imread gives", end=" ")
    print(", ".join(str(array.dtype) for array in slices))
    held &= values(seen[1]) == seen_before and (np.stack(slices) == right).all()
print("\nas stated" if held else "\nno longer as stated")
sys.exit(not held)
PYTHON
