"""Slices in HDF5: the shard format, its writer and reader, and how studies are decoded into it.

Format, version 2 (attributes ``format`` and ``version`` of the file):

===================================  ===================  =========================================
dataset                              shape, dtype         content
===================================  ===================  =========================================
``pixels``                           (n, 256, 256) int16  Hounsfield units; one chunk a slice,
                                                          Bitshuffle + LZ4
``StudyInstanceUID`` and two more    (n,) bytes           the slice's UIDs, as in the labels file
``position_mm``                      (n,) float64         along the scan axis, towards the head
``pe_present_on_image``              (n,) int8            image label; as the study labels, -1
                                                          where unknown
``checksum``                         (n,) uint64          `clotline.hdf5.byte_sum` of the
                                                          slice's chunk as stored
``studies/StudyInstanceUID``         (m,) bytes           one row a study
``studies/first_row``                (m,) int64           the study's first row above
``studies/count``                    (m,) int64           its number of rows
``studies/<label>``                  (m,) int8            its nine study labels
===================================  ===================  =========================================

Rows are grouped by study and ordered along the scan axis within each series. Splits are not in
here but in slices.parquet: dividing the studies anew must not decode them anew.
"""

import logging
import os
import weakref
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import h5py
import numpy as np
import pandas as pd

from clotline.chunks import Chunk, ChunkTable, chunk_table, create_pixels, pack, unpack
from clotline.dicom import SIZE, Slice, fetch, read_slice
from clotline.disk import SLICE_BYTES
from clotline.errors import ClotlineError
from clotline.files import atomic, unusable
from clotline.hdf5 import (
    NewHDF5,
    byte_sum,
    open_hdf5,
    reading,
    write_column,
)
from clotline.isolation import read_apart, read_in_time
from clotline.labels import IMAGE_LABEL, SERIES_UID, SOP_UID, STUDY_LABELS, STUDY_UID, UIDS
from clotline.pixeldata import SliceError
from clotline.processes import end_with_parent
from clotline.progress import progress
from clotline.rejects import NOTE_COLUMNS, REJECT_COLUMNS, count_reasons

log = logging.getLogger("clotline")

FORMAT, VERSION = "clotline-shard", 2

POSITION = "position_mm"
CHECKSUM = "checksum"

#: Row-aligned columns beside the pixels, with their dtypes.
ROW_COLUMNS = dict.fromkeys(UIDS, "S64") | {POSITION: "f8", IMAGE_LABEL: "i1"}
#: What a shard has of each row: those, and how its chunk was stored.
STORED_COLUMNS = ROW_COLUMNS | {CHECKSUM: "u8"}
STUDY_COLUMNS = {STUDY_UID: "S64", "first_row": "i8", "count": "i8"} | dict.fromkeys(
    STUDY_LABELS, "i1"
)


#: Files of a study that the disk is asked for while one is decoded.
FETCHED_AHEAD = 4

#: Columns by their names, as in a table.
Columns = Mapping[str, Sequence]


class ShardWriter:
    """Appends whole studies to a new shard file."""

    def __init__(self, path: str | Path):
        self._file = NewHDF5(path, FORMAT, VERSION)
        self.pixels = create_pixels(self._file)
        self.pixels.attrs["unit"] = np.bytes_("HU")
        self._rows: dict[str, list] = {name: [] for name in STORED_COLUMNS}
        self._studies: dict[str, list] = {name: [] for name in STUDY_COLUMNS}

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, exc_type, *_) -> None:
        if exc_type is None:
            self._write_columns()
        self._file.close()
        self._file.check()

    def append(
        self, rows: Columns, study_labels: Mapping[str, int], chunks: Iterable[Chunk]
    ) -> None:
        """Adds one study.

        Args:
            rows: the columns of ``ROW_COLUMNS``, one row a slice, all of one study.
            study_labels: the nine study labels.
            chunks: its slices, one a row.
        """
        uids = list(rows[STUDY_UID])
        first = len(self._rows[CHECKSUM])
        # h5py's resize takes as long as ten slices.
        self.pixels.id.set_extent((first + len(uids), SIZE, SIZE))
        for row, chunk in enumerate(chunks, start=first):
            self.pixels.id.write_direct_chunk((row, 0, 0), chunk.content)
            self._rows[CHECKSUM].append(chunk.checksum)
        for name in ROW_COLUMNS:
            self._rows[name].extend(rows[name])
        study = {STUDY_UID: uids[0], "first_row": first, "count": len(uids)}
        for name in STUDY_COLUMNS:
            self._studies[name].append(study[name] if name in study else study_labels[name])
        self._file.check()

    def add_column(self, name: str, values: pd.Series, dtype: str) -> None:
        """Writes a further column of all rows."""
        write_column(self._file, name, _column(values, dtype))

    def _write_columns(self) -> None:
        for name, dtype in STORED_COLUMNS.items():
            write_column(self._file, name, _column(self._rows[name], dtype))
        # By name: a group that HDF5 makes in passing would carry the time of day.
        group = self._file.create_group("studies")
        for name, dtype in STUDY_COLUMNS.items():
            write_column(group, name, _column(self._studies[name], dtype))


def _column(values: Sequence, dtype: str) -> np.ndarray:
    return np.array(values, dtype=object).astype(dtype)


def open_shard(path: str | Path) -> h5py.File:
    """Opens a shard (or positives) file for reading.

    Raises:
        ClotlineError: the file is missing, damaged or of another format or version.
    """
    return open_hdf5(path, FORMAT, VERSION, main="pixels")


class StoredPixels:
    """The slices of one shard (or positives) file, read one by one.

    Each chunk is compared with its checksum before it is decompressed: of damaged bytes the
    decompressor can crash, or silently give others.

    One that is open can be used by processes that are forked.
    """

    def __init__(self, path: str | Path):
        """Opens the file.

        Raises:
            ClotlineError: as of `open_shard`.
        """
        open_shard(path).close()
        self._path = path
        with reading(path):
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            weakref.finalize(self, os.close, self._file)
            status = os.fstat(self._file)
        self._table = _chunk_table(str(path), status.st_ino, status.st_mtime_ns, status.st_size)

    def __reduce__(self):
        return StoredPixels, (self._path,)

    def fetch(self, row: int) -> None:
        """Asks the system to fetch a slice that is soon to be read, and does not wait for it."""
        start, size = (column.item(row) for column in self._table)
        os.posix_fadvise(self._file, start, size, os.POSIX_FADV_WILLNEED)

    def chunk(self, row: int, checksum: int) -> Chunk:
        """One slice as it is stored.

        Args:
            row: the slice's row.
            checksum: its checksum, of slices.parquet or of the file's own column.

        Raises:
            ClotlineError: the file is damaged; says how to make it anew.
        """
        size = self._table.size.item(row)
        # `reading` would take a quarter of this method's time.
        try:
            content = os.pread(self._file, size, self._table.start.item(row))
        except OSError as error:
            raise unusable(self._path, error) from None
        if len(content) != size or byte_sum(content) != checksum:
            raise unusable(self._path, f"row {row} does not fit its checksum")
        return Chunk(content, checksum)

    def read(self, row: int, checksum: int) -> np.ndarray:
        """One slice, (256, 256) int16 in Hounsfield units; arguments and errors as of `chunk`."""
        chunk = self.chunk(row, checksum)
        with reading(self._path):
            return unpack(chunk)


@cache
def _chunk_table(path: str, inode: int, modified_ns: int, size: int) -> ChunkTable:
    """A file's chunks: to look at all of a large file's takes a quarter of a second.

    Args:
        path: the shard.
        inode: with the others, so that a file made anew is looked at anew.
        modified_ns: time of the last change.
        size: in bytes.
    """
    with open_shard(path) as file, reading(path):
        return chunk_table(file["pixels"])


def read_study_labels(path: str | Path) -> pd.DataFrame:
    """The nine labels of a shard's studies, by their UIDs.

    Raises:
        ClotlineError: as of `open_shard`.
    """
    with open_shard(path) as file, reading(path):
        uids = file[f"studies/{STUDY_UID}"].asstr()[:]
        return pd.DataFrame({name: file[f"studies/{name}"][:] for name in STUDY_LABELS}, index=uids)


def read_rows(path: str | Path) -> pd.DataFrame:
    """The row-aligned columns of a shard as a table, UIDs as text.

    Raises:
        ClotlineError: as of `open_shard`.
    """
    with open_shard(path) as file, reading(path):
        columns = {name: file[name][:] for name in STORED_COLUMNS}
        if {len(column) for column in columns.values()} != {len(file["pixels"])}:
            raise ValueError("its columns are of different lengths")
    return pd.DataFrame(
        {k: v.astype(str) if v.dtype.kind == "S" else v for k, v in columns.items()}
    )


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
            it.
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
    files = [_inside(folder, path, resolve) for path in paths]
    slices: list[Slice] = []
    stored: list[int] = []
    rejected: list[tuple] = []
    for place, file in enumerate(_fetched_ahead(files)):
        try:
            if file is None:
                raise SliceError("leads out of the data folder")
            slices.append(read(file))
            stored.append(place)
        except SliceError as error:
            rejected.append((*names[place], paths[place], str(error)))
    positions, notes = _positions(slices)
    taken = {name: [values[place] for place in stored] for name, values in listed.items()}
    instances = [-1 if s.instance is None else s.instance for s in slices]
    # Instance number and UID only break ties, so that the order never depends on the input's.
    keys = list(zip(taken[SERIES_UID], positions, instances, taken[SOP_UID], strict=True))
    order = sorted(range(len(slices)), key=keys.__getitem__)
    columns = {name: [values[k] for k in order] for name, values in taken.items()}
    columns[POSITION] = [positions[k] for k in order]
    slices = [slices[k] for k in order]
    return DecodedStudy(
        chunks=[pack(s.pixels) for s in slices],
        columns=columns,
        rejected=rejected,
        notes=notes + _oddities(columns, slices) + _unlisted(names, folder, resolve),
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
            fetch(Path(file))
        waiting.append(file)
        if len(waiting) > FETCHED_AHEAD:
            yield waiting.popleft()
    yield from waiting


def _positions(slices: list[Slice]) -> tuple[list[float], list[str]]:
    """One position a slice from the best source that every slice of the study has, and a note."""
    for source, notes in (
        ("position", []),
        ("location", ["no ImagePositionPatient: ordered by SliceLocation"]),
        ("instance", ["no position at all: ordered by InstanceNumber, position_mm is that number"]),
    ):
        values = [getattr(s, source) for s in slices]
        if None not in values:
            return [float(v) for v in values], notes
    return [0.0] * len(slices), ["no position and no InstanceNumber: ordered by SOPInstanceUID"]


def _oddities(columns: dict[str, list], headers: list[Slice]) -> list[str]:
    """Notes on a study whose slices may not be one scan.

    Args:
        columns: the stored rows in their order.
        headers: what was read of each.
    """
    series = columns[SERIES_UID]
    own_series = {(uid, header.series_uid) for uid, header in zip(series, headers, strict=True)}
    notes = []
    if len(set(series)) > 1:
        notes.append("several series: one after the other")
    if len(set(zip(series, columns[POSITION], strict=True))) < len(series):
        notes.append("slices at the same position: ordered by InstanceNumber, then SOPInstanceUID")
    if len(own_series) > len(set(series)):
        notes.append("headers of one series name several SeriesInstanceUIDs")
    if len({header.sop_uid for header in headers}) < len(headers):
        notes.append("headers of several slices name the same SOPInstanceUID")
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

    Raises:
        ClotlineError: a worker process was killed from outside, as by a lack of memory.
    """
    pool = ProcessPoolExecutor(workers, initializer=end_with_parent)
    waiting: deque = deque()
    try:
        for rows in studies:
            try:
                future = pool.submit(decode_study, rows, folder, read_in_time)
            except BrokenProcessPool:
                pool = ProcessPoolExecutor(workers, initializer=end_with_parent)
                future = pool.submit(decode_study, rows, folder, read_in_time)
            waiting.append((rows, future))
            if len(waiting) > workers + 1:
                yield _decoded(*waiting.popleft(), folder)
        while waiting:
            yield _decoded(*waiting.popleft(), folder)
    finally:
        pool.shutdown(cancel_futures=True)


def _decoded(rows: pd.DataFrame, future: Future, folder: str | Path) -> DecodedStudy:
    try:
        return future.result()
    except BrokenProcessPool:
        study = rows[STUDY_UID].iloc[0]
        log.warning("a decoding process died: study %s is read again, slice by slice", study)
        return decode_study(rows, folder, read_apart)


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
    log.info("%s slices stored, %s rejected", f"{len(rows) - len(rejects):,}", f"{len(rejects):,}")


def copy_positives(
    shards: dict[str, str | Path], slices: pd.DataFrame, path: str | Path, step=iter
) -> int:
    """Copies positive slices of the train and valid studies, chunk by chunk without decoding.

    Args:
        shards: shard name to its file.
        slices: slices.parquet: ``shard``, ``row``, ``checksum``, ``split``, image label and UIDs.
        path: HDF5 file to write, of the same format as a shard, with one further column ``split``.
        step: wraps the iterator over shards, for progress.

    Returns:
        Number of slices copied.

    Raises:
        ClotlineError: a shard is damaged; says how to make it anew.
    """
    wanted = positive_slices(slices)
    with ShardWriter(path) as writer:
        for name, part in step(wanted.groupby("shard", sort=True)):
            labels = read_study_labels(shards[name]).to_dict("index")
            source = StoredPixels(shards[name])
            # As lists: taking a table apart takes longer than copying its slices.
            columns = {name: part[name].tolist() for name in (*STORED_COLUMNS, "row")}
            studies = defaultdict(list)
            for place, uid in enumerate(columns[STUDY_UID]):
                studies[uid].append(place)
            for uid, places in studies.items():
                study = {name: [values[k] for k in places] for name, values in columns.items()}
                chunks = map(source.chunk, study["row"], study[CHECKSUM])
                writer.append(study, labels[uid], chunks)
        writer.add_column("split", wanted["split"], "S5")
    return len(wanted)


def positive_slices(slices: pd.DataFrame) -> pd.DataFrame:
    """The rows of positives.h5: positive slices of train and valid, in the order of ``slices``."""
    kept = (slices[IMAGE_LABEL] == 1) & slices["split"].isin(("train", "valid"))
    return slices[kept].reset_index(drop=True)


def collect_slices(
    shards: dict[str, str | Path], rejects: dict[str, str | Path], planned: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The table of all stored slices, with every planned row accounted for.

    Args:
        shards: shard name to its file, in order.
        rejects: shard name to its list of rejects.
        planned: `clotline.plan.planned_rows` of all shards.

    Returns:
        ``slices``: one row a stored slice, shard by shard and row by row: UIDs, ``shard``
        (name), ``row``, ``position_mm``, image label, ``split``; and all ``rejects``.

    Raises:
        ClotlineError: a row of the labels file is neither stored nor rejected, or is both.
    """
    tables = []
    for name, path in shards.items():
        rows = read_rows(path)
        rows.insert(len(UIDS), "shard", name)
        rows.insert(len(UIDS) + 1, "row", np.arange(len(rows)))
        tables.append(rows)
    slices = pd.concat(tables, ignore_index=True)
    rejected = pd.concat(
        [pd.read_csv(path, dtype=str) for path in rejects.values()], ignore_index=True
    )
    accounted = pd.concat([slices[list(UIDS)], rejected[list(UIDS)]])
    twice = accounted.duplicated().sum()
    missing = len(planned) - len(accounted.merge(planned[list(UIDS)], on=list(UIDS)))
    if twice or missing or len(accounted) != len(planned):
        raise ClotlineError(
            f"of {len(planned):,} rows of the labels file, {missing:,} are neither stored nor "
            f"rejected and {twice:,} are both: the shards do not belong to this labels file. "
            "Delete results/data/shards and run the same target again"
        )
    splits = planned.drop_duplicates(STUDY_UID).set_index(STUDY_UID)["split"]
    slices["split"] = slices[STUDY_UID].map(splits)
    return slices, rejected
