"""Enhanced CT: each frame is read as a file of one slice with the same content is read."""

import random
import struct
import tracemalloc
from functools import partial
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
from builders import labels_of, pixels_of, write_dicom, write_enhanced
from hostile import TORTURE, flip_bit
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EnhancedMRImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    LegacyConvertedEnhancedCTImageStorage,
    RLELossless,
)

from clotline.data.dicom import multiframe
from clotline.data.dicom.ct_slice import KEYWORDS, read_slice
from clotline.data.dicom.isolation import read_apart, read_in_time
from clotline.data.dicom.jpeg_xl import JPEGXLLossless
from clotline.data.dicom.multiframe import EnhancedFile
from clotline.data.dicom.reader import MAX_BYTES
from clotline.data.dicom.rejection import SliceError
from clotline.data.study import decode_study
from clotline.labels import IMAGE_LABEL, SOP_UID, UIDS


def pictures(count=4, dtype=np.int16, side=256):
    rng = np.random.default_rng(0)
    low = -1000 if np.issubdtype(dtype, np.signedinteger) else 0
    return rng.integers(low, 3000, (count, side, side)).astype(dtype)


def reason(path, frame=1):
    with pytest.raises(SliceError) as caught:
        read_slice(path, frame)
    return str(caught.value)


@pytest.mark.parametrize("dtype", [np.int16, np.uint16])
@pytest.mark.parametrize(
    "syntax",
    [
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
    ],
)
def test_native_frames_give_their_values_and_positions(tmp_path, dtype, syntax):
    stored = pictures(dtype=dtype)
    path = write_enhanced(tmp_path / "scan.dcm", stored, syntax)
    for number, picture in enumerate(stored, 1):
        found = read_slice(path, number)
        assert np.array_equal(found.pixels, picture)
        assert found.position == 3.0 * (number - 1)
        assert found.sop_uid.endswith(f"#{number}")


def codestreams(stored, syntax):
    encode = {
        JPEGLSLossless: imagecodecs.jpegls_encode,
        JPEG2000Lossless: lambda p: imagecodecs.jpeg2k_encode(
            p, codecformat="j2k", reversible=True
        ),
        HTJ2KLossless: partial(imagecodecs.htj2k_encode, reversible=True),
        RLELossless: rle,
        JPEGXLLossless: partial(imagecodecs.jpegxl_encode, lossless=True, effort=3),
    }[syntax]
    return [bytes(encode(picture)) for picture in stored]


def rle(picture):
    """PS3.5, annex G: the high bytes are the first segment."""
    bytes_of = (part.astype(np.uint8).tobytes() for part in (picture >> 8, picture & 0xFF))
    segments = [imagecodecs.packbits_encode(part) for part in bytes_of]
    segments = [segment + bytes(len(segment) % 2) for segment in segments]
    head = struct.pack("<16L", 2, 64, 64 + len(segments[0]), *[0] * 13)
    return head + b"".join(segments)


def packed(path, stored, syntax, way):
    """An encapsulated file whose offset table is of a ``way``."""
    streams, tags = codestreams(stored, syntax), {}
    if way == "extended":
        tags["PixelData"], offsets, lengths = encapsulate_extended(streams)
        tags |= {"ExtendedOffsetTable": offsets, "ExtendedOffsetTableLengths": lengths}
    else:
        pieces = 3 if "fragments" in way else 1
        tags["PixelData"] = encapsulate(streams, pieces, has_bot="basic" in way)
    return write_enhanced(path, stored, syntax, **tags)


WAYS = ("basic", "none", "extended", "basic fragments", "no table, fragments")


@pytest.mark.parametrize(
    ("syntax", "way"),
    [(JPEGLSLossless, way) for way in WAYS]
    + [(JPEG2000Lossless, WAYS[4]), (HTJ2KLossless, WAYS[2]), (RLELossless, WAYS[1])]
    + [(JPEGXLLossless, WAYS[1]), (JPEGXLLossless, WAYS[3])],
)
def test_compressed_frames_are_told_apart_by_any_offset_table_or_none(tmp_path, syntax, way):
    stored = pictures(dtype=np.uint16)
    path = packed(tmp_path / "scan.dcm", stored, syntax, way)
    for number, picture in enumerate(stored, 1):
        assert np.array_equal(read_slice(path, number).pixels, picture)


def test_each_frame_has_its_own_scale_spacing_and_orientation(tmp_path):
    stored = np.full((2, 256, 256), 100, np.int16)
    frames = [
        {"PixelValueTransformationSequence": {
            "RescaleIntercept": -10 * k, "RescaleSlope": k, "RescaleType": "HU"},
         "PixelMeasuresSequence": {"PixelSpacing": [k, k], "SliceThickness": k},
         "PlaneOrientationSequence": {"ImageOrientationPatient": [1, 0, 0, 0, (-1) ** k, 0]},
         "FrameContentSequence": {"FrameAcquisitionNumber": k, "StackID": str(k),
                                  "TemporalPositionIndex": k,
                                  "FrameAcquisitionDateTime": f"2020010112000{k}.5+0100"},
         "CTReconstructionSequence": {"ConvolutionKernel": f"B{k}0f"}}
        for k in (1, 2)
    ]  # fmt: skip
    path = write_enhanced(tmp_path / "scan.dcm", stored, frames=frames)
    for k in (1, 2):
        found = read_slice(path, k)
        assert (found.pixels == 100 * k - 10 * k).all()
        assert found.traits.spacing == (k, k)
        assert (found.traits.thickness, found.traits.acquisition) == (k, k)
        assert (found.traits.temporal, found.traits.stack) == (k, str(k))
        assert (found.traits.kernel, found.traits.time) == (f"B{k}0f", 120000.5 + k)
        assert found.traits.image_type == ("ORIGINAL", "PRIMARY", "VOLUME", "NONE")
        assert found.orientation == ("LA" if k == 1 else "LP")


def test_frames_of_converted_files_are_read_from_unassigned_attributes(tmp_path):
    shared = {
        "UnassignedSharedConvertedAttributesSequence": {
            "ConvolutionKernel": "B30f", "SliceThickness": 9},
    }  # fmt: skip
    frames = [
        {"UnassignedPerFrameConvertedAttributesSequence": {"SliceLocation": 7.0 + k}}
        for k in range(4)
    ]
    path = write_enhanced(
        *(tmp_path / "scan.dcm", pictures()),
        shared=shared,
        frames=frames,
        SOPClassUID=LegacyConvertedEnhancedCTImageStorage,
    )
    found = read_slice(path, 2)
    assert (found.traits.kernel, found.traits.location, found.traits.thickness) == ("B30f", 8, 3)


def test_frames_made_before_contrast_agent_and_of_another_body_part_are_known(tmp_path):
    agent = Dataset()
    agent.CodeMeaning = "Iohexol"
    region = Dataset()
    region.CodeMeaning = "Abdomen"
    frames = [
        {"ContrastBolusUsageSequence": {"ContrastBolusAgentAdministered": said}}
        for said in ("NO", "YES")
    ]
    shared = {"FrameAnatomySequence": {"AnatomicRegionSequence": [region]}}
    path = write_enhanced(
        *(tmp_path / "scan.dcm", pictures(2)),
        frames=frames,
        shared=shared,
        ContrastBolusAgentSequence=[agent],
    )
    names = ("ContrastBolusAgent", "ContrastBolusAgentSequence", "BodyPartExamined")
    file = EnhancedFile(path, names)
    before, after = file.frame(1), file.frame(2)
    assert before.get("ContrastBolusAgent") == "NONE"
    assert "ContrastBolusAgentSequence" not in before
    assert after.get("ContrastBolusAgentSequence")[0].CodeMeaning == "Iohexol"
    assert after.get("BodyPartExamined") == "Abdomen"


def test_projections_in_a_volume_are_known_by_their_technique(tmp_path):
    shared = {"CTImageFrameTypeSequence": {
        "FrameType": ["DERIVED", "PRIMARY", "VOLUME", "NONE"],
        "VolumeBasedCalculationTechnique": "MAX_IP"}}  # fmt: skip
    path = write_enhanced(tmp_path / "scan.dcm", pictures(), shared=shared)
    assert read_slice(path, 1).traits.image_type[-1] == "MAX_IP"


def test_frames_without_positions_are_in_the_order_of_the_file(tmp_path):
    frames = [{"PlanePositionSequence": None}] * 4
    path = write_enhanced(tmp_path / "scan.dcm", pictures(), frames=frames)
    found = [read_slice(path, number) for number in range(1, 5)]
    assert {s.position for s in found} == {None}
    assert [s.instance for s in found] == [1, 1.25, 1.5, 1.75]


def test_a_file_of_one_frame_needs_no_number_and_one_of_several_does(tmp_path):
    one = write_enhanced(tmp_path / "one.dcm", pictures(1))
    assert np.array_equal(read_slice(one).pixels, pictures(1)[0])
    assert "#" not in read_slice(one).sop_uid
    several = write_enhanced(tmp_path / "several.dcm", pictures())
    assert reason(several, None) == "more than one frame: 4; name each as SOPInstanceUID#number"
    assert reason(several, 5) == "no such frame: 5; the file has 4"
    other = write_enhanced(tmp_path / "mr.dcm", pictures(), SOPClassUID=EnhancedMRImageStorage)
    assert (
        reason(other) == "SOPClassUID is not Enhanced CT Image Storage: Enhanced MR Image Storage"
    )
    with other.open("ab") as file:
        file.truncate(MAX_BYTES + 1)
    assert reason(other, None) == reason(other)
    classic = write_dicom(tmp_path / "classic.dcm", pictures(1)[0])
    assert reason(classic).startswith("SOPClassUID is not Enhanced CT Image Storage: CT Image")


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"PerFrameFunctionalGroupsSequence": []}, "functional groups are missing: 4 frames, 0"),
        (
            {"PerFrameFunctionalGroupsSequence": [], "SharedFunctionalGroupsSequence": None},
            "no functional groups: nothing says where its frames lie",
        ),
        ({"NumberOfFrames": 5}, "functional groups are missing: 5 frames, 4 items"),
        ({"NumberOfFrames": 0}, "no usable NumberOfFrames: 0.0"),
        (
            {"ConcatenationUID": "1.2", "InConcatenationNumber": 2,
             "InConcatenationTotalNumber": 3},
            "a part of a concatenation: 2 of 3",
        ),
        ({"PixelData": bytes(7 * 256 * 256)}, "PixelData has another length than its image: 458"),
        ({"PixelData": bytes(10 * 256 * 256)}, "PixelData has another length than its image: 655"),
        ({"PixelData": None}, "no PixelData"),
        ({"Rows": 0}, "Rows or Columns out of range"),
    ],
)  # fmt: skip
def test_what_cannot_be_told_apart_is_refused_with_the_reason(tmp_path, tags, expected):
    path = write_enhanced(tmp_path / "scan.dcm", pictures(), **tags)
    assert reason(path).startswith(expected)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, JPEGLSLossless])
def test_a_file_that_ends_early_is_refused_as_a_whole(tmp_path, syntax):
    stored = pictures(dtype=np.uint16)
    way = {} if syntax == ExplicitVRLittleEndian else {
        "PixelData": encapsulate(codestreams(stored, syntax), has_bot=False)}  # fmt: skip
    path = write_enhanced(tmp_path / "scan.dcm", stored, syntax, **way)
    content = path.read_bytes()
    start = content.rindex(b"\xe0\x7f\x10\x00")
    for length, expected in (
        (len(content) - 40, "unreadable: "),
        (len(content) // 2, "unreadable: "),
        (start + 20, "unreadable: "),
        (start, "no PixelData"),
        (start - 100, ("no PixelData", "unreadable: ")),
    ):
        path.write_bytes(content[:length])
        assert reason(path).startswith(expected)


def test_a_file_with_any_bit_turned_over_is_read_or_refused(tmp_path):
    stored = pictures(3, side=16)
    path = write_enhanced(tmp_path / "scan.dcm", stored)
    content, rng = path.read_bytes(), random.Random(0)
    refused = 0
    for _ in range(200 * TORTURE):
        path.write_bytes(flip_bit(content[:-1536], rng) + content[-1536:])
        try:
            assert read_slice(path, 2).pixels.shape == (256, 256)
        except SliceError:
            refused += 1
    assert 0 < refused < 200 * TORTURE


def test_offset_tables_that_lead_nowhere_are_refused(tmp_path):
    stored = pictures(dtype=np.uint16)
    streams = codestreams(stored, JPEGLSLossless)
    content, _, lengths = encapsulate_extended(streams)
    wrong = struct.pack("<4Q", 0, 10, 20, 30)
    path = write_enhanced(
        *(tmp_path / "scan.dcm", stored, JPEGLSLossless),
        PixelData=content,
        ExtendedOffsetTable=wrong,
        ExtendedOffsetTableLengths=lengths,
    )
    assert reason(path).startswith("the offset table of PixelData cannot be: 4 offsets of 4")
    short = encapsulate(streams[:3], has_bot=False)
    path = write_enhanced(tmp_path / "short.dcm", stored, JPEGLSLossless, PixelData=short)
    assert reason(path) == "PixelData has another number of images than 4: 3"


def test_a_damaged_frame_is_refused_and_the_others_are_read(tmp_path):
    stored = pictures(dtype=np.uint16)
    streams = codestreams(stored, JPEGLSLossless)
    streams[1] = streams[1][: len(streams[1]) // 2]
    path = write_enhanced(
        tmp_path / "scan.dcm", stored, JPEGLSLossless, PixelData=encapsulate(streams)
    )
    assert reason(path, 2) == "the codestream is damaged: it has no end"
    assert np.array_equal(read_slice(path, 3).pixels, stored[2])


def test_a_large_file_takes_the_memory_of_one_frame(tmp_path):
    """1.2 GiB in 600 frames, most of it a hole."""
    frames = [{}] * 600
    small = np.zeros((600, 1, 1), np.int16)
    path = write_enhanced(tmp_path / "scan.dcm", small, frames=frames, Rows=1024, Columns=1024)
    content, length = path.read_bytes(), 600 * 2**21
    head = content[: -len(small.tobytes())]
    assert head[-4:] == struct.pack("<L", 1200)
    last = np.full((1024, 1024), -5, np.int16).tobytes()
    with path.open("wb") as file:
        file.write(head[:-4] + struct.pack("<L", length))
        file.truncate(len(head) + length)
        file.seek(-len(last), 2)
        file.write(last)
    multiframe._remembered.cache_clear()
    tracemalloc.start()
    try:
        assert (read_slice(path, 600).pixels == -5).all()
        assert (read_slice(path, 1).pixels == 0).all()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * 2**26


def test_a_file_that_changes_is_read_again(tmp_path):
    path = write_enhanced(tmp_path / "scan.dcm", pictures())
    assert read_slice(path, 1).pixels.max() > 0
    write_enhanced(path, np.zeros((3, 256, 256), np.int16))
    assert read_slice(path, 1).pixels.max() == 0
    assert reason(path, 4) == "no such frame: 4; the file has 3"


def test_frames_are_read_in_time_and_apart(tmp_path):
    path = str(write_enhanced(tmp_path / "scan.dcm", pictures()))
    for read in (read_in_time, read_apart):
        assert np.array_equal(read(path, frame=3).pixels, pictures()[2])
    with pytest.raises(SliceError, match="no such frame: 9"):
        read_apart(path, frame=9)


def test_a_published_file_of_enhanced_ct_is_read():
    """Of two frames, of another maker: a perfusion map with patient's coordinates as of a scan."""
    path = get_testdata_file("eCT_Supplemental.dcm", download=False)
    expected = pydicom.dcmread(path).pixel_array.astype(int) - 1024
    for number in (1, 2):
        found = read_slice(path, number)
        means = expected[number - 1].reshape(256, 2, 256, 2).mean((1, 3))
        # Its rows run to the patient's right.
        assert np.abs(found.pixels - means[:, ::-1]).max() <= 1
        assert found.position == -169 + 10 * number
    assert "PatientName" not in KEYWORDS


def test_training_reads_the_frames_that_a_labels_file_names(tmp_path):
    """One row a frame: SOPInstanceUID, #, and its number."""
    labels = labels_of({"s": [0, 1, 0, 1]})
    labels[SOP_UID] = [f"1.2.3#{number}" for number in (3, 1, 4, 2)]
    stored = pictures()
    write_enhanced(tmp_path / "s/s.1/1.2.3.dcm", stored)
    study = decode_study(labels, tmp_path)
    assert not study.rejected
    assert np.array_equal(pixels_of(study), stored)
    assert study.columns[SOP_UID] == [f"1.2.3#{number}" for number in (1, 2, 3, 4)]
    assert study.columns[IMAGE_LABEL] == [1, 1, 0, 0]
    assert not [note for note in study.notes if "without a row" in note]
    labels.loc[0, SOP_UID] = "1.2.3"
    ((*uids, path, why),) = decode_study(labels, tmp_path).rejected
    assert uids == labels.loc[0, list(UIDS)].tolist()
    assert (path, why[:21]) == (str(Path("s/s.1/1.2.3.dcm")), "more than one frame: ")
