#!/usr/bin/env bash
# JPEG Lossless (ITU-T T.81, annex H) may have restart intervals, and a point transform, which leaves out
# the lowest bits of all values: no loss where they are 0. DCMTK reads both, and its dcmcjpeg writes the
# latter (--point-transform). Decoders that do not know them mostly give an image all the same:
# ljpeg_decode of imagecodecs 2026.3.6 makes noise of what follows the first restart, and of a point
# transform imagecodecs' three decoders make three images, one of them right (jpeg8_decode, of
# libjpeg-turbo). pylibjpeg-libjpeg 2.5.0, which decodes for pydicom 3.0.2 where there is no GDCM, then
# gives 3071 HU for the whole slice, and dcm2niix v1.0.20260724 air. GDCM 3.2.6 is right throughout.
# For CT archives: whether a scan is right depends on the decoder at hand.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    imagecodecs==2026.3.6 pydicom==3.0.2 pylibjpeg==2.1.0 pylibjpeg-libjpeg==2.5.0 python-gdcm==3.2.6 \
    dcm2niix==1.0.20260724 nibabel==5.4.2 numpy==2.4.6

"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import imagecodecs
import nibabel
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import CTImageStorage, JPEGLosslessSV1, generate_uid

folder = Path(sys.argv[1])
names = "imagecodecs pydicom pylibjpeg-libjpeg python-gdcm dcm2niix"
print(", ".join(f"{name} {version(name)}" for name in names.split()))
BITS = 12


def encode(words, restart_rows, shift):
    """One component, predictor 1 (the pixel to the left), one Huffman table."""
    rows, columns = words.shape
    # Each category, the number of bits of a difference, has its own number as its code, of 5 bits.
    table = bytes([0, 0, 0, 0, 0, 17, *[0] * 11, *range(17)])
    size = rows.to_bytes(2, "big") + columns.to_bytes(2, "big")
    stream = b"\xff\xd8" + segment(0xC4, table)
    stream += segment(0xC3, bytes([BITS]) + size + bytes([1, 1, 0x11, 0]))
    if restart_rows:
        stream += segment(0xDD, (restart_rows * columns).to_bytes(2, "big"))
    stream += segment(0xDA, bytes([1, 1, 0, 1, 0, shift]))
    step = restart_rows or rows
    for number, top in enumerate(range(0, rows, step)):
        if number:
            stream += bytes([0xFF, 0xD0 + (number - 1) % 8])
        stream += interval(words[top : top + step] >> shift, 1 << (BITS - shift - 1))
    return stream + b"\xff\xd9"


def segment(marker, content):
    return bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2, "big") + content


def interval(values, start):
    """The entropy-coded data of whole rows; a row begins with the pixel above."""
    predicted = np.roll(values, 1, axis=1)
    predicted[1:, 0] = values[:-1, 0]
    predicted[0, 0] = start
    bits = []
    for difference in (values - predicted).ravel().tolist():
        category = abs(difference).bit_length()
        bits.append(f"{category:05b}")
        if category:
            below = difference if difference > 0 else difference + (1 << category) - 1
            bits.append(f"{below:0{category}b}")
    text = "".join(bits)
    text += "1" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\x00")


def write_series(stream, name):
    """Three slices of the same pixels."""
    series = folder / name
    series.mkdir()
    uids = [generate_uid() for _ in range(3)]
    for number in range(3):
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = JPEGLosslessSV1
        ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, generate_uid()
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = uids
        ds.PatientName = ds.PatientID = "phantom"
        ds.StudyDate, ds.StudyTime = "20200101", "101010"
        ds.Modality, ds.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.SeriesNumber, ds.InstanceNumber, ds.PatientPosition = 2, number + 1, "HFS"
        ds.ImagePositionPatient = [0, 0, number]
        ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        ds.PixelSpacing, ds.SliceThickness = [1, 1], 1
        ds.Rows, ds.Columns = stored.shape
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, BITS, BITS - 1, 0
        ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = 1, -1024, "HU"
        ds.PixelData = encapsulate([stream])
        ds["PixelData"].VR = "OB"
        ds.save_as(series / f"{number}.dcm", enforce_file_format=True)
    return series


def by_dcm2niix(series):
    target = folder / f"{series.name}-nifti"
    target.mkdir()
    command = [sys.executable, "-m", "dcm2niix", "-b", "n", "-f", "volume", "-o", target, series]
    subprocess.run(command, capture_output=True)
    # Rows run from the back to the front there.
    values = np.asanyarray(nibabel.load(target / "volume.nii").dataobj)[:, ::-1, 1].T
    return values + 1024


def by_pydicom(series, plugin):
    return pydicom.pixels.pixel_array(series / "1.dcm", decoding_plugin=plugin)


DECODERS = {
    "GDCM": lambda stream, series: by_pydicom(series, "gdcm"),
    "jpeg8_decode": lambda stream, series: imagecodecs.jpeg8_decode(stream),
    "ljpeg_decode": lambda stream, series: imagecodecs.ljpeg_decode(stream),
    "jpegsof3_decode": lambda stream, series: imagecodecs.jpegsof3_decode(stream),
    "pylibjpeg": lambda stream, series: by_pydicom(series, "pylibjpeg"),
    "dcm2niix": lambda stream, series: by_dcm2niix(series),
}

# A slice of tissue in air with a vessel of 300 HU, with noise: 1024 + HU, all multiples of 4.
hu = np.full((64, 64), -1000)
hu[8:56, 8:56] = 40
hu[24:40, 24:40] = 300
stored = hu + 1024 + 4 * np.random.default_rng(0).integers(-5, 6, hu.shape)
PLACES = (4, 16, 32)

right, wrong, refused = "right", "wrong", "refused"
held = True
for title, restart_rows, shift, stated in (
    ("plain", 0, 0, [right] * 6),
    ("restarts every 8 rows", 8, 0, [right, right, wrong, refused, right, refused]),
    ("a point transform of 2 bits", 0, 2, [right, right, wrong, wrong, wrong, wrong]),
):
    stream = encode(stored, restart_rows, shift)
    series = write_series(stream, title.replace(" ", "-"))
    expected = [int(stored[at, 32]) - 1024 for at in PLACES]
    print(f"\n{title}: air, tissue, vessel\n  expected: {expected}, or an error")
    for (name, decode), state in zip(DECODERS.items(), stated, strict=True):
        try:
            found = np.asarray(decode(stream, series)).astype(int)
        except (imagecodecs.Jpegsof3Error, FileNotFoundError):
            print(f"  seen:     refused by {name}")
            held &= state == refused
            continue
        off = (found != stored).mean()
        print(f"  seen:     {[int(found[at, 32]) - 1024 for at in PLACES]} by {name}", end="")
        print(f", {off:.0%} of pixels wrong" if off else "")
        held &= state == (wrong if off > 0.5 else right if off == 0 else None)
print("\nas stated" if held else "\nno longer as stated")
sys.exit(not held)
PYTHON
