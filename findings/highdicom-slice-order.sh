#!/usr/bin/env bash
# highdicom 0.28.2's get_volume_from_series stacks an axial CT from the head down, whatever the order
# of files or instance numbers: the slice axis of its volumes makes a right-handed frame with rows and
# columns, which for axial slices points to the feet. SimpleITK 2.5.7 (and nearly all code that sorts
# by position) stacks from the feet up. Both affines are right, and both arrays have the same shape.
# For masks and predictions that cross from one to the other as arrays: upside down along the body,
# with no error; on the phantom here a lesion and its mask no longer overlap.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    highdicom==0.28.2 SimpleITK==2.5.7 pydicom==3.0.2 numpy==2.4.6

"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import sys
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

print(
    f"highdicom {highdicom.__version__}, SimpleITK {sitk.Version.VersionString()}, "
    f"pydicom {pydicom.__version__}"
)


def write_slice(path, uids, number, z, hu):
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, generate_uid()
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = uids
    ds.PatientName = ds.PatientID = "phantom"
    ds.Modality, ds.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SeriesNumber, ds.InstanceNumber = 2, number
    ds.PatientPosition = "HFS"
    ds.ImagePositionPatient, ds.ImageOrientationPatient = [0, 0, z], [1, 0, 0, 0, 1, 0]
    ds.PixelSpacing, ds.SliceThickness = [1, 1], 1
    ds.Rows, ds.Columns = hu.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation = 15, 1
    ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = 1, 0, "HU"
    ds.PixelData = hu.astype("<i2").tobytes()
    ds.save_as(path, enforce_file_format=True)


# From the feet (z = 0 mm) up, with a bright lesion in the lower third.
body = np.full((12, 16, 16), 40)
body[2:4, 5:9, 5:9] = 300
seen = []
for name, heights in (("feet first", range(12)), ("head first", range(11, -1, -1))):
    folder = Path(sys.argv[1], name)
    folder.mkdir()
    uids = [generate_uid() for _ in range(3)]
    for number, z in enumerate(heights, start=1):
        write_slice(folder / f"{number:02}.dcm", uids, number, z, body[z])
    files = sorted(folder.glob("*.dcm"))
    volume = highdicom.get_volume_from_series([pydicom.dcmread(file) for file in files])
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()

    by_sitk, by_highdicom = sitk.GetArrayFromImage(image), volume.array
    first_by_sitk = image.TransformIndexToPhysicalPoint((0, 0, 0))[2]
    first_by_highdicom = float(volume.map_indices_to_reference(np.array([[0, 0, 0]]))[0, 2])
    overlap = np.count_nonzero((by_sitk > 200) & (by_highdicom > 200))
    lesion = np.count_nonzero(by_sitk > 200)
    assert by_sitk.shape == by_highdicom.shape
    assert (by_sitk == body).all()
    print(f"\n{name}: arrays of {by_sitk.shape} by SimpleITK and highdicom")
    print(f"  expected: the same array; the lesion's {lesion} voxels overlap")
    print(
        f"  seen:     [0] is at {first_by_sitk:g} mm and at {first_by_highdicom:g} mm; "
        f"{overlap} voxels overlap"
    )
    seen.append((first_by_sitk, first_by_highdicom, overlap, (by_sitk == by_highdicom[::-1]).all()))

held = seen == [(0, 11, 0, True)] * 2
print("\nas stated" if held else "\nno longer as stated")
sys.exit(not held)
PYTHON
