#!/usr/bin/env bash
# In Enhanced CT, slope and intercept may differ from frame to frame (Pixel Value Transformation
# Sequence of the per-frame functional groups). SimpleITK 2.5.7 applies those of the first frame to
# all; pydicom 3.0.2's apply_rescale and apply_modality_lut look at the top level only and return
# stored values; neither says so. SimpleITK also stacks frames as they lie in the file, whatever their
# positions, and takes the spacing from the first two: a gap of 8 mm comes back as 1 mm. highdicom
# 0.28.2 gets values and order right, and refuses the gap.
# For HU and distances from Enhanced CT: wrong by hundreds, in a plausible picture.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    SimpleITK==2.5.7 pydicom==3.0.2 highdicom==0.28.2 numpy==2.4.6

"$folder/venv/bin/python" - "$folder/enhanced.dcm" <<'PYTHON'
import sys

import highdicom
import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import apply_modality_lut, apply_rescale
from pydicom.uid import EnhancedCTImageStorage, ExplicitVRLittleEndian, generate_uid

print(
    f"SimpleITK {sitk.Version.VersionString()}, pydicom {pydicom.__version__}, "
    f"highdicom {highdicom.__version__}"
)
path = sys.argv[1]


def item(**elements):
    ds = Dataset()
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    return ds


def write(positions, slopes, intercepts, stored):
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = EnhancedCTImageStorage
    for keyword in ("SOP", "Study", "Series"):
        setattr(ds, f"{keyword}InstanceUID", generate_uid())
    ds.FrameOfReferenceUID = generate_uid()
    ds.PatientName = ds.PatientID = "phantom"
    ds.Modality, ds.ImageType = "CT", ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    ds.NumberOfFrames, ds.Rows, ds.Columns = len(stored), 16, 16
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation = 15, 1
    organization = generate_uid()
    ds.DimensionOrganizationSequence = [item(DimensionOrganizationUID=organization)]
    ds.DimensionIndexSequence = [
        item(
            DimensionOrganizationUID=organization,
            DimensionIndexPointer=pointer,
            FunctionalGroupPointer=0x00209111,
        )
        for pointer in (0x00209056, 0x00209057)
    ]
    ds.SharedFunctionalGroupsSequence = [
        item(
            PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
            PixelMeasuresSequence=[item(PixelSpacing=[1, 1], SliceThickness=1)],
        )
    ]
    ds.PerFrameFunctionalGroupsSequence = [
        item(
            FrameContentSequence=[
                item(StackID="1", InStackPositionNumber=n, DimensionIndexValues=[1, n])
            ],
            PlanePositionSequence=[item(ImagePositionPatient=[0, 0, position])],
            PixelValueTransformationSequence=[
                item(RescaleSlope=slope, RescaleIntercept=intercept, RescaleType="HU")
            ],
        )
        for n, (position, slope, intercept) in enumerate(
            zip(positions, slopes, intercepts, strict=True), start=1
        )
    ]
    ds.PixelData = b"".join(np.full((16, 16), value, "<i2").tobytes() for value in stored)
    ds.save_as(path, enforce_file_format=True)


def shown(array):
    return [float(value) for value in array[:, 0, 0]]


# 40 HU in each frame.
slopes, intercepts = [1, 2, 1, 0.5], [-1024, -1000, -1024, 0]
write([0, 1, 2, 3], slopes, intercepts, [1064, 520, 1064, 80])
ds = pydicom.dcmread(path)
by_sitk = shown(sitk.GetArrayFromImage(sitk.ReadImage(path)))
by_pydicom = [shown(f(ds.pixel_array, ds)) for f in (apply_rescale, apply_modality_lut)]
by_highdicom = shown(highdicom.imread(path).get_volume().array)
print("\nslopes 1, 2, 1, 0.5 with intercepts -1024, -1000, -1024, 0 of the frames")
print("  expected: [40.0, 40.0, 40.0, 40.0], or an error")
print(f"  seen:     SimpleITK {by_sitk}, pydicom {by_pydicom[0]}, highdicom {by_highdicom}")

write([0, 1, 2, 10], [1] * 4, [-1024] * 4, [1064] * 4)
spacing = sitk.ReadImage(path).GetSpacing()[2]
try:
    refusal = f"returned {highdicom.imread(path).get_volume().spacing}"
except RuntimeError as error:
    refusal = str(error)
print("\nframes at 0, 1, 2 and 10 mm")
print("  expected: an error or a warning")
print(f"  seen:     SimpleITK {spacing} mm between all; highdicom: {refusal}")

# 10, 20, 30 and 40 HU from the feet up.
write([3, 0, 2, 1], [1] * 4, [-1024] * 4, [1064, 1034, 1054, 1044])
order = shown(sitk.GetArrayFromImage(sitk.ReadImage(path)))
by_position = shown(highdicom.imread(path).get_volume().array)
print("\nframes at 3, 0, 2 and 1 mm, of 40, 10, 30 and 20 HU")
print("  expected: in order of position, or an error")
print(f"  seen:     SimpleITK {order}, highdicom {by_position}")

held = (
    by_sitk == [40, -504, 40, -944]
    and by_pydicom == [[1064, 520, 1064, 80]] * 2
    and by_highdicom == [40] * 4
    and spacing == 1
    and "regularly" in refusal
    and order == [40, 10, 30, 20]
    and by_position == [40, 30, 20, 10]
)
print("\nas stated" if held else "\nno longer as stated")
sys.exit(not held)
PYTHON
