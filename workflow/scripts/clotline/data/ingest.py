"""DICOM files to a shard: studies are decoded in parallel, put in order and stored."""

import logging
import os
from pathlib import Path

import pandas as pd

from clotline.data.decoders import decode_studies
from clotline.data.folder import is_zip
from clotline.data.rejects import (
    NOTE_COLUMNS,
    REFUSED,
    REJECT_COLUMNS,
    count_notes,
    count_reasons,
)
from clotline.data.shards import ShardWriter
from clotline.data.study import LEADS_OUT, DecodedStudy
from clotline.data.tables import uid_triples
from clotline.data.zipped import with_members
from clotline.errors import ClotlineError
from clotline.grid import PUBLISHED, Grid
from clotline.job.disk import slice_bytes
from clotline.job.files import atomic
from clotline.job.progress import progress
from clotline.labels import SOP_UID, STUDY_UID
from clotline.titles import counted

log = logging.getLogger("clotline")


class NothingStoredError(ClotlineError):
    """No slice of a shard could be stored; ``rejects`` is the list of them all."""

    def __init__(self, message: str, rejects: pd.DataFrame):
        super().__init__(message)
        self.rejects = rejects


def write_shard(
    rows: pd.DataFrame,
    folder: str | Path,
    path: str | Path,
    workers: int,
    step=iter,
    strict: bool = False,
    grid: Grid = PUBLISHED,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Decodes the planned rows of one shard and stores them.

    Args:
        rows: the shard's rows as of `clotline.data.plan.planned_rows`, grouped by study.
        folder: the DICOM folder, or ZIP file by its path or address.
        path: HDF5 file to write.
        workers: number of decoding processes.
        step: wraps the iterator over decoded studies, for progress.
        strict: refuse studies of which something is doubtful: all their slices are rejected.
        grid: of the slices.

    Returns:
        The rejected slices (UIDs, path, reason), and the notes on studies (UID, note).

    Raises:
        NothingStoredError: all of them were rejected.
    """
    studies = [part for _, part in rows.groupby(STUDY_UID, sort=False)]
    rejected, notes = [], []
    if is_zip(folder):
        studies = with_members(studies, os.fspath(folder))
    with ShardWriter(path, grid) as writer:
        decoded = step(decode_studies(studies, folder, workers, grid))
        for planned, study in zip(studies, decoded, strict=True):
            rejected += study.rejected
            notes += [(planned[STUDY_UID].iloc[0], note) for note in study.notes]
            if strict and study.doubts:
                rejected += _refused(planned, study)
            elif study.chunks:
                writer.append(study.columns, planned.iloc[0], study.chunks)
        stored = len(writer.pixels)
    listed = pd.DataFrame(rejected, columns=list(REJECT_COLUMNS))
    if stored + len(listed) != len(rows):
        raise AssertionError(f"{stored} stored + {len(listed)} rejected ≠ {len(rows)} rows")
    if not stored:
        reasons = count_reasons(listed).head(3)
        raise NothingStoredError(
            f"none of the {len(rows):,} slices could be stored. "
            + "; ".join(f"{reason} ({count:,})" for reason, count in reasons.items())
            + _what_to_do(listed, folder),
            listed,
        )
    return listed, pd.DataFrame(notes, columns=list(NOTE_COLUMNS))


def _what_to_do(rejected: pd.DataFrame, folder: str | os.PathLike) -> str:
    """What may help where no slice of a shard could be taken."""
    if not (rejected["reason"] == LEADS_OUT).all():
        what = "ZIP file" if is_zip(folder) else "folder of DICOM files"
        return f". Is {folder} the right {what}?"
    first = Path(folder, rejected["path"].iloc[0])
    target = os.path.realpath(first)
    if ".git/annex/objects/" in target and not Path(target).exists():
        return (
            f". {first} is a link of git-annex to content that is not here: fetch it (datalad get, "
            "git annex get) and name the data set's folder in data.links_root"
        )
    return (
        f". {first} is a link to {target}: if that may be read, name a folder above it in "
        "data.links_root"
    )


def _refused(planned: pd.DataFrame, study: DecodedStudy) -> list[tuple]:
    """The slices of a study that is refused as a whole, as rejects."""
    unread = {tuple(uids) for *uids, _, _ in study.rejected}
    reason = f"{REFUSED}: {'; '.join(study.doubts)}"
    paths = planned["path"] if "path" in planned else planned[SOP_UID]
    return [
        (*uids, path, reason)
        for uids, path in zip(uid_triples(planned), paths, strict=True)
        if uids not in unread
    ]


def store_slices(
    rows: pd.DataFrame,
    folder: str | Path,
    output,
    workers: int,
    strict: bool = False,
    grid: Grid = PUBLISHED,
) -> None:
    """Writes a shard with its lists, all or none, and logs what was done.

    Args:
        rows: as for `write_shard`.
        folder: the DICOM folder, or ZIP file.
        output: paths to write: ``shard`` (HDF5), ``rejects`` and ``notes`` (CSV).
        workers: number of decoding processes.
        strict: as for `write_shard`.
        grid: as for `write_shard`.
    """

    def step(decoded):
        return progress(
            decoded, len(rows), "decoding", "slices", step=lambda d: len(d.chunks) + len(d.rejected)
        )

    with (
        atomic(output.shard, need=len(rows) * slice_bytes(grid.size)) as shard_path,
        atomic(output.rejects) as rejects_path,
        atomic(output.notes) as notes_path,
    ):
        rejects, notes = write_shard(rows, folder, shard_path, workers, step, strict, grid)
        rejects.to_csv(rejects_path, index=False)
        notes.to_csv(notes_path, index=False)
    for note, count in count_notes(notes).items():
        log.warning("%s (studies: %s, listed in %s)", note, f"{count:,}", output.notes)
    if len(rejects):
        lost = rejects[STUDY_UID].value_counts()
        log.warning(
            "%s of %s could not be taken, listed in %s",
            counted(len(rejects), "slice", "slices"),
            counted(len(lost), "study", "studies"),
            output.rejects,
        )
        planned = rows[STUDY_UID].value_counts()
        if none_left := [uid for uid, count in lost.items() if count == planned[uid]]:
            log.warning(
                "nothing is left of %s: %s",
                counted(len(none_left), "study", "studies"),
                ", ".join(sorted(none_left)[:5]),
            )
    stored = counted(len(rows) - len(rejects), "slice", "slices")
    log.info("%s stored, %s rejected", stored, f"{len(rejects):,}")
