#!/usr/bin/env bash
# Of a codestream cut at half (a transfer that broke off) some decoders return a whole image, with
# no error and no warning, the rest of it made up: imagecodecs 2026.3.6 for JPEG Lossless by
# jpeg8_decode (libjpeg-turbo) and for HTJ2K (OpenJPH), and pydicom 3.0.2 through pylibjpeg-libjpeg
# 2.5.0 for JPEG Lossless and JPEG-LS. Others of the same packages raise an error for the same bytes:
# ljpeg_decode, jpegls_decode and jpeg2k_decode; pydicom through pyjpegls and pylibjpeg-openjpeg.
# For DICOM archives: that a slice decodes is no proof that it is whole; it depends on the plugin.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    imagecodecs==2026.3.6 pydicom==3.0.2 pylibjpeg==2.1.0 pylibjpeg-libjpeg==2.5.0 \
    pylibjpeg-openjpeg==2.6.0 pyjpegls==1.5.1 numpy==2.4.6

"$folder/venv/bin/python" -W always - 2>&1 <<'PYTHON'
import io
import sys
import warnings
from importlib.metadata import version

import imagecodecs
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.uid import (
    CTImageStorage,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    generate_uid,
)

packages = ("imagecodecs", "pydicom", "pylibjpeg-libjpeg", "pylibjpeg-openjpeg", "pyjpegls")
print(", ".join(f"{name} {version(name)}" for name in packages))

y, x = np.mgrid[:256, :256]
noise = np.random.default_rng(0).normal(0, 20, x.shape)
image = (1000 + 500 * np.sin(x / 9) + 300 * np.cos(y / 7) + noise).clip(0, 4095).astype("u2")
jpeg_lossless = imagecodecs.ljpeg_encode(image, bitspersample=12)
jpeg_ls = imagecodecs.jpegls_encode(image)
jpeg_2000 = imagecodecs.jpeg2k_encode(image, codecformat="j2k", level=0, reversible=True)
htj2k = imagecodecs.htj2k_encode(image)


def through_pydicom(syntax, plugin):
    def decode(codestream):
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = syntax
        ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, generate_uid()
        ds.Rows, ds.Columns = image.shape
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
        ds.PixelData = encapsulate([codestream])
        ds["PixelData"].VR = "OB"
        file = io.BytesIO()
        ds.save_as(file, enforce_file_format=True)
        file.seek(0)
        return get_decoder(syntax).as_array(pydicom.dcmread(file), decoding_plugin=plugin)[0]

    return decode


def outcome(decode, codestream):
    whole = decode(codestream)
    assert (whole == image).all()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            half = decode(codestream[: len(codestream) // 2])
    except Exception:
        return "an error"
    return f"an image, {np.mean(half != image):.0%} of its values wrong"


returned = {}
for name, codestream, decode in (
    ("imagecodecs.ljpeg_decode, JPEG Lossless", jpeg_lossless, imagecodecs.ljpeg_decode),
    ("imagecodecs.jpeg8_decode, JPEG Lossless", jpeg_lossless, imagecodecs.jpeg8_decode),
    ("imagecodecs.jpegls_decode, JPEG-LS", jpeg_ls, imagecodecs.jpegls_decode),
    ("imagecodecs.jpeg2k_decode, JPEG 2000", jpeg_2000, imagecodecs.jpeg2k_decode),
    ("imagecodecs.jpeg2k_decode, HTJ2K", htj2k, imagecodecs.jpeg2k_decode),
    ("imagecodecs.htj2k_decode, HTJ2K", htj2k, imagecodecs.htj2k_decode),
    *(
        (f"pydicom by {plugin}, {kind}", codestream, through_pydicom(syntax, plugin))
        for kind, syntax, plugin, codestream in (
            ("JPEG Lossless", JPEGLosslessSV1, "pylibjpeg", jpeg_lossless),
            ("JPEG-LS", JPEGLSLossless, "pylibjpeg", jpeg_ls),
            ("JPEG-LS", JPEGLSLossless, "pyjpegls", jpeg_ls),
            ("JPEG 2000", JPEG2000Lossless, "pylibjpeg", jpeg_2000),
            ("HTJ2K", HTJ2KLossless, "pylibjpeg", htj2k),
        )
    ),
):
    seen = outcome(decode, codestream)
    returned[name] = seen != "an error"
    print(f"{name}, cut at half\n  expected: an error\n  seen:     {seen}")

held = [name for name in returned if returned[name]] == [
    "imagecodecs.jpeg8_decode, JPEG Lossless",
    "imagecodecs.htj2k_decode, HTJ2K",
    "pydicom by pylibjpeg, JPEG Lossless",
    "pydicom by pylibjpeg, JPEG-LS",
]
print("\nas stated" if held else "\nno longer as stated")
sys.exit(not held)
PYTHON
