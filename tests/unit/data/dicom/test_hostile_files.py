"""Every kind of file ends in one of two ways: stored with the right Hounsfield units, or listed."""

import contextlib
import os
import shutil
import socket
import tempfile
import zlib
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache, partial
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import gdcm
import imagecodecs
import numpy as np
import pydicom
import pytest
from builders import codestream_of, compress_dicom, dicom_path, labels_of, pixels_of, write_dicom
from hostile import TORTURE, failures_counted, tally
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.dataelem import DataElement
from pydicom.encaps import encapsulate, encapsulate_extended, generate_frames
from pydicom.uid import (
    JPEG2000,
    MPEG2MPML,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from clotline.data.accounting import collect_slices
from clotline.data.dicom.ct_slice import read_slice, resample
from clotline.data.dicom.isolation import read_apart, read_in_time
from clotline.data.dicom.jpeg_xl import (
    JPEGXL_FAMILY,
    JPEGXLJPEGRecompression,
    JPEGXLLossless,
)
from clotline.data.dicom.reader import MAX_BYTES
from clotline.data.dicom.rejection import SliceError
from clotline.data.ingest import write_shard
from clotline.data.rejects import REJECT_COLUMNS
from clotline.data.shards import open_shard
from clotline.data.study import decode_study
from clotline.grid import AIR_HU, SIZE
from clotline.labels import SOP_UID, STUDY_UID, UIDS

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

SCRATCH = tempfile.TemporaryDirectory()
FOLDER = Path(SCRATCH.name)


def body(low, high, dtype, side=SIZE):
    """(side, side) of ``dtype``: a disc of tissue in air, with noise; compresses as CT does."""
    rng = np.random.default_rng(1)
    rows, columns = np.mgrid[:side, :side] - side / 2
    disc = np.hypot(rows, columns) < 0.4 * side
    values = np.where(disc, 0.7 * high + 0.3 * low, low) + rng.normal(
        0, (high - low) / 50, (side,) * 2
    )
    return np.clip(values, low, high).astype(dtype)


UNSIGNED = body(0, 4095, np.uint16)
SIGNED = body(-2000, 3000, np.int16)
BYTES = body(0, 255, np.uint8)
TWELVE = {"BitsStored": 12, "HighBit": 11, "RescaleIntercept": -1024}


class Case(NamedTuple):
    """A file and what must become of it.

    Attributes:
        write: puts the file, or something else, at a path.
        hu: (256, 256) Hounsfield units with which it must be stored, or None.
        reason: how the reason begins with which it must be listed, or None.
        tolerance: for lossy encodings, in Hounsfield units.
    """

    write: Callable[[Path], object]
    hu: np.ndarray | None = None
    reason: str | None = None
    tolerance: float = 0


CASES: dict[str, Case] = {}


def units(stored, tags):
    """Hounsfield units by the definition of PS3.3 C.11.1, in double precision."""
    slope, intercept = (
        float(tags.get(f"Rescale{n}", d)) for n, d in (("Slope", 1), ("Intercept", 0))
    )
    return np.clip(np.rint(stored.astype(float) * slope + intercept), -32768, 32767)


def good(name, stored, air=None, **tags):
    """The file with these tags must be stored; ``air``: where padding lies."""
    hu = units(stored, tags)
    if air is not None:
        hu[air] = AIR_HU
    CASES[name] = Case(lambda path: write_dicom(path, stored, **tags), hu)


def bad(name, reason, stored=UNSIGNED, **tags):
    """The file with these tags must be listed."""
    CASES[name] = Case(lambda path: write_dicom(path, stored, **tags), reason=reason)


def lists(name, reason):
    """The decorated function leaves what must be listed."""

    def add(write):
        CASES[name] = Case(write, reason=reason)
        return write

    return add


# Encodings


def packed(path, stored, syntax, **tags):
    plain = write_dicom(path.with_suffix(".plain"), stored, **tags)
    compress_dicom(plain, path, syntax)
    plain.unlink()


@cache
def codestream(syntax, kind="unsigned"):
    """The codestream of one of the slices in an encoding."""
    stored, tags = SLICES[kind]
    path = FOLDER / "codestream.dcm"
    packed(path, stored, syntax, **tags)
    return codestream_of(path)


def wrapped(path, stream, syntax=JPEGLosslessSV1, **tags):
    """Writes a codestream as the image of a slice."""
    tags = TWELVE | {"PixelData": encapsulate([stream])} | tags
    write_dicom(path, UNSIGNED, syntax, **tags)


SLICES = {
    "unsigned": (UNSIGNED, TWELVE),
    "signed": (SIGNED, {}),
    "8 bits": (BYTES, {"RescaleSlope": 4, "RescaleIntercept": -1024}),
}
UNCOMPRESSED = {
    "implicit little endian": ImplicitVRLittleEndian,
    "explicit little endian": ExplicitVRLittleEndian,
    "explicit big endian": ExplicitVRBigEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
}
COMPRESSED = {
    "RLE": RLELossless,
    "JPEG Lossless": JPEGLossless,
    "JPEG Lossless, first order": JPEGLosslessSV1,
    "JPEG-LS": JPEGLSLossless,
    "JPEG-LS near lossless": JPEGLSNearLossless,
    "JPEG 2000 lossless": JPEG2000Lossless,
    "JPEG 2000": JPEG2000,
    "HTJ2K lossless": HTJ2KLossless,
    "HTJ2K lossless, RPCL": HTJ2KLosslessRPCL,
    "JPEG XL lossless": JPEGXLLossless,
}
for kind, (stored, tags) in SLICES.items():
    for name, syntax in UNCOMPRESSED.items():
        good(f"{name}, {kind}", stored, syntax=syntax, **tags)
    for name, syntax in COMPRESSED.items():
        CASES[f"{name}, {kind}"] = Case(
            partial(packed, stored=stored, syntax=syntax, **tags), units(stored, tags)
        )


def filled_up(path, syntax, marker):
    """Fill bytes before a marker, as JPEG allows."""
    stream = codestream(syntax)
    place = stream.index(marker)
    wrapped(path, stream[:place] + b"\xff" * 3 + stream[place:], syntax)


for name, syntax, marker in (
    ("JPEG Lossless, first order", JPEGLosslessSV1, b"\xff\xc3"),
    ("JPEG-LS", JPEGLSLossless, b"\xff\xf7"),
):
    CASES[f"{name}, fill bytes"] = Case(
        partial(filled_up, syntax=syntax, marker=marker), units(UNSIGNED, TWELVE)
    )

CASES["JPEG baseline"] = Case(
    partial(packed, stored=BYTES, syntax=JPEGBaseline8Bit, RescaleIntercept=-100),
    BYTES - 100.0,
    tolerance=3,
)
CASES["JPEG XL of a JPEG"] = Case(
    partial(packed, stored=BYTES, syntax=JPEGXLJPEGRecompression, RescaleIntercept=-100),
    BYTES - 100.0,
    tolerance=9,
)
good(
    "8 bits in words of big endian",
    BYTES,
    syntax=ExplicitVRBigEndian,
    PixelData=DataElement(0x7FE00010, "OW", BYTES.view(np.uint16).byteswap().tobytes()),
)


# Slope and intercept

good("intercept -1000", UNSIGNED, RescaleIntercept=-1000)
good("intercept -1024", UNSIGNED, RescaleIntercept=-1024)
good("intercept -4047", UNSIGNED, RescaleIntercept=-4047)
good("slope 2.0", UNSIGNED, RescaleSlope="2.0", RescaleIntercept=-1024)
good("slope 32.12", UNSIGNED, RescaleSlope="32.12", RescaleIntercept=-1024)
good("a slope below one", SIGNED, RescaleSlope="0.1", RescaleIntercept="-0.5")
good("a slope in exponents", SIGNED, RescaleSlope="1.000000E+00", RescaleIntercept="+0.00E1")
good("a slope between spaces", SIGNED, RescaleSlope=" 2 ", RescaleIntercept=" -5 ")
good("rescale type HU", SIGNED, RescaleType="HU")
good("rescale type unspecified", SIGNED, RescaleType="US")
UNITS = "no Hounsfield units"
bad("slope missing", UNITS, RescaleSlope=None)
bad("slope empty", UNITS, RescaleSlope="")
bad("slope zero", UNITS, RescaleSlope=0)
bad("two slopes", UNITS, RescaleSlope=[1, 2])
bad("slope beyond all numbers", UNITS, RescaleSlope="1e300")
bad("intercept missing", UNITS, RescaleIntercept=None)
bad("intercept empty", UNITS, RescaleIntercept="")
bad("intercept beyond all scales", UNITS, RescaleIntercept="-1e30")
bad("an effective atomic number", UNITS, RescaleType="Z_EFF")
bad("an electron density", UNITS, RescaleType="ED")


# Stored values and padding

good("12 bits of 16", UNSIGNED, **TWELVE)
good("12 bits of 16, others in use", UNSIGNED, PixelData=(UNSIGNED | 0xA000).tobytes(), **TWELVE)
good("12 bits, signed", np.clip(SIGNED, -2000, 2000), **TWELVE)
good("16 bits, above 32767", (UNSIGNED + 40_000).astype(np.uint16), RescaleIntercept=-41_000)
good("32 bits", SIGNED.astype(np.int32))
good("below -1024", SIGNED - np.int16(1000))
good("above 3071", SIGNED + np.int16(9000))
good("beyond int16", UNSIGNED, RescaleSlope=20, RescaleIntercept=-40_000)
good("padding", SIGNED, air=SIGNED == -2000, PixelPaddingValue=-2000)
good("padding nowhere", SIGNED, PixelPaddingValue=-9999)
good("padding as a tissue's value", UNSIGNED, air=UNSIGNED == 0, PixelPaddingValue=0, **TWELVE)
good(
    "padding of the other sign",
    SIGNED,
    air=SIGNED == -2000,
    PixelPaddingValue=DataElement(0x00280120, "US", 63_536),
)
good(
    "padding of the other sign, unsigned",
    (UNSIGNED + 61_000).astype(np.uint16),
    air=UNSIGNED == 2536,
    PixelPaddingValue=DataElement(0x00280120, "SS", -2000),
    RescaleIntercept=-62_000,
)
good(
    "a range of padding",
    SIGNED,
    air=SIGNED <= -1990,
    PixelPaddingValue=-2000,
    PixelPaddingRangeLimit=-1990,
)
good(
    "a range of padding, upside down",
    SIGNED,
    air=SIGNED <= -1990,
    PixelPaddingValue=-1990,
    PixelPaddingRangeLimit=-2000,
)
good("padding of 16 bits beside 8", BYTES, PixelPaddingValue=63_536)
LAYOUT = "no usable layout of pixels"
bad("BitsAllocated missing", "no usable BitsAllocated", BitsAllocated=None)
bad("BitsAllocated 1", LAYOUT, BitsAllocated=1, BitsStored=1, HighBit=0)
bad("BitsAllocated 12", LAYOUT, BitsAllocated=12, BitsStored=12, HighBit=11)
bad("BitsAllocated 64", LAYOUT, BitsAllocated=64)
bad("BitsStored above BitsAllocated", LAYOUT, BitsStored=17, HighBit=16)
bad("BitsStored 0", LAYOUT, BitsStored=0)
bad("values at the upper end of their words", LAYOUT, BitsStored=12, HighBit=15)
bad("PixelRepresentation 2", LAYOUT, PixelRepresentation=2)
bad("PixelRepresentation missing", "no usable PixelRepresentation", PixelRepresentation=None)
bad("three samples a pixel", LAYOUT, SamplesPerPixel=3)
bad("SamplesPerPixel missing", LAYOUT, SamplesPerPixel=None)


# Geometry

AXES = [1, 0, 0, 0, 1, 0]
good("a tilted gantry", SIGNED, ImageOrientationPatient=[1, 0, 0, 0, 0.96, -0.28])
good("no position", SIGNED, ImagePositionPatient=None)
good("no orientation", SIGNED, ImageOrientationPatient=None)
good("half a position", SIGNED, ImagePositionPatient=[1, 2])
good("a position beyond all numbers", SIGNED, ImagePositionPatient=["1e308"] * 3)
good("axes that are parallel", SIGNED, ImageOrientationPatient=[1, 0, 0, 1, 0, 0])
good("an instance number that is none", SIGNED, InstanceNumber=DataElement(0x00200013, "LO", "x"))
NOT_SQUARE = np.full((SIZE, SIZE), AIR_HU, float)
NOT_SQUARE[:, 28:228] = SIGNED[:, :200]
CASES["fewer columns than rows"] = Case(partial(write_dicom, stored=SIGNED[:, :200]), NOT_SQUARE)
CASES["fewer rows than columns"] = Case(
    partial(write_dicom, stored=SIGNED[:, :200].T.copy()), NOT_SQUARE.T
)
for side in (512, 768, 1024, 2048):
    large = body(-2000, 3000, np.int16, side)
    factor = side // SIZE
    means = large.reshape(SIZE, factor, SIZE, factor).astype(float).mean((1, 3))
    CASES[f"{side} rows and columns"] = Case(partial(write_dicom, stored=large), np.rint(means))


# What is no slice of a CT series

good("no ImageType", SIGNED, ImageType=None)
good("no SOPClassUID", SIGNED, SOPClassUID=None)
good("one frame", SIGNED, NumberOfFrames=1)
good("a header that names other UIDs", SIGNED, SOPInstanceUID="1.2.3", StudyInstanceUID="9.9")
good("a header that names a path", SIGNED, SOPInstanceUID="../../../etc/passwd")
good("a header without UIDs", SIGNED, SOPInstanceUID=None)
bad("a localizer", "a localizer", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
bad("a secondary capture", "SOPClassUID is not CT", SOPClassUID=SecondaryCaptureImageStorage)
bad("enhanced CT", "no functional groups", SOPClassUID=EnhancedCTImageStorage, NumberOfFrames=2)
bad("two frames", "more than one frame", NumberOfFrames=2)
bad("another modality", "Modality is not CT", Modality="MR")
bad("no modality", "Modality is not CT", Modality=None)
good("MONOCHROME1", SIGNED, PhotometricInterpretation="MONOCHROME1")
bad("RGB", "PhotometricInterpretation", PhotometricInterpretation="RGB", SamplesPerPixel=3)
bad("a palette", "PhotometricInterpretation", PhotometricInterpretation="PALETTE COLOR")
bad("no photometric interpretation", "PhotometricInterp", PhotometricInterpretation=None)


# Sizes that are not as they should be

LENGTH = "PixelData has another length"
bad("no PixelData", "no PixelData", PixelData=None)
bad("PixelData empty", "no PixelData", PixelData=b"")
bad("PixelData a row short", LENGTH, PixelData=UNSIGNED.tobytes()[:-512])
bad("PixelData a row long", LENGTH, PixelData=UNSIGNED.tobytes() + bytes(512))
bad(
    "PixelData a row long, of few columns",
    LENGTH,
    UNSIGNED[:, :10],
    PixelData=UNSIGNED[:, :10].tobytes() + bytes(20),
)
for surplus in (1, 2, 17, 510):
    good(f"PixelData {surplus} bytes long", UNSIGNED, PixelData=UNSIGNED.tobytes() + bytes(surplus))
ODD = BYTES[:255, :255].copy()
CASES["an odd number of bytes"] = Case(
    partial(write_dicom, stored=ODD, PixelData=ODD.tobytes() + b"\0"),
    resample(ODD.astype(np.float32)).astype(float),
)
bad("fewer Rows than there are", LENGTH, Rows=255)
bad("fewer Columns than there are", LENGTH, Columns=128)
bad("more Rows than there are", LENGTH, Rows=257)
bad("Rows missing", "no usable Rows", Rows=None)
bad("Rows zero", "Rows or Columns out of range", Rows=0)
bad("Columns zero", "Rows or Columns out of range", Columns=0)
bad("Rows and Columns 65535", "Rows or Columns out of range", Rows=65_535, Columns=65_535)
bad("two values of Rows", "no usable Rows", Rows=[256, 256])


@lists("a file of a terabyte", "too large")
def terabyte(path):
    write_dicom(path, UNSIGNED)
    os.truncate(path, 2**40)


@lists("a file just above the limit", "too large")
def above_the_limit(path):
    write_dicom(path, UNSIGNED)
    os.truncate(path, MAX_BYTES + 1)


@lists("a bomb of zeros, deflated", "too large")
def deflated_bomb(path):
    write_dicom(path, UNSIGNED, DeflatedExplicitVRLittleEndian)
    whole = path.read_bytes()
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    megabyte = bytes(2**20)
    bomb = b"".join(packer.compress(megabyte) for _ in range(2000)) + packer.flush()
    path.write_bytes(whole[: end_of_file_meta(whole)] + bomb)


@lists("an image of 65535 pixels a side, in JPEG Lossless", "the codestream's image is not")
def jpeg_bomb(path):
    stream = bytearray(codestream(JPEGLosslessSV1))
    frame = stream.index(b"\xff\xc3")
    stream[frame + 5 : frame + 9] = b"\xff" * 4
    wrapped(path, bytes(stream))


@lists(
    "an image of 65535 pixels a side, in JPEG 2000", "the codestream is damaged: ValueError: tiles"
)
def jpeg2000_bomb(path):
    stream = bytearray(codestream(JPEG2000Lossless))
    stream[8:16] = b"\x00\x00\xff\xff" * 2
    wrapped(path, bytes(stream), JPEG2000Lossless)


@lists("a million tiles, in JPEG 2000", "the codestream is damaged")
def tiles(path):
    stream = bytearray(codestream(JPEG2000Lossless))
    stream[24:32] = b"\x00\x00\x00\x01" * 2
    wrapped(path, bytes(stream), JPEG2000Lossless)


@lists("an image of 2^30 pixels a side, in JPEG XL", "the codestream's image is not")
def jpeg_xl_bomb(path):
    stream = bytearray(codestream(JPEGXLLossless))
    place = stream.index(b"\xff\x0a") + 2
    # Rows by 30 bits, and as many columns.
    stream[place : place + 5] = (1 << 33 | (2**30 - 1) << 3 | 0b110).to_bytes(5, "little")
    wrapped(path, bytes(stream), JPEGXLLossless)


@lists("an image larger than Rows and Columns say, in JPEG-LS", "the codestream's image is not")
def other_size(path):
    wrapped(path, codestream(JPEGLSLossless), JPEGLSLossless, Rows=128, Columns=128)


@lists("an image of 16 bits beside BitsAllocated 8, in JPEG-LS", "the codestream's image is not")
def more_bits(path):
    eight = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
    wrapped(path, codestream(JPEGLSLossless, "signed"), JPEGLSLossless, **eight)


@lists("an image in colours behind MONOCHROME2", "the codestream's image is not")
def colours(path):
    wrapped(
        path, codestream_of(Path(get_testdata_file("SC_rgb_jpeg_gdcm.dcm"))), Rows=100, Columns=100
    )


@lists("a run of 65535 rows, in RLE", "pixels cannot be decoded")
def rle_bomb(path):
    wrapped(path, codestream(RLELossless) * 40, RLELossless)


# Damaged files


def end_of_file_meta(whole: bytes) -> int:
    """Where the data set begins: behind the group whose length stands in its first element."""
    return 144 + int.from_bytes(whole[140:144], "little")


def damaged(name, reason, change, **options):
    """The bytes of a good file after ``change`` must be listed, or stored where no reason is."""

    def write(path):
        write_dicom(path, UNSIGNED, **options)
        path.write_bytes(change(path.read_bytes()))

    hu = UNSIGNED.astype(float) if reason is None else None
    CASES[name] = Case(write, hu, reason)


def without(whole, start, stop):
    return whole[:start] + whole[stop:]


def cut(whole, stop):
    return whole[:stop]


def meta_cut_out(whole):
    return without(whole, 132, end_of_file_meta(whole))


def bare(whole):
    """The data set alone."""
    return whole[end_of_file_meta(whole) :]


def declared_as(whole, old, new):
    """The file with another TransferSyntaxUID, and all lengths as they must be."""
    old, new = (uid.encode() + b"\0" * (len(uid) % 2) for uid in (old, new))
    element = b"\x02\0\x10\0UI"
    longer = int.from_bytes(whole[140:144], "little") + len(new) - len(old)
    whole = whole[:140] + longer.to_bytes(4, "little") + whole[144:]
    old, new = (element + len(uid).to_bytes(2, "little") + uid for uid in (old, new))
    assert whole.count(old) == 1
    return whole.replace(old, new)


def syntax_replaced(whole, uid):
    old = b"1.2.840.10008.1.2.1\0"
    assert whole.count(old) == 1
    return whole.replace(old, uid)


NOT_DICOM = "not a DICOM file"
damaged("an empty file", "an empty file", partial(cut, stop=0))
damaged("one byte", NOT_DICOM, partial(cut, stop=1))
damaged("cut within the preamble", NOT_DICOM, partial(cut, stop=100))
damaged("cut after the preamble", "no TransferSyntaxUID", partial(cut, stop=132))
damaged("cut within the meta information", "", partial(cut, stop=200))
damaged("cut within the header", "no PixelData", partial(cut, stop=500))
damaged("cut within the pixels", "", partial(cut, stop=-1000))
damaged("cut before the last byte", "", partial(cut, stop=-1))
damaged(
    "deflated, cut", "unreadable", partial(cut, stop=-100), syntax=DeflatedExplicitVRLittleEndian
)
damaged("no preamble", None, partial(without, start=0, stop=132))
damaged("no meta information", None, meta_cut_out)
for name, syntax in (
    ("explicit", ExplicitVRLittleEndian),
    ("implicit", ImplicitVRLittleEndian),
):
    damaged(f"neither preamble nor meta information, {name}", None, bare, syntax=syntax)
    damaged(
        f"neither preamble nor meta information, {name}, cut",
        "",
        lambda whole: bare(whole)[:-1],
        syntax=syntax,
    )
damaged(
    "neither preamble nor meta information, big endian", NOT_DICOM, bare, syntax=ExplicitVRBigEndian
)
damaged("no class of object in a data set alone", NOT_DICOM, bare, SOPClassUID=None)
damaged(
    "implicit that is declared as explicit",
    None,
    lambda whole: declared_as(whole, ImplicitVRLittleEndian, ExplicitVRLittleEndian),
    syntax=ImplicitVRLittleEndian,
)
damaged(
    "explicit that is declared as implicit",
    None,
    lambda whole: declared_as(whole, ExplicitVRLittleEndian, ImplicitVRLittleEndian),
)
damaged(
    "an encoding not known", "no decoder", partial(syntax_replaced, uid=b"1.2.3.4.5.6.7.8.9.0\0")
)
damaged("no DICOM", NOT_DICOM, lambda whole: b"SOPInstanceUID,label\n" * 999)
damaged("a picture of another kind", NOT_DICOM, lambda whole: b"\x89PNG\r\n\x1a\n" + bytes(999))
damaged("noise", NOT_DICOM, lambda whole: np.random.default_rng(0).bytes(9999))
damaged("zeros", NOT_DICOM, lambda whole: bytes(len(whole)))
damaged(
    "another endianness than it says",
    "",
    lambda whole: syntax_replaced(whole, str(ExplicitVRBigEndian).encode() + b"\0"),
)

for name, syntax in COMPRESSED.items():
    if "near" in name or name == "JPEG 2000":
        continue

    @lists(f"{name}, the codestream cut", "")
    def codestream_cut(path, syntax=syntax):
        stream = codestream(syntax)
        wrapped(path, stream[: len(stream) // 4 * 2], syntax)

    @lists(f"{name}, the middle of the codestream lost", "")
    def codestream_gap(path, syntax=syntax):
        stream = codestream(syntax)
        wrapped(path, stream[: len(stream) // 2] + stream[len(stream) // 4 * 3 :], syntax)

    @lists(f"{name}, noise as codestream", "")
    def codestream_noise(path, syntax=syntax):
        wrapped(path, np.random.default_rng(0).bytes(9998), syntax)

    @lists(f"{name}, no codestream", "")
    def codestream_empty(path, syntax=syntax):
        wrapped(path, bytes(2), syntax)


@lists("no fragments", "")
def no_fragments(path):
    wrapped(path, bytes(2), PixelData=b"\xfe\xff\x00\xe0" + bytes(4))


@lists("uncompressed pixels that are said to be compressed", "")
def not_compressed(path):
    wrapped(path, UNSIGNED.tobytes())


@lists("two images in one file", "")
def two_images(path):
    wrapped(path, bytes(2), PixelData=encapsulate([codestream(JPEGLosslessSV1)] * 2))


@lists("a film", "no decoder for this encoding")
def film(path):
    wrapped(path, b"\x00\x00\x01\xb3", MPEG2MPML)


def declared_uncompressed(path, syntax):
    packed(path, UNSIGNED, syntax, **TWELVE)
    path.write_bytes(declared_as(path.read_bytes(), syntax, ExplicitVRLittleEndian))


def alone(path, syntax):
    packed(path, UNSIGNED, syntax, **TWELVE)
    path.write_bytes(bare(path.read_bytes()))


for name, syntax in COMPRESSED.items():
    if "near" in name or name == "JPEG 2000":
        continue
    CASES[f"{name} that is declared as uncompressed"] = Case(
        partial(declared_uncompressed, syntax=syntax), units(UNSIGNED, TWELVE)
    )
    CASES[f"{name} without meta information"] = Case(
        partial(alone, syntax=syntax), units(UNSIGNED, TWELVE)
    )


@lists("an unknown encoding that is declared as uncompressed", "compressed pixels declared as")
def unknown_encoding(path):
    wrapped(path, b"\0\0\1\xb3" * 20)
    path.write_bytes(declared_as(path.read_bytes(), JPEGLosslessSV1, ExplicitVRLittleEndian))


def in_fragments(path):
    wrapped(
        path, bytes(2), PixelData=encapsulate([codestream(JPEGLosslessSV1)], fragments_per_frame=5)
    )


def without_offsets(path):
    wrapped(path, bytes(2), PixelData=encapsulate([codestream(JPEGLosslessSV1)], has_bot=False))


def with_extended_offsets(path):
    data, offsets, lengths = encapsulate_extended([codestream(JPEGLosslessSV1)])
    tables = {"ExtendedOffsetTable": offsets, "ExtendedOffsetTableLengths": lengths}
    wrapped(path, bytes(2), PixelData=data, **tables)


for write in (in_fragments, without_offsets, with_extended_offsets):
    CASES[f"JPEG Lossless {write.__name__}"] = Case(write, units(UNSIGNED, TWELVE))


# What is no file at all


@lists("a missing file", "no such file")
def missing(path):
    pass


@lists("a folder", "not a regular file")
def folder(path):
    path.mkdir()


@lists("a pipe, which would wait for ever", "not a regular file")
def pipe(path):
    os.mkfifo(path)


@lists("a socket", "not a regular file")
def socket_file(path):
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(os.path.relpath(path))


@lists("a link to nothing", "no such file")
def broken_link(path):
    path.symlink_to("nowhere.dcm")


@lists("a link to itself", "unreadable")
def loop(path):
    path.symlink_to(path.name)


@lists("a link to a device that never ends", "leads out of the data folder")
def device(path):
    path.symlink_to("/dev/zero")


@lists("a link out of the data folder", "leads out of the data folder")
def link_out(path):
    path.symlink_to(write_dicom(FOLDER / "outside.dcm", UNSIGNED))


def link_within(path):
    path.symlink_to(write_dicom(path.with_name("target.dcm"), SIGNED))


CASES["a link within the data folder"] = Case(link_within, SIGNED.astype(float))


# The tests


def test_there_are_many_cases():
    assert len(CASES) >= 80


def assert_listed(rejects, reason=""):
    """The list of rejects has this one slice, by its UIDs and path, and a reason in one line."""
    assert list(rejects.columns) == list(REJECT_COLUMNS)
    row = rejects.iloc[0]
    assert row["path"] == "/".join(row[list(UIDS)]) + ".dcm"
    assert row["reason"].startswith(reason)
    assert row["reason"]
    assert row["reason"].isprintable()
    assert len(row["reason"]) < 400


def write_case(name, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    # A socket's path must be short.
    with contextlib.chdir(path.parent):
        CASES[name].write(path)


@pytest.mark.parametrize("name", CASES)
def test_a_file_is_stored_with_the_right_units_or_listed(tmp_path, name):
    labels = labels_of({"s": [0]})
    case = CASES[name]
    write_case(name, dicom_path(tmp_path, labels.iloc[0]))
    study = decode_study(labels, tmp_path, read_apart)
    assert len(study.rows) + len(study.rejects) == 1
    if case.hu is None:
        assert_listed(study.rejects, case.reason)
    else:
        assert study.rejects["reason"].tolist() == []
        assert np.abs(pixels_of(study)[0] - case.hu).max() <= case.tolerance


def test_a_shard_of_all_of_them_accounts_for_every_one(tmp_path):
    studies = {f"s{number}": [0, 0, 0] for number in range(-(-len(CASES) // 3))}
    labels = labels_of(studies).head(len(CASES)).assign(shard=0, split="train", case=list(CASES))
    for _, row in labels.iterrows():
        write_case(row["case"], dicom_path(tmp_path / "dicom", row))
    rejects, _ = write_shard(labels, tmp_path / "dicom", tmp_path / "shard.h5", workers=2)
    rejects.to_csv(tmp_path / "rejects.csv", index=False)
    slices, listed = collect_slices(
        {"000": tmp_path / "shard.h5"}, {"000": tmp_path / "rejects.csv"}, labels
    )
    assert len(slices) + len(listed) == len(CASES)
    case_of = labels.set_index([STUDY_UID, SOP_UID])["case"]
    with open_shard(tmp_path / "shard.h5") as file:
        for row, uids in enumerate(slices[[STUDY_UID, SOP_UID]].itertuples(index=False)):
            case = CASES[case_of[tuple(uids)]]
            assert np.abs(file["pixels"][row] - case.hu).max() <= case.tolerance
    for number in range(len(listed)):
        row = listed.iloc[[number]]
        assert_listed(row, CASES[case_of[row[STUDY_UID].item(), row[SOP_UID].item()]].reason)


def test_a_file_that_may_not_be_read_is_listed(tmp_path):
    labels = labels_of({"s": [0]})
    path = write_dicom(dicom_path(tmp_path, labels.iloc[0]), UNSIGNED)
    path.chmod(0)
    # Root may read everything.
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        study = decode_study(labels, tmp_path)
    finally:
        os.seteuid(user)
    assert_listed(study.rejects, "unreadable: Permission denied")


# pydicom's own files

PYDICOM_FILES = sorted(
    path
    for name in ("CT_small.dcm", "693_J2KR.dcm")
    for path in Path(get_testdata_file(name, download=False)).parent.rglob("*")
    if path.is_file()
)


def as_ct(dataset):
    """Whatever it shows, as a CT slice whose units are its stored values."""
    dataset.Modality, dataset.SOPClassUID = "CT", CTImageStorage
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
    for keyword in ("ImageType", "RescaleType", "PixelPaddingValue", "NumberOfFrames"):
        if keyword in dataset and dataset.get("NumberOfFrames", 1) == 1:
            del dataset[keyword]
    return dataset


def test_every_file_that_ships_with_pydicom_ends_in_one_of_the_two_ways(tmp_path):
    labels = labels_of({"s": [0] * len(PYDICOM_FILES)})
    for path, (_, row) in zip(PYDICOM_FILES, labels.iterrows(), strict=True):
        target = dicom_path(tmp_path, row)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    study = decode_study(labels, tmp_path, read_apart)
    assert len(study.rows) + len(study.rejects) == len(PYDICOM_FILES) > 200
    for number in range(len(study.rejects)):
        assert_listed(study.rejects.iloc[[number]])
    stored = {
        path.name
        for path, uid in zip(PYDICOM_FILES, labels[SOP_UID], strict=True)
        if uid in set(study.rows[SOP_UID])
    }
    expected = {"CT_small.dcm", "J2K_pixelrep_mismatch.dcm", "explicit_VR-UN.dcm",
                "bad_sequence.dcm", "693_J2KI.dcm", "693_J2KR.dcm", "693_UNCR.dcm"}  # fmt: skip
    assert expected <= stored


@pytest.mark.parametrize(
    ("packed_name", "plain_name", "tolerance"),
    [
        ("693_J2KR.dcm", "693_UNCR.dcm", 0),
        ("693_J2KI.dcm", "693_UNCI.dcm", 0),
        ("MR2_J2KR.dcm", "MR2_UNCR.dcm", 0),
        ("MR2_J2KI.dcm", "MR2_UNCI.dcm", 1),
        ("JPEG2000.dcm", "JPEG2000_UNC.dcm", 1),
        ("MR_small_RLE.dcm", "MR_small.dcm", 0),
        ("MR_small_jp2klossless.dcm", "MR_small.dcm", 0),
        ("MR_small_jpeg_ls_lossless.dcm", "MR_small.dcm", 0),
        ("MR_small_bigendian.dcm", "MR_small.dcm", 0),
        ("MR_small_implicit.dcm", "MR_small.dcm", 0),
    ],
)
def test_a_compressed_file_of_pydicom_has_the_units_of_its_uncompressed_twin(
    tmp_path, packed_name, plain_name, tolerance
):
    pixels = []
    for name in (packed_name, plain_name):
        dataset = as_ct(pydicom.dcmread(get_testdata_file(name, download=False)))
        dataset.save_as(tmp_path / name)
        pixels.append(read_slice(tmp_path / name).pixels.astype(int))
    assert np.abs(pixels[0] - pixels[1]).max() <= tolerance


def test_jpeg_extended_of_12_bits_is_decoded_as_gdcm_would_where_it_can(tmp_path):
    """GDCM takes another discrete cosine transform, and differs by one at most."""
    source = get_testdata_file("JPGExtended.dcm", download=False)
    as_ct(pydicom.dcmread(source)).save_as(tmp_path / "slice.dcm")
    reader = gdcm.ImageReader()
    reader.SetFileName(source)
    assert reader.Read()
    buffer = reader.GetImage().GetBuffer().encode("utf-8", "surrogateescape")
    stored = np.frombuffer(buffer, np.uint16).reshape(1024, 256).astype(np.float32)
    assert stored.max() > 255
    assert np.abs(read_slice(tmp_path / "slice.dcm").pixels - resample(stored)).max() <= 1


# Files damaged at random

MUTATED = [
    "explicit little endian, unsigned",
    "implicit little endian, signed",
    "explicit big endian, signed",
    "deflated, signed",
    "RLE, unsigned",
    "JPEG Lossless, first order, unsigned",
    "JPEG-LS, unsigned",
    "JPEG 2000 lossless, signed",
    "JPEG baseline",
    "HTJ2K lossless, signed",
    "JPEG XL lossless, unsigned",
    "JPEG XL of a JPEG",
]

#: Slices of real scanners.
REAL = {
    name: Path(get_testdata_file(name, download=False))
    for name in ("CT_small.dcm", "693_J2KR.dcm", "693_UNCR.dcm", "bad_sequence.dcm")
}
if "CLOTLINE_REALCT" in os.environ:
    REAL |= {p.name: p for p in sorted(Path(os.environ["CLOTLINE_REALCT"]).rglob("*.dcm"))[::200]}


@cache
def bytes_of(name):
    if name in REAL:
        return REAL[name].read_bytes()
    path = FOLDER / "whole.dcm"
    CASES[name].write(path)
    return path.read_bytes()


@st.composite
def mutations(draw, size):
    """A function that damages bytes; most often those of the header and of the codestream's."""
    place = draw(st.one_of(st.integers(128, 1400), st.integers(0, size - 1)))
    length = draw(st.sampled_from((1, 2, 4, 16, 300, 5000)))
    # From a seed: drawn byte by byte it takes longer than reading the file.
    noise = np.random.default_rng(draw(st.integers(0, 2**32 - 1))).bytes(length)
    value = draw(st.sampled_from((b"\0", b"\xff", b"\0\0", b"\xff\xff", b"\xff" * 4, b"\0" * 4)))
    return draw(
        st.sampled_from(
            (
                lambda whole: whole[:place],
                lambda whole: whole[:place] + whole[place + length :],
                lambda whole: whole[:place] + noise + whole[place:],
                lambda whole: whole[:place] + noise + whole[place + len(noise) :],
                lambda whole: whole[:place] + value + whole[place + len(value) :],
                lambda whole: whole[:place] + whole[place : place + length] * 2 + whole[place:],
            )
        )
    )


def right_units(data, whole):
    """What the header says of the stored values, by pydicom alone; None where that is unknown.

    A damaged codestream may be as good a codestream as any: its values cannot be known.
    """
    dataset, before = (pydicom.dcmread(BytesIO(content), force=True) for content in (data, whole))
    if before.file_meta.TransferSyntaxUID.is_encapsulated or "TransferSyntaxUID" not in (
        dataset.file_meta
    ):
        dataset.file_meta.TransferSyntaxUID = before.file_meta.TransferSyntaxUID
    compressed = dataset.file_meta.TransferSyntaxUID.is_encapsulated
    if compressed and dataset.PixelData != before.PixelData:
        return None
    if "PixelPaddingValue" in dataset:
        return None
    syntax = dataset.file_meta.TransferSyntaxUID
    decoders = dict.fromkeys((HTJ2KLossless, HTJ2KLosslessRPCL), imagecodecs.jpeg2k_decode)
    decoders |= dict.fromkeys(JPEGXL_FAMILY, imagecodecs.jpegxl_decode)
    if decoder := decoders.get(syntax):
        # pydicom has no plugins for them: OpenJPEG's or libjxl's values, as if never compressed.
        values = decoder(b"".join(generate_frames(dataset.PixelData, number_of_frames=1)))
        dataset.PixelData = values.tobytes()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    tags = {name: dataset[name].value for name in ("RescaleSlope", "RescaleIntercept")}
    return resample(units(dataset.pixel_array, tags).astype(np.float32))


class OneProcess:
    """Reads as a job does: file after file in one process, and apart what it dies of."""

    def __init__(self):
        self.pool = None

    def __call__(self, path, **options):
        self.pool = self.pool or ProcessPoolExecutor(1, get_context("fork"))
        try:
            return self.pool.submit(read_in_time, path, **options).result()
        except BrokenProcessPool:
            self.pool = None
            return read_apart(path, **options)


READ_IN_ONE = OneProcess()
ONE = labels_of({"s": [0]})


@settings(
    max_examples=2000 * TORTURE,
    derandomize=TORTURE == 1,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(st.data())
def test_a_file_damaged_at_random_is_stored_with_the_right_units_or_listed(data):
    name = data.draw(st.sampled_from([*MUTATED, *REAL]))
    whole = bytes_of(name)
    damaged = whole
    for change in data.draw(st.lists(mutations(len(whole)), min_size=1, max_size=3)):
        damaged = change(damaged)
    path = dicom_path(FOLDER, ONE.iloc[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(damaged)
    with failures_counted():
        study = decode_study(ONE, FOLDER, READ_IN_ONE)
        rejects = study.rejects
        assert len(study.rows) + len(rejects) == 1
        if len(rejects):
            assert_listed(rejects)
        elif (hu := right_units(damaged, whole)) is not None:
            # Of a JPEG in JPEG XL libjxl itself makes other values.
            assert np.abs(pixels_of(study)[0] - hu).max() <= (9 if "of a JPEG" in name else 1)
    outcome = "rejected" if len(rejects) else "stored"
    event(outcome)
    tally(outcome)


@pytest.mark.parametrize("name", MUTATED)
def test_a_file_cut_at_any_byte_is_listed_unless_its_pixels_are_whole(tmp_path, name):
    whole = bytes_of(name)
    pixel_data = whole.find(b"\xe0\x7f\x10\x00")
    header = pixel_data if pixel_data > 0 else 500
    path = tmp_path / "slice.dcm"
    for stop in range(header):
        path.write_bytes(whole[:stop])
        with pytest.raises(SliceError):
            read_slice(path)
    for stop in np.linspace(header, len(whole) - 10, 60, dtype=int):
        path.write_bytes(whole[:stop])
        with pytest.raises(SliceError):
            READ_IN_ONE(path)
    for stop in range(len(whole) - 9, len(whole)):
        path.write_bytes(whole[:stop])
        with contextlib.suppress(SliceError):
            pixels = READ_IN_ONE(path).pixels
            assert np.abs(pixels - CASES[name].hu).max() <= CASES[name].tolerance


# Real CT


@pytest.mark.skipif(
    "CLOTLINE_REALCT" not in os.environ,
    reason="CLOTLINE_REALCT is not set to a folder with data in the competition's layout",
)
def test_real_ct_is_stored_with_the_units_that_its_headers_say():
    root = Path(os.environ["CLOTLINE_REALCT"], "train")
    for path in sorted(root.rglob("*.dcm"))[::10]:
        dataset = pydicom.dcmread(path)
        tags = {name: dataset[name].value for name in ("RescaleSlope", "RescaleIntercept")}
        hu = dataset.pixel_array * float(tags["RescaleSlope"]) + float(tags["RescaleIntercept"])
        means = hu.reshape(SIZE, 2, SIZE, 2).mean((1, 3))
        assert np.abs(read_slice(path).pixels - np.rint(means)).max() <= 0
