"""Slices in HDF5: the shard format, its writer and reader, and what is made of several.

Format, version 6, or 7 where slices show the lungs alone (attributes ``format`` and ``version`` of
the file; s is 256, 384 or 512):

===================================  ===================  =========================================
dataset                              shape, dtype         content
===================================  ===================  =========================================
``pixels``                           (n, s, s) int16      Hounsfield units; one chunk a slice,
                                                          Blosc (Bitshuffle + LZ4)
``StudyInstanceUID`` and two more    (n,) bytes           the slice's UIDs, as in the labels file
``position_mm``                      (n,) float64         along the scan axis, towards the head;
                                                          NaN where unknown
``patient_orientation``              (n,) bytes           where rows and columns run: LP, to the
                                                          patient's left and back, of all axial
                                                          slices; empty where unknown
``pixel_mm``                         (n,) float64         side of a stored pixel; NaN where unknown
``thickness_mm``                     (n,) float64         SliceThickness; NaN where unknown
``kernel``                           (n,) bytes           ConvolutionKernel; empty where unknown
``blood_hu``                         (n,) float64         Hounsfield units of the scan's blood, of
                                                          `clotline.data.attenuation`; NaN where
                                                          none was recognised
``pe_present_on_image``              (n,) int8            image label; as the study labels, -1
                                                          where unknown
``checksum``                         (n,) uint64          `clotline.data.hdf5.byte_sum` of the
                                                          slice's chunk as stored
``studies/StudyInstanceUID``         (m,) bytes           one row a study
``studies/first_row``                (m,) int64           the study's first row above
``studies/count``                    (m,) int64           its number of rows
``studies/<label>``                  (m,) int8            its nine study labels
``box_left``, ``box_top``            (n,) float64         version 7: edges of the square of the
                                                          whole picture that a slice shows, as
                                                          shares of the picture's side
``box_side``                         (n,) float64         version 7: side of that square
===================================  ===================  =========================================

Rows are grouped by study and ordered along the scan axis within each series. Splits are not in
here but in slices.parquet: another division of the studies must not decode them again.
"""

import os
import weakref
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import starmap
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from clotline.data.chunks import Chunk, ChunkTable, chunk_table, create_pixels, unpack
from clotline.data.hdf5 import (
    NewHDF5,
    byte_sum,
    open_hdf5,
    reading,
    uid_dtype,
    write_column,
)
from clotline.grid import LUNGS, PICTURE, PUBLISHED, WHOLE, Box, Grid
from clotline.job.files import unusable
from clotline.labels import IMAGE_LABEL, STUDY_LABELS, STUDY_UID, UIDS

FORMAT, VERSION = "clotline-shard", 6
#: Of a shard that says which part of the picture a slice shows.
CROPPED_VERSION = 7

POSITION = "position_mm"
ORIENTATION = "patient_orientation"
PIXEL, THICKNESS, KERNEL, BLOOD = "pixel_mm", "thickness_mm", "kernel", "blood_hu"
CHECKSUM = "checksum"

#: Row-aligned columns beside the pixels, with their dtypes; UIDs may take more (`uid_dtype`).
ROW_COLUMNS = dict.fromkeys(UIDS, "S64") | {
    POSITION: "f8", ORIENTATION: "S2", PIXEL: "f8", THICKNESS: "f8", KERNEL: "S32", BLOOD: "f8",
    IMAGE_LABEL: "i1",
}  # fmt: skip
#: What a shard of slices that show the lungs alone has beside them.
BOX_COLUMNS = dict.fromkeys(("box_left", "box_top", "box_side"), "f8")
#: What a shard has of each row: those, and how its chunk was stored.
STORED_COLUMNS = ROW_COLUMNS | {CHECKSUM: "u8"}
STUDY_COLUMNS = {STUDY_UID: "S64", "first_row": "i8", "count": "i8"} | dict.fromkeys(
    STUDY_LABELS, "i1"
)

#: Columns by their names, as in a table.
Columns = Mapping[str, Sequence]


class ShardWriter:
    """Appends whole studies to a new shard file."""

    def __init__(self, path: str | Path, grid: Grid = PUBLISHED):
        """Creates the file.

        Args:
            path: to write.
            grid: of its slices.
        """
        cropped = grid.crop == LUNGS
        self._file = NewHDF5(path, FORMAT, CROPPED_VERSION if cropped else VERSION)
        self.pixels = create_pixels(self._file, size=grid.size)
        self.pixels.attrs["unit"] = np.bytes_("HU")
        self._shape = grid.shape
        self._columns = STORED_COLUMNS | (BOX_COLUMNS if cropped else {})
        self._rows: dict[str, list] = {name: [] for name in self._columns}
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
            rows: the columns of ``ROW_COLUMNS``, and of ``BOX_COLUMNS`` where the grid is a crop,
                one row a slice, all of one study.
            study_labels: the nine study labels.
            chunks: its slices, one a row.
        """
        uids = list(rows[STUDY_UID])
        first = len(self._rows[CHECKSUM])
        # h5py's resize takes as long as ten slices.
        self.pixels.id.set_extent((first + len(uids), *self._shape))
        for row, chunk in enumerate(chunks, start=first):
            self.pixels.id.write_direct_chunk((row, 0, 0), chunk.content)
            self._rows[CHECKSUM].append(chunk.checksum)
        for name in self._columns:
            if name != CHECKSUM:
                self._rows[name].extend(rows[name])
        study = {STUDY_UID: uids[0], "first_row": first, "count": len(uids)}
        for name in STUDY_COLUMNS:
            self._studies[name].append(study[name] if name in study else study_labels[name])
        self._file.check()

    def add_column(self, name: str, values: pd.Series, dtype: str) -> None:
        """Writes a further column of all rows."""
        write_column(self._file, name, _column(values, dtype))

    def _write_columns(self) -> None:
        for name, dtype in self._columns.items():
            values = self._rows[name]
            dtype = uid_dtype(values) if name in UIDS else dtype
            write_column(self._file, name, _column(values, dtype))
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
    return open_hdf5(path, FORMAT, VERSION, main="pixels", later=(CROPPED_VERSION,))


def shard_grid(path: str | Path) -> Grid:
    """The grid of a shard's slices.

    Raises:
        ClotlineError: as of `open_shard`.
    """
    with open_shard(path) as file, reading(path):
        return Grid(file["pixels"].shape[1], LUNGS if _is_cropped(file) else WHOLE)


def _is_cropped(file: h5py.File) -> bool:
    return file.attrs["version"] == CROPPED_VERSION


class StoredPixels:
    """The slices of one shard (or positives) file, read one by one.

    Attributes:
        size: side of a slice, in pixels.

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
        told = str(path), status.st_ino, status.st_mtime_ns, status.st_size
        self._table, self.size = _chunk_table(*told)

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
            ClotlineError: the file is damaged; says how to make it again.
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
        """One slice, (size, size) int16 in Hounsfield units; arguments and errors as of `chunk`."""
        chunk = self.chunk(row, checksum)
        with reading(self._path):
            return unpack(chunk, self.size)


@cache
def _chunk_table(path: str, inode: int, modified_ns: int, size: int) -> tuple[ChunkTable, int]:
    """A file's chunks and the side of its slices.

    To look at all chunks of a large file takes a quarter of a second.

    Args:
        path: the shard.
        inode: with the others, so that a file that was made again is looked at again.
        modified_ns: time of the last change.
        size: in bytes.
    """
    with open_shard(path) as file, reading(path):
        return chunk_table(file["pixels"]), file["pixels"].shape[1]


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
        names = [*STORED_COLUMNS, *(BOX_COLUMNS if _is_cropped(file) else ())]
        columns = {name: file[name][:] for name in names}
        if {len(column) for column in columns.values()} != {len(file["pixels"])}:
            raise ValueError("its columns are of different lengths")
    return pd.DataFrame(
        {k: v.astype(str) if v.dtype.kind == "S" else v for k, v in columns.items()}
    )


def boxes_of(rows: pd.DataFrame) -> list[Box]:
    """The part of the picture that each slice of a table of `read_rows` shows."""
    if not set(BOX_COLUMNS) <= set(rows):
        return [PICTURE] * len(rows)
    return list(starmap(Box, zip(*(rows[name].tolist() for name in BOX_COLUMNS), strict=True)))
