"""Which studies are of one patient, so that no patient is in two splits.

Of a patient nothing is kept but which studies belong together, each named by its UID.
"""

import json
from contextlib import suppress
from pathlib import Path

import pandas as pd

from clotline.data.folder import is_zip
from clotline.errors import ClotlineError
from clotline.job.files import STATE_FOLDER, any_there, atomic, file_version
from clotline.labels import SERIES_UID, SOP_UID, STUDY_UID, slice_path

#: Where it is remembered what the DICOM files said; which studies belong together, and no more.
_CACHE = STATE_FOLDER / "patients.json"

#: Files of a study that are looked at until one has a PatientID.
_FILES = 3


def first_studies(labels: pd.DataFrame, data_config: dict) -> pd.Series | None:
    """Of each study the first one of its patient, in the order of the labels file.

    That one's UID decides the split of all, so that a patient with one study has the split that the
    study has without groups, and studies appended to the file change no earlier one.

    Args:
        labels: table of `clotline.data.labels_file.read_labels`, with the column of the group if
            the file has it.
        data_config: the configuration's ``data`` section.

    Returns:
        Study UID to study UID; None where the configuration names no group.

    Raises:
        ClotlineError: the files do not tell patients apart.
    """
    group = data_config["split"]["group"]
    if group is None:
        return None
    if group in labels:
        return _first_of(patients_by_column(labels, group))
    key = [data_config["labels"], *file_version(data_config["labels"])]
    key += [data_config["dicom"], data_config["links_root"]]
    key += file_version(data_config["studies"]) if data_config["studies"] else []
    with suppress(OSError, ValueError, KeyError, TypeError):
        cached = json.loads(_CACHE.read_text(encoding="utf-8"))
        if cached["key"] == key and not any_there(cached["absent"]):
            return pd.Series(cached["first"], dtype="str")
    patients = patients_by_files(labels, data_config)
    if patients.empty or (patients.nunique() == 1 and labels[STUDY_UID].nunique() > 1):
        what = "no file has one" if patients.empty else "all studies have the same"
        raise ClotlineError(
            f"data.split.group is {group}, and the DICOM files do not tell patients apart: {what}, "
            "as de-identification leaves it. Name a column of the labels file, or null"
        )
    first = _first_of(patients)
    cached = {"key": key, "first": first.to_dict()}
    cached["absent"] = absent_files(labels, data_config, first)
    # Jobs that start together may each write it.
    with suppress(FileNotFoundError), atomic(_CACHE) as path:
        path.write_text(json.dumps(cached), encoding="utf-8")
    return first


def absent_files(labels: pd.DataFrame, data_config: dict, first: pd.Series | None) -> list[str]:
    """Files that are not there yet, as of a data set half fetched, and will tell patients apart.

    Args:
        labels: as for `first_studies`.
        data_config: as for `first_studies`.
        first: of `first_studies`.

    Returns:
        Those that would be looked at, of the studies whose patient is not known; nothing where
        files are not asked.
    """
    group = data_config["split"]["group"]
    if group is None or group in labels:
        return []
    unknown = labels[~labels[STUDY_UID].isin(first.index)]
    paths = [path for paths in _looked_at(unknown, data_config).values() for path in paths]
    return [path for path in paths if not any_there([path])]


def patients_by_column(labels: pd.DataFrame, column: str) -> pd.Series:
    """Study UID to what the labels file calls its patient; without studies where that is empty.

    Args:
        labels: table of `clotline.data.labels_file.read_labels`.
        column: the configuration's ``data.split.group``.
    """
    patients = labels.drop_duplicates(STUDY_UID).set_index(STUDY_UID)[column].astype("str")
    patients.index = patients.index.astype("str")
    return patients[patients != ""]


def patients_by_files(labels: pd.DataFrame, data_config: dict) -> pd.Series:
    """Study UID to a hash of its files' PatientID; without studies where they have none."""
    # Imported here: a labels file that names the patients needs no pydicom.
    from clotline.data.dicom.patient_ids import hashed_patient_ids

    folder, links = data_config["dicom"], data_config["links_root"]
    if is_zip(folder):
        raise ClotlineError(
            f"data.split.group is {data_config['split']['group']}, which is no column of the "
            f"labels file, and is not looked for in a ZIP file, {folder}: name a column, or null"
        )
    files = _looked_at(labels, data_config)
    hashes = hashed_patient_ids(files, [folder, *([links] if links else [])])
    return pd.Series(hashes, dtype="object")


def _looked_at(labels: pd.DataFrame, data_config: dict) -> dict[str, list[str]]:
    """Study UID to the files that are asked for its PatientID."""
    some = labels.groupby(STUDY_UID, sort=False, observed=True).head(_FILES)
    files: dict[str, list[str]] = {}
    for study, series, sop in some[[STUDY_UID, SERIES_UID, SOP_UID]].itertuples(index=False):
        path = Path(data_config["dicom"], slice_path(study, series, sop))
        files.setdefault(study, []).append(str(path))
    return files


def _first_of(patients: pd.Series) -> pd.Series:
    first = patients.index.to_series().groupby(patients.to_numpy(), sort=False).transform("first")
    return first.astype("str")


def check_splits(plan: pd.DataFrame, first: pd.Series, column: str) -> None:
    """Checks that a column that gives the splits puts no patient into two.

    Args:
        plan: of `clotline.data.plan.make_plan`.
        first: of `first_studies`.
        column: the column's name.

    Raises:
        ClotlineError: with the number of such patients, and studies of the first.
    """
    splits = plan.set_index(STUDY_UID)["split"]
    known = splits.reindex(first.index)
    several = known.groupby(first.to_numpy()).transform("nunique") > 1
    if several.any():
        bad = first[several.to_numpy()]
        example = bad[bad == bad.iloc[0]].index[:4]
        raise ClotlineError(
            f"data.split.column, {column}, puts {bad.nunique():,} patients into more than one "
            f"split, who have {len(bad):,} studies; such as {', '.join(example)}. Mend the column, "
            "or set data.split.column to null"
        )
