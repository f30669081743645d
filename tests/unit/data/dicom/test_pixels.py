import os
import sys
import tempfile
from functools import partial

import imagecodecs
import numpy as np
import pytest
from builders import codestream_of, compress_dicom, write_dicom
from pydicom.encaps import encapsulate
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from clotline.data.dicom import reader
from clotline.data.dicom.codestream import are_of_one_sort, frame_of
from clotline.data.dicom.ct_slice import KEYWORDS, read_slice
from clotline.data.dicom.jpeg_xl import (
    JPEGXL,
    JPEGXLJPEGRecompression,
    JPEGXLLossless,
    content_of,
)
from clotline.data.dicom.pixels import MAX_SIDE, decode
from clotline.data.dicom.rejection import SliceError, one_line
from clotline.errors import ClotlineError
from clotline.grid import SIZE


def compressed(path, stored, syntax, **tags):
    """Writes a slice in any encoding; a compressed one has all the bits of the words.

    Args:
        path: of the file.
        stored: (rows, columns) integers, of which GDCM or OpenJPH sees 16 bits.
        syntax: transfer syntax.
        tags: as for `builders.write_dicom`, which the encoder does not see.
    """
    if not syntax.is_encapsulated:
        return write_dicom(path, stored, syntax, **tags)
    plain = write_dicom(path.with_suffix(".plain"), stored)
    stream = codestream_of(compress_dicom(plain, path, syntax))
    return write_dicom(path, stored, syntax, PixelData=encapsulate([stream]), **tags)


def packed(folder):
    plain = write_dicom(folder / "plain.dcm", np.full((SIZE, SIZE), 7, np.int16))
    return compress_dicom(plain, folder / "packed.dcm", JPEGLosslessSV1)


@pytest.mark.parametrize("name", ["gdcm", "imagecodecs"])
def test_a_decoder_that_is_not_installed_is_no_fault_of_the_file(tmp_path, monkeypatch, name):
    stored = np.full((SIZE, SIZE), 7, np.int16)
    syntax = {"gdcm": JPEG2000Lossless, "imagecodecs": JPEGLSLossless}[name]
    path = compressed(tmp_path / "slice.dcm", stored, syntax)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ClotlineError) as caught:
        read_slice(path)
    assert f"{name}, which decodes compressed images, is not installed here" in str(caught.value)
    assert "requirements.lock" in str(caught.value)


def test_what_others_write_to_the_log_is_there_after_decoding(tmp_path, capfd):
    os.write(2, b"before\n")
    read_slice(packed(tmp_path))
    os.write(2, b"after\n")
    assert capfd.readouterr().err.endswith("before\nafter\n")


@pytest.mark.parametrize("value", [0, 2047, 2048, 4095, 4096, 32767, 32768, 61440, 63487, 63488])
@pytest.mark.parametrize("kind", [np.int16, np.uint16])
def test_what_lies_in_unused_bits_is_no_part_of_a_value(tmp_path, kind, value):
    stored = np.array([[value]], np.uint16).astype(kind)
    tags = {"BitsStored": 12, "HighBit": 11}
    found = read_slice(write_dicom(tmp_path / "slice.dcm", stored, **tags)).pixels
    used = value % 4096
    assert (found == (used - 4096 if kind == np.int16 and used >= 2048 else used)).all()


@pytest.mark.parametrize("shape", [(MAX_SIDE, 1), (1, MAX_SIDE)], ids=["rows", "columns"])
def test_as_many_rows_and_columns_are_taken_as_the_limit_allows(tmp_path, shape):
    path = write_dicom(tmp_path / "slice.dcm", np.zeros(shape, np.int16))
    assert read_slice(path).pixels.shape == (SIZE, SIZE)


@pytest.mark.parametrize("shape", [(MAX_SIDE + 1, 1), (1, MAX_SIDE + 1)], ids=["rows", "columns"])
def test_one_row_or_column_more_is_refused(tmp_path, shape):
    path = write_dicom(tmp_path / "slice.dcm", np.zeros(shape, np.int16))
    with pytest.raises(SliceError, match="is not within 1 to 4096"):
        read_slice(path)


def test_a_message_of_a_library_becomes_one_short_line_of_printable_text():
    assert one_line(ValueError("one\n\ttwo\x1b[31m\0")) == "ValueError: one two [31m "
    assert len(one_line("x" * 9999)) == 200
    assert one_line(None) == "None"


def test_that_no_temporary_file_can_be_made_is_no_fault_of_the_pixels(tmp_path, monkeypatch):
    plain = write_dicom(tmp_path / "plain.dcm", np.zeros((8, 8), np.int16))
    path = tmp_path / "encoded.dcm"
    compress_dicom(plain, path, JPEG2000Lossless)  # which GDCM decodes
    read_slice(path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(ClotlineError, match=r"no temporary file can be made: .* Set TMPDIR to"):
        read_slice(path)


LOSSLESS = (
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    RLELossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEG2000Lossless,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEGXLLossless,
)


def values_of(bits, signed):
    """(256, 256) integers: all that so many bits hold, at random."""
    low, high = (-(1 << bits - 1), 1 << bits - 1) if signed else (0, 1 << bits)
    return np.random.default_rng(bits).integers(low, high, (SIZE, SIZE))


def in_words(values, bits, *, signed, spare):
    """The values as they lie in words of 16 bits, of which some may be spare.

    Args:
        values: integers of so many bits.
        bits: BitsStored.
        signed: whether the header says so.
        spare: what lies above them: "sign" as it should, "nothing" or an "overlay".
    """
    words = values & (1 << bits) - 1
    if spare == "sign":
        words = values
    elif spare == "overlay":
        words = words | (np.arange(SIZE) % 2 * (1 << 15 if bits < 16 else 0))[:, None]
    return words.astype(np.uint16).view(np.int16 if signed else np.uint16)


@pytest.mark.parametrize("spare", ["sign", "nothing", "overlay"])
@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize("bits", [12, 13, 14, 15, 16])
@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda syntax: syntax.name)
def test_bits_above_bits_stored_are_no_part_of_a_value(tmp_path, syntax, bits, signed, spare):
    values = values_of(bits, signed)
    words = in_words(values, bits, signed=signed, spare=spare)
    tags = {"BitsStored": bits, "HighBit": bits - 1, "RescaleIntercept": 0 if signed else -32768}
    path = compressed(tmp_path / "slice.dcm", words, syntax, **tags)
    assert (read_slice(path).pixels == values + tags["RescaleIntercept"]).all()


def with_bits_stored(words, bits, syntax, **options):
    """The codestream of words of which an encoder was told that so many bits are in use."""
    if syntax == JPEG2000Lossless:
        stream = imagecodecs.jpeg2k_encode(
            words, level=0, reversible=True, bitspersample=bits, codecformat="j2k"
        )
    elif syntax == JPEGXLLossless:
        stream = imagecodecs.jpegxl_encode(words, lossless=True, effort=3, bitspersample=bits)
    else:
        stream = imagecodecs.jpeg8_encode(words, lossless=True, bitspersample=bits, **options)
    assert frame_of(stream, syntax).precision == bits
    return encapsulate([stream])


@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize("bits", [12, 13, 14, 15, 16])
@pytest.mark.parametrize(
    "syntax", [JPEGLosslessSV1, JPEG2000Lossless, JPEGXLLossless], ids=lambda s: s.name
)
def test_an_encoder_may_be_told_bits_stored(tmp_path, syntax, bits, signed):
    values = values_of(bits, signed)
    words = in_words(values, bits, signed=False, spare="nothing")
    tags = {
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": int(signed),
        "RescaleIntercept": 0 if signed else -32768,
        "PixelData": with_bits_stored(words, bits, syntax),
    }
    path = write_dicom(tmp_path / "slice.dcm", words, syntax, **tags)
    assert (read_slice(path).pixels == values + tags["RescaleIntercept"]).all()


@pytest.mark.parametrize("declared", LOSSLESS[2:], ids=lambda syntax: syntax.name)
@pytest.mark.parametrize("held", LOSSLESS[2:], ids=lambda syntax: syntax.name)
def test_a_codestream_is_read_as_what_it_says_it_is(tmp_path, held, declared):
    stored = values_of(12, signed=False).astype(np.uint16)
    stream = codestream_of(compressed(tmp_path / "held.dcm", stored, held))
    path = write_dicom(tmp_path / "slice.dcm", stored, declared, PixelData=encapsulate([stream]))
    found = read_slice(path)
    assert (found.pixels == stored).all()
    said = [f"{declared.name} in the header"] if not are_of_one_sort(held, declared) else []
    assert [remark.split(",")[0] for remark in found.remarks] == [
        text.split(",")[0] for text in said
    ]


@pytest.mark.parametrize(
    ("declared", "held", "encode"),
    [
        (JPEG2000Lossless, JPEG2000,
         partial(imagecodecs.jpeg2k_encode, level=80, reversible=False, codecformat="j2k")),
        (JPEGLSLossless, JPEGLSNearLossless, partial(imagecodecs.jpegls_encode, level=2)),
        (HTJ2KLossless, HTJ2K, partial(imagecodecs.htj2k_encode, reversible=False)),
    ],
    ids=["JPEG 2000", "JPEG-LS", "HTJ2K"],
)  # fmt: skip
def test_a_lossy_codestream_that_is_declared_as_lossless_is_treated_as_lossy(
    tmp_path, declared, held, encode
):
    stored = smooth(100, 4000).astype(np.uint16)
    tags = {"BitsStored": 12, "HighBit": 11}
    for name, overlay in (("plain", 0), ("overlay", 0x1000)):
        stored[100:160, 100:200] |= overlay
        data = encapsulate([encode(stored)])
        path = write_dicom(tmp_path / name, stored, declared, PixelData=data, **tags)
        if overlay:
            with pytest.raises(SliceError, match="lossy pixels with bits above BitsStored 12"):
                read_slice(path)
        else:
            (remark,) = read_slice(path).remarks
            assert remark == f"{declared.name} in the header, {held.name} in the file"


LOSSY = (JPEG2000, HTJ2K, JPEGLSNearLossless, JPEGXL)


def smooth(low, high):
    """(256, 256) int16: a slope over all of a range, as lossy encodings can keep it."""
    return np.linspace(low, high, SIZE * SIZE).reshape(SIZE, SIZE).astype(np.int16)


@pytest.mark.parametrize(
    ("syntax", "signed"),
    [(syntax, False) for syntax in LOSSY] + [(syntax, True) for syntax in LOSSY[:3]],
    ids=lambda case: getattr(case, "name", None) or ("signed" if case else "unsigned"),
)
def test_a_lossy_encoding_of_values_alone_is_read(tmp_path, syntax, signed):
    stored = smooth(-1900, 1900) if signed else smooth(100, 4000).astype(np.uint16)
    tags = {"BitsStored": 12, "HighBit": 11}
    path = compressed(tmp_path / "slice.dcm", stored, syntax, **tags)
    assert np.abs(read_slice(path).pixels - stored.astype(int)).max() <= 30


@pytest.mark.parametrize("syntax", LOSSY, ids=lambda syntax: syntax.name)
def test_a_lossy_encoding_of_values_with_an_overlay_is_refused(tmp_path, syntax):
    stored = smooth(100, 4000).astype(np.uint16)
    stored[100:160, 100:200] |= 0x1000
    tags = {"BitsStored": 12, "HighBit": 11}
    path = compressed(tmp_path / "slice.dcm", stored, syntax, **tags)
    with pytest.raises(SliceError, match="lossy pixels with bits above BitsStored 12"):
        read_slice(path)


@pytest.mark.parametrize("syntax", [JPEG2000, HTJ2K, JPEGXL], ids=lambda syntax: syntax.name)
def test_a_lossy_encoding_that_took_signs_for_large_values_is_refused(tmp_path, syntax):
    words = (smooth(-1900, 1900) & 0xFFF).astype(np.uint16)
    tags = {"BitsStored": 12, "HighBit": 11, "PixelRepresentation": 1}
    path = compressed(tmp_path / "slice.dcm", words, syntax, **tags)
    with pytest.raises(SliceError, match="or with a sign that their codestream does not know"):
        read_slice(path)


def test_lossy_jpeg_xl_knows_no_sign_and_is_read_where_none_is_needed(tmp_path):
    for name, low in (("positive", 0), ("negative", -9)):
        stored = smooth(low, 1900)
        path = compressed(tmp_path / name, stored, JPEGXL, BitsStored=12, HighBit=11)
        if low < 0:
            with pytest.raises(SliceError, match="with a sign that their codestream does not know"):
                read_slice(path)
        else:
            assert np.abs(read_slice(path).pixels - stored).max() <= 30


def test_what_was_a_jpeg_has_the_values_of_that_jpeg(tmp_path):
    """Of smooth noise the two decoders make other values."""
    stored = np.random.default_rng(0).normal(128, 20, (SIZE, SIZE)).clip(0, 255).astype(np.uint8)
    plain = write_dicom(tmp_path / "plain.dcm", stored)
    again = compress_dicom(plain, tmp_path / "again.dcm", JPEGXLJPEGRecompression)
    stream = codestream_of(again)
    jpeg = imagecodecs.jpegxl_decode_jpeg(stream)
    data = encapsulate([jpeg])
    path = write_dicom(tmp_path / "jpeg.dcm", stored, JPEGBaseline8Bit, PixelData=data)
    assert (read_slice(again).pixels == read_slice(path).pixels).all()
    by_libjxl = imagecodecs.jpegxl_decode(stream)
    assert 0 < np.abs(by_libjxl - read_slice(path).pixels.astype(int)).max() < 9
    # The codestream alone, without what the JPEG is made of, is libjxl's to decode.
    alone = encapsulate([content_of(stream).codestream])
    write_dicom(path, stored, JPEGXLJPEGRecompression, PixelData=alone)
    assert (read_slice(path).pixels == by_libjxl).all()


@pytest.mark.parametrize("spare", ["sign", "nothing"])
def test_in_near_lossless_jpeg_ls_a_sign_may_go_on_or_not(tmp_path, spare):
    values = smooth(-1900, 1900)
    words = in_words(values, 12, signed=True, spare=spare)
    tags = {"BitsStored": 12, "HighBit": 11}
    path = compressed(tmp_path / "slice.dcm", words, JPEGLSNearLossless, **tags)
    assert np.abs(read_slice(path).pixels - values).max() <= 8


def test_the_sign_of_a_codestream_of_fewer_bits_is_its_highest_one(tmp_path):
    values = values_of(12, signed=True)
    words = in_words(values, 12, signed=False, spare="nothing")
    data = with_bits_stored(words, 12, JPEG2000Lossless)
    path = write_dicom(
        tmp_path / "slice.dcm", values.astype(np.int16), JPEG2000Lossless, PixelData=data
    )
    assert (read_slice(path).pixels == values).all()


@pytest.mark.parametrize("high", [2047, 2048])
@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEGXLLossless], ids=lambda s: s.name)
def test_a_codestream_of_fewer_bits_is_read_where_no_sign_can_be_meant(tmp_path, syntax, high):
    stored = smooth(0, high)
    data = with_bits_stored(stored.astype(np.uint16), 12, syntax)
    path = write_dicom(tmp_path / "slice.dcm", stored, syntax, PixelData=data)
    if high < 2048:
        assert (read_slice(path).pixels == stored).all()
    else:
        with pytest.raises(SliceError, match="the sign of the values is not known: 12 bits in"):
            read_slice(path)


@pytest.mark.parametrize("syntax", [HTJ2KLossless, HTJ2KLosslessRPCL], ids=lambda s: s.name)
@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
def test_openjph_gives_the_values_that_openjpeg_gives(tmp_path, syntax, signed):
    stored = values_of(16, signed).astype(np.int16 if signed else np.uint16)
    path = compressed(tmp_path / "slice.dcm", stored, syntax)
    decoder = imagecodecs.jpeg2k_decode(codestream_of(path))
    assert (decode(reader._read_header(path.read_bytes(), KEYWORDS)) == decoder).all()
    assert (decoder == stored).all()


def cut(stream, part):
    """A codestream that lacks a part of its data, but not its end."""
    return stream[: int(len(stream) * part)] + b"\xff\xd9"


@pytest.mark.parametrize("part", [0.2, 0.6, 0.99, 0.9999])
@pytest.mark.parametrize("syntax", LOSSLESS[2:], ids=lambda syntax: syntax.name)
def test_a_codestream_that_ends_early_is_refused(tmp_path, syntax, part):
    stored = values_of(12, signed=False).astype(np.uint16)
    stream = codestream_of(compressed(tmp_path / "whole.dcm", stored, syntax))
    data = encapsulate([cut(stream, part)])
    path = write_dicom(tmp_path / "slice.dcm", stored, syntax, PixelData=data)
    with pytest.raises(SliceError):
        read_slice(path)
