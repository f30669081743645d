"""Groups of a cohort's studies: how they were scanned, and of whom.

Sex and age may be read for as long as a job computes with them. They are never written beside a
UID: whoever calls this writes figures of groups alone.
"""

import os
import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from clotline.data.archives import located
from clotline.data.attenuation import ENHANCED_HU, UNENHANCED_HU
from clotline.data.cohort import AGE, SCANNER, SEX, CohortLabels, one_study_a_name, studies_of
from clotline.data.dicom.header import Header
from clotline.data.dicom.multiframe import read_image
from clotline.data.dicom.rejection import SliceError
from clotline.data.dicom.traits import joined
from clotline.data.dicom.volume import is_volume
from clotline.data.shards import BLOOD, THICKNESS
from clotline.labels import STUDY_UID

_KEYWORDS = ("PatientSex", "PatientAge", "Manufacturer", "ManufacturerModelName")

_AGES = (
    (40, "under 40 years"),
    (60, "40 to 59 years"),
    (75, "60 to 74 years"),
    (np.inf, "75 years or more"),
)
_THICKNESSES = ((1.0, "up to 1 mm"), (2.0, "more than 1 to 2 mm"), (np.inf, "more than 2 mm"))
#: Above this in HU blood is brighter than that of most scans.
_BRIGHT_HU = 300


def people_of(
    cohort: CohortLabels, rows: pd.DataFrame, folder: str | os.PathLike, description: Mapping
) -> pd.DataFrame:
    """What the labels, and else the DICOM headers, say of scanner and patient.

    Args:
        cohort: the labels.
        rows: slices of the studies: StudyInstanceUID and ``path``.
        folder: of the cohort, or what was unpacked of it (`clotline.data.archives`).
        description: of the cohort.

    Returns:
        ``sex``, ``age`` and ``scanner`` as text by StudyInstanceUID; empty where nothing is said.
    """
    names, _ = one_study_a_name(studies_of(rows, cohort.studies.index, description))
    told = cohort.people.reindex(list(names.values())).set_axis(list(names), axis=0)
    if (told != "").all(axis=None):
        return told
    first = rows.drop_duplicates(STUDY_UID)
    of_files = pd.DataFrame(
        [_of_file(located(folder, path)) for path in first["path"]],
        index=pd.Index(first[STUDY_UID]),
        columns=[SEX, AGE, SCANNER],
    )
    return told.mask(told == "", of_files)


def _of_file(path: str) -> tuple[str, str, str]:
    try:
        if is_volume(path):
            return "", "", ""
        # Of any size: a file of many slices is larger than one of one may be.
        image = read_image(path, ("SOPClassUID", *_KEYWORDS))
        header = image if isinstance(image, Header) else image.frame(1)
        sex, age, maker, model = (joined(header.get(name)).strip() for name in _KEYWORDS)
    except SliceError:
        return "", "", ""
    # Some makers begin the name of the model with their own.
    repeated = model.casefold().startswith(maker.casefold())
    return sex, age, model if repeated else f"{maker} {model}".strip()


def groups_of(slices: pd.DataFrame, people: pd.DataFrame) -> dict[str, pd.Series]:
    """Families of groups of studies.

    Args:
        slices: stored slices: StudyInstanceUID, ``thickness_mm`` and ``blood_hu``.
        people: of `people_of`.

    Returns:
        Name of the family to a series of StudyInstanceUID to group, empty where unknown; no family
        of which nothing is known.
    """
    by_study = slices.groupby(STUDY_UID)
    families = {
        "Scanner": people[SCANNER],
        "Slice thickness": by_study[THICKNESS].median().map(lambda mm: _band(mm, _THICKNESSES)),
        "Contrast": by_study[BLOOD].min().map(_contrast),
        "Sex": people[SEX].map(_sex),
        "Age": people[AGE].map(lambda text: _band(years(text), _AGES, inclusive=False)),
    }
    return {name: groups for name, groups in families.items() if (groups != "").any()}


def _band(value: float, bands: Sequence[tuple[float, str]], inclusive: bool = True) -> str:
    if np.isnan(value):
        return ""
    return next(name for end, name in bands if value < end or (inclusive and value == end))


def _contrast(blood: float) -> str:
    if np.isnan(blood):
        return ""
    if blood < UNENHANCED_HU:
        return f"blood below {UNENHANCED_HU} HU"
    if blood < ENHANCED_HU:
        return f"blood of {UNENHANCED_HU} to {ENHANCED_HU} HU"
    if blood < _BRIGHT_HU:
        return f"blood of {ENHANCED_HU} to {_BRIGHT_HU} HU"
    return f"blood of {_BRIGHT_HU} HU or more"


def _sex(text: str) -> str:
    return {"m": "male", "male": "male", "f": "female", "female": "female", "o": "other"}.get(
        text.strip().casefold(), ""
    )


def years(text: str) -> float:
    """An age in years of a number or of DICOM's AS (PS3.5, 6.2), as 063Y or 018M; else NaN."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([DWMY]?)\s*", text, re.IGNORECASE)
    if not match:
        return np.nan
    per_year = {"": 1, "Y": 1, "M": 12, "W": 52.18, "D": 365.25}[match[2].upper()]
    return float(match[1]) / per_year
