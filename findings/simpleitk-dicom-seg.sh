#!/usr/bin/env bash
# SimpleITK 2.5.7 opens DICOM Segmentations (binary and fractional) without a word, and finds their
# place only where the frames are one run of evenly spaced slices. Writers leave out empty frames,
# and put one segment's frames after another's (highdicom 0.28.2 does both by default). With a gap
# between two lesions, or a second segment, the mask has a spacing of 1 x 1 x 1 mm whatever the file
# says, and its frames are stacked upwards from the first one without gaps. highdicom's run from the
# head down: the mask is upside down, too. Resampled to its CT, nothing or next to nothing of it
# lies where it should. highdicom reads each at its place.
# For masks of several lesions in DICOM: labels of the wrong slices, without an error.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    SimpleITK==2.5.7 highdicom==0.28.2 pydicom==3.0.2 numpy==2.4.6

"$folder/venv/bin/python" -W ignore - "$folder" <<'PYTHON'
import sys
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import SimpleITK as sitk
from highdicom.seg import SegmentDescription, Segmentation, segread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

print(
    f"SimpleITK {sitk.Version.VersionString()}, highdicom {highdicom.__version__}, "
    f"pydicom {pydicom.__version__}"
)
folder = Path(sys.argv[1])
SPACING, STEP, SHAPE = 0.7, 2.5, (24, 32, 32)


def write_ct():
    """A series of 24 slices, 2.5 mm apart, from the feet up."""
    uids = [generate_uid() for _ in range(3)]
    (folder / "ct").mkdir()
    for number in range(SHAPE[0]):
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, generate_uid()
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = uids
        ds.PatientID, ds.PatientName = "phantom", "Phantom^A"
        ds.PatientBirthDate = ds.PatientSex = ds.AccessionNumber = ds.StudyID = ""
        ds.StudyDate = ds.StudyTime = ds.PositionReferenceIndicator = ""
        ds.Modality, ds.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.SeriesNumber, ds.InstanceNumber, ds.PatientPosition = 2, number + 1, "HFS"
        ds.ImagePositionPatient = [0, 0, -100 + STEP * number]
        ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        ds.PixelSpacing, ds.SliceThickness = [SPACING, SPACING], STEP
        ds.Rows, ds.Columns = SHAPE[1:]
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.BitsAllocated = ds.BitsStored = 16
        ds.HighBit, ds.PixelRepresentation = 15, 1
        ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = 1, 0, "HU"
        ds.PixelData = np.zeros(SHAPE[1:], "<i2").tobytes()
        ds["PixelData"].VR = "OW"
        ds.save_as(folder / "ct" / f"{number:02}.dcm", enforce_file_format=True)


def write_seg(path, mask, kind):
    """A Segmentation of (slices, rows, columns, segments)."""
    Segmentation(
        source_images=[pydicom.dcmread(file) for file in sorted((folder / "ct").iterdir())],
        pixel_array=mask.astype(np.float32 if kind == "FRACTIONAL" else np.uint8),
        segmentation_type=kind,
        segment_descriptions=[
            SegmentDescription(number + 1, name, codes.SCT.Lesion, codes.SCT.Embolus, "MANUAL")
            for number, name in enumerate(("central", "segmental")[: mask.shape[-1]])
        ],
        series_instance_uid=generate_uid(), series_number=3, sop_instance_uid=generate_uid(),
        instance_number=1, manufacturer="nobody", manufacturer_model_name="none",
        software_versions="1", device_serial_number="1",
    ).save_as(path)  # fmt: skip


def places_by_highdicom(path):
    """x, y and z of the mask's voxels, in mm."""
    volume = segread(path).get_volume(rescale_fractional=False)
    indices = np.argwhere(volume.array.any(axis=-1) if volume.array.ndim > 3 else volume.array)
    return volume.map_indices_to_reference(indices)


def places_by_sitk(image):
    indices = np.argwhere(sitk.GetArrayFromImage(image))[:, ::-1].tolist()
    return np.array([image.TransformIndexToPhysicalPoint(index) for index in indices])


def extent(places):
    return "; ".join(
        f"{axis} {low:.1f} to {high:.1f}"
        for axis, low, high in zip("xyz", places.min(axis=0), places.max(axis=0), strict=True)
    )


write_ct()
reader = sitk.ImageSeriesReader()
reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder / "ct")))
ct = reader.Execute()


def mask_of(*boxes):
    mask = np.zeros((*SHAPE, max(box[0] for box in boxes) + 1), bool)
    for segment, slices, first in boxes:
        mask[slices, first : first + 6, first : first + 6, segment] = True
    return mask


held = True
for name, kind, mask, right in (
    ("one lesion in 4 slices", "BINARY", mask_of((0, slice(12, 16), 8)), True),
    ("two lesions, a gap", "BINARY", mask_of((0, slice(4, 8), 8), (0, slice(16, 20), 20)), False),
    ("the same", "FRACTIONAL", mask_of((0, slice(4, 8), 8), (0, slice(16, 20), 20)), False),
    ("two segments", "BINARY", mask_of((0, slice(12, 16), 8), (1, slice(12, 16), 20)), False),
):
    path = folder / f"{name}-{kind}.dcm"
    write_seg(path, mask, kind)
    voxels = np.argwhere(mask.any(axis=-1))[:, ::-1]
    expected = voxels * (SPACING, SPACING, STEP) + (0, 0, -100)
    by_highdicom = places_by_highdicom(path)
    order = [np.lexsort(places.T) for places in (expected, by_highdicom)]
    assert np.allclose(expected[order[0]], by_highdicom[order[1]], atol=1e-3)
    image = sitk.ReadImage(str(path))
    seen = places_by_sitk(image)
    again = sitk.GetArrayFromImage(sitk.Resample(image, ct, interpolator=sitk.sitkNearestNeighbor))
    share = (again[mask.any(axis=-1)] != 0).mean()
    print(f"\n{name}, {kind}: mm; and how much of it lies on the CT where it should")
    spacing = tuple(round(size, 3) for size in image.GetSpacing())
    print(f"  expected: {extent(expected)}; 100%, as by highdicom")
    print(f"  seen:     {extent(seen)}; {share:.0%}; spacing {spacing}")
    if right:
        held &= share == 1 and np.allclose(image.GetSpacing(), (SPACING, SPACING, STEP))
        continue
    frames = pydicom.dcmread(path).PerFrameFunctionalGroupsSequence
    heights = [frame.PlanePositionSequence[0].ImagePositionPatient[2] for frame in frames]
    stacked = [
        image.TransformIndexToPhysicalPoint((0, 0, k))[2] for k in range(image.GetDepth())
    ]
    print(f"  frames at {[float(z) for z in heights]} mm\n    seen at {stacked}")
    held &= share < 0.1 and image.GetSpacing() == (1, 1, 1)
    held &= heights[0] > heights[1] and stacked == [heights[0] + k for k in range(len(heights))]
print("\nas stated" if held else "\nno longer as stated")
sys.exit(not held)
PYTHON
