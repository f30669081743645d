#!/usr/bin/env bash
# pydicom, nibabel and pynrrd give arrays in the byte order of the file: '>i2' of DICOM in Explicit VR Big
# Endian, of any MGH volume, of big-endian NIfTI and NRRD. numpy and most of SciPy compute with them as
# with any others, SimpleITK refuses them, and these take their bytes for the machine's own, or worse,
# without a word: OpenCV 5.0.0 (40 HU become 10240), pydicom 3.0.2's own set_pixel_data, which finds their
# range right and writes them swapped, and imagecodecs 2026.3.6 for JPEG 2000 (for JPEG-LS it refuses them).
# edt 3.1.2 gives distances of zero (of float16, too), and statistics of cc3d 4.1.1 counts no voxel.
# For old archives and for masks in MGH; array.astype(array.dtype.newbyteorder("=")) heals the order.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    pydicom==3.0.2 nibabel==5.4.2 pynrrd==1.1.3 SimpleITK==2.5.7 opencv-python-headless==5.0.0.93 \
    imagecodecs==2026.3.6 edt==3.1.2 connected-components-3d==4.1.1 scipy==1.17.1 numpy==2.4.6

"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import io
import sys
from importlib.metadata import version
from pathlib import Path

import cc3d
import cv2
import edt
import imagecodecs
import nibabel
import nrrd
import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRBigEndian, generate_uid
from scipy import ndimage

if sys.byteorder != "little":
    print("a machine of the other byte order")
    sys.exit(2)
folder = Path(sys.argv[1])
names = "pydicom nibabel pynrrd opencv-python-headless imagecodecs edt connected-components-3d"
print(", ".join(f"{name} {version(name)}" for name in names.split()))

# A slice of tissue in air with a vessel of 300 HU; a mask of it in 8 slices.
hu = np.full((64, 64), -1000)
hu[8:56, 8:56] = 40
hu[24:40, 24:40] = 300
mask = np.stack([(hu == 300).astype(int)] * 8)
mask[[0, 7]] = 0


def write_dicom(path):
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    ds.SOPClassUID = CTImageStorage
    for keyword in ("SOP", "Study", "Series"):
        setattr(ds, f"{keyword}InstanceUID", generate_uid())
    ds.PatientName = ds.PatientID = "phantom"
    ds.Modality, ds.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.ImagePositionPatient, ds.ImageOrientationPatient = [0, 0, 0], [1, 0, 0, 0, 1, 0]
    ds.PixelSpacing, ds.SliceThickness = [1, 1], 1
    ds.Rows, ds.Columns = hu.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation = 15, 1
    ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = 1, 0, "HU"
    ds.PixelData = hu.astype(">i2").tobytes()
    ds["PixelData"].VR = "OW"
    ds.save_as(path, enforce_file_format=True)
    return path


def by_dicom(array):
    """What a file holds once pydicom has put the array into it."""
    ds = Dataset()
    ds.SOPClassUID = CTImageStorage
    ds.set_pixel_data(array, "MONOCHROME2", 16)
    file = io.BytesIO()
    ds.save_as(file, enforce_file_format=True)
    file.seek(0)
    return pydicom.dcmread(file).pixel_array


def by_jpeg2k(array):
    encoded = imagecodecs.jpeg2k_encode(array, level=0, reversible=True, codecformat="j2k")
    return imagecodecs.jpeg2k_decode(encoded)


def values(array):
    """Air, tissue and vessel."""
    n = len(array)
    return [int(array[at, n // 2]) for at in (0, n // 4, n // 2)]


image = pydicom.dcmread(write_dicom(folder / "slice.dcm")).pixel_array
by_sitk = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "slice.dcm")))[0]
nibabel.save(nibabel.MGHImage(mask.astype(np.int16), np.eye(4)), folder / "mask.mgz")
labels = np.asanyarray(nibabel.load(folder / "mask.mgz").dataobj)
header = nibabel.Nifti1Header(endianness=">")
header.set_data_dtype(np.int16)
nibabel.save(nibabel.Nifti1Image(mask.astype(np.int16), np.eye(4), header), folder / "mask.nii")
nifti = np.asanyarray(nibabel.load(folder / "mask.nii").dataobj)
nrrd.write(str(folder / "mask.nrrd"), mask.astype(">i2"))
by_nrrd, _ = nrrd.read(str(folder / "mask.nrrd"))

right = (image == hu).all() and (by_sitk == hu).all()
right &= all((array == mask).all() for array in (labels, nifti, by_nrrd))
orders = [array.dtype.str for array in (image, labels, nifti, by_nrrd)]
print(f"\nDICOM, MGH, NIfTI and NRRD read: {orders}; their values right: {right}")
try:
    refused = f"not refused: {sitk.GetImageFromArray(image)}"
except TypeError as error:
    refused = str(error)
print(f"SimpleITK of the slice: {refused}")

held = right and orders == [">i2"] * 4 and "not supported" in refused
native = image.astype("=i2")
for name, take, expected, wrong in (
    (
        "scipy.ndimage.zoom to 32 x 32",
        lambda a: values(ndimage.zoom(a, 0.5, order=0)),
        [-1000, 40, 300],
        [-1000, 40, 300],
    ),
    (
        "cv2.resize to 32 x 32",
        lambda a: values(cv2.resize(a, (32, 32), interpolation=cv2.INTER_AREA)),
        [-1000, 40, 300],
        [6396, 10240, 11265],
    ),
    (
        "pydicom's set_pixel_data",
        lambda a: values(by_dicom(a)),
        [-1000, 40, 300],
        [6396, 10240, 11265],
    ),
    (
        "lossless jpeg2k_encode",
        lambda a: values(by_jpeg2k(a)),
        [-1000, 40, 300],
        [6396, 10240, 11265],
    ),
):
    seen = take(image)
    assert take(native) == expected
    print(f"\n{name}: air, tissue, vessel\n  expected: {expected}\n  seen:     {seen}")
    held &= seen == wrong


def deepest(array):
    return float(edt.edt(array, anisotropy=(1, 1, 1)).max())


def counted(array):
    return cc3d.statistics(array)["voxel_counts"].tolist()


voxels = [int((mask == 0).sum()), int(mask.sum())]
assert deepest(labels.astype("=i2")) == 3 and counted(labels.astype("=i2")) == voxels
depth, half, count = deepest(labels), deepest(mask.astype(np.float16)), counted(labels)
print("\nedt.edt: greatest depth in the mask, 6 slices of 16 x 16 voxels")
print(f"  expected: 3.0\n  seen:     {depth}; as float16 {half}")
print("\ncc3d.statistics: voxels of background and mask")
print(f"  expected: {voxels}\n  seen:     {count}")
held &= depth == half == 0 and count == [voxels[0], 0]
print("\nas stated" if held else "\nno longer as stated")
sys.exit(not held)
PYTHON
