import ctypes
import os
import signal

import numpy as np
import pytest
from builders import (
    codestream_of,
    compress_dicom,
    dicom_path,
    labels_of,
    write_cohort,
    write_dicom,
)
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGLosslessSV1

from clotline.data.decoders import decode_studies
from clotline.data.dicom import isolation
from clotline.data.dicom.ct_slice import read_slice
from clotline.data.dicom.isolation import read_apart, read_in_time
from clotline.data.dicom.rejection import SliceError
from clotline.data.ingest import write_shard
from clotline.data.shards import open_shard, read_rows
from clotline.errors import ClotlineError
from clotline.grid import SIZE
from clotline.labels import SOP_UID, STUDY_UID


def segfault(path):
    ctypes.string_at(0)


def abort(path):
    os.abort()


def leave(path):
    os._exit(3)


def be_killed(path):
    os.kill(os.getpid(), signal.SIGKILL)


def raise_error(path):
    raise SliceError("a reason of its own")


def write_crashing_file(path):
    """A restart marker where a table must be: GDCM's decoder ends the process over it."""
    stored = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE)).astype(np.uint8)
    plain = write_dicom(path.with_suffix(".plain"), stored)
    stream = codestream_of(compress_dicom(plain, path, JPEGLosslessSV1))
    stream = stream.replace(b"\xff\xc4", b"\xff\xd4", 1)
    write_dicom(path, stored, JPEGLosslessSV1, PixelData=encapsulate([stream]))


def test_a_good_slice_comes_as_it_is(tmp_path):
    path = write_dicom(tmp_path / "slice.dcm", np.full((SIZE, SIZE), 7, np.int16))
    there, here = read_apart(path), read_slice(path)
    assert (there.pixels == here.pixels).all()
    assert there.position == here.position


@pytest.mark.parametrize(
    ("read", "reason"),
    [
        (segfault, "decoding crashes: SIGSEGV"),
        (abort, "decoding crashes: SIGABRT"),
        (leave, "decoding crashes: exit code 3"),
        (raise_error, "a reason of its own"),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_ends_the_process_is_the_reason_of_the_reject(read, reason):
    with pytest.raises(SliceError) as caught:
        read_apart("slice.dcm", read)
    assert str(caught.value) == reason


def test_a_process_that_was_killed_from_outside_is_no_fault_of_the_file():
    with pytest.raises(ClotlineError) as caught:
        read_apart("slice.dcm", be_killed)
    assert "give the job more memory or fewer threads" in str(caught.value)


def test_a_loop_without_end_is_left_after_the_time_limit(tmp_path, monkeypatch):
    def loop(path):
        while True:
            pass

    monkeypatch.setattr(isolation, "TIME_LIMIT_S", 0.2)
    monkeypatch.setattr(isolation, "read_slice", loop)
    with pytest.raises(SliceError) as caught:
        read_apart("slice.dcm")
    assert str(caught.value).startswith("decoding takes too long: more than 0.2 s")


def test_the_time_limit_ends_with_the_slice(tmp_path):
    path = write_dicom(tmp_path / "slice.dcm", np.zeros((SIZE, SIZE), np.int16))
    read_in_time(path)
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0, 0)


@pytest.mark.parametrize("workers", [1, 3])
def test_a_file_that_crashes_its_decoder_costs_one_slice_of_the_shard(tmp_path, workers):
    labels = labels_of({f"s{number}": [0, 1, 0] for number in range(8)})
    made = write_cohort(labels, tmp_path).set_index([STUDY_UID, SOP_UID])["hu"]
    for row in (4, 5, 16):
        write_crashing_file(dicom_path(tmp_path, labels.iloc[row]))
    rejects, _ = write_shard(labels, tmp_path, tmp_path / "shard.h5", workers)
    assert rejects[SOP_UID].tolist() == labels[SOP_UID].iloc[[4, 5, 16]].tolist()
    assert set(rejects["reason"]) == {"decoding crashes: SIGABRT"}
    rows = read_rows(tmp_path / "shard.h5")
    with open_shard(tmp_path / "shard.h5") as file:
        found = file["pixels"][:, 0, 0].tolist()
    assert found == [made[uids] for uids in zip(rows[STUDY_UID], rows[SOP_UID], strict=True)]
    assert len(found) == 21


def test_studies_come_in_their_order_though_a_process_died(tmp_path):
    labels = labels_of({f"s{number}": [0, 0] for number in range(9)})
    write_cohort(labels, tmp_path)
    write_crashing_file(dicom_path(tmp_path, labels.iloc[3]))
    studies = [rows for _, rows in labels.groupby(STUDY_UID, sort=False)]
    decoded = list(decode_studies(studies, tmp_path, 2))
    assert [study.rows[STUDY_UID].iloc[0] for study in decoded] == list(labels[STUDY_UID].unique())
    assert [len(study.rejects) for study in decoded] == [0, 1, *[0] * 7]
