"""DICOM files to a shard: studies are decoded in parallel, put in order and stored."""

import logging
import math
import os
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from itertools import cycle
from mmap import mmap
from multiprocessing import get_context
from pathlib import Path
from statistics import covariance
from typing import NamedTuple

import cv2
import pandas as pd

from clotline.chunks import Chunk, pack
from clotline.dicom import Slice, fetch, read_slice
from clotline.disk import SLICE_BYTES
from clotline.errors import ClotlineError
from clotline.files import atomic
from clotline.isolation import read_apart, read_in_time
from clotline.labels import IMAGE_LABEL, SERIES_UID, SOP_UID, STUDY_UID, UIDS
from clotline.orientation import AXIAL, UNKNOWN_ORIENTATION, stored_orientation
from clotline.pixeldata import SliceError
from clotline.processes import end_with_parent, shared_memory
from clotline.progress import progress
from clotline.rejects import NOTE_COLUMNS, REJECT_COLUMNS, count_reasons
from clotline.shards import ORIENTATION, POSITION, ShardWriter

log = logging.getLogger("clotline")

#: Files of a study that the disk is asked for while one is decoded.
FETCHED_AHEAD = 4


@dataclass(frozen=True)
class DecodedStudy:
    """One study ready to be stored, light enough to go from one process to another.

    Attributes:
        chunks: the compressed slices in the order of ``columns``.
        columns: those of ``ROW_COLUMNS``.
        rejected: UIDs, path and reason of each slice that could not be taken.
        notes: what a user should know of the slices that were taken.
    """

    chunks: list[Chunk]
    columns: dict[str, list]
    rejected: list[tuple]
    notes: list[str]

    @property
    def rows(self) -> pd.DataFrame:
        """The columns as a table."""
        return pd.DataFrame(self.columns)

    @property
    def rejects(self) -> pd.DataFrame:
        """The rejected slices as a table."""
        return pd.DataFrame(self.rejected, columns=list(REJECT_COLUMNS))


def decode_study(
    rows: pd.DataFrame, folder: str | Path, read: Callable[[str], Slice] = read_slice
) -> DecodedStudy:
    """Reads all slices of one study and orders them along the scan axis.

    Args:
        rows: the study's rows of the labels file: UIDs, image label and, where files have other
            names than <study>/<series>/<SOP instance>.dcm, their ``path`` in the folder.
        folder: the folder of the files. It may be a link itself; links in it must not lead out of
            it, but where ``path`` names them.
        read: reads one file.
    """
    # One thread a process: the pool already uses every core.
    cv2.setNumThreads(1)
    folder = os.path.realpath(folder)
    # As lists: the operations of a table take longer than decoding a slice.
    listed = {name: rows[name].tolist() for name in (*UIDS, IMAGE_LABEL)}
    names = list(zip(*(listed[name] for name in UIDS), strict=True))
    named = rows["path"].tolist() if "path" in rows else [None] * len(rows)
    paths = [path or "/".join(uids) + ".dcm" for uids, path in zip(names, named, strict=True)]
    resolve = cache(os.path.realpath)
    if "path" in rows:
        # Found by a look into the folder, not named by a labels file: links lead where they lead.
        files = [f"{folder}/{path}" for path in paths]
    else:
        files = [_inside(folder, path, resolve) for path in paths]
    slices: list[Slice] = []
    chunks: list[Chunk] = []
    stored: list[int] = []
    rejected: list[tuple] = []
    for place, file in enumerate(_fetched_ahead(files)):
        try:
            if file is None:
                raise SliceError("leads out of the data folder")
            found = read(file)
            # At once, so that the disk is never without a task and pixels never fill the memory.
            chunks.append(pack(found.pixels))
            slices.append(replace(found, pixels=None))
            stored.append(place)
        except SliceError as error:
            rejected.append((*names[place], paths[place], str(error)))
    taken = {name: [values[place] for place in stored] for name, values in listed.items()}
    along, positions, notes = _along_scan(taken[SERIES_UID], slices)
    instances = [-1 if s.instance is None else s.instance for s in slices]
    # Instance number and UID only break ties, so that the order never depends on the input's.
    keys = list(zip(taken[SERIES_UID], along, instances, taken[SOP_UID], strict=True))
    order = sorted(range(len(slices)), key=keys.__getitem__)
    columns = {name: [values[k] for k in order] for name, values in taken.items()}
    columns[POSITION] = [positions[k] for k in order]
    slices = [slices[k] for k in order]
    columns[ORIENTATION] = [stored_orientation(s.orientation) for s in slices]
    # Files with names of their own are found by looking at all of the folder.
    unlisted = [] if "path" in rows else _unlisted(names, folder, resolve)
    return DecodedStudy(
        chunks=[chunks[k] for k in order],
        columns=columns,
        rejected=rejected,
        notes=notes + _oddities(columns, slices) + unlisted,
    )


def _inside(folder: str, path: str, resolve: Callable[[str], str]) -> str | None:
    """The file at ``path`` in ``folder``, all links followed; None where they lead out of it.

    Args:
        folder: without links.
        path: relative to it.
        resolve: follows the links of the file's own folder.
    """
    parent, name = os.path.split(f"{folder}/{path}")
    real = f"{resolve(parent)}/{name}"
    # Path's is_symlink would raise in a folder that may not be entered.
    if name in ("", ".", "..") or os.path.islink(real):  # noqa: PTH114
        real = os.path.realpath(real)
    return real if os.path.commonpath((folder, real)) == folder else None


def _fetched_ahead(files: Iterable[str | None]) -> Iterator[str | None]:
    """The files, while the system fetches the next few from the disk."""
    waiting: deque[str | None] = deque()
    for file in files:
        if file is not None:
            fetch(file)
        waiting.append(file)
        if len(waiting) > FETCHED_AHEAD:
            yield waiting.popleft()
    yield from waiting


def _along_scan(
    series: list[str], slices: list[Slice]
) -> tuple[list[float], list[float], list[str]]:
    """What orders the slices of each series.

    Args:
        series: SeriesInstanceUID of each slice.
        slices: what was read of each.

    Returns:
        One number a slice, rising along the scan axis within its series; its position in mm, NaN
        where unknown; and notes.
    """
    along, positions, notes = [0.0] * len(slices), [math.nan] * len(slices), []
    for uid in dict.fromkeys(series):
        places = [place for place, of in enumerate(series) if of == uid]
        ordered, mm, note = _order_series([slices[place] for place in places])
        for place, number, position in zip(places, ordered, mm, strict=True):
            along[place], positions[place] = number, position
        notes += [note] if note else []
    return along, positions, list(dict.fromkeys(notes))


def _order_series(slices: list[Slice]) -> tuple[list[float], list[float], str]:
    """As `_along_scan`, of one series."""
    positions = [s.position for s in slices]
    if None not in positions:
        return positions, positions, ""
    lacking = (
        f"{positions.count(None)} of {len(slices)} slices lack a usable ImagePositionPatient or "
        "ImageOrientationPatient"
    )
    known = [math.nan if p is None else p for p in positions]
    sources = {
        "the height of ImagePositionPatient": [s.height for s in slices],
        "SliceLocation": [s.location for s in slices],
        "InstanceNumber": [s.instance for s in slices],
    }
    # Of those that every slice has, the one that tells most of them apart.
    able = {said: v for said, v in sources.items() if None not in v and len(set(v)) > 1}
    if able:
        said, values = max(able.items(), key=lambda source: len(set(source[1])))
        heights = [s.height for s in slices]
        direction = 1 if values == heights else _direction(values, positions, heights)
        if not direction:
            return values, known, f"{lacking}: ordered by {said}, perhaps from head to feet"
        values = [float(value) * direction for value in values]
        in_mm = said != "InstanceNumber" and positions.count(None) == len(slices)
        return values, values if in_mm else known, f"{lacking}: ordered by {said}"
    if positions.count(None) < len(slices):
        # After those whose place is known.
        last = [math.inf if p is None else p for p in positions]
        return last, known, f"{lacking}, and nothing else orders them: put last"
    nothing = "" if len(slices) == 1 else ", and nothing else orders them: by SOPInstanceUID"
    return [0.0] * len(slices), known, lacking + nothing


def _direction(
    values: list[float], positions: list[float | None], heights: list[float | None]
) -> int:
    """1 where values rise along the scan axis, -1 where they fall, 0 if unknown.

    Args:
        values: one a slice.
        positions: along the scan axis, of those slices of which it is known.
        heights: the next best.
    """
    for places in (positions, heights):
        known = [(v, p) for v, p in zip(values, places, strict=True) if p is not None]
        slope = covariance(*zip(*known, strict=True)) if len(known) > 1 else 0
        if slope:
            return 1 if slope > 0 else -1
    return 0


def _oddities(columns: dict[str, list], headers: list[Slice]) -> list[str]:
    """Notes on a study whose slices may not be one scan, or not lie as most do.

    Args:
        columns: the stored rows in their order.
        headers: what was read of each.
    """
    series = columns[SERIES_UID]
    places = zip(series, columns[POSITION], strict=True)
    known = [(uid, position) for uid, position in places if not math.isnan(position)]
    own_series = {(uid, header.series_uid) for uid, header in zip(series, headers, strict=True)}
    notes = []
    if len(set(series)) > 1:
        notes.append("several series: one after the other")
    if len(set(known)) < len(known):
        notes.append("slices at the same position: ordered by InstanceNumber, then SOPInstanceUID")
    if len(own_series) > len(set(series)):
        notes.append("headers of one series name several SeriesInstanceUIDs")
    if len({header.sop_uid for header in headers}) < len(headers):
        notes.append("headers of several slices name the same SOPInstanceUID")
    orientations = {header.orientation for header in headers}
    if UNKNOWN_ORIENTATION in orientations:
        notes.append(
            "slices without a usable ImageOrientationPatient: left and right are not known"
        )
    if any(way != AXIAL == stored_orientation(way) for way in orientations):
        notes.append("slices turned until the patient's left is on the right and the back below")
    if any(stored_orientation(way) not in (AXIAL, UNKNOWN_ORIENTATION) for way in orientations):
        notes.append("slices that are not axial: stored as they are")
    return notes


def _unlisted(
    names: list[tuple[str, str, str]], folder: str, resolve: Callable[[str], str]
) -> list[str]:
    """A note where a series' folder holds files of which the labels file knows nothing."""
    listed = defaultdict(set)
    for study, series, sop in names:
        listed[f"{study}/{series}"].add(f"{sop}.dcm")
    for place, expected in listed.items():
        series_folder = _inside(folder, place, resolve)
        if series_folder is None:
            continue  # its slices are among the rejects, as of one that is missing
        with suppress(OSError), os.scandir(series_folder) as entries:
            if any(e.name.endswith(".dcm") and e.name not in expected for e in entries):
                return ["files without a row in the labels file: left out"]
    return []


def decode_studies(
    studies: Iterable[pd.DataFrame], folder: str | Path, workers: int
) -> Iterator[DecodedStudy]:
    """Decodes studies in parallel and yields them in order, few at a time in memory.

    A file can make native decoders crash or run for ever. So even a single worker is a process of
    its own; when one dies, the studies under way are decoded again with a process for each slice,
    and the slice that kills its process is rejected.

    Args:
        studies: each study's rows, as for `decode_study`.
        folder: the DICOM folder.
        workers: number of processes.

    Yields:
        Each study; its chunks are lost when the next one is asked for.

    Raises:
        ClotlineError: a worker process was killed from outside, as by a lack of memory.
    """
    decoders = _Decoders(workers)
    waiting: deque[tuple[pd.DataFrame, Future, mmap]] = deque()
    try:
        for rows in studies:
            try:
                submitted = decoders.submit(rows, folder)
            except BrokenProcessPool:
                decoders = _Decoders(workers)
                submitted = decoders.submit(rows, folder)
            waiting.append((rows, *submitted))
            if len(waiting) > decoders.ahead:
                yield _decoded(*waiting.popleft(), folder)
        while waiting:
            yield _decoded(*waiting.popleft(), folder)
    finally:
        decoders.shutdown()


#: Bytes of memory for the chunks of a study, enough for some 400 slices. The further ones of a
#: larger study go through the pool's pipe.
SHARED_BYTES = 32 * 2**20


class _Decoders:
    """Processes that decode studies, and memory for the chunks that they share with this one.

    Through the pool's pipe, which takes 64 KiB at a time, each process would wait for this one and
    for the others: two decode a fifth less.

    Attributes:
        ahead: studies that may be submitted beside the one in use.
    """

    def __init__(self, workers: int):
        self.ahead = workers + 1
        memories = [shared_memory(SHARED_BYTES) for _ in range(self.ahead + 1)]
        # Forked, so that the memory is theirs too.
        self._pool = ProcessPoolExecutor(
            workers, get_context("fork"), initializer=_start_decoder, initargs=(memories,)
        )
        self._next = cycle(enumerate(memories))

    def submit(self, rows: pd.DataFrame, folder: str | Path) -> tuple[Future, mmap]:
        """Gives what `_decode_into` will return, and the memory that it fills."""
        number, memory = next(self._next)
        return self._pool.submit(_decode_into, number, rows, folder), memory

    def shutdown(self) -> None:
        """Ends the processes."""
        self._pool.shutdown(cancel_futures=True)


#: In a process of the pool: what it shares with the one that started it.
_memories: list[mmap] = []


def _start_decoder(memories: list[mmap]) -> None:
    _memories[:] = memories
    end_with_parent()


class _Placed(NamedTuple):
    """A chunk whose content lies in shared memory."""

    start: int
    stop: int
    checksum: int


def _decode_into(number: int, rows: pd.DataFrame, folder: str | Path) -> DecodedStudy:
    """Decodes a study; its chunks are `_Placed` as far as the memory goes."""
    study, memory = decode_study(rows, folder, read_in_time), _memories[number]
    stop = 0
    for place, (content, checksum) in enumerate(study.chunks):
        start, stop = stop, stop + len(content)
        if stop > len(memory):
            break
        memory[start:stop] = content
        study.chunks[place] = _Placed(start, stop, checksum)
    return study


def _decoded(rows: pd.DataFrame, future: Future, memory: mmap, folder: str | Path) -> DecodedStudy:
    try:
        study = future.result()
    except BrokenProcessPool:
        uid = rows[STUDY_UID].iloc[0]
        log.warning("a decoding process died: study %s is read again, slice by slice", uid)
        return decode_study(rows, folder, read_apart)
    content = memoryview(memory)
    for place, chunk in enumerate(study.chunks):
        if isinstance(chunk, _Placed):
            study.chunks[place] = Chunk(content[chunk.start : chunk.stop], chunk.checksum)
    return study


def write_shard(
    rows: pd.DataFrame, folder: str | Path, path: str | Path, workers: int, step=iter
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Decodes the planned rows of one shard and stores them.

    Args:
        rows: the shard's rows as of `clotline.plan.planned_rows`, grouped by study.
        folder: the DICOM folder.
        path: HDF5 file to write.
        workers: number of decoding processes.
        step: wraps the iterator over decoded studies, for progress.

    Returns:
        The rejected slices (UIDs, path, reason), and the notes on studies (UID, note).
    """
    studies = [part for _, part in rows.groupby(STUDY_UID, sort=False)]
    rejected, notes = [], []
    with ShardWriter(path) as writer:
        decoded = step(decode_studies(studies, folder, workers))
        for planned, study in zip(studies, decoded, strict=True):
            rejected += study.rejected
            notes += [(planned[STUDY_UID].iloc[0], note) for note in study.notes]
            if study.chunks:
                writer.append(study.columns, planned.iloc[0], study.chunks)
        stored = len(writer.pixels)
    listed = pd.DataFrame(rejected, columns=list(REJECT_COLUMNS))
    if stored + len(listed) != len(rows):
        raise AssertionError(f"{stored} stored + {len(listed)} rejected ≠ {len(rows)} rows")
    if not stored:
        reasons = count_reasons(listed).head(3)
        raise ClotlineError(
            f"none of the {len(rows):,} slices could be stored. "
            + "; ".join(f"{reason} ({count:,})" for reason, count in reasons.items())
            + f". Is {folder} the right folder of DICOM files?"
        )
    return listed, pd.DataFrame(notes, columns=list(NOTE_COLUMNS))


def store_slices(rows: pd.DataFrame, folder: str | Path, output, workers: int) -> None:
    """Writes a shard with its lists, all or none, and logs what was done.

    Args:
        rows: as for `write_shard`.
        folder: the DICOM folder.
        output: paths to write: ``shard`` (HDF5), ``rejects`` and ``notes`` (CSV).
        workers: number of decoding processes.
    """

    def step(decoded):
        return progress(
            decoded, len(rows), "decoding", "slices", step=lambda d: len(d.chunks) + len(d.rejected)
        )

    with (
        atomic(output.shard, need=len(rows) * SLICE_BYTES) as shard_path,
        atomic(output.rejects) as rejects_path,
        atomic(output.notes) as notes_path,
    ):
        rejects, notes = write_shard(rows, folder, shard_path, workers, step)
        rejects.to_csv(rejects_path, index=False)
        notes.to_csv(notes_path, index=False)
    for note, count in notes["note"].value_counts().items():
        log.warning("%s (studies: %s, listed in %s)", note, f"{count:,}", output.notes)
    if len(rejects):
        lost = rejects[STUDY_UID].value_counts()
        log.warning(
            "%s slices of %s studies could not be taken, listed in %s",
            *(f"{len(rejects):,}", f"{len(lost):,}", output.rejects),
        )
        planned = rows[STUDY_UID].value_counts()
        if none_left := [uid for uid, count in lost.items() if count == planned[uid]]:
            log.warning(
                "nothing is left of %s studies: %s",
                *(f"{len(none_left):,}", ", ".join(sorted(none_left)[:5])),
            )
    log.info("%s slices stored, %s rejected", f"{len(rows) - len(rejects):,}", f"{len(rejects):,}")
