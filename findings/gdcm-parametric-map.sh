#!/usr/bin/env bash
# GDCM 3.2.6, and with it SimpleITK 2.5.7, opens no DICOM Parametric Map: the class is refused by its UID,
# before any pixel is looked at. The map here has plain 16-bit pixels and is without fault for highdicom
# and pydicom; the same bytes under the UID of Enhanced CT are opened by both, at the right place. So
# SimpleITK's message, that no reader can be determined, says nothing of the file; Float Pixel Data, which
# one would suspect first, has no part in it.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    highdicom==0.28.2 SimpleITK==2.5.7 python-gdcm==3.2.6 pydicom==3.0.2 numpy==2.4.6

"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import sys
from pathlib import Path

import gdcm
import highdicom
import numpy as np
import pydicom
import SimpleITK as sitk
from highdicom.pm import ParametricMap, RealWorldValueMapping
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, generate_uid

folder = Path(sys.argv[1])
print(
    f"highdicom {highdicom.__version__}, SimpleITK {sitk.Version.VersionString()}, "
    f"GDCM {gdcm.Version.GetVersion()}, pydicom {pydicom.__version__}"
)


def source(uids, z):
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, generate_uid()
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = uids
    ds.PatientID, ds.PatientName = "phantom", "Phantom^A"
    ds.PatientBirthDate = ds.PatientSex = ds.AccessionNumber = ds.StudyID = ""
    ds.StudyDate = ds.StudyTime = ds.PositionReferenceIndicator = ""
    ds.Modality, ds.Rows, ds.Columns = "CT", 8, 8
    ds.ImagePositionPatient, ds.ImageOrientationPatient = [-20, -30, z], [1, 0, 0, 0, 1, 0]
    ds.PixelSpacing, ds.SliceThickness = [2, 2], 3
    return ds


uids = [generate_uid() for _ in range(3)]
values = np.random.default_rng(0).integers(0, 1000, (5, 8, 8)).astype(np.uint16)
made = ParametricMap(
    source_images=[source(uids, 3.0 * k) for k in range(5)],
    pixel_array=values,
    series_instance_uid=generate_uid(), series_number=2, sop_instance_uid=generate_uid(),
    instance_number=1, manufacturer="nobody", manufacturer_model_name="none",
    software_versions="1", device_serial_number="1", contains_recognizable_visual_features=False,
    real_world_value_mappings=[
        RealWorldValueMapping("MAP", "a map", codes.UCUM.NoUnits, (0, 1000), slope=1, intercept=0)
    ],
    voi_lut_transformations=[highdicom.VOILUTTransformation(500, 1000)],
)
made.save_as(folder / "map.dcm")
other = pydicom.dcmread(folder / "map.dcm")
other.SOPClassUID = other.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
other.save_as(folder / "other.dcm")


def by_sitk(name):
    try:
        image = sitk.ReadImage(str(folder / name))
    except RuntimeError as error:
        return str(error).strip().splitlines()[-1].split('"')[0]
    return sitk.GetArrayFromImage(image), image.GetOrigin()


def by_gdcm(name):
    reader = gdcm.ImageReader()
    reader.SetFileName(str(folder / name))
    return reader.Read()


frames = pydicom.dcmread(folder / "map.dcm").pixel_array
opened = highdicom.imread(folder / "map.dcm").get_volume()
assert frames.shape == (5, 8, 8) and opened.shape == (5, 8, 8)
refused, (array, origin) = by_sitk("map.dcm"), by_sitk("other.dcm")
print("\nthe map, by pydicom and highdicom: five frames of 8 x 8")
print(f"the map, expected of SimpleITK and GDCM: the same\n  seen: {refused}; {by_gdcm('map.dcm')}")
print(f"under the UID of Enhanced CT: {array.shape} from {origin}; {by_gdcm('other.dcm')}")
held = (
    isinstance(refused, str)
    and "Unable to determine ImageIO" in refused
    and not by_gdcm("map.dcm")
    and by_gdcm("other.dcm")
    and np.array_equal(array, frames)
    and origin[:2] == (-20, -30)
)
print("\nas stated" if held else "\nno longer as stated")
sys.exit(not held)
PYTHON
