#!/usr/bin/env bash
# pydicom 3.0.2 clears the bits above BitsStored, and extends the sign from there, for raw pixels, RLE
# and JPEG Lossless, but not for JPEG-LS and JPEG 2000: there it goes by the codestream's precision.
# Encoders that are handed whole 16-bit words write a precision of 16 for 12 bits stored (gdcmconv of
# GDCM 3.2.6 does too). With two's complement in 12 bits, pixel_array then gives 3096 for -1000, and
# an overlay in spare bits becomes values above 4095, with no warning.
# For CT archives that transcode: the same words mean other HU once they are JPEG-LS or JPEG 2000.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    pydicom==3.0.2 python-gdcm==3.2.6 imagecodecs==2026.3.6 numpy==2.4.6

"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import io
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels.encoders import RLELosslessEncoder
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

print(", ".join(f"{name} {version(name)}" for name in ("pydicom", "python-gdcm", "imagecodecs")))


def rle_encode(words):
    return RLELosslessEncoder.encode(
        words.tobytes(),
        rows=words.shape[0],
        columns=words.shape[1],
        samples_per_pixel=1,
        number_of_frames=1,
        photometric_interpretation="MONOCHROME2",
        bits_allocated=16,
        bits_stored=16,
        pixel_representation=0,
    )


# Each codec returns the 16-bit words that it was given.
CODECS = {
    "raw": (ExplicitVRLittleEndian, None, None),
    "RLE": (RLELossless, rle_encode, None),
    "JPEG Lossless": (
        JPEGLosslessSV1,
        lambda words: imagecodecs.ljpeg_encode(words, bitspersample=16),
        imagecodecs.ljpeg_decode,
    ),
    "JPEG-LS": (JPEGLSLossless, imagecodecs.jpegls_encode, imagecodecs.jpegls_decode),
    "JPEG 2000": (
        JPEG2000Lossless,
        lambda words: imagecodecs.jpeg2k_encode(words, codecformat="j2k", level=0, reversible=True),
        imagecodecs.jpeg2k_decode,
    ),
}


def write(words, representation, codec):
    """A file in memory."""
    syntax, encode, decode = CODECS[codec]
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, generate_uid()
    ds.Rows, ds.Columns = words.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
    ds.PixelRepresentation = representation
    if encode is None:
        ds.PixelData = words.tobytes()
    else:
        codestream = encode(words)
        assert decode is None or (decode(codestream) == words).all()
        ds.PixelData = encapsulate([codestream])
        ds["PixelData"].VR = "OB"
    file = io.BytesIO()
    ds.save_as(file, enforce_file_format=True)
    file.seek(0)
    return file


def precision_by_gdcmconv(words, representation):
    """Of the JPEG-LS codestream that gdcmconv makes of a raw file."""
    raw, packed = Path(sys.argv[1], "raw.dcm"), Path(sys.argv[1], "packed.dcm")
    raw.write_bytes(write(words, representation, "raw").getvalue())
    gdcmconv = Path(sys.executable).with_name("gdcmconv")
    subprocess.run([gdcmconv, "--jpegls", raw, packed], check=True)
    codestream = get_frame(pydicom.dcmread(packed).PixelData, 0)
    # Marker SOF55, length in two bytes, precision
    return codestream[codestream.index(b"\xff\xf7") + 4]


stored = np.tile(np.array([-1000, 40, 300, 1500]), (64, 16))
signed = (stored & 0xFFF).astype("<u2")
overlay = ((stored + 1024) | 0x1000).astype("<u2")
right = {"signed": [-1000, 40, 300, 1500], "overlay": [24, 1064, 1324, 2524]}
wrong = {"signed": [3096, 40, 300, 1500], "overlay": [4120, 5160, 5420, 6620]}
held = True
for name, words, representation, title in (
    ("signed", signed, 1, "12 bits in two's complement, the upper 4 bits zero"),
    ("overlay", overlay, 0, "12 bits unsigned, an overlay in bit 12"),
):
    print(f"\n{title}\n  expected: {right[name]} by each")
    for codec in CODECS:
        ds = pydicom.dcmread(write(words, representation, codec))
        values = ds.pixel_array[0, :4].tolist()
        print(f"  seen:     {values} from {codec}")
        held &= values == (wrong if codec in ("JPEG-LS", "JPEG 2000") else right)[name]
precision = precision_by_gdcmconv(signed, 1)
print(f"\nJPEG-LS by gdcmconv of 12 bits stored\n  expected: precision 12\n  seen:     {precision}")
held &= precision == 16
print("\nas stated" if held else "\nno longer as stated")
sys.exit(not held)
PYTHON
