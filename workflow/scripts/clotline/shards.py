"""Slices in HDF5: the shard format, its writer and reader, and how studies are decoded into it.

Format, version 1 (attributes ``format`` and ``version`` of the file):

===================================  ===================  =========================================
dataset                              shape, dtype         content
===================================  ===================  =========================================
``pixels``                           (n, 256, 256) int16  Hounsfield units; one chunk a slice,
                                                          Bitshuffle + LZ4
``StudyInstanceUID`` and two more    (n,) bytes           the slice's UIDs, as in the labels file
``position_mm``                      (n,) float64         along the scan axis, towards the head
``pe_present_on_image``              (n,) int8            image label; as the study labels, -1
                                                          where unknown
``studies/StudyInstanceUID``         (m,) bytes           one row a study
``studies/first_row``                (m,) int64           the study's first row above
``studies/count``                    (m,) int64           its number of rows
``studies/<label>``                  (m,) int8            its nine study labels
===================================  ===================  =========================================

Rows are grouped by study and ordered along the scan axis within each series. Splits are not in
here but in slices.parquet: dividing the studies anew must not decode them anew.
"""

import logging
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import cv2
import h5py
import hdf5plugin
import numpy as np
import pandas as pd

from clotline.dicom import SIZE, Slice, SliceError, read_slice
from clotline.errors import ClotlineError
from clotline.files import atomic
from clotline.labels import IMAGE_LABEL, SERIES_UID, SOP_UID, STUDY_LABELS, STUDY_UID, UIDS
from clotline.progress import progress

log = logging.getLogger("clotline")

FORMAT, VERSION = "clotline-shard", 1

POSITION = "position_mm"

#: Row-aligned columns beside the pixels, with their dtypes.
ROW_COLUMNS = dict.fromkeys(UIDS, "S64") | {POSITION: "f8", IMAGE_LABEL: "i1"}
STUDY_COLUMNS = {STUDY_UID: "S64", "first_row": "i8", "count": "i8"} | dict.fromkeys(
    STUDY_LABELS, "i1"
)


class ShardWriter:
    """Appends whole studies to a new shard file."""

    def __init__(self, path: str | Path):
        self._file = h5py.File(path, "w", libver="v110")
        self._file.attrs.update(format=FORMAT, version=VERSION)
        self.pixels = self._file.create_dataset(
            "pixels",
            shape=(0, SIZE, SIZE),
            maxshape=(None, SIZE, SIZE),
            chunks=(1, SIZE, SIZE),
            dtype="i2",
            **hdf5plugin.Bitshuffle(cname="lz4"),
        )
        self.pixels.attrs["unit"] = "HU"
        self._rows: list[pd.DataFrame] = []
        self._studies: list[dict] = []

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, exc_type, *_) -> None:
        if exc_type is None:
            self._write_columns()
        self._file.close()

    def append(self, rows: pd.DataFrame, study_labels: dict[str, int]) -> int:
        """Adds the rows of one study; the caller then fills ``pixels`` from the returned row on.

        Args:
            rows: the columns of ``ROW_COLUMNS``, one row a slice, all of one study.
            study_labels: the nine study labels.

        Returns:
            The study's first row.
        """
        first = len(self.pixels)
        self.pixels.resize(first + len(rows), axis=0)
        self._rows.append(rows[list(ROW_COLUMNS)])
        self._studies.append(
            {STUDY_UID: rows[STUDY_UID].iloc[0], "first_row": first, "count": len(rows)}
            | {name: study_labels[name] for name in STUDY_LABELS}
        )
        return first

    def _write_columns(self) -> None:
        rows = pd.concat(self._rows) if self._rows else pd.DataFrame(columns=list(ROW_COLUMNS))
        studies = pd.DataFrame(self._studies, columns=list(STUDY_COLUMNS))
        for name, dtype in ROW_COLUMNS.items():
            self._file[name] = _column(rows[name], dtype)
        # By name: a group that HDF5 makes in passing would carry the time of day.
        self._file.create_group("studies")
        for name, dtype in STUDY_COLUMNS.items():
            self._file[f"studies/{name}"] = _column(studies[name], dtype)


def _column(values: pd.Series, dtype: str) -> np.ndarray:
    return values.to_numpy(dtype=object).astype(dtype)


def open_shard(path: str | Path) -> h5py.File:
    """Opens a shard (or positives) file for reading.

    Raises:
        ClotlineError: the file is missing, damaged or of another format or version.
    """
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ClotlineError(
            f"{path} cannot be read ({error}): delete it and run the same target again"
        ) from None
    found = file.attrs.get("format"), file.attrs.get("version")
    if found != (FORMAT, VERSION):
        file.close()
        raise ClotlineError(
            f"{path} has format {found[0]} version {found[1]}, not {FORMAT} {VERSION}: "
            "delete it and run the same target again"
        )
    return file


def read_rows(path: str | Path) -> pd.DataFrame:
    """The row-aligned columns of a shard as a table, UIDs as text."""
    with open_shard(path) as file:
        columns = {name: file[name][:] for name in ROW_COLUMNS}
    return pd.DataFrame(
        {k: v.astype(str) if v.dtype.kind == "S" else v for k, v in columns.items()}
    )


@dataclass(frozen=True)
class DecodedStudy:
    """One study ready to be stored.

    Attributes:
        pixels: (n, 256, 256) int16, Hounsfield units, in the order of ``rows``.
        rows: (n) table with the columns of ``ROW_COLUMNS``.
        rejects: UIDs, path and reason of each slice that could not be taken.
        note: how the slices were ordered where not by position; else None.
    """

    pixels: np.ndarray
    rows: pd.DataFrame
    rejects: pd.DataFrame
    note: str | None


REJECT_COLUMNS = (*UIDS, "path", "reason")


def decode_study(rows: pd.DataFrame, folder: str | Path) -> DecodedStudy:
    """Reads all slices of one study and orders them along the scan axis.

    Args:
        rows: the study's rows of the labels file: UIDs, image label and, where files have other
            names than <study>/<series>/<SOP instance>.dcm, their ``path`` in the folder.
        folder: the folder of the files.
    """
    # One thread a process: the pool already uses every core.
    cv2.setNumThreads(1)
    slices: list[Slice] = []
    stored: list[int] = []
    rejects: list[tuple] = []
    named = rows["path"] if "path" in rows else [None] * len(rows)
    for place, (*uids, path) in enumerate(zip(*(rows[name] for name in UIDS), named, strict=True)):
        path = path or f"{uids[0]}/{uids[1]}/{uids[2]}.dcm"
        try:
            slices.append(read_slice(Path(folder, path)))
            stored.append(place)
        except SliceError as error:
            rejects.append((*uids, path, str(error)))
    positions, note = _positions(slices)
    table = rows.iloc[stored].assign(**{POSITION: positions})
    table["instance"] = [-1 if s.instance is None else s.instance for s in slices]
    table["decoded"] = range(len(slices))
    # Instance number and UID only break ties, so that the order never depends on the input's.
    table = table.sort_values([SERIES_UID, POSITION, "instance", SOP_UID], kind="stable")
    pixels = np.empty((len(slices), SIZE, SIZE), np.int16)
    for row, decoded in enumerate(table["decoded"]):
        pixels[row] = slices[decoded].pixels
    return DecodedStudy(
        pixels=pixels,
        rows=table[list(ROW_COLUMNS)].reset_index(drop=True),
        rejects=pd.DataFrame(rejects, columns=list(REJECT_COLUMNS)),
        note=note,
    )


def _positions(slices: list[Slice]) -> tuple[list[float], str | None]:
    """One position a slice from the best source that every slice of the study has."""
    for source, note in (
        ("position", None),
        ("location", "no ImagePositionPatient: ordered by SliceLocation"),
        ("instance", "no position at all: ordered by InstanceNumber, position_mm is that number"),
    ):
        values = [getattr(s, source) for s in slices]
        if None not in values:
            return [float(v) for v in values], note
    return [0.0] * len(slices), "no position and no InstanceNumber: ordered by SOPInstanceUID"


def decode_studies(
    studies: Iterable[pd.DataFrame], folder: str | Path, workers: int
) -> Iterator[DecodedStudy]:
    """Decodes studies in parallel and yields them in order, few at a time in memory.

    Args:
        studies: each study's rows, as for `decode_study`.
        folder: the DICOM folder.
        workers: number of processes; with 1 this process decodes by itself.

    Raises:
        ClotlineError: a worker process was killed, as by a lack of memory.
    """
    if workers == 1:
        yield from (decode_study(rows, folder) for rows in studies)
        return
    with ProcessPoolExecutor(workers) as pool:
        waiting: deque = deque()
        try:
            for rows in studies:
                waiting.append(pool.submit(decode_study, rows, folder))
                if len(waiting) > workers + 1:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool:
            raise ClotlineError(
                "a decoding process was killed, most often for lack of memory: give the job more "
                "memory or fewer threads"
            ) from None


def write_shard(
    rows: pd.DataFrame, folder: str | Path, path: str | Path, workers: int, step=iter
) -> tuple[pd.DataFrame, list[str]]:
    """Decodes the planned rows of one shard and stores them.

    Args:
        rows: the shard's rows as of `clotline.plan.planned_rows`, grouped by study.
        folder: the DICOM folder.
        path: HDF5 file to write.
        workers: number of decoding processes.
        step: wraps the iterator over decoded studies, for progress.

    Returns:
        The rejected slices (UIDs, path, reason), and one note a study that was not ordered by
        position.
    """
    studies = [part for _, part in rows.groupby(STUDY_UID, sort=False)]
    rejects, notes = [], []
    with ShardWriter(path) as writer:
        decoded = step(decode_studies(studies, folder, workers))
        for planned, study in zip(studies, decoded, strict=True):
            uid = planned[STUDY_UID].iloc[0]
            rejects.append(study.rejects)
            if study.note:
                notes.append(f"study {uid}: {study.note}")
            if len(study.rows):
                labels = planned.iloc[0]
                first = writer.append(study.rows, {name: labels[name] for name in STUDY_LABELS})
                writer.pixels[first:] = study.pixels
        stored = len(writer.pixels)
    listed = pd.concat(rejects, ignore_index=True)
    if stored + len(listed) != len(rows):
        raise AssertionError(f"{stored} stored + {len(listed)} rejected ≠ {len(rows)} rows")
    if not stored:
        reasons = listed["reason"].value_counts().head(3)
        raise ClotlineError(
            f"none of the {len(rows):,} slices could be stored. "
            + "; ".join(f"{reason} ({count:,})" for reason, count in reasons.items())
            + f". Is {folder} the right folder of DICOM files?"
        )
    return listed, notes


def store_slices(
    rows: pd.DataFrame,
    folder: str | Path,
    shard: str | Path,
    rejects: str | Path,
    workers: int,
) -> None:
    """Writes a shard and its list of rejects, both or neither, and logs what was done.

    Args:
        rows: as for `write_shard`.
        folder: the DICOM folder.
        shard: HDF5 file to write.
        rejects: CSV file to write.
        workers: number of decoding processes.
    """

    def step(decoded):
        return progress(
            decoded, len(rows), "decoding", "slices", step=lambda d: len(d.rows) + len(d.rejects)
        )

    with atomic(shard) as shard_path, atomic(rejects) as rejects_path:
        rejected, notes = write_shard(rows, folder, shard_path, workers, step)
        rejected.to_csv(rejects_path, index=False)
    for note in notes:
        log.warning("%s", note)
    stored = len(rows) - len(rejected)
    log.info("%s slices stored, %s rejected", f"{stored:,}", f"{len(rejected):,}")


def copy_positives(
    shards: dict[str, str | Path], slices: pd.DataFrame, path: str | Path, step=iter
) -> int:
    """Copies positive slices of the train and valid studies, chunk by chunk without decoding.

    Args:
        shards: shard name to its file.
        slices: slices.parquet: ``shard``, ``row``, ``split``, image label and UIDs.
        path: HDF5 file to write, of the same format as a shard, with one further column ``split``.
        step: wraps the iterator over shards, for progress.

    Returns:
        Number of slices copied.
    """
    wanted = positive_slices(slices)
    with ShardWriter(path) as writer:
        for name, part in step(wanted.groupby("shard", sort=True)):
            with open_shard(shards[name]) as source:
                uids = source[f"studies/{STUDY_UID}"].asstr()[:]
                labels = pd.DataFrame(
                    {label: source[f"studies/{label}"][:] for label in STUDY_LABELS}, index=uids
                )
                chunks = source["pixels"].id
                for uid, study in part.groupby(STUDY_UID, sort=False):
                    first = writer.append(study, labels.loc[uid].to_dict())
                    for offset, row in enumerate(study["row"]):
                        mask, chunk = chunks.read_direct_chunk((row, 0, 0))
                        target = (first + offset, 0, 0)
                        writer.pixels.id.write_direct_chunk(target, chunk, mask)
    with h5py.File(path, "a") as file:
        file["split"] = _column(wanted["split"], "S5")
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


def check_rejects(rejected: pd.DataFrame, rows: int, max_rejects: float) -> None:
    """Stops a run that lost too many slices.

    Raises:
        ClotlineError: with a summary by reason and what to do.
    """
    if len(rejected) <= max_rejects * rows:
        return
    reasons = rejected["reason"].value_counts()
    raise ClotlineError(
        f"{len(rejected):,} of {rows:,} slices were rejected, more than data.max_rejects "
        f"({max_rejects:g}) allows:\n"
        + "\n".join(f"  {count:>9,}  {reason}" for reason, count in reasons.head(10).items())
        + "\nThe lists are results/data/shards/*.rejects.csv. Mend the files and delete their "
        "shard, or raise data.max_rejects"
    )
