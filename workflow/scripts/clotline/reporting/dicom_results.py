"""Results of new studies as DICOM instances, for a hospital's archive and viewers."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from pydicom.dataset import Dataset

from clotline.data.activation_file import Activation
from clotline.data.archives import located
from clotline.data.dicom.rejection import SliceError
from clotline.data.dicom.source import Source, read_source
from clotline.data.folder import DataFolder
from clotline.data.shards import boxes_of
from clotline.data.tables import uid_triples
from clotline.grid import SIZE, Box
from clotline.job.files import atomic
from clotline.labels import STUDY_UID
from clotline.reporting.dicom_maps import NoMapError, write_map
from clotline.reporting.dicom_report import write_report

#: Columns of the list of results: where a study has none of one kind, the reason stands instead.
RESULT_COLUMNS = (STUDY_UID, "kind", "made_by", "file", "SOPInstanceUID", "reason")

REPORT, MAP = "structured report", "parametric map"


def write_results(
    folder: str | Path,
    slices: pd.DataFrame,
    rows: pd.DataFrame,
    source_folder: DataFolder,
    predictions: pd.DataFrame,
    activations: Mapping[str, Activation],
    made_by: Sequence[str],
    step=iter,
    size: int = SIZE,
) -> pd.DataFrame:
    """Writes a report and maps of each study, below a folder of its UID.

    Args:
        folder: to write to.
        slices: stored slices of all studies, grouped by study, in their order, of
            `clotline.data.shards.read_rows`.
        rows: where their files lie: UIDs, ``path`` and ``frame``.
        source_folder: of these paths.
        predictions: one row a study: its UID, ``model``, ``pe_present`` and the nine labels.
        activations: backbone to its maps of these slices, and others.
        made_by: lines on the models, for the reports.
        step: wraps the iterator over studies, for progress.
        size: side of a stored slice, in pixels.

    Returns:
        One row a result, or a reason why there is none, with `RESULT_COLUMNS`.
    """
    where = dict(zip(uid_triples(rows), zip(rows["path"], rows["frame"], strict=True), strict=True))
    told = predictions.set_index(STUDY_UID)
    table = []
    for uid, of_study in step(slices.groupby(STUDY_UID, sort=False)):
        uids, row = uid_triples(of_study), told.loc[uid]
        try:
            sources = [
                _source(source_folder, *where[slice_uids], size, box)
                for slice_uids, box in zip(uids, boxes_of(of_study), strict=True)
            ]
        except SliceError as error:
            table.append((uid, f"{REPORT}, {MAP}", row["model"], "", "", str(error)))
            continue
        report = write_report(sources, row, row["model"], made_by)
        table.append(_saved(folder, uid, REPORT, row["model"], "report.dcm", report))
        number = 0
        for backbone, maps in activations.items():
            for part, members in enumerate(_by_file(sources), start=1):
                number += 1
                own = maps.of([uids[k] for k in members])
                try:
                    made = write_map([sources[k] for k in members], own, backbone, number)
                except NoMapError as error:
                    table.append((uid, MAP, backbone, "", "", str(error)))
                    continue
                name = f"{backbone}.dcm" if part == 1 else f"{backbone}-{part}.dcm"
                table.append(_saved(folder, uid, MAP, backbone, name, made))
    return pd.DataFrame(table, columns=list(RESULT_COLUMNS))


def _source(folder: DataFolder, path: str, frame: int, size: int, box: Box) -> Source:
    return read_source(located(folder, path), int(frame), size, box)


def _by_file(sources: Sequence[Source]) -> list[list[int]]:
    """Indices of the sources that one map can be of: see `Source.file`."""
    members: dict[str, list[int]] = {}
    for index, source in enumerate(sources):
        members.setdefault(source.file, []).append(index)
    return list(members.values())


def _saved(
    folder: str | Path, uid: str, kind: str, maker: str, name: str, dataset: Dataset
) -> tuple:
    """Writes one result; gives its row of the list."""
    path = Path(folder, uid, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as temporary:
        dataset.save_as(temporary, enforce_file_format=True)
    return uid, kind, maker, f"{uid}/{name}", str(dataset.SOPInstanceUID), ""
