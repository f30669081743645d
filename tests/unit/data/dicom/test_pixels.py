import os
import tempfile

import numpy as np
import pytest
from builders import compress_dicom, write_dicom
from pydicom.pixels import get_decoder
from pydicom.uid import JPEGLosslessSV1

from clotline.data.dicom.ct_slice import read_slice
from clotline.data.dicom.pixels import DECODERS, MAX_SIDE
from clotline.data.dicom.rejection import SliceError, one_line
from clotline.errors import ClotlineError
from clotline.grid import SIZE


def packed(folder):
    plain = write_dicom(folder / "plain.dcm", np.full((SIZE, SIZE), 7, np.int16))
    return compress_dicom(plain, folder / "packed.dcm", JPEGLosslessSV1)


@pytest.mark.parametrize("syntax", [s for s in DECODERS if DECODERS[s]], ids=lambda s: s.name)
def test_every_encoding_has_one_decoder_and_it_is_installed(syntax):
    assert DECODERS[syntax] in get_decoder(syntax).available_plugins


def test_a_decoder_that_is_not_installed_is_no_fault_of_the_file(tmp_path, monkeypatch):
    path = packed(tmp_path)
    monkeypatch.setitem(DECODERS, JPEGLosslessSV1, "another")
    with pytest.raises(ClotlineError) as caught:
        read_slice(path)
    assert "is decoded by another, which is not installed here" in str(caught.value)
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
    compress_dicom(plain, path, JPEGLosslessSV1)
    read_slice(path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(ClotlineError, match=r"no temporary file can be made: .* Set TMPDIR to"):
        read_slice(path)
