#!/usr/bin/env bash
# dicomsdl 0.109.4 ignores BitsStored: pixelData() neither drops the bits above it nor extends the
# sign from it. DICOM leaves those bits to the writer: 12-bit two's complement words without
# extension are valid, and older files keep an overlay there. As int16 such a CT comes back with
# -1000 as 3096: air is brighter than bone, with no error. pydicom 3.0.2 and SimpleITK 2.5.7 agree
# on the right values.
# For data sets read by dicomsdl for its speed: a scan is right or wrong by its scanner's habit.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    dicomsdl==0.109.4 pydicom==3.0.2 SimpleITK==2.5.7 numpy==2.4.6

"$folder/venv/bin/python" - "$folder/slice.dcm" <<'PYTHON'
import sys
from importlib.metadata import version

import dicomsdl
import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

print(", ".join(f"{name} {version(name)}" for name in ("dicomsdl", "pydicom", "SimpleITK")))
path = sys.argv[1]


def write(words, representation, intercept):
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = CTImageStorage
    for keyword in ("SOP", "Study", "Series"):
        setattr(ds, f"{keyword}InstanceUID", generate_uid())
    ds.PatientName = ds.PatientID = "phantom"
    ds.Modality, ds.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.ImagePositionPatient, ds.ImageOrientationPatient = [0, 0, 0], [1, 0, 0, 0, 1, 0]
    ds.PixelSpacing, ds.SliceThickness = [1, 1], 1
    ds.Rows, ds.Columns = words.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
    ds.PixelRepresentation = representation
    ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = 1, intercept, "HU"
    ds.PixelData = words.astype("<u2").tobytes()
    ds.save_as(path, enforce_file_format=True)


def read():
    """HU of the first row by the three."""
    ds = pydicom.dcmread(path)
    by_pydicom = pydicom.pixels.apply_rescale(ds.pixel_array, ds)
    by_sitk = sitk.GetArrayFromImage(sitk.ReadImage(path))[0]
    by_dicomsdl = dicomsdl.open(path).pixelData()
    return [array[0].astype(int).tolist() for array in (by_pydicom, by_sitk, by_dicomsdl)]


hu = np.tile(np.array([-1000, 40, 300, 1500]), (4, 1))
seen = []
for name, words, representation, intercept in (
    ("signed, the sign extended to 16 bits", hu & 0xFFFF, 1, 0),
    ("signed, the upper 4 bits zero", hu & 0xFFF, 1, 0),
    ("unsigned, an overlay in bit 12", (hu + 1024) | 0x1000, 0, -1024),
):
    write(words, representation, intercept)
    by_pydicom, by_sitk, by_dicomsdl = read()
    print(f"\n12 bits stored in 16, {name}\n  expected: {hu[0].tolist()}")
    print(f"  seen:     {by_dicomsdl} (pydicom {by_pydicom}, SimpleITK {by_sitk})")
    assert by_pydicom == by_sitk == hu[0].tolist()
    seen.append(by_dicomsdl)

held = seen == [[-1000, 40, 300, 1500], [3096, 40, 300, 1500], [3096, 4136, 4396, 5596]]
print("\nas stated" if held else "\nno longer as stated")
sys.exit(not held)
PYTHON
