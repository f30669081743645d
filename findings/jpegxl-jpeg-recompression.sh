#!/usr/bin/env bash
# DICOM's JPEG XL JPEG Recompression (1.2.840.10008.1.2.4.111) keeps a JPEG bit by bit. The pixels that a
# JPEG XL decoder makes of it are others than those of the JPEG: libjxl 0.11.2 dequantizes and rounds
# in its own way, and differs from libjpeg-turbo 3.1.3 by several steps of 255 where two decoders of JPEG
# (that one, and GDCM's libjpeg 6b) differ by one at most. With a slope of 8 HU that is tens of HU between a file and its lossless transcoding.
# To get the file's own values, make the JPEG again (jpegxl_decode_jpeg) and decode that.
# The other way round, libjxl puts what has more than 12 bits into boxes by itself, also where asked for
# a bare codestream: a check for FF 0A at the start of a frame refuses every 16-bit CT.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    imagecodecs==2026.3.6 numpy==2.4.6 python-gdcm==3.2.6

"$folder/venv/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import version

import gdcm
import imagecodecs
import numpy as np

packages = (f"{name} {version(name)}" for name in ("imagecodecs", "python-gdcm"))
print(", ".join([*packages, imagecodecs.jpegxl_version()]))


def by_gdcm(jpeg, shape):
    """By the libjpeg 6b that GDCM brings along."""
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(jpeg)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((*shape[::-1], 1))
    image.SetDataElement(element)
    grey = gdcm.PhotometricInterpretation.MONOCHROME2
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(grey))
    syntax = gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGBaselineProcess1)
    image.SetTransferSyntax(syntax)
    image.SetPixelFormat(gdcm.PixelFormat(1, 8, 8, 7, 0))
    content = image.GetBuffer().encode("utf-8", "surrogateescape")
    return np.frombuffer(content, np.uint8).reshape(shape)


# A disc of tissue in air with noise, as CT of 8 bits has it.
y, x = np.mgrid[:256, :256] - 128
noise = np.random.default_rng(1).normal(0, 6, (256, 256))
stored = np.clip(np.where(np.hypot(x, y) < 100, 130, 6) + noise, 0, 255).astype(np.uint8)
held = True
for quality in (75, 90, 95):
    jpeg = imagecodecs.jpeg8_encode(stored, level=quality)
    again = imagecodecs.jpegxl_encode_jpeg(jpeg)
    same = imagecodecs.jpegxl_decode_jpeg(again) == jpeg
    by_libjpeg = imagecodecs.jpeg8_decode(jpeg).astype(int)
    by_libjpeg_6b = by_gdcm(jpeg, stored.shape).astype(int)
    by_libjxl = imagecodecs.jpegxl_decode(again).astype(int)
    decoders = int(np.abs(by_libjpeg - by_libjpeg_6b).max())
    off = int(np.abs(by_libjpeg - by_libjxl).max())
    print(f"\nJPEG of quality {quality}")
    print(f"  expected: the same bits back, and pixels as two JPEG decoders differ ({decoders})")
    print(f"  seen:     the same bits back: {same}; pixels differ by up to {off}")
    held &= same and decoders <= 1 and off >= 2

print()
for bits, boxed in ((12, False), (13, True), (16, True)):
    words = (stored.astype(np.uint16) << (bits - 8)).astype(np.uint16)
    stream = imagecodecs.jpegxl_encode(words, lossless=True, bitspersample=bits, usecontainer=False)
    print(f"{bits} bits, no boxes asked for\n  expected: begins with ff0a\n  seen:     {stream[:2].hex()}")
    held &= stream.startswith(b"\xff\x0a") != boxed

print("\nas stated" if held else "\nno longer as stated")
sys.exit(not held)
PYTHON
