"""Slices in HDF5: the shard format, its writer and reader, and what is made of several.

Format, version 4 (attributes ``format`` and ``version`` of the file):

===================================  ===================  =========================================
dataset                              shape, dtype         content
===================================  ===================  =========================================
``pixels``                           (n, 256, 256) int16  Hounsfield units; one chunk a slice,
                                                          Blosc (Bitshuffle + LZ4)
``StudyInstanceUID`` and two more    (n,) bytes           the slice's UIDs, as in the labels file
``position_mm``                      (n,) float64         along the scan axis, towards the head;
                                                          NaN where unknown
``patient_orientation``              (n,) bytes           where rows and columns run: LP, to the
                                                          patient's left and back, of all axial
                                                          slices; empty where unknown
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

import os
import weakref
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from clotline.chunks import Chunk, ChunkTable, chunk_table, create_pixels, unpack
from clotline.errors import ClotlineError
from clotline.files import unusable
from clotline.grid import SIZE
from clotline.hdf5 import (
    NewHDF5,
    byte_sum,
    open_hdf5,
    reading,
    write_column,
)
from clotline.labels import IMAGE_LABEL, STUDY_LABELS, STUDY_UID, UIDS
from clotline.rejects import read_lists

FORMAT, VERSION = "clotline-shard", 4

POSITION = "position_mm"
ORIENTATION = "patient_orientation"
CHECKSUM = "checksum"

#: Row-aligned columns beside the pixels, with their dtypes.
ROW_COLUMNS = dict.fromkeys(UIDS, "S64") | {
    POSITION: "f8", ORIENTATION: "S2", IMAGE_LABEL: "i1"
}  # fmt: skip
#: What a shard has of each row: those, and how its chunk was stored.
STORED_COLUMNS = ROW_COLUMNS | {CHECKSUM: "u8"}
STUDY_COLUMNS = {STUDY_UID: "S64", "first_row": "i8", "count": "i8"} | dict.fromkeys(
    STUDY_LABELS, "i1"
)

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
        # Not sorted by their names: 1000 would come before 101.
        for name, part in step(wanted.groupby("shard", sort=False)):
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
        (name), ``row``, ``position_mm``, ``patient_orientation``, image label, ``checksum``,
        ``split``; and all ``rejects``.

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
    rejected = read_lists(rejects.values())
    accounted = pd.concat([slices[list(UIDS)], rejected[list(UIDS)]])
    twice = accounted.duplicated().sum()
    found = accounted.drop_duplicates().merge(planned[list(UIDS)], on=list(UIDS))
    missing = len(planned) - len(found)
    if twice or missing or len(accounted) != len(planned):
        raise ClotlineError(
            f"of {len(planned):,} rows of the labels file, {missing:,} are neither stored nor "
            f"rejected and {twice:,} are both: the shards do not belong to this labels file. "
            "Delete results/data/shards and run the same target again"
        )
    splits = planned.drop_duplicates(STUDY_UID).set_index(STUDY_UID)["split"]
    slices["split"] = slices[STUDY_UID].map(splits)
    return slices, rejected
