import pytest
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian

from clotline.data.dicom import header
from clotline.data.dicom.header import Header


def header_of(vr, value, keyword="SliceLocation"):
    tag = Tag(keyword)
    element = RawDataElement(tag, vr, len(value), value, 0, False, True)
    return Header({int(tag): element}, ExplicitVRLittleEndian, "iso8859")


@pytest.mark.parametrize("vr", ["DS", "IS"])
@pytest.mark.parametrize(
    "value",
    [
        *(b"1", b"-7", b" 12 ", b"+3", b"1e3", b"1.5", b"2.0", b"1_0", b".5", b"1.", b"007"),
        *(b"", b" ", b"1\\2", b"\\", b"1\\", b"a", b"1 2", b"nan", b"inf", b"-inf", b"1e999"),
        *(b"\xb2", b"1\0", b"0x10", b"9" * 400, b"-" + b"9" * 400),
    ],
)
def test_numbers_are_those_that_pydicom_reads(vr, value, monkeypatch):
    def outcome():
        found = header_of(vr, value)
        try:
            return found.number("SliceLocation"), str(found.numbers("SliceLocation"))
        except (OverflowError, TypeError, ValueError) as error:
            return found.number("SliceLocation"), type(error)

    quick = outcome()
    monkeypatch.setattr(header, "_NUMBER_VRS", {})
    assert outcome() == quick


@pytest.mark.parametrize(
    ("vr", "value", "number"),
    [
        *(("DS", b"2.5 ", 2.5), ("IS", b"3", 3), ("SS", b"\xf7\xff", -9)),
        *(("DS", b"nan", None), ("DS", b"1\\2", None), ("DS", b"", None), ("SH", b"a", None)),
    ],
)
def test_a_number_is_one_and_finite(vr, value, number):
    assert header_of(vr, value).number("SliceLocation") == number


def test_an_element_that_is_missing_is_no_number():
    assert header_of("DS", b"1").number("InstanceNumber") is None


def test_pixels_are_not_copied():
    pixels = memoryview(bytes(1000))
    assert header_of("OW", pixels, "PixelData")["PixelData"] is pixels
