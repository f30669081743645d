"""Finds the CTPA among DICOM files of any names and folders.

Files are told apart by their headers, copies by their content; of the scans of a study (see
`clotline.data.scans`) one is taken (see `clotline.data.scan_choice`). Tags are those of DICOM
PS3.3, C.7.3.1 (General Series), C.7.6.2 (Image Plane), C.8.2.1 (CT Image) and C.7.6.4 (Contrast/
Bolus).
"""

import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import blake2b, sha256
from itertools import pairwise
from pathlib import Path
from statistics import median

import cv2
import numpy as np
import pandas as pd
from pydicom import Dataset, dcmread
from pydicom.filereader import read_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian

from clotline.data.archives import located
from clotline.data.attenuation import LOOKED_AT, Chest, look_at, summarize
from clotline.data.dicom.ct_slice import (
    CHECKED_KEYWORDS,
    SCALE_KEYWORDS,
    Slice,
    check_is_ct_slice,
    image_corner,
    position_along_scan,
    rescale,
)
from clotline.data.dicom.header import Header
from clotline.data.dicom.isolation import read_apart, read_in_time
from clotline.data.dicom.multiframe import read_image
from clotline.data.dicom.orientation import image_axes
from clotline.data.dicom.rejection import SliceError, one_line
from clotline.data.dicom.traits import TRAIT_KEYWORDS, Traits, joined, traits_of
from clotline.data.dicom.volume import VolumeFile
from clotline.data.dicom.words import (
    SCAN,
    describes_agent,
    goes_by_mouth,
    is_sharp,
    picture_type,
    says_agent,
    shows_chest,
)
from clotline.data.labels_file import SOP_PATTERN, UID_PATTERN
from clotline.data.scan_choice import PICTURES, Choice, Scan, choose
from clotline.data.scans import MIN_SLICES, are_one, positions_of, split_scans
from clotline.errors import ClotlineError
from clotline.job.files import files_under
from clotline.job.processes import end_with_parent
from clotline.labels import (
    FRAME_MARK,
    IMAGE_LABEL,
    SERIES_UID,
    SOP_UID,
    STUDY_LABELS,
    STUDY_UID,
    UIDS,
    UNKNOWN,
)
from clotline.titles import counted

log = logging.getLogger("clotline")

#: Largest angle between the scan axis and the patient's long axis, in degrees: gantries tilt by up
#: to 30, and the tags are rounded.
MAX_TILT = 30.5

#: An element that every DICOMDIR has, and nothing else.
_OF_DICOMDIR = "OffsetOfTheFirstDirectoryRecordOfTheRootDirectoryEntity"

KEYWORDS = (
    *UIDS, *CHECKED_KEYWORDS, *SCALE_KEYWORDS, *TRAIT_KEYWORDS, "ImageOrientationPatient",
    "ImagePositionPatient", "BitsAllocated", "PixelRepresentation", "SeriesDescription",
    "ProtocolName", "BodyPartExamined", "ContrastBolusAgent", "ContrastBolusAgentSequence",
    "ContrastBolusVolume", "ContrastBolusTotalDose", "ContrastFlowRate", "ContrastBolusRoute",
    _OF_DICOMDIR,
)  # fmt: skip

#: Columns of `find_series`'s table of scans.
SERIES_COLUMNS = (
    STUDY_UID, SERIES_UID, "scan", "slices", "contrast", "chosen", "reason", "certainty",
    "blood_hu", "thickness_mm", "kernel", "picture",
)  # fmt: skip
LEFT_OUT_COLUMNS = ("path", "reason")

#: Columns of the rows to decode: the frame in the file (0: the file is one slice), whether its
#: pixels are looked at, what is put in order as one, and what is doubtful, a line each.
FRAME, LOOK, SCAN_OF_ROW, DOUBTS = "frame", "look", "scan", "doubts"

#: A file, and a frame of it; 0 where the file is one slice.
Source = tuple[str, int]


class NothingChosenError(ClotlineError):
    """No scan of the folder is a CTPA; ``series`` is the table of `find_series`."""

    def __init__(self, message: str, series: pd.DataFrame):
        super().__init__(message)
        self.series = series


@dataclass(frozen=True)
class _File:
    """What is kept of a file, or of a frame of one.

    Attributes:
        has_uids: whether they are its own; else its path is their origin.
        problem: why it is no slice of a CTPA; empty where it is one.
    """

    path: str
    frame: int
    has_uids: bool
    uids: tuple[str, str, str]
    size: int = 0
    digest: bytes = b""
    problem: str = ""
    traits: Traits = field(default_factory=Traits)
    picture: str = SCAN
    derived: bool = False
    agent: bool | None = None
    described: bool | None = None
    chest: bool | None = None
    sharp: bool | None = None

    @property
    def series(self) -> tuple[str, str]:
        return self.uids[:2]

    @property
    def source(self) -> Source:
        return self.path, self.frame

    @property
    def name(self) -> str:
        """How it is called in reasons and lists."""
        return _name(self.source)


def list_files(folder: str | Path, key: str = "predict") -> list[str]:
    """Paths of all files to predict, as of `clotline.job.files.files_under`.

    Of a file instead of a folder, such as an archive, the one path is empty.

    Args:
        folder: the folder.
        key: of the configuration, that names it.

    Raises:
        ClotlineError: there is no file, or a folder cannot be read.
    """
    files = files_under(folder)
    if not files:
        raise ClotlineError(f"the folder {folder} ({key}) holds no files")
    return files


def named_series(config: str | list[str] | None) -> list[str]:
    """The UIDs of the configuration's ``series``, which is one, a list, or text with commas."""
    if config is None:
        return []
    texts = [config] if isinstance(config, str) else config
    return [uid for text in texts for uid in re.split(r"[\s,;]+", text) if uid]


def find_series(
    folder: str | os.PathLike,
    files: Sequence[str],
    workers: int = 1,
    step=iter,
    named: Sequence[str] = (),
    refused: Mapping[str, str] | None = None,
    key: str = "predict",
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """The scans to predict, and what is left out.

    Args:
        folder: folder of the files, or what was unpacked of it (`clotline.data.archives`).
        files: their paths in it.
        workers: processes that read headers and look at pixels.
        step: wraps the iterator over read headers, for progress.
        named: SeriesInstanceUIDs to take, whatever is thought of them.
        refused: archives among the files that could not be unpacked, and why.
        key: of the configuration, that names the folder.

    Returns:
        ``rows``, one a slice of the chosen scans: UIDs, ``path``, ``frame``, ``look``, ``scan``
        (what is put in order as one), ``doubts`` (a line each), and all labels -1 (unknown), as
        `clotline.data.ingest.write_shard` takes them; ``series``, one row a series and scan:
        SERIES_COLUMNS; and ``left_out``: files that are no slice of a chosen scan, with the reason.

    Raises:
        NothingChosenError: no scan is a CTPA.
        ClotlineError: one that is named is not there or cannot be taken.
    """
    left_out: dict[Source, str] = {}
    table: list[_File] = []
    with ProcessPoolExecutor(workers, initializer=end_with_parent) as pool:
        looked_at = pool.map(partial(_look_at, folder), files, chunksize=64)
        for path, described in zip(files, step(looked_at), strict=True):
            if isinstance(described, str):
                left_out[_as_text(path), 0] = described
            else:
                table += described
    table = [_as_named(file, named) for file in table]
    left_out |= {(path, 0): reason for path, reason in (refused or {}).items()}
    by_series: dict[tuple[str, str], list[_File]] = defaultdict(list)
    for file in table:
        by_series[file.series].append(file)
    scans: list[Scan] = []
    for members in by_series.values():
        kept, copies = _without_copies(folder, [f for f in members if not f.problem])
        left_out |= copies
        scans += _scans_of(kept, members)
    scans = _with_pixels(folder, _together(_torn_apart(scans)), workers)
    by_study: dict[str, list[Scan]] = defaultdict(list)
    for scan in scans:
        by_study[scan.study].append(scan)
    choices = [choose(by_study[study], frozenset(named)) for study in sorted(by_study)]
    _check_named(named, scans)
    for choice in choices:
        for scan in choice.scans:
            if scan is not choice.chosen and scan.files != getattr(choice.chosen, "files", None):
                left_out |= {file.source: file.problem or scan.problem for file in scan.files}
    left_out |= {f.source: f.problem for f in table if f.problem and f.source not in left_out}
    listed = _listed(left_out, Counter(file.path for file in table))
    series = _series_table(choices)
    if not any(choice.chosen for choice in choices):
        raise NothingChosenError(_nothing_found(folder, files, listed, key), series)
    _tell_lost(choices)
    # It only names the files beside it.
    listed = {path: reason for path, reason in listed.items() if reason != _DICOMDIR}
    left_out_table = pd.DataFrame(sorted(listed.items()), columns=list(LEFT_OUT_COLUMNS))
    return _rows(choices), series, left_out_table


def _as_named(file: _File, named: Sequence[str]) -> _File:
    """A file of a series that is named, without what words alone say against it."""
    if file.uids[1] in named and file.problem == _no_scan(file.picture):
        return replace(file, problem="")
    return file


def _no_scan(picture: str) -> str:
    return f"no scan: {picture}"


def _listed(left_out: dict[Source, str], counts: dict[str, int]) -> dict[str, str]:
    """What is left out by name: a file of many frames once, where all have the same reason.

    Args:
        left_out: reasons.
        counts: of each file's frames.
    """
    reasons: dict[str, list[str]] = defaultdict(list)
    for (path, _), reason in left_out.items():
        reasons[path].append(reason)
    whole = {path for path, of in reasons.items() if len(of) == counts[path] and len(set(of)) == 1}
    return {
        path if path in whole else _name((path, frame)): reason
        for (path, frame), reason in left_out.items()
    }


def _name(source: Source) -> str:
    path, frame = source
    return f"{path}{FRAME_MARK}{frame}" if frame else path


def _rows(choices: list[Choice]) -> pd.DataFrame:
    """The slices of the chosen scans."""
    taken = []
    for choice in choices:
        if choice.chosen is None:
            continue
        # From end to end, for coverage is told by them.
        looked_at = set(_spread(choice.chosen, LOOKED_AT, 0.0))
        of_all = choice.chosen.series[0], "\n".join(choice.doubts)
        taken += [
            (*file.uids, *file.source, file.source in looked_at, *of_all)
            for file in choice.chosen.files
        ]
    rows = pd.DataFrame(taken, columns=[*UIDS, "path", FRAME, LOOK, SCAN_OF_ROW, DOUBTS])
    shared = (rows[SOP_UID] == "") | rows.duplicated(list(UIDS), keep=False)
    rows[SOP_UID] = rows[SOP_UID].mask(shared, _named_after(rows))
    unknown = dict.fromkeys((IMAGE_LABEL, *STUDY_LABELS), np.int8(UNKNOWN))
    return rows.sort_values(list(UIDS), ignore_index=True).assign(**unknown)


def _series_table(choices: list[Choice]) -> pd.DataFrame:
    """One row a series and scan."""
    lines = []
    for choice in choices:
        for scan in choice.scans:
            taken = choice.chosen is not None and scan.files == choice.chosen.files
            for series in scan.series:
                members = [f for f in scan.files if f.uids[1] == series]
                # What was named by its path is known by that alone.
                told_by = scan.told_by if members[0].has_uids else members[0].path
                lines.append(
                    (
                        *(scan.study, series, one_line(told_by), len(members)),
                        *(scan.contrast, taken),
                        choice.reason if taken else scan.problem,
                        choice.certainty if taken else "",
                        None if scan.blood is None else round(scan.blood),
                        scan.thickness,
                        {False: "soft", True: "sharp", None: ""}[scan.sharp],
                        scan.picture,
                    )
                )
    table = pd.DataFrame(lines, columns=list(SERIES_COLUMNS))
    table["blood_hu"] = table["blood_hu"].astype("Int64")
    return table.sort_values([STUDY_UID, SERIES_UID, "scan"], ignore_index=True)


def _named_after(rows: pd.DataFrame) -> pd.Series:
    """Names for slices without a SOPInstanceUID of their own, as some anonymisers leave them.

    Each is a digest of the file's path, so that a path with a patient's name goes no further.
    """
    of_frame = FRAME_MARK + rows[FRAME].astype(str)
    return rows["path"].map(_name_of) + of_frame.where(rows[FRAME] > 0, "")


def _name_of(path: str) -> str:
    return f"file-{sha256(path.encode()).hexdigest()[:24]}"


def _as_text(path: str) -> str:
    """A path for a table: bytes that are no UTF-8 as hexadecimal digits."""
    return path.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _nothing_found(
    folder: str | os.PathLike, files: Sequence[str], left_out: dict[str, str], key: str
) -> str:
    """One screen: the few reasons with counts, an example of each, and what to do."""
    by_reason: dict[str, list[str]] = defaultdict(list)
    for path, reason in sorted(left_out.items()):
        by_reason[reason.split(":")[0]].append(path)
    lines = [
        f"no CTPA series in {folder} ({key}): none of {len(files):,} files is a slice of an "
        f"axial CT scan of {MIN_SLICES} positions or more."
    ]
    ranked = sorted(by_reason.items(), key=lambda item: (-len(item[1]), item[0]))
    for start, paths in ranked[:6]:
        full = left_out[paths[0]]
        lines.append(f"  {len(paths):>7,}  {full}; such as {paths[0]}")
        if remedy := next((text for known, text in _REMEDIES if start.startswith(known)), ""):
            lines.append(f"           {remedy}")
    if len(ranked) > 6:
        lines.append(f"  and {len(ranked) - 6} further reasons")
    return "\n".join(lines)


#: What to do, by how a reason begins.
_REMEDIES = (
    ("a link to no file", "Fetch what the links lead to (datalad get, git annex get)."),
    ("not a DICOM file", "Name the folder that holds the DICOM files."),
    ("an archive", "Unpack it, and name the folder that it gives."),
    ("too few slices", "Export the whole series."),
    ("no usable StudyInstanceUID", "Anonymise again with UIDs of digits and dots."),
    ("no usable SeriesInstanceUID", "Anonymise again so that each series keeps a UID of its own."),
    ("each file in a study", "Anonymise again so that the files of a study share one UID."),
    ("a volume in two files", "Convert it to one file, .nii or .nrrd."),
    ("no Hounsfield units", "Export the original CT images, not maps made of them."),
    ("not axial", "Export the axial series."),
    ("the same UIDs", "Export the studies again, each with UIDs of its own."),
    ("a part of a concatenation", "Join its parts, or export the study as files of one slice."),
    ("a directory of media", "Copy the whole medium: a DICOMDIR only names the files beside it."),
    ("no functional groups", "Export it again with them, or the study as files of one slice."),
    ("functional groups are missing", "Export it again, or the study as files of one slice."),
    ("a localizer", "Export the series of slices too."),
    ("Modality is not CT", "Export the CT series of the study."),
)


def _tell_lost(choices: list[Choice]) -> None:
    """Names the studies of which nothing is taken."""
    lost = [choice for choice in choices if choice.chosen is None]
    if not lost:
        return
    shown = []
    for choice in lost[:5]:
        most = Counter(scan.problem for scan in choice.scans for _ in scan.files).most_common(1)
        shown.append(f"{choice.scans[0].study}: {most[0][0]}")
    more = f"; and {len(lost) - 5:,} more" if len(lost) > 5 else ""
    log.warning(
        "%s of %s studies have no CTPA and are left out: %s",
        *(f"{len(lost):,}", f"{len(choices):,}", "; ".join(shown) + more),
    )


def _check_named(named: Sequence[str], scans: list[Scan]) -> None:
    for uid in named:
        of = [scan for scan in scans if uid in scan.series]
        if not of:
            raise ClotlineError(
                f"series names {uid}, and no CT image in the folder has this SeriesInstanceUID"
            )
        if all(scan.problem for scan in of):
            raise ClotlineError(f"series names {uid}, which cannot be taken: {of[0].problem}")


#: Reason of what holds no picture, and nothing that is lost.
_DICOMDIR = "a directory of media (DICOMDIR): it holds no slices itself"


def _look_at(folder: str | os.PathLike, path: str) -> list[_File] | str:
    """What is needed of a file's header, or of each of its frames; or why it is of no series."""
    if path != _as_text(path):
        return "its name is no UTF-8 text: rename it"
    file = located(folder, path)
    try:
        image, size = read_image(file, KEYWORDS), Path(file).stat().st_size
        if isinstance(image, Header):
            if image.get(_OF_DICOMDIR) is not None:
                return _DICOMDIR
            return [_describe(image, path, 0, size)]
        # A volume has no UIDs.
        study = _name_of(path) if isinstance(image, VolumeFile) else None
        return [
            _describe(image.frame(number), path, number, size, study)
            for number in range(1, image.count + 1)
        ]
    except SliceError as error:
        if str(error).startswith("not a DICOM file"):
            return _what_it_is(Path(file)) or str(error)
        problem = str(error)
    except Exception as error:  # pydicom converts values when they are asked for
        problem = f"unreadable: {one_line(error)}"
    uids = _usable_uids(Path(file))
    return [_File(path, 0, True, uids, problem=problem)] if uids[0] else problem


def _usable_uids(path: Path) -> tuple[str, str, str]:
    """The UIDs of a file that cannot be read as a slice, so that its study is accounted for.

    Those that are not there or no UIDs are empty.
    """
    try:
        # Opening a pipe could wait for ever, and pydicom inflates without a limit.
        if not path.is_file():
            return "", "", ""
        if read_file_meta_info(path).get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
            return "", "", ""
        dataset = dcmread(path, stop_before_pixels=True, specific_tags=list(UIDS))
        uids = [str(dataset.get(name) or "") for name in UIDS]
    except Exception:  # pydicom raises many types on damaged files
        return "", "", ""
    study, series, sop = (uid if re.fullmatch(UID_PATTERN, uid) else "" for uid in uids)
    return study, series, sop


#: First bytes of archives that `clotline.data.archives` does not enter.
_SIGNATURES = (
    (b"Rar!", "an archive: RAR"),
    (b"7z\xbc\xaf\x27\x1c", "an archive: 7z"),
)


def _what_it_is(path: Path) -> str:
    """What a file is that is no DICOM file; empty where its first bytes do not tell."""
    with path.open("rb") as file:
        start = file.read(16)
    return next((name for signature, name in _SIGNATURES if start.startswith(signature)), "")


def _describe(header: Header, path: str, frame: int, size: int, study: str | None = None) -> _File:
    """What is kept of a file.

    Args:
        header: of the file, or of a frame of it.
        path: the file.
        frame: its number; 0 where the file is one slice.
        size: of the file in bytes.
        study: name of a study and series that have no UIDs.

    Raises:
        SliceError: the file cannot belong to a series.
    """
    uids = tuple(str(header.get(name) or "") for name in UIDS)
    if study is not None:
        uids = study, study, f"{study}{FRAME_MARK}{frame}"
    for name, uid in zip(UIDS, uids, strict=True):
        pattern = SOP_PATTERN if name == SOP_UID else UID_PATTERN
        if not re.fullmatch(pattern, uid) and (uid or name != SOP_UID):
            raise SliceError(f"no usable {name}")
    axes = image_axes(header)
    traits = traits_of(header, position_along_scan(image_corner(header), axes))
    description = joined(header.get("SeriesDescription"))
    picture = picture_type(traits.image_type, description)
    protocol = joined(header.get("ProtocolName"))
    described = describes_agent(description)
    return _File(
        path=path,
        frame=frame,
        has_uids=study is None,
        uids=uids,
        size=size,
        digest=_digest(header),
        problem=_problem(header, picture),
        traits=traits,
        picture=picture,
        derived=bool(traits.image_type) and traits.image_type[0].strip().upper() == "DERIVED",
        agent=_agent(header),
        described=describes_agent(protocol) if described is None else described,
        chest=shows_chest(joined(header.get("BodyPartExamined")), description),
        sharp=is_sharp(_first(header.get("ConvolutionKernel")), description),
    )


def _first(values: object) -> str:
    """The first of several values: the further values of a kernel are steps of a filter."""
    if isinstance(values, str) or not isinstance(values, Sequence):
        return joined(values)
    return str(values[0]) if len(values) else ""


def _digest(header: Header) -> bytes:
    """A digest of all that decides a slice's Hounsfield units."""
    digest = blake2b(digest_size=16)
    for name in ("Rows", "Columns", "BitsAllocated", "PixelRepresentation"):
        digest.update(f"{header.get(name)} ".encode())
    numbers = header.number("RescaleSlope"), header.number("RescaleIntercept")
    digest.update(f"{numbers} {header.syntax}".encode())
    pixels = header.get("PixelData")
    if isinstance(pixels, bytes | bytearray | memoryview):
        digest.update(pixels)
    return digest.digest()


def _agent(header: Header) -> bool | None:
    """Whether contrast agent went into a vessel, as the elements of C.7.6.4 say; None: nothing."""
    texts = [joined(header.get("ContrastBolusAgent"))]
    amounts = [header.number(name) for name in ("ContrastBolusVolume", "ContrastBolusTotalDose")]
    for item in header.get("ContrastBolusAgentSequence") or ():
        texts.append(str(item.get("CodeMeaning") or ""))
        amounts += _volumes(item)  # Enhanced CT has it here
    said = [verdict for verdict in map(says_agent, texts) if verdict is not None]
    said += [amount > 0 for amount in amounts if amount is not None]
    if _rate(header) > 0:
        said.append(True)
    if True in said and goes_by_mouth(joined(header.get("ContrastBolusRoute"))):
        return False
    return any(said) if said else None


def _volumes(item: Dataset) -> list[float]:
    """ContrastBolusVolume of an item, in ml; nothing where it is no number, as in 80 ml."""
    try:
        volumes = np.array(item.get("ContrastBolusVolume"), float).reshape(-1)
    except (TypeError, ValueError):
        return []
    return volumes[np.isfinite(volumes)].tolist()


def _rate(header: Header) -> float:
    try:
        rates = header.numbers("ContrastFlowRate")
    except (OverflowError, TypeError, ValueError):
        return 0
    return max([rate for rate in rates if rate > 0], default=0)


def _problem(header: Header, picture: str) -> str:
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
    if picture not in PICTURES:
        return _no_scan(picture)
    return ""


def _without_copies(
    folder: str | os.PathLike, files: list[_File]
) -> tuple[list[_File], dict[Source, str]]:
    """A series' files without copies, and why each other one is left out.

    Copies are those that lie at one position and have the same content, whatever their UIDs. Of
    those that have the same UIDs and other bytes the pixels are compared: an archive may have
    compressed one of them, and a copy may have been cut. Where they differ, all stay in:
    `clotline.data.scans.split_scans` or `_conflict` tells what they are.
    """
    along = positions_of([f.traits for f in files])
    at: dict[tuple, list[_File]] = defaultdict(list)
    left_out: dict[Source, str] = {}
    kept: list[_File] = []
    for file, position in zip(files, along, strict=True):
        if position is None and file.traits.instance is None:
            kept.append(file)  # nothing says that it lies where another one lies
        elif position is None:
            at[("number", file.uids[2], file.traits.instance)].append(file)
        else:
            at[("mm", position)].append(file)
    for members in at.values():
        # Of copies the largest is kept: the others may have been cut.
        members.sort(key=lambda f: (-f.size, *f.source))
        own: list[_File] = []
        for file in members:
            alike = (file.digest, file.traits.spacing)
            like = next((o for o in own if (o.digest, o.traits.spacing) == alike), None)
            if like is not None:
                left_out[file.source] = f"a copy of another file: {like.name}"
                continue
            same = next(
                (
                    o
                    for o in own
                    if o.uids == file.uids and file.uids[2] and o.traits == file.traits
                ),
                None,
            )
            if same is not None and (why := _is_copy(folder, file, same)):
                left_out[file.source] = f"{why}: {same.name}"
                continue
            own.append(file)
        kept += own
    return sorted(kept, key=lambda f: f.source), left_out


def _is_copy(folder: str | os.PathLike, file: _File, other: _File) -> str:
    """Why a file is only a copy of another one with the same UIDs; empty where it is not."""
    try:
        pixels = _read_apart(folder, file).pixels
    except SliceError:
        return "a damaged copy of another file"
    try:
        if np.array_equal(_read_apart(folder, other).pixels, pixels):
            return "a copy of another file"
    except SliceError:
        return ""
    return ""


def _read_apart(folder: str | os.PathLike, file: _File) -> Slice:
    return read_apart(located(folder, file.path), frame=file.frame or None)


def _scans_of(files: list[_File], members: list[_File]) -> list[Scan]:
    """The scans of a series.

    Args:
        files: those that are slices, without copies.
        members: all of the series.
    """
    unfit = [f for f in members if f.problem]
    # Single localizers within a series are no reason to refuse it.
    if len(files) < MIN_SLICES and unfit:
        problem = Counter(f.problem for f in unfit).most_common(1)[0][0]
        return [_scan(sorted(members, key=lambda f: f.source), 0, problem=problem)]
    if pair := _conflict(files):
        return [_scan(files, 0, problem=_conflicting(*pair))]
    scans = []
    for part in split_scans([f.traits for f in files]):
        slices = [files[m] for m in part.members]
        if part.mixed:
            pair = [files[m] for m in part.mixed]
            scans.append(_scan(slices, 0, part.told_by, _conflicting(*pair)))
            continue
        along = positions_of([f.traits for f in slices])
        known = {position for position in along if position is not None}
        # What does not say where it lies may lie anywhere.
        positions = len(known) + along.count(None)
        if known == {along[0]} and len(slices) > 1 and None not in along:
            positions = 1
        problem = ""
        if positions < MIN_SLICES:
            where = ""
            if positions != len(slices):
                where = f" at {counted(positions, 'position', 'positions')}"
            problem = f"too few slices: {len(slices)}{where}; at least {MIN_SLICES} are needed"
        scans.append(_scan(slices, positions, part.told_by, problem))
    return scans


def _conflict(files: list[_File]) -> tuple[_File, _File] | None:
    """Two files that have the same UIDs, the same number, and not the same content."""
    seen: dict[tuple, _File] = {}
    for file, position in zip(files, positions_of([f.traits for f in files]), strict=True):
        if not file.uids[2] or position is None:
            continue
        key = (file.uids, position, file.traits.instance)
        if key in seen:
            return seen[key], file
        seen[key] = file
    return None


def _conflicting(first: _File, second: _File) -> str:
    return (
        f"the same UIDs, numbers or positions for different content: {first.name} and {second.name}"
    )


def _scan(files: list[_File], positions: int, told_by: str = "", problem: str = "") -> Scan:
    """What the headers of a scan's slices say together."""
    fit = [f for f in files if not f.problem] or files
    traits = fit[0].traits
    return Scan(
        study=files[0].uids[0],
        series=tuple(sorted({f.uids[1] for f in files})),
        files=tuple(files),
        positions=positions,
        told_by=told_by,
        picture=Counter(f.picture for f in fit).most_common(1)[0][0],
        derived=sum(f.derived for f in fit) * 2 > len(fit),
        agent=_together_said(f.agent for f in fit),
        described=_together_said(f.described for f in fit),
        chest_said=_together_said(f.chest for f in fit),
        sharp=Counter(f.sharp for f in fit).most_common(1)[0][0],
        thickness=_thickness(fit),
        field_mm=traits.field_mm,
        problem=problem,
    )


def _together_said(verdicts) -> bool | None:
    """True where one says so, else False where one says that, else None."""
    said = {verdict for verdict in verdicts if verdict is not None}
    return any(said) if said else None


def _thickness(files: list[_File]) -> float | None:
    """SliceThickness or, without one, how far the slices lie apart."""
    told = [f.traits.thickness for f in files if f.traits.thickness]
    if told:
        return float(median(told))
    along = sorted({p for p in positions_of([f.traits for f in files]) if p is not None})
    steps = [b - a for a, b in pairwise(along)]
    return round(float(median(steps)), 2) if steps else None


def _torn_apart(scans: list[Scan]) -> list[Scan]:
    """The scans, with the true problem where each file of a series is in a study of its own."""
    studies = defaultdict(set)
    for scan in scans:
        if len(scan.files) == 1 and scan.files[0].uids[1]:
            studies[scan.files[0].uids[1]].add(scan.study)
    torn = []
    for scan in scans:
        uid = scan.files[0].uids[1]
        if len(scan.files) == 1 and len(studies.get(uid, ())) >= MIN_SLICES:
            count = len(studies[uid])
            why = f"each file in a study of its own: {count} StudyInstanceUIDs for series {uid}"
            scan = replace(scan, problem=why)
        torn.append(scan)
    return torn


def _together(scans: list[Scan]) -> list[Scan]:
    """Scans of several series that an archive or anonymiser split, put together."""
    alike: dict[tuple, list[Scan]] = defaultdict(list)
    for scan in scans:
        file = scan.files[0]
        traits = file.traits
        key = (scan.study, traits.frame, traits.acquisition, traits.axes, traits.matrix)
        key += (traits.spacing, traits.kernel, traits.thickness, scan.picture, scan.described)
        alike[key if traits.frame and not file.problem else (scan.study, scan.series, scan.told_by)
              ].append(scan)  # fmt: skip
    merged = []
    for group in alike.values():
        several = len({scan.series for scan in group}) > 1
        usable = all(len(scan.series) == 1 and scan.positions for scan in group)
        if several and usable and are_one([[f.traits for f in scan.files] for scan in group]):
            files = [f for scan in group for f in scan.files]
            positions = sum(scan.positions for scan in group)
            problem = "" if positions >= MIN_SLICES else group[0].problem
            merged.append(_scan(files, positions, "", problem))
        else:
            merged += group
    return merged


def _with_pixels(folder: str | os.PathLike, scans: list[Scan], workers: int) -> list[Scan]:
    """The scans with what their pixels show."""
    fit = [scan for scan in scans if not scan.problem]
    samples = [_spread(scan, LOOKED_AT, 0.1) for scan in fit]
    try:
        with ProcessPoolExecutor(workers, initializer=end_with_parent) as pool:
            chests = list(pool.map(partial(_chest, folder, read_in_time), samples))
    except BrokenProcessPool:
        log.warning("a process died that looked at pixels: each slice is read in one of its own")
        chests = [_chest(folder, read_apart, sample) for sample in samples]
    seen = {id(scan): chest for scan, chest in zip(fit, chests, strict=True)}
    return [replace(scan, chest=seen.get(id(scan))) for scan in scans]


def _spread(scan: Scan, count: int, margin: float) -> list[Source]:
    """Slices at equal steps along the scan, but for a share of it at both ends."""
    along = positions_of([f.traits for f in scan.files])
    order = sorted(
        range(len(along)),
        key=lambda k: (
            along[k] is None,
            along[k] or 0.0,
            scan.files[k].traits.instance or 0.0,
            scan.files[k].source,
        ),
    )
    last, count = len(order) - 1, min(count, len(order))
    picked = np.linspace(margin * last, (1 - margin) * last, count).round().astype(int)
    return [scan.files[order[k]].source for k in dict.fromkeys(picked.tolist())]


def _chest(
    folder: str | os.PathLike, read: Callable[..., Slice], sources: list[Source]
) -> Chest | None:
    """What some slices of a scan show; those that cannot be read say nothing."""
    cv2.setNumThreads(1)
    looks = []
    for path, frame in sources:
        try:
            decoded = read(located(folder, path), frame=frame or None)
        except SliceError:
            continue
        looks.append(look_at(decoded.pixels, decoded.traits.field_mm))
    return summarize(looks)
