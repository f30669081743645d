"""Reads a labels CSV, and says by line number what is wrong with it."""

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv

from clotline.data.csv_file import UNREADABLE, delimiter_of, open_csv, rows_of
from clotline.data.dicom.words import plain_patient_id
from clotline.errors import ClotlineError
from clotline.labels import COLUMNS, IMAGE_LABEL, SERIES_UID, SOP_UID, SPLITS, STUDY_UID, UIDS

T = TypeVar("T")

#: UIDs become folder and file names, so nothing that could leave the data folder is allowed.
UID_PATTERN = r"[0-9A-Za-z](?:[0-9A-Za-z._-]{0,62}[0-9A-Za-z])?"

#: SOPInstanceUIDs may name one frame of an Enhanced CT file: 1.2.3#7 is the seventh of 1.2.3.
SOP_PATTERN = UID_PATTERN + r"(?:#[1-9][0-9]{0,5})?"

#: Largest labels file, in bytes.
MAX_BYTES = 4 * 2**30

NEGATIVE_EXAM = "negative_exam_for_pe"

LABELS = COLUMNS[len(UIDS) :]

#: As ``data.split.group`` the DICOM element, where no column is called so.
PATIENT_ID = "PatientID"

#: Column that `read_labels` adds: a number made of a row's three UIDs.
UID_HASH = "uid_hash"


def group_column(path: str | Path, group: str | None) -> str | None:
    """The column of a labels file that says which studies are of one patient.

    Args:
        path: the file.
        group: the configuration's ``data.split.group``.

    Returns:
        The same; None where there is no group, or it is PatientID and not among the columns: then
        the DICOM files say it.
    """
    if group != PATIENT_ID:
        return group
    try:
        _, header = next(rows_of(path, delimiter_of(path, COLUMNS)))
    except (*UNREADABLE, StopIteration, UnicodeDecodeError):
        return None  # whoever reads it tells why
    return group if group in header else None


def read_labels(
    path: str | Path, split_column: str | None = None, group: str | None = None
) -> pd.DataFrame:
    """The labels file as a table, checked.

    Args:
        path: CSV file, plain, gzipped or zipped, with the 17 columns of
            `clotline.labels.COLUMNS`; cells are separated by commas, semicolons or tabs, and
            further columns, such as reports of many lines, can be of any size.
        split_column: further column that holds train, valid or test.
        group: further column, the same for all studies of a patient.

    Returns:
        One row a slice in the file's order; UIDs as text (those of studies and series as
        categories of text), labels as int8, the group as of
        `clotline.data.dicom.words.plain_patient_id`, and ``uid_hash`` of `uid_hashes`.

    Raises:
        ClotlineError: no file, one of more than 4 GiB (unpacked), no rows, a missing column, a bad
            value, a doubled slice, rows of one study that contradict each other, or a positive
            slice in a negative study; with the line numbers.
    """
    path = Path(path)
    _check_size(path)
    columns = [*COLUMNS, *filter(None, (split_column, group))]
    try:
        labels = _read_csv(path, columns, dict.fromkeys(LABELS, pa.bool_()))
    except FileNotFoundError:
        raise ClotlineError(f"there is no labels file {path}: set data.labels") from None
    except UNREADABLE as error:  # a folder, no permission, a damaged gzip file
        raise ClotlineError(f"the labels file {path} cannot be read: {error}") from None
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        raise ClotlineError(_explain_unreadable(path, columns, error)) from None
    for name in LABELS:
        labels[name] = labels[name].to_numpy().view("int8")
    labels[UID_HASH] = uid_hashes(labels)
    if group is not None:
        codes, written = pd.factorize(labels[group])
        labels[group] = np.array([plain_patient_id(text) for text in written], object)[codes]
    return check_labels(labels, path, split_column, group)


def read_planned_labels(data_config: Mapping) -> pd.DataFrame:
    """The labels of the studies that a configuration takes.

    Args:
        data_config: its ``data`` section.

    Returns:
        As of `read_labels`, with the columns that give split and group, and of the studies that
        ``data.studies`` lists alone, if it does.

    Raises:
        ClotlineError: as of `read_labels`; or the list names no study, or one without labels.
    """
    path, split = data_config["labels"], data_config["split"]
    labels = read_labels(path, split["column"], group_column(path, split["group"]))
    if data_config["studies"] is None:
        return labels
    listed = read_study_list(data_config["studies"])
    if unknown := sorted(listed - set(labels[STUDY_UID].cat.categories)):
        raise ClotlineError(
            f"data.studies, {data_config['studies']}, lists {len(unknown):,} of {len(listed):,} "
            f"studies that {path} has no labels of, as {unknown[0]}"
        )
    labels = labels[labels[STUDY_UID].isin(listed)].reset_index(drop=True)
    for name in (STUDY_UID, SERIES_UID):
        labels[name] = labels[name].cat.remove_unused_categories()
    return labels


def read_study_list(path: str | Path) -> set[str]:
    """The studies of a list.

    Args:
        path: text file with a StudyInstanceUID a line.

    Raises:
        ClotlineError: it cannot be read, or names no study.
    """
    try:
        studies = set(Path(path).read_text(encoding="utf-8-sig").split())
    except (OSError, UnicodeDecodeError) as error:
        raise ClotlineError(f"the list of studies {path} cannot be read: {error}") from None
    if not studies:
        raise ClotlineError(f"the list of studies {path} names no study")
    return studies


def _check_size(path: Path) -> None:
    """Refuses a file that would not fit into memory: a small gzipped one can be a bomb."""
    packed = path.suffix in (".gz", ".zip")
    try:
        size = 0 if packed else path.stat().st_size
        if packed:
            with open_csv(path) as file:
                while size <= MAX_BYTES and (block := file.read(2**20)):
                    size += len(block)
    except UNREADABLE:
        return  # whoever reads it tells why
    if size > MAX_BYTES:
        raise ClotlineError(
            f"the labels file {path} has more than {MAX_BYTES:,} bytes"
            f"{' when unpacked' if packed else ''}: that is some 40 times the whole RSNA set"
        )


def _read_csv(path: Path, columns: list[str], types: dict) -> pd.DataFrame:
    options = pyarrow.csv.ConvertOptions(
        include_columns=columns,
        # 12 hexadecimal digits can look like a number
        # (large_string is what pandas keeps, so that nothing is copied)
        column_types={name: pa.large_string() for name in columns} | _REPEATED | types,
        # so that 01, " 1" and 0x1 are no labels
        true_values=["1"],
        false_values=["0"],
        null_values=[],
        strings_can_be_null=False,
    )
    return _parse(path, _to_pandas, options)


def _to_pandas(reader: pyarrow.csv.CSVStreamingReader) -> pd.DataFrame:
    """The table in pandas' own form, made of each batch as it is read.

    The whole as pyarrow holds it, beside the same as pandas does, would need twice the memory.
    """
    # Arrays of a batch each would leave the memory full of holes; these grow in one piece.
    numbers: dict[str, bytearray] = {name: bytearray() for name in reader.schema.names}
    texts: dict[str, list] = {name: [] for name in reader.schema.names}
    known: dict[str, dict[str, int]] = {name: {} for name in _REPEATED}
    for batch in reader:
        for name, cells in zip(batch.schema.names, batch.columns, strict=True):
            if name in known:
                of = known[name]
                codes = [of.setdefault(text, len(of)) for text in cells.dictionary.to_pylist()]
                numbers[name] += np.array(codes, np.int32)[cells.indices].tobytes()
            elif pa.types.is_boolean(cells.type):
                numbers[name] += cells.to_numpy(zero_copy_only=False).tobytes()
            else:
                texts[name].append(cells)
    _POOL.release_unused()
    table = {}
    for name, kind in zip(reader.schema.names, reader.schema.types, strict=True):
        if name in known:
            codes = np.frombuffer(numbers.pop(name), np.int32)
            table[name] = pd.Categorical.from_codes(codes, pd.Index(known[name], dtype="str"))
        elif pa.types.is_boolean(kind):
            table[name] = np.frombuffer(numbers.pop(name), bool)
        else:
            table[name] = pa.chunked_array(texts.pop(name), kind).to_pandas()
    return pd.DataFrame(table, copy=False)


#: pyarrow's own keeps more than twice of what is freed between batches.
_POOL = pa.system_memory_pool()

#: Bytes that are parsed at a time, at first and at most: a row has to fit.
_BLOCK, _LARGEST_BLOCK = 2**18, 2**31 - 1


def _parse(
    path: Path,
    take: Callable[[pyarrow.csv.CSVStreamingReader], T],
    options: pyarrow.csv.ConvertOptions | None = None,
    invalid: Callable[[pyarrow.csv.InvalidRow], str] | None = None,
) -> T:
    """What ``take`` makes of the chosen columns.

    Args:
        path: the file.
        take: reads all batches; called anew where a row is larger than those before allowed for.
        options: which columns, and how cells are converted.
        invalid: what becomes of rows of other lengths.
    """
    parsing = pyarrow.csv.ParseOptions(
        delimiter=delimiter_of(path, COLUMNS),
        # Reports have line ends, and pyarrow would look for the ends of blocks at those too.
        newlines_in_values=True,
        invalid_row_handler=invalid,
    )
    block = _BLOCK
    while True:
        # One thread: several read far ahead, and do not know the numbers of rows.
        reading = pyarrow.csv.ReadOptions(use_threads=False, block_size=block)
        try:
            with open_csv(path) as file:
                return take(
                    pyarrow.csv.open_csv(file, reading, parsing, options, memory_pool=_POOL)
                )
        except pa.ArrowInvalid as error:
            if "block boundaries" not in str(error) or block == _LARGEST_BLOCK:
                raise
            block = min(16 * block, _LARGEST_BLOCK)


#: Texts that many rows share, each kept once.
_REPEATED = dict.fromkeys((STUDY_UID, SERIES_UID), pa.dictionary(pa.int32(), pa.large_string()))


def _explain_unreadable(path: Path, columns: list[str], error: Exception) -> str:
    """Why ``path`` could not be read, by a second, slower look at it."""
    if (wrong := _not_text(path)) is not None:
        return wrong
    if (short := _short_row(path)) is not None:
        return short
    # the first line tells about columns whatever follows
    header = next((cells for _, cells in rows_of(path, delimiter_of(path, columns))), [])
    if not "".join(header).strip("\0"):
        return f"the labels file {path} is not a CSV with a header line: {error}"
    for name in columns:
        if header.count(name) > 1:
            return f"the labels file {path} has {header.count(name)} columns {name}"
    missing = [name for name in columns if name not in header]
    if missing:
        return (
            f"the labels file {path} lacks the column {', '.join(missing)}; "
            f"it has {', '.join(header)}"
        )
    try:
        text = _read_csv(path, columns, {})
    except pa.ArrowInvalid as again:
        return f"the labels file {path} is damaged: {again}"
    for name in LABELS:
        bad = ~text[name].isin(["0", "1"])
        if bad.any():
            return _at_lines(path, bad, f"{name} is {text[name][bad].iloc[0]!r}; it must be 0 or 1")
    return f"the labels file {path} cannot be read: {error}"


def _not_text(path: Path) -> str | None:
    """The first line that is no UTF-8, in a sentence; None without one."""
    with open_csv(path) as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return (
                    f"{path}, line {number}: byte {error.start + 1} is no UTF-8 text. Save the "
                    "file as CSV in UTF-8; if it is gzipped, its name must end in .gz"
                )
    return None


def _short_row(path: Path) -> str | None:
    """The first row with more or fewer cells than the header, in a sentence; None without one."""
    first, more = None, 0

    def keep(row: pyarrow.csv.InvalidRow) -> str:
        nonlocal first, more
        more += first is not None
        first = first or row
        return "skip"

    try:
        _parse(path, list, invalid=keep)
    except pa.ArrowInvalid:
        return None
    if first is None:
        return None
    rows = f" and {more:,} more rows" if more else ""
    # pyarrow counts the header and rows, but neither empty lines nor those within quotes.
    (line,) = _line_numbers(path, [first.number - 2])
    return (
        f"{path}, line {line}{rows}: {first.actual_columns} cells where the header has "
        f"{first.expected_columns}"
    )


def _at_lines(path: Path, bad: pd.Series, message: str) -> str:
    """``message`` with the line numbers (the header is line 1) of the rows in question."""
    rows = np.flatnonzero(bad.to_numpy())
    lines = _line_numbers(path, rows[:5])
    more = f" and {len(rows) - 5:,} more" if len(rows) > 5 else ""
    return f"{path}, line {', '.join(map(str, lines))}{more}: {message}"


def _line_numbers(path: Path, rows: Sequence[int]) -> list[int]:
    """Where rows begin in the file, which may have empty lines and line ends within quotes."""
    # The header is a row too.
    starts = islice(rows_of(path, delimiter_of(path, COLUMNS)), rows[-1] + 2)
    lines = [line for line, _ in starts]
    # Of a quote that is never closed, readers make different rows.
    return [lines[row + 1] if row + 1 < len(lines) else row + 2 for row in rows]


def check_labels(
    labels: pd.DataFrame,
    path: str | Path,
    split_column: str | None = None,
    group: str | None = None,
) -> pd.DataFrame:
    """``labels`` itself, after the checks that `read_labels` promises; ``path`` is for messages."""
    path = Path(path)
    if labels.empty:
        raise ClotlineError(f"the labels file {path} has no rows")
    for name in UIDS:
        pattern = SOP_PATTERN if name == SOP_UID else UID_PATTERN
        bad = ~labels[name].str.fullmatch(pattern).astype(bool) | labels[name].str.contains(
            "..", regex=False
        )
        if bad.any():
            raise ClotlineError(_at_lines(path, bad, _no_uid(name, labels[name][bad].iloc[0])))
    doubled = _doubled(labels)
    if doubled.any():
        raise ClotlineError(
            _at_lines(path, doubled, f"{SOP_UID} {labels[SOP_UID][doubled].iloc[0]} stands twice")
        )
    constant = [name for name in LABELS if name != IMAGE_LABEL]
    constant += filter(None, (split_column, group))
    # Each row against the first row of its study: no group-by of 1.8 million rows by text.
    code, _ = pd.factorize(labels[STUDY_UID])
    first = np.flatnonzero(~labels[STUDY_UID].duplicated())
    for name in constant:
        column = labels[name].to_numpy()
        bad = pd.Series(column != column[first][code])
        if bad.any():
            study = labels[STUDY_UID][bad.to_numpy()].iloc[0]
            raise ClotlineError(
                _at_lines(path, bad, f"{name} contradicts earlier rows of study {study}")
            )
    bad = (labels[NEGATIVE_EXAM] == 1) & (labels[IMAGE_LABEL] == 1)
    if bad.any():
        raise ClotlineError(
            _at_lines(path, bad, f"{IMAGE_LABEL} is 1 in a study whose {NEGATIVE_EXAM} is 1")
        )
    if split_column:
        bad = ~labels[split_column].isin(SPLITS)
        if bad.any():
            value = labels[split_column][bad].iloc[0]
            raise ClotlineError(
                _at_lines(path, bad, f"{split_column} is {value!r}; it must be {', '.join(SPLITS)}")
            )
    return labels


def _no_uid(name: str, uid: str) -> str:
    if len(uid) <= _LONGEST_UID:
        return f"{name} {uid!r} is no usable UID"
    return (
        f"{name} {uid[:_LONGEST_UID]!r}… is no usable UID: it has {len(uid):,} characters, and the "
        f"labels file may have UIDs of at most {_LONGEST_UID}"
    )


_LONGEST_UID = 64


def _doubled(labels: pd.DataFrame) -> pd.Series:
    """Which rows have the three UIDs of an earlier row."""
    # Texts are compared only where their hashes agree: all of them would take half a gigabyte.
    hashes = labels[UID_HASH].to_numpy()
    ordered = np.sort(hashes)
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    # As a rule; what follows takes some 60 MB of 1.8 million rows.
    if not len(twice):
        return pd.Series(False, labels.index)
    alike = np.isin(hashes, twice)
    return labels[alike].duplicated(list(UIDS)).reindex(labels.index, fill_value=False)


def uid_hashes(labels: pd.DataFrame) -> np.ndarray:
    """One hash a row of its three UIDs, the same on every machine.

    Args:
        labels: table with the three UIDs as text.

    Returns:
        (rows,) uint64.
    """
    hashes = np.empty(len(labels), np.uint64)
    for start in range(0, len(labels), _HASHED_ROWS):
        rows = slice(start, start + _HASHED_ROWS)
        part = labels[list(UIDS)].iloc[rows]
        hashes[rows] = pd.util.hash_pandas_object(part, index=False, categorize=False)
    return hashes


#: Rows hashed at a time: each of their texts becomes a Python object.
_HASHED_ROWS = 10_000
