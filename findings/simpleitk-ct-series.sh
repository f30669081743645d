#!/usr/bin/env bash
# SimpleITK 2.5.7 reads a folder of CT slices as it reads a plain stack, and without an error.
# Two acquisitions of one series (one with contrast, say) come back as one volume: slices of the two
# take turns, at half the spacing, and useSeriesDetails=True does not part them.
# A gantry tilt is dropped: the volume runs along the normal of its slices, so that those far from the
# first lie centimetres beside their ImagePositionPatient. Of neither there is a warning.
# For CT archives: volumes that no scanner made, and masks or coordinates shifted against the DICOM.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    SimpleITK==2.5.7 pydicom==3.0.2 numpy==2.4.6

"$folder/venv/bin/python" - "$folder" 2>"$folder/warnings" <<'PYTHON' ||
import math
import sys
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

print(f"SimpleITK {sitk.Version.VersionString()}, pydicom {pydicom.__version__}")


def write_slice(path, series, number, position, orientation, hu, acquisition):
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = CTImageStorage
    ds.SOPInstanceUID = generate_uid()
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = series
    ds.PatientName = ds.PatientID = "phantom"
    ds.Modality, ds.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SeriesNumber, ds.AcquisitionNumber, ds.InstanceNumber = 2, acquisition, number
    ds.PatientPosition = "HFS"
    ds.ImagePositionPatient = [f"{mm:.4f}" for mm in position]
    ds.ImageOrientationPatient = [f"{cosine:.6f}" for cosine in orientation]
    ds.PixelSpacing, ds.SliceThickness = [1, 1], 1
    ds.Rows = ds.Columns = 16
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation = 15, 1
    ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = 1, 0, "HU"
    ds.PixelData = np.full((16, 16), hu, "<i2").tobytes()
    ds.save_as(path, enforce_file_format=True)


def write_series(name, slices):
    folder = Path(sys.argv[1], name)
    folder.mkdir()
    series = [generate_uid() for _ in range(3)]
    for number, (position, orientation, hu, acquisition) in enumerate(slices, start=1):
        path = folder / f"{number:03}.dcm"
        write_slice(path, series, number, position, orientation, hu, acquisition)
    return str(folder)


def read(folder):
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(folder))
    return reader.Execute()


axial = (1, 0, 0, 0, 1, 0)
# Without contrast 40 HU, with contrast 300 HU; the table stopped half a slice further.
two = write_series(
    "two-acquisitions",
    [((0, 0, z), axial, 40, 1) for z in range(4)]
    + [((0, 0, z + 0.5), axial, 300, 2) for z in range(4)],
)
ids = sitk.ImageSeriesReader.GetGDCMSeriesIDs(two, useSeriesDetails=True)
volume = read(two)
values = sitk.GetArrayFromImage(volume)[:, 0, 0].tolist()
print("\ntwo acquisitions of 4 slices, 1 mm apart, in one series")
print("  expected: two series with useSeriesDetails=True; 40 and 300 HU apart, or an error")
print(f"  seen:     {len(ids)} series; HU {values}, {volume.GetSpacing()[2]} mm apart")

tilt = math.radians(15)
tilted = (1, 0, 0, 0, math.cos(tilt), -math.sin(tilt))
volume = read(write_series("tilted", [((0, 0, z), tilted, 40, 1) for z in range(0, 200, 5)]))
last = np.array(volume.TransformIndexToPhysicalPoint((0, 0, volume.GetDepth() - 1)))
away = float(np.linalg.norm(last - (0, 0, 195)))
between = 5 * math.cos(tilt)
print("\na gantry tilt of 15 degrees, 40 slices along 195 mm")
print(f"  expected: the last slice at (0, 0, 195), or an error; slices {between:.2f} mm apart")
print(f"  seen:     it is at {tuple(last.round(1).tolist())}, {away:.1f} mm away;", end=" ")
print(f"slices {volume.GetSpacing()[2]:.2f} mm apart")

held = (
    len(ids) == 1
    and values == [40, 300] * 4
    and math.isclose(away, 2 * 195 * math.sin(tilt / 2), abs_tol=0.1)
    and math.isclose(volume.GetSpacing()[2], 5)
)
print("\nas stated" if held else "\nno longer as stated")
sys.exit(not held)
PYTHON
    {
        cat "$folder/warnings" >&2
        exit 1
    }

warnings=$(wc -l <"$folder/warnings")
echo "lines of warning: $warnings"
cat "$folder/warnings"
[ "$warnings" = 0 ]
