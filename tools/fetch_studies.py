"""Fetches some studies of a data set that lies in one large ZIP file, here or on a server.

The RSNA-STR set is such a file of 534 GB. What is read of it are the list of its members, about
0.3 GB, and those of the studies that are named: by range requests, so nothing else is downloaded or
unpacked.

    python -m tools.fetch_studies ZIP FOLDER [--studies LIST] [--labels CSV]

ZIP is a path or an address (https). LIST is a text file with a StudyInstanceUID a line. CSV is the
labels file; without it that of the ZIP file, its member train.csv, is taken. FOLDER gets
``train/<study>/<series>/<SOP instance>.dcm`` and ``train.csv`` with the rows of these studies:
name them as data.dicom and data.labels. The same command goes on where it was stopped. Without a
LIST it gets the labels of all studies and no slice, for whoever names ZIP itself as data.dicom.
"""

import argparse
import csv
import io
import sys
import zipfile
from pathlib import Path, PurePosixPath

from clotline.data.labels_file import read_study_list
from clotline.data.zipped import (
    find_members,
    open_ranged,
    opened_zip,
    read_run,
    runs_of,
)
from clotline.errors import ClotlineError
from clotline.job.files import atomic
from clotline.job.progress import progress
from clotline.labels import SERIES_UID, SOP_UID, STUDY_UID, slice_path


def fetch_studies(source: str, folder: Path, studies: set[str] | None, labels: str | None) -> str:
    """Fetches studies.

    Args:
        source: path or address of the ZIP file.
        folder: to write to.
        studies: StudyInstanceUIDs; None for the labels file alone.
        labels: path of the labels file; None for that of the ZIP file.

    Returns:
        What was done, in words.

    Raises:
        ClotlineError: a file cannot be read or is damaged, a study has no labels, or a slice is
        not in the ZIP file.
    """
    with open_ranged(source) as file:
        with opened_zip(file) as archive:
            header, rows = _labels(source, archive, labels, studies)
            wanted = (
                {slice_path(row[STUDY_UID], row[SERIES_UID], row[SOP_UID]) for row in rows}
                if studies
                else set()
            )
            found = find_members(archive, wanted)
        if lacking := sorted(wanted - set(found)):
            raise ClotlineError(
                f"{source} lacks {len(lacking):,} of {len(wanted):,} slices of these studies, as "
                f"{lacking[0]}"
            )
        targets = {name: folder / "train" / name for name in found}
        missing = {
            found[name]: path
            for name, path in targets.items()
            if not path.is_file() or path.stat().st_size != found[name].file_size
        }
        runs = list(runs_of(missing))
        for run in progress(runs, len(missing), "fetching", "slices", step=len):
            for member, content in read_run(file, run):
                if isinstance(content, str):
                    raise ClotlineError(f"{member.filename} in {source} is {content}")
                with atomic(missing[member], need=len(content)) as path:
                    path.write_bytes(content)
    with (
        atomic(folder / "train.csv") as path,
        path.open("w", encoding="utf-8", newline="") as table,
    ):
        writer = csv.DictWriter(table, header)
        writer.writeheader()
        writer.writerows(rows)
    return f"{len(missing):,} slices fetched, {len(found) - len(missing):,} were there"


def _labels(
    source: str, archive: zipfile.ZipFile, labels: str | None, studies: set[str] | None
) -> tuple[list[str], list[dict[str, str]]]:
    """The header of the labels file and the rows of some studies, or of all."""
    if labels is None:
        names = [n for n in archive.namelist() if PurePosixPath(n).name == "train.csv"]
        if len(names) != 1:
            raise ClotlineError(f"{source} has {len(names)} members train.csv: name it by --labels")
    file = archive.open(names[0]) if labels is None else io.BufferedReader(open_ranged(labels))
    with io.TextIOWrapper(file, "utf-8-sig", newline="") as content:
        reader = csv.DictReader(content)
        header = list(reader.fieldnames or [])
        if absent := {STUDY_UID, SERIES_UID, SOP_UID} - set(header):
            raise ClotlineError(f"the labels have no column {' and '.join(sorted(absent))}")
        rows = [row for row in reader if studies is None or row[STUDY_UID] in studies]
    if studies and (unknown := sorted(studies - {row[STUDY_UID] for row in rows})):
        raise ClotlineError(
            f"{len(unknown):,} of {len(studies):,} studies have no labels, as {unknown[0]}"
        )
    return header, rows


def main(arguments: list[str] | None = None) -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("zip", help="path or address of the ZIP file")
    parser.add_argument("folder", type=Path, help="folder to write to")
    parser.add_argument(
        "--studies", help="text file, a StudyInstanceUID a line; without it labels alone"
    )
    parser.add_argument("--labels", help="labels file; without it that of the ZIP file")
    given = parser.parse_args(arguments)
    try:
        studies = None if given.studies is None else read_study_list(given.studies)
        print(fetch_studies(given.zip, given.folder, studies, given.labels))
    except (ClotlineError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
