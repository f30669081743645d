import errno
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from builders import codestream_of, compress_dicom, write_dicom
from hostile import TORTURE
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from clotline.data.dicom import ct_slice, header, reader
from clotline.data.dicom.ct_slice import read_slice
from clotline.data.dicom.rejection import SliceError
from clotline.grid import AIR_HU, SIZE

FLAT = np.zeros((SIZE, SIZE), np.int16)


def noise(rows=SIZE, columns=SIZE, low=-1024, high=3000, dtype=np.int16):
    return np.random.default_rng(0).integers(low, high, (rows, columns)).astype(dtype)


def pixels(folder, stored, **tags):
    return read_slice(write_dicom(folder / "slice.dcm", stored, **tags)).pixels


def position(folder, **tags):
    return read_slice(write_dicom(folder / "slice.dcm", FLAT, **tags)).position


def reason(path):
    with pytest.raises(SliceError) as caught:
        read_slice(path)
    return str(caught.value)


@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian]
)
@pytest.mark.parametrize(
    ("dtype", "slope", "intercept"),
    [("int16", 1, 0), ("uint16", 1, -1024), ("uint16", 2, -2048), ("int16", 0.5, 10)],
)
def test_stored_values_become_hounsfield_units_by_the_files_own_slope_and_intercept(
    tmp_path, syntax, dtype, slope, intercept
):
    low = 0 if dtype == "uint16" else -2000
    stored = noise(low=low, high=4096, dtype=dtype)
    tags = {"RescaleSlope": slope, "RescaleIntercept": intercept}
    result = pixels(tmp_path, stored, syntax=syntax, **tags)
    assert result.dtype == np.int16
    assert (result == np.rint(stored.astype(float) * slope + intercept)).all()


def test_unsigned_values_above_the_int16_range_are_not_taken_as_negative(tmp_path):
    stored = np.full((SIZE, SIZE), 40_000, np.uint16)
    assert (pixels(tmp_path, stored, RescaleIntercept=-39_000) == 1000).all()


def test_values_beyond_int16_are_held_at_its_limits(tmp_path):
    stored = FLAT.copy()
    stored[0, :3] = (-30_000, 30_000, -3000)
    result = pixels(tmp_path, stored, RescaleSlope=2)
    assert result[0, :4].tolist() == [-32768, 32767, -6000, 0]


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_padding_becomes_air_whatever_slope_and_intercept_say(tmp_path, syntax):
    stored = FLAT.copy()
    stored[0, :3] = (-2000, -1999, 5)
    result = pixels(tmp_path, stored, syntax=syntax, PixelPaddingValue=-2000, RescaleIntercept=100)
    assert result[0, :4].tolist() == [AIR_HU, -1899, 105, 100]


@pytest.mark.parametrize("ends", [(-2000, -1990), (-1990, -2000)])
def test_a_range_of_padding_becomes_air_in_either_order(tmp_path, ends):
    stored = FLAT.copy()
    stored[0, :4] = (-2001, -2000, -1990, -1989)
    result = pixels(tmp_path, stored, PixelPaddingValue=ends[0], PixelPaddingRangeLimit=ends[1])
    assert result[0, :4].tolist() == [-2001, AIR_HU, AIR_HU, -1989]


def test_padding_of_unsigned_values_becomes_air(tmp_path):
    stored = np.full((SIZE, SIZE), 1000, np.uint16)
    stored[0, 0] = 63_536
    result = pixels(tmp_path, stored, PixelPaddingValue=63_536, RescaleIntercept=-1024)
    assert result[0, :2].tolist() == [AIR_HU, -24]


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_padding_written_with_the_other_sign_becomes_air(tmp_path, syntax):
    stored = FLAT.copy()
    stored[0, 0] = -2000
    padding = DataElement("PixelPaddingValue", "US", 63_536)
    result = pixels(tmp_path, stored, syntax=syntax, PixelPaddingValue=padding)
    assert result[0, :2].tolist() == [AIR_HU, 0]


def test_a_slice_of_512_becomes_exactly_the_rounded_means_of_2_by_2(tmp_path):
    stored = noise(512, 512)
    means = stored.reshape(256, 2, 256, 2).astype(float).mean((1, 3))
    assert (pixels(tmp_path, stored) == np.rint(means)).all()


def test_hounsfield_units_are_averaged_after_padding_became_air(tmp_path):
    stored = np.zeros((512, 512), np.int16)
    stored[:2, 0] = -2000
    assert pixels(tmp_path, stored, PixelPaddingValue=-2000)[0, 0] == AIR_HU / 2


def test_a_slice_of_256_is_stored_as_it_is(tmp_path):
    stored = noise()
    assert (pixels(tmp_path, stored) == stored).all()


@pytest.mark.parametrize("shape", [(256, 200), (200, 256)])
def test_a_slice_that_is_not_square_gets_air_on_both_sides(tmp_path, shape):
    stored = noise(*shape)
    result = pixels(tmp_path, stored, RescaleIntercept=7)
    if shape[0] < shape[1]:
        result, stored = result.T, stored.T
    assert (result[:, :28] == AIR_HU).all()
    assert (result[:, 228:] == AIR_HU).all()
    assert (result[:, 28:228] == stored + 7).all()


def test_other_sizes_keep_the_mean(tmp_path):
    stored = noise(768, 768)
    assert pixels(tmp_path, stored).shape == (SIZE, SIZE)
    assert pixels(tmp_path, stored).mean() == pytest.approx(stored.mean(), abs=0.1)


@pytest.mark.parametrize("upside_down", [1, -1])
def test_the_position_lies_along_the_normal_and_not_along_the_table_axis(tmp_path, upside_down):
    c, s = np.cos(0.3), np.sin(0.3)
    tilted = {
        "ImageOrientationPatient": [1, 0, 0, 0, upside_down * c, upside_down * s],
        "ImagePositionPatient": [-170, 10, 40],
    }
    assert position(tmp_path, **tilted) == pytest.approx(-10 * s + 40 * c)


@pytest.mark.parametrize(
    "orientation",
    [[1, 0, 0, 0, 1, 0], [-1, 0, 0, 0, 1, 0], [1, 0, 0, 0, -1, 0], [0, 1, 0, 1, 0, 0]],
    ids=["usual", "mirrored", "flipped", "turned"],
)
def test_the_position_grows_towards_the_head_however_the_axes_are_laid(tmp_path, orientation):
    corner = {"ImageOrientationPatient": orientation, "ImagePositionPatient": [-170, -160, 35.5]}
    assert position(tmp_path, **corner) == pytest.approx(35.5)


def test_the_position_is_in_mm_however_long_the_axes_are(tmp_path):
    corner = {"ImagePositionPatient": [-170, -160, 35.5]}
    assert position(tmp_path, ImageOrientationPatient=[2, 0, 0, 0, 2, 0], **corner) == 35.5


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        ([0, 1, 0, 0, 0, -1], -170),
        ([0, -1, 0, 0, 0, -1], -170),
        ([1, 0, 0, 0, 0, -1], -160),
        ([-1, 0, 0, 0, 0, -1], -160),
    ],
    ids=["sagittal", "sagittal, mirrored", "coronal", "coronal, mirrored"],
)
def test_the_position_in_another_stack_grows_along_its_axis(tmp_path, orientation, expected):
    corner = {"ImageOrientationPatient": orientation, "ImagePositionPatient": [-170, -160, 35.5]}
    assert position(tmp_path, **corner) == pytest.approx(expected)


@pytest.mark.parametrize(
    "tags",
    [
        {"ImagePositionPatient": None},
        {"ImageOrientationPatient": None},
        {"ImagePositionPatient": ""},
        {"ImagePositionPatient": [1, 2]},
        {"ImageOrientationPatient": [1, 0, 0]},
        {"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]},
    ],
)
def test_without_usable_geometry_there_is_no_position_but_the_slice_is_taken(tmp_path, tags):
    tags |= {"SliceLocation": "-12.5", "InstanceNumber": 7}
    found = read_slice(write_dicom(tmp_path / "slice.dcm", FLAT, **tags))
    assert (found.position, found.location, found.instance) == (None, -12.5, 7)


def test_location_and_instance_are_none_where_they_are_missing_or_empty(tmp_path):
    found = read_slice(write_dicom(tmp_path / "slice.dcm", FLAT, InstanceNumber=""))
    assert (found.location, found.instance) == (None, None)


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"PixelData": None}, "no PixelData"),
        ({"Modality": "MR"}, "Modality is not CT: MR"),
        ({"Modality": None}, "Modality is not CT: None"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "a localizer, not a slice"),
        ({"NumberOfFrames": 2}, "more than one frame: 2"),
        ({"PhotometricInterpretation": "RGB"}, "not MONOCHROME2 or MONOCHROME1: RGB"),
        ({"RescaleSlope": None}, "no Hounsfield units: RescaleSlope None, RescaleIntercept 0.0"),
        ({"RescaleSlope": 0}, "no Hounsfield units: RescaleSlope 0.0"),
        ({"RescaleIntercept": None}, "no Hounsfield units: RescaleSlope 1.0, RescaleIntercept N"),
        ({"Rows": None}, "no usable Rows"),
        ({"Rows": 300}, "PixelData has another length than its image: 131,072 bytes"),
    ],
)
def test_what_is_no_ct_slice_is_refused_with_the_reason(tmp_path, tags, message):
    assert message in reason(write_dicom(tmp_path / "slice.dcm", FLAT, **tags))


def test_image_type_may_be_missing(tmp_path):
    assert (pixels(tmp_path, FLAT, ImageType=None) == 0).all()


def test_a_missing_file_and_one_that_is_no_dicom_are_told_apart(tmp_path):
    path = tmp_path / "slice.dcm"
    assert reason(path) == "no such file"
    path.write_text("SOPInstanceUID,pe_present_on_image\n" * 9)
    assert reason(path) == "not a DICOM file"
    path.write_bytes(b"")
    assert reason(path) == "an empty file"


def test_a_folder_in_a_files_place_is_refused(tmp_path):
    assert reason(tmp_path) == "not a regular file"


@pytest.mark.filterwarnings("ignore:End of file reached")
@pytest.mark.parametrize("syntax", [None, RLELossless, JPEGLosslessSV1])
def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path, syntax):
    path = write_dicom(tmp_path / "slice.dcm", noise())
    if syntax:
        path = compress_dicom(path, tmp_path / "packed.dcm", syntax)
    whole = path.read_bytes()
    for part in (0.001, 0.003, 0.01, 0.1, 0.5, 0.9, 0.99):
        path.write_bytes(whole[: int(len(whole) * part)])
        assert reason(path)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLosslessSV1])
@pytest.mark.parametrize(("dtype", "low"), [(np.int16, -2000), (np.uint16, 0)])
def test_lossless_compression_gives_the_same_hounsfield_units(tmp_path, syntax, dtype, low):
    tags = {"RescaleSlope": 2, "RescaleIntercept": -1024, "PixelPaddingValue": low}
    stored = noise(512, 512, low=low, high=4096, dtype=dtype)
    plain = write_dicom(tmp_path / "plain.dcm", stored, **tags)
    packed = compress_dicom(plain, tmp_path / "packed.dcm", syntax)
    assert packed.read_bytes().find(str(syntax).encode()) > 0
    assert (read_slice(packed).pixels == read_slice(plain).pixels).all()


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless])
@pytest.mark.parametrize("filling", [1, 4, 8, 64])
def test_a_codestream_may_be_filled_up_with_zeros(tmp_path, syntax, filling):
    stored = noise(512, 512, low=0, high=4096, dtype=np.uint16)
    plain = write_dicom(tmp_path / "plain.dcm", stored)
    packed = compress_dicom(plain, tmp_path / "packed.dcm", syntax)
    filled = encapsulate([codestream_of(packed) + bytes(filling)])
    path = write_dicom(tmp_path / "filled.dcm", stored, syntax, PixelData=filled)
    assert (read_slice(path).pixels == read_slice(plain).pixels).all()


def outcome(path):
    """All that is read of a file, or why it is rejected."""
    try:
        found = read_slice(path)
    except SliceError as error:
        return str(error)
    return vars(found) | {"pixels": found.pixels.tobytes()}


def damage(content, rng):
    """Changes a few bytes of the header, or cuts, lengthens or shortens the file."""
    content = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4))):
        place = rng.randrange(132, 900)
        match rng.randrange(5):
            case 0:
                content[place] = rng.randrange(256)
            case 1:
                content[place : place + 2] = rng.choice((b"UN", b"US", b"SQ", b"OW", b"\xff\xff"))
            case 2:
                del content[place : place + rng.choice((1, 2, 8))]
            case 3:
                content[place:place] = rng.randbytes(rng.choice((1, 2, 8)))
            case 4:
                del content[rng.randrange(900, max(901, len(content))) :]
    return content


def test_a_file_is_read_whole_where_the_system_gives_little_at_a_time(tmp_path, monkeypatch):
    path = write_dicom(tmp_path / "slice.dcm", noise())
    whole = read_slice(path)
    monkeypatch.setattr(os, "read", lambda file, size, read=os.read: read(file, min(size, 5000)))
    assert np.array_equal(read_slice(path).pixels, whole.pixels)


def test_what_pydicom_warns_of_is_not_told_for_it_quotes_the_header(tmp_path):
    path = write_dicom(tmp_path / "slice.dcm", FLAT, SpecificCharacterSet="ISO_IR 100")
    path.write_bytes(path.read_bytes().replace(b"ISO_IR 100", b"DOE^JOHN X"))
    code = (
        "import sys; from clotline.data.dicom.ct_slice import read_slice; "
        "print(read_slice(sys.argv[1]).position)"
    )
    # A process of its own, for pytest has its own way with warnings.
    environment = os.environ | {"PYTHONPATH": str(Path(ct_slice.__file__).parents[3])}
    done = subprocess.run(
        [sys.executable, "-c", code, path], env=environment, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("0.0\n", "")


def sequence_of(keyword, *items, undefined=True):
    """A sequence of items, all with an undefined length or none."""
    for item in items:
        item.is_undefined_length_sequence_item = undefined
    return DataElement(keyword, "SQ", Sequence(items), is_undefined_length=undefined)


def with_sequences():
    """Elements of a hospital's file: sequences, in one of them others."""
    code = Dataset()
    code.CodeValue, code.CodeMeaning = "113100", "Basic Application Confidentiality Profile"
    purpose, plain = Dataset(), Dataset()
    purpose.add(sequence_of("PurposeOfReferenceCodeSequence", code))
    purpose.ReferencedSOPInstanceUID = plain.ReferencedSOPInstanceUID = "1.2.3"
    found = (
        sequence_of("SourceImageSequence", purpose, Dataset()),
        sequence_of("ReferencedImageSequence", plain, undefined=False),
        sequence_of("RequestAttributesSequence"),
    )
    return {element.keyword: element for element in found}


def test_sequences_of_undefined_length_are_passed_over(tmp_path):
    path = write_dicom(tmp_path / "slice.dcm", FLAT, **with_sequences())
    data = path.read_bytes()
    assert data.count(b"\xff" * 4) == 6
    start = reader._transfer_syntax(data, 132)[1]
    found, end = reader._read_plain(data, start, ("Modality", "PixelData"))
    assert (found["Modality"], end) == ("CT", len(data))
    # What is asked for, and a character set of an item's own, is pydicom's business.
    assert reader._read_plain(data, start, ("SourceImageSequence",)) is None
    item = Dataset()
    item.SpecificCharacterSet = "ISO_IR 100"
    sequence = sequence_of("SourceImageSequence", item)
    data = write_dicom(path, FLAT, SourceImageSequence=sequence).read_bytes()
    assert reader._read_plain(data, start, ("Modality",)) is None


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("syntax", "more"),
    [
        (ExplicitVRLittleEndian, {}),
        (RLELossless, {}),
        (ExplicitVRLittleEndian, with_sequences()),
    ],
    ids=["plain", "RLE", "sequences"],
)
def test_a_file_is_read_as_pydicoms_reader_would_read_it(tmp_path, monkeypatch, syntax, more):
    tags = {"InstanceNumber": 3, "RescaleType": "HU"} | more
    path = write_dicom(tmp_path / "slice.dcm", noise(20, 20), **tags)
    if syntax != ExplicitVRLittleEndian:
        compress_dicom(path, path, syntax)
    whole, rng = path.read_bytes(), random.Random(0)
    end = whole.index(b"\xe0\x7f\x10\x00O") + 20
    kinds = set()
    for content in (
        whole,
        # An item's tag where none may be, and a character set that is none.
        whole.replace(b"\x28\x00\x02\x00US", b"\xfe\xff\x0d\xe0US"),
        whole.replace(b"\x08\x00\x08\x00CS", b"\x08\x00\x05\x00US"),
        *(whole[:length] for length in range(120, end)),
        *(damage(whole, rng) for _ in range(400 * TORTURE)),
    ):
        path.write_bytes(content)
        found = outcome(path)
        with monkeypatch.context() as patch:
            patch.setattr(reader, "_read_plain", lambda *_, **__: None)
            patch.setattr(header, "_NUMBER_VRS", {})
            assert outcome(path) == found
        kinds.add(type(found))
    assert kinds == {str, dict}


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.EIO, SliceError), (errno.EMFILE, OSError), (errno.ESTALE, OSError)],
)
def test_what_is_the_machines_fault_is_no_fault_of_the_file(tmp_path, monkeypatch, number, kind):
    path = write_dicom(tmp_path / "x.dcm", np.zeros((8, 8), np.int16))

    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(reader.os, "open", fail)
    with pytest.raises(kind, match=os.strerror(number)):
        read_slice(path)


def test_what_is_wrong_with_a_file_and_was_put_up_with_is_told(tmp_path):
    stored = noise()
    path = write_dicom(tmp_path / "slice.dcm", stored)
    assert read_slice(path).remarks == ()
    write_dicom(path, stored, PixelData=stored.tobytes() + b"\0\0")
    assert read_slice(path).remarks == (
        "PixelData is longer than its image: what follows it was left out",
    )
    whole = write_dicom(path, stored, ImplicitVRLittleEndian).read_bytes()
    path.write_bytes(whole[144 + int.from_bytes(whole[140:144], "little") :])
    assert read_slice(path).remarks == (
        "no file meta information: read as Implicit VR Little Endian",
    )
    assert (read_slice(path).pixels == stored).all()
    # Training reads a slice, predict looks at its header first.
    assert len(reader.read_header(path, ("Modality", "PixelData"))["PixelData"]) == stored.nbytes


def test_pixels_that_are_not_square_are_stretched_to_their_true_shape(tmp_path):
    """A disc of 60 mm radius in a field of 256 mm, its rows 2 mm apart, its columns 1 mm."""
    y, x = np.mgrid[:SIZE:2, :SIZE] + 0.5
    stored = np.where(np.hypot(y - 128, x - 128) < 60, 300, -1000).astype(np.int16)
    result = pixels(tmp_path, stored, PixelSpacing=[2, 1])
    inside = result > -350
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    assert abs(np.ptp(rows) - np.ptp(columns)) <= 2
    assert np.ptp(columns) == pytest.approx(119, abs=2)
    assert result[128, 128] == 300
    assert result.min() == -1000


def test_square_pixels_are_as_without_a_spacing(tmp_path):
    stored = noise(512, 512)
    plain = pixels(tmp_path, stored)
    assert (pixels(tmp_path, stored, PixelSpacing=[0.7, 0.7]) == plain).all()
    assert (pixels(tmp_path, stored, PixelSpacing=[0.7, 0.7004]) == plain).all()


def test_a_field_that_is_not_square_is_filled_up_with_air(tmp_path):
    result = pixels(tmp_path, np.full((64, 64), 50, np.int16), PixelSpacing=[2, 1])
    assert (result[:, 64:192] == 50).all()
    assert (result[:, :64] == AIR_HU).all()
    assert (result[:, 192:] == AIR_HU).all()


def test_a_spacing_that_cannot_be_is_refused(tmp_path):
    path = write_dicom(tmp_path / "slice.dcm", FLAT, PixelSpacing=[100, 1])
    assert reason(path) == "PixelSpacing cannot be: pixels of 100 × 1 mm"


def test_monochrome1_says_the_same_hounsfield_units(tmp_path):
    stored = noise()
    shown_dark = pixels(tmp_path, stored, PhotometricInterpretation="MONOCHROME1")
    assert (shown_dark == pixels(tmp_path, stored)).all()


@pytest.mark.parametrize("unit", ["HU", "hu ", "", None, "US", "Hounsfield units"])
def test_hounsfield_units_are_known_by_their_names(tmp_path, unit):
    assert (pixels(tmp_path, FLAT + 7, RescaleType=unit) == 7).all()


@pytest.mark.parametrize("unit", ["100ug/cm3", "MGML", "PCT", "HU_MOD", "mg/ml"])
def test_every_other_unit_is_refused_by_its_name(tmp_path, unit):
    path = write_dicom(tmp_path / "slice.dcm", FLAT, RescaleType=unit)
    assert reason(path) == f"no Hounsfield units: RescaleType {unit}"


def test_an_empty_element_reads_as_pydicom_reads_it(tmp_path):
    path = write_dicom(
        tmp_path / "slice.dcm", FLAT, ConvolutionKernel="", AcquisitionNumber="", SliceThickness=""
    )
    names = ("ConvolutionKernel", "AcquisitionNumber", "SliceThickness", "Modality")
    fast = reader.read_header(path, names)
    start = reader._transfer_syntax(path.read_bytes(), 132)[1]
    slow, _ = reader._read_any(path.read_bytes(), start, fast.syntax)
    assert [fast.get(name) for name in names] == [slow.get(name) for name in names]
    assert reader._read_plain(path.read_bytes(), start, names) is not None
