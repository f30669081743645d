"""Finds the CTPA series among DICOM files of any names and folders, by their headers alone.

Tags are those of DICOM PS3.3, C.7.3.1 (General Series), C.7.6.2 (Image Plane) and C.8.2.1 (CT
Image). Of a study one series is taken: an axial one with enough slices in Hounsfield units; before
projections of several slices, then with contrast agent before one without, then the one with most
slices.
"""

import re
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd

from clotline.data.dicom.ct_slice import (
    KIND_KEYWORDS,
    SCALE_KEYWORDS,
    check_is_ct_slice,
    image_corner,
    rescale,
)
from clotline.data.dicom.header import Header
from clotline.data.dicom.reader import read_header
from clotline.data.dicom.rejection import SliceError, one_line
from clotline.data.labels_file import UID_PATTERN
from clotline.errors import ClotlineError
from clotline.job.files import files_under
from clotline.job.processes import end_with_parent
from clotline.labels import IMAGE_LABEL, SERIES_UID, SOP_UID, STUDY_LABELS, STUDY_UID, UIDS, UNKNOWN

#: Fewest slices of a series that can show the pulmonary arteries.
MIN_SLICES = 16

#: Largest angle between the scan axis and the patient's long axis, in degrees: gantries tilt by up
#: to 30, and the tags are rounded.
MAX_TILT = 30.5

#: ContrastBolusAgent of scans without one, in the words of some languages.
_NO_AGENT = re.compile(
    r"[\W0]*|N|NA|N/A|NIL|NATIVE?"
    # Not: non-ionic, as most agents are.
    r"|(NO|NON(?!\W*IONIC)|NONE|NOT|WITHOUT|W/O|WO|OHNE|KEINE?|SANS|SIN|SENZA|UNENHANCED)(\W.*)?",
    re.IGNORECASE | re.DOTALL,
)

#: Values of ImageType for a picture of several slices at once.
_PROJECTIONS = {"MIP", "MINIP"}

KEYWORDS = (
    *UIDS, *KIND_KEYWORDS, *SCALE_KEYWORDS, "ImageOrientationPatient", "ImagePositionPatient",
    "InstanceNumber", "ContrastBolusAgent",
)  # fmt: skip

#: What is kept of a header.
_DESCRIBED = (*UIDS, "size", "position", "place", "problem", "contrast", "projection")

SERIES_COLUMNS = (STUDY_UID, SERIES_UID, "slices", "contrast", "chosen", "reason")
LEFT_OUT_COLUMNS = ("path", "reason")


def list_files(folder: str | Path) -> list[str]:
    """Paths of all files to predict, as of `clotline.job.files.files_under`.

    Raises:
        ClotlineError: there is no file, or a folder cannot be read.
    """
    files = files_under(folder)
    if not files:
        raise ClotlineError(f"the folder {folder} (predict) holds no files")
    return files


def find_series(
    folder: str | Path, files: list[str], workers: int = 1, step=iter
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """The series to predict, and what is left out.

    Args:
        folder: folder of the files.
        files: their paths relative to it.
        workers: processes that read headers.
        step: wraps the iterator over read headers, for progress.

    Returns:
        ``rows``, one a slice of the chosen series: UIDs, ``path``, and all labels -1 (unknown), as
        `clotline.data.ingest.write_shard` takes them; ``series``, one row each: UIDs, ``slices``
        (those fit to be taken; all, where too few are), ``contrast``, ``chosen`` and the
        ``reason``; and ``left_out``: files that are no slice of a chosen series, with the reason.

    Raises:
        ClotlineError: no series is a CTPA.
    """
    headers, left_out = [], []
    with ProcessPoolExecutor(workers, initializer=end_with_parent) as pool:
        found = pool.map(partial(_look_at, Path(folder)), files, chunksize=64)
        for path, header in zip(files, step(found), strict=True):
            if isinstance(header, str):
                left_out.append((_as_text(path), header))
            else:
                headers.append({"path": path} | header)
    table = pd.DataFrame(headers, columns=["path", *_DESCRIBED])
    # Of copies the largest is kept: the others may have been cut.
    table = table.sort_values("size", ascending=False, kind="stable")
    copies = (table["place"] != "") & table.duplicated([*UIDS, "place"])
    left_out += [(path, "a copy of another file") for path in table["path"][copies]]
    table = table[~copies]
    shared = (table[SOP_UID] == "") | table.duplicated(list(UIDS), keep=False)
    table = table.assign(**{SOP_UID: table[SOP_UID].mask(shared, _named_after(table["path"]))})
    series = _choose(table)
    if not series["chosen"].any():
        raise ClotlineError(_nothing_found(folder, series, left_out))
    table = table.merge(series[[STUDY_UID, SERIES_UID, "chosen", "reason"]])
    fit = table["chosen"] & (table["problem"] == "")
    why = table["problem"].where(table["problem"] != "", table["reason"])
    left_out += zip(table["path"][~fit], why[~fit], strict=True)
    rows = table.loc[fit, [*UIDS, "path"]].sort_values(list(UIDS), ignore_index=True)
    unknown = dict.fromkeys((IMAGE_LABEL, *STUDY_LABELS), np.int8(UNKNOWN))
    left_out = pd.DataFrame(sorted(left_out), columns=list(LEFT_OUT_COLUMNS))
    return rows.assign(**unknown), series, left_out


def _named_after(paths: pd.Series) -> pd.Series:
    """Names for slices without a SOPInstanceUID of their own, as some anonymisers leave them.

    Each is a digest of the file's path, so that a path with a patient's name goes no further.
    """
    return "file-" + paths.map(lambda path: sha256(path.encode()).hexdigest()[:24])


def _as_text(path: str) -> str:
    """A path for a table: bytes that are no UTF-8 as hexadecimal digits."""
    return path.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _nothing_found(folder: str | Path, series: pd.DataFrame, left_out: list) -> str:
    reasons = pd.Series([*series["reason"], *(reason for _, reason in left_out)])
    return (
        f"no CTPA series in {folder} (predict): none of {len(series):,} series is axial CT of "
        f"{MIN_SLICES} slices or more. "
        + "; ".join(f"{reason} ({n:,})" for reason, n in reasons.value_counts().head(4).items())
    )


def _look_at(folder: Path, path: str) -> dict | str:
    """What is needed of a file's header, or why it belongs to no series."""
    if path != _as_text(path):
        return "its name is no UTF-8 text: rename it"
    try:
        return _describe(folder / path)
    except SliceError as error:
        return str(error)
    except Exception as error:  # pydicom converts values when they are asked for
        return f"unreadable: {one_line(error)}"


def _describe(path: Path) -> dict:
    """What `_DESCRIBED` names.

    ``position`` and ``place`` are texts, the latter with the instance number, or empty; ``problem``
    says why the file is no slice of a CTPA, or is empty; ``projection`` is whether it shows several
    slices at once.

    Raises:
        SliceError: the file cannot belong to a series.
    """
    header = read_header(path, KEYWORDS)
    uids = {name: str(header.get(name) or "") for name in UIDS}
    for name, uid in uids.items():
        if not re.fullmatch(UID_PATTERN, uid) and (uid or name != SOP_UID):
            raise SliceError(f"no usable {name}")
    position = _position(header)
    instance = header.number("InstanceNumber")
    return uids | {
        "size": path.stat().st_size,
        "position": position,
        "place": position + ("" if instance is None else f" {instance:.12g}"),
        "problem": _problem(header),
        "contrast": not _NO_AGENT.fullmatch(str(header.get("ContrastBolusAgent") or "").strip()),
        "projection": bool(_PROJECTIONS.intersection(header.get("ImageType") or [])),
    }


def _position(header: Header) -> str:
    """ImagePositionPatient to a hundredth of a mm, however it is written; empty without one."""
    # Adding 0 makes 0 of -0.
    return "\\".join(f"{round(v, 2) + 0:.12g}" for v in image_corner(header) or ())


def _problem(header: Header) -> str:
    try:
        check_is_ct_slice(header)
        rescale(header)
    except SliceError as error:
        return str(error)
    try:
        row, column = np.reshape(header.numbers("ImageOrientationPatient"), (2, 3))
        normal = np.cross(row, column)
        axial = abs(normal[2]) > np.cos(np.radians(MAX_TILT)) * np.linalg.norm(normal)
    except (AttributeError, TypeError, ValueError):
        return "no ImageOrientationPatient"
    if not axial:
        return "not axial"
    return ""


def _choose(table: pd.DataFrame) -> pd.DataFrame:
    """One row a series, with the choice and its reason."""
    found = []
    for (study, uid), part in table.groupby([STUDY_UID, SERIES_UID], sort=True):
        fit = part[part["problem"] == ""]
        # Single localizers within a series are no reason to refuse it.
        problem = "" if len(fit) >= MIN_SLICES else part["problem"].mode()[0]
        places = fit["position"].nunique() if (fit["position"] != "").any() else len(fit)
        if not problem and places < MIN_SLICES:
            # Bolus tracking looks at one place again and again.
            where = "" if places == len(fit) else f" at {places} positions"
            problem = f"{len(fit)} slices{where}; at least {MIN_SLICES} are needed"
        counted = part if problem else fit
        contrast, projection = counted["contrast"].any(), counted["projection"].all()
        found.append((study, uid, len(counted), bool(contrast), False, problem, projection))
    series = pd.DataFrame(found, columns=[*SERIES_COLUMNS, "projection"])
    order = ["projection", "contrast", "slices", SERIES_UID]
    for _, part in series[series["reason"] == ""].groupby(STUDY_UID):
        ranked = part.sort_values(order, ascending=[True, False, False, True])
        best = ranked.iloc[0]
        others = "the only axial CT series" if len(part) == 1 else "the best axial CT series"
        with_contrast = ", with contrast agent" if best["contrast"] else ""
        series.loc[ranked.index[0], ["chosen", "reason"]] = (True, others + with_contrast)
        series.loc[ranked.index[1:], "reason"] = f"series {best[SERIES_UID]} was preferred"
    return series.drop(columns="projection")
