"""Which studies have the same PatientID, without keeping one: each is hashed as it is read.

The salt is drawn anew each time and never leaves this module, so that nobody can find out which
PatientID a hash is of by trying those there may be.
"""

import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path

from pydicom.uid import DeflatedExplicitVRLittleEndian

from clotline.data.dicom.header import Header
from clotline.data.dicom.reader import read_elements, read_header, read_part, start_of_data_set
from clotline.data.dicom.rejection import SliceError
from clotline.data.dicom.words import plain_patient_id

PATIENT_ID = "PatientID"

#: Bytes at a file's start in which its PatientID stands, and its tag.
_HEAD, _TAG = 2**18, 0x00100020
#: Files that are read at a time: on a network file system each waits for an answer.
_AT_A_TIME = 16


def hashed_patient_ids(
    files: Mapping[str, Sequence[str]], roots: Sequence[str | os.PathLike]
) -> dict[str, bytes]:
    """A hash of each study's PatientID, the same for the same PatientID within one call alone.

    Args:
        files: study UID to some of its files; the first that can be read tells.
        roots: folders, in one of which a file must lie, all links followed.

    Returns:
        Study UID to hash; without studies of which no file has a PatientID.
    """
    salt = secrets.token_bytes(32)
    real_roots = [os.path.realpath(root) for root in roots]

    def hashed(paths: Iterable[str]) -> bytes | None:
        for path in paths:
            real = os.path.realpath(path)
            within = any(os.path.commonpath((root, real)) == root for root in real_roots)
            if within and (patient := _patient_id(real)):
                return blake2b(patient.encode(), key=salt, digest_size=16).digest()
        return None

    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        found = zip(files, pool.map(hashed, files.values()), strict=True)
        return {study: patient for study, patient in found if patient is not None}


def _patient_id(path: str | Path) -> str:
    """The PatientID of a file; empty where it has none, or cannot be read."""
    try:
        header = _start_of(path) or read_header(path, (PATIENT_ID,))
        return plain_patient_id(str(header.get(PATIENT_ID) or ""))
    except Exception:  # pydicom raises many types on damaged files, which are told when decoded
        return ""


def _start_of(path: str | Path) -> Header | None:
    """A file's first elements; None where it is unusual and has to be read as a whole."""
    head = read_part(path, 0, _HEAD)
    try:
        declared, start = start_of_data_set(head)
    except SliceError:
        return None
    if declared == DeflatedExplicitVRLittleEndian:
        return None
    try:
        header, end = read_elements(head, start, declared, (PATIENT_ID,), _is_beyond)
    except Exception:  # pydicom raises many types where data end early
        return None
    # A sequence before it may be longer: reformatted slices refer to all that they were made of.
    return header if PATIENT_ID in header or end < len(head) else None


def _is_beyond(tag, _vr, _length) -> bool:
    return tag > _TAG
