"""One study: its files are read, in order along the scan axis, ready to be stored."""

import math
import os
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from statistics import median_low

import cv2
import numpy as np
import pandas as pd

from clotline.data.archives import located
from clotline.data.attenuation import LOOKED_AT, Chest, Look, look_at, summarize
from clotline.data.chunks import Chunk, pack
from clotline.data.dicom.ct_slice import Slice, read_slice
from clotline.data.dicom.orientation import AXIAL, stored_orientation
from clotline.data.dicom.reader import fetch
from clotline.data.dicom.rejection import SliceError, one_line
from clotline.data.doubts import doubts_of
from clotline.data.lungs import SEARCHED, Extent, lung_box, lungs_in
from clotline.data.rejects import REJECT_COLUMNS
from clotline.data.scan_order import along_scan, oddities
from clotline.data.scans import MIN_SLICES
from clotline.data.shards import (
    BLOOD,
    BOX_COLUMNS,
    KERNEL,
    ORIENTATION,
    PIXEL,
    POSITION,
    THICKNESS,
)
from clotline.data.zipped import MEMBER, unzipped
from clotline.grid import LUNGS, PICTURE, PUBLISHED, Box, Grid
from clotline.job.speed import FILES_AHEAD
from clotline.labels import FRAME_MARK, IMAGE_LABEL, SERIES_UID, SOP_UID, UIDS, slice_path


@dataclass(frozen=True)
class DecodedStudy:
    """One study ready to be stored, light enough to go from one process to another.

    Attributes:
        chunks: the compressed slices in the order of ``columns``.
        columns: those of ``ROW_COLUMNS``, and of ``BOX_COLUMNS`` where slices show the lungs alone.
        rejected: UIDs, path and reason of each slice that could not be taken.
        notes: what a user should know of the slices that were taken.
        doubts: those of the notes for which `predict_strict` refuses a study.
    """

    chunks: list[Chunk]
    columns: dict[str, list]
    rejected: list[tuple]
    notes: list[str]
    doubts: list[str] = field(default_factory=list)

    @property
    def rows(self) -> pd.DataFrame:
        """The columns as a table."""
        return pd.DataFrame(self.columns)

    @property
    def rejects(self) -> pd.DataFrame:
        """The rejected slices as a table."""
        return pd.DataFrame(self.rejected, columns=list(REJECT_COLUMNS))


def decode_study(
    rows: pd.DataFrame,
    folder: str | os.PathLike,
    read: Callable[..., Slice] = read_slice,
    grid: Grid = PUBLISHED,
) -> DecodedStudy:
    """Reads all slices of one study and orders them along the scan axis.

    Args:
        rows: the study's rows of the labels file: UIDs, image label and, where files have other
            names than <study>/<series>/<SOP instance>.dcm, their ``path`` in the folder with the
            ``frame`` in it (0 where the file is one slice). Without these a SOPInstanceUID with a
            number, such as 1.2.3#7, is that frame of the file 1.2.3.dcm. Further columns may say
            what is put in order as one (``scan``, instead of the series), whether a slice is one
            of those whose pixels are looked at (``look``), and what was doubtful before
            (``doubts``, a line each), and of a ZIP file which members hold them (``member``, of
            `clotline.data.zipped.with_members`).
        folder: the folder of the files, or the ZIP file. It may be a link itself; links in it must
            not lead out of it, but where ``path`` names them, or to where a `DataFolder` says.
        read: reads one file or, where it is told which, one frame of it; and in another grid than
            the published one what it is told of the picture.
        grid: of the slices.
    """
    if MEMBER in rows:
        with unzipped(rows, os.fspath(folder)) as (there, reasons):
            study = decode_study(rows.drop(columns=MEMBER), there, read, grid)
        told = [(*uids, path, reasons.get(path, reason)) for *uids, path, reason in study.rejected]
        return replace(study, rejected=told)
    # One thread a process: the pool already uses every core.
    cv2.setNumThreads(1)
    links_root, packed = getattr(folder, "links_root", None), folder
    folder = os.path.realpath(folder)
    roots = (folder, *([os.path.realpath(links_root)] if links_root else []))
    # As lists: the operations of a table take longer than decoding a slice.
    listed = {name: rows[name].tolist() for name in (*UIDS, IMAGE_LABEL)}
    names = list(zip(*(listed[name] for name in UIDS), strict=True))
    resolve = cache(os.path.realpath)
    if "path" in rows:
        paths = rows["path"].tolist()
        frames = rows["frame"].tolist() if "frame" in rows else [0] * len(rows)
        # Listed by a look into the folder, not named by a labels file: links lead where they lead.
        files = [located(packed, path) for path in paths]
    else:
        paths, frames = zip(*map(_named_file, names), strict=True)
        files = [_inside(folder, path, resolve, roots) for path in paths]
    slices: list[Slice] = []
    chunks: list[Chunk] = []
    stored: list[int] = []
    rejected: list[tuple] = []
    looked_at = {*np.flatnonzero(rows["look"])} if "look" in rows else _sample(len(files))
    # What is put in order as one also has one box.
    together = rows["scan"].tolist() if "scan" in rows else listed[SERIES_UID]
    places = list(zip(files, frames, strict=True))
    search = _Search()
    if grid != PUBLISHED:
        # Before any slice is stored: a whole study of full pictures would not fit in memory.
        spread = _spread(together, list(zip(listed[SOP_UID], paths, frames, strict=True)))
        search = _search(places, spread if grid.crop == LUNGS else {}, looked_at, read)
        looked_at = set()
    for index, file in enumerate(_fetched_ahead(files)):
        try:
            box = search.boxes.get(together[index], PICTURE)
            decoded = _read(read, file, frames[index], grid, box)
            # At once, so that the disk is never without a task and pixels never fill the memory.
            chunks.append(pack(decoded.pixels))
            if index in looked_at:
                search.looks[index] = look_at(decoded.pixels, decoded.traits.field_mm)
            slices.append(replace(decoded, pixels=None))
            stored.append(index)
        except SliceError as error:
            rejected.append((*names[index], paths[index], str(error)))
    taken = {name: [values[index] for index in stored] for name, values in listed.items()}
    groups = [together[index] for index in stored]
    scans, along, positions, notes = along_scan(groups, slices)
    instances = [-1 if s.instance is None else s.instance for s in slices]
    # Instance number and UID only break ties, so that the order never depends on the input's.
    keys = list(zip(groups, scans, along, instances, taken[SOP_UID], strict=True))
    order = sorted(range(len(slices)), key=keys.__getitem__)
    columns = {name: [values[k] for k in order] for name, values in taken.items()}
    columns[POSITION] = [positions[k] for k in order]
    scan_of = [(groups[k], scans[k]) for k in order]
    shown = [search.looks.get(stored[k]) for k in order]
    slices = [slices[k] for k in order]
    columns[ORIENTATION] = [stored_orientation(s.orientation) for s in slices]
    chests: dict[tuple[str, int], Chest | None] = {}
    doubts = rows["doubts"].iloc[0].splitlines() if "doubts" in rows else []
    for scan in dict.fromkeys(scan_of):
        members = [k for k, of in enumerate(scan_of) if of == scan]
        chests[scan] = summarize([shown[k] for k in members if shown[k] is not None])
        doubts += doubts_of(
            *([values[k] for k in members] for values in (slices, columns[POSITION], shown))
        )
    doubts += [f"{_WHOLE}: {why}" for why in search.failed]
    doubts = list(dict.fromkeys(doubts))
    columns |= _series_facts(slices, [chests[scan] for scan in scan_of], grid)
    if grid.crop == LUNGS:
        parts = [search.boxes.get(groups[k], PICTURE) for k in order]
        columns |= dict(zip(BOX_COLUMNS, map(list, zip(*parts, strict=True)), strict=False))
    # Files with names of their own are listed by looking at all of the folder.
    unlisted = [] if "path" in rows else _unlisted(names, folder, resolve, roots)
    return DecodedStudy(
        chunks=[chunks[k] for k in order],
        columns=columns,
        rejected=rejected,
        notes=notes + oddities(columns, slices, scan_of) + unlisted + doubts,
        doubts=doubts,
    )


def _named_file(uids: Sequence[str]) -> tuple[str, int]:
    """The file that a row's UIDs name, and the frame in it; 0 where they name none."""
    return slice_path(*uids), int(uids[-1].partition(FRAME_MARK)[2] or 0)


#: Note on a study that should have been cropped.
_WHOLE = "pictures stored whole, not cropped to the lungs"


@dataclass(frozen=True)
class _Search:
    """What the whole pictures of some slices show, before all are stored.

    Attributes:
        looks: index of the file to what its slice shows.
        boxes: the part of the picture that is stored, by what has one in common.
        failed: why a scan has no box, a text each.
    """

    looks: dict[int, Look] = field(default_factory=dict)
    boxes: dict[str, Box] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)


def _search(
    places: list[tuple[str | None, int]],
    searched: dict[str, list[int]],
    looked_at: set[int],
    read: Callable[..., Slice],
) -> _Search:
    """Reads some slices, whole and in the published size, which is enough to find lungs.

    Args:
        places: file and frame of each slice.
        searched: indices of those in which lungs are looked for, of `_spread`.
        looked_at: indices of those whose pixels are looked at.
        read: as of `decode_study`.
    """
    found = _Search()
    wanted = {index for indices in searched.values() for index in indices}
    extents: dict[int, Extent | None] = {}
    fields: dict[int, float | None] = {}
    for index in sorted(looked_at | wanted):
        # It is rejected when its turn comes to be stored.
        with suppress(SliceError):
            whole = _read(read, *places[index])
            field_mm = whole.traits.field_mm
            if index in looked_at:
                found.looks[index] = look_at(whole.pixels, field_mm)
            if index in wanted:
                axial = stored_orientation(whole.orientation) in (AXIAL, "")
                extents[index] = lungs_in(whole.pixels, field_mm) if axial else None
                fields[index] = field_mm
    for name, indices in searched.items():
        there = [index for index in indices if index in extents]
        # Of a scan's pictures mostly all are of one size.
        known = [fields[index] for index in there if fields[index]]
        box, why = lung_box([extents[k] for k in there], median_low(known) if known else None)
        found.boxes[name] = box
        if there and why:
            found.failed.append(why)
    return found


def _spread(together: list[str], keys: list[tuple]) -> dict[str, list[int]]:
    """Up to `SEARCHED` slices of each group, the same whatever order they are in.

    Args:
        together: the group of each slice.
        keys: their order: UIDs first, for files may have other names elsewhere.
    """
    groups = defaultdict(list)
    for index, name in enumerate(together):
        groups[name].append(index)
    chosen = {}
    for name, indices in groups.items():
        ordered = sorted(indices, key=keys.__getitem__)
        picks = np.linspace(0, len(ordered) - 1, min(SEARCHED, len(ordered))).round().astype(int)
        chosen[name] = [ordered[pick] for pick in picks.tolist()]
    return chosen


def _read(
    read: Callable[..., Slice],
    file: str | None,
    frame: int,
    grid: Grid = PUBLISHED,
    box: Box = PICTURE,
) -> Slice:
    """Reads one slice, or raises the SliceError that rejects it."""
    if file is None:
        raise SliceError(LEADS_OUT)
    options = {"frame": frame} if frame else {}
    if grid != PUBLISHED:
        options |= {"size": grid.size, "box": box}
    return read(file, **options)


def _sample(count: int) -> set[int]:
    """Indices of the files of which the pixels are looked at; none of a few slices."""
    if count < MIN_SLICES:
        return set()
    return {round(k * (count - 1) / (LOOKED_AT - 1)) for k in range(LOOKED_AT)}


def _series_facts(
    slices: Sequence[Slice], chests: Sequence[Chest | None], grid: Grid
) -> dict[str, list]:
    """How each slice was made, as columns: its header's words and what its scan's pixels show."""

    def known(value: float | None, digits: int) -> float:
        return math.nan if value is None else round(value, digits)

    traits = [s.traits for s in slices]
    return {
        # The longer side of the picture, or of the part that is stored, is that of the grid.
        PIXEL: [
            known(s.traits.field_mm and s.traits.field_mm * s.shown / grid.size, 5) for s in slices
        ],
        THICKNESS: [known(t.thickness, 2) for t in traits],
        KERNEL: [one_line(t.kernel).encode("ascii", "replace").decode()[:32] for t in traits],
        BLOOD: [known(None if chest is None else chest.blood, 1) for chest in chests],
    }


#: Reason of a reject.
LEADS_OUT = "leads out of the data folder"


def _inside(
    folder: str, path: str, resolve: Callable[[str], str], roots: Sequence[str]
) -> str | None:
    """The file at ``path`` in ``folder``, all links followed; None where they lead elsewhere.

    Args:
        folder: without links.
        path: relative to it.
        resolve: follows the links of the file's own folder.
        roots: folders without links, under one of which it must lie.
    """
    parent, name = os.path.split(f"{folder}/{path}")
    real = f"{resolve(parent)}/{name}"
    # Path's is_symlink would raise in a folder that may not be entered.
    if name in ("", ".", "..") or os.path.islink(real):  # noqa: PTH114
        real = os.path.realpath(real)
    return real if any(os.path.commonpath((root, real)) == root for root in roots) else None


def _fetched_ahead(files: Iterable[str | None]) -> Iterator[str | None]:
    """The files, while the system fetches the next few from the disk."""
    waiting: deque[str | None] = deque()
    last = None
    for file in files:
        # Of the frames of one file one asks for all.
        if file is not None and file != last:
            fetch(file)
        last = file
        waiting.append(file)
        if len(waiting) > FILES_AHEAD:
            yield waiting.popleft()
    yield from waiting


def _unlisted(
    names: list[tuple[str, str, str]],
    folder: str,
    resolve: Callable[[str], str],
    roots: Sequence[str],
) -> list[str]:
    """A note where a series' folder holds files of which the labels file knows nothing."""
    listed = defaultdict(set)
    for uids in names:
        series_path, _, name = slice_path(*uids).rpartition("/")
        listed[series_path].add(name)
    for series_path, expected in listed.items():
        series_folder = _inside(folder, series_path, resolve, roots)
        if series_folder is None:
            continue  # its slices are among the rejects, as of one that is missing
        with suppress(OSError), os.scandir(series_folder) as entries:
            if any(e.name.endswith(".dcm") and e.name not in expected for e in entries):
                return ["files without a row in the labels file: left out"]
    return []
