"""Predictions that were made elsewhere, checked and brought into the form of our own.

Two CSV forms are read, plain, gzipped or zipped, with commas, semicolons or tabs between the cells:

- long: ``StudyInstanceUID``, for slices also ``SOPInstanceUID``, ``label`` (a column name of the
  labels file, or ``pe_present`` for PE in the study) and ``probability``;
- the competition's: ``id`` and ``label``, where the id is ``<StudyInstanceUID>_<label name>`` or,
  for a slice, its ``SOPInstanceUID``, and ``label`` is the probability.

A reader study seldom has everything: it may have some of the study labels, and some of the studies.
Of a study that it names it has to have all of these labels, or all stored slices.
"""

from pathlib import Path

import pandas as pd

from clotline.data.csv_file import UNREADABLE, delimiter_of, open_csv
from clotline.data.shards import POSITION
from clotline.data.slice_table import locate_studies
from clotline.errors import ClotlineError
from clotline.evaluation.predictions import PE_PRESENT, TRUE, pe_present
from clotline.labels import IMAGE_LABEL, SOP_UID, STUDY_LABELS, STUDY_UID, UIDS

LONG = (STUDY_UID, "label", "probability")
COMPETITION = ("id", "label")

EVALUATED = ("valid", "test")


def read_external(
    path: str | Path, level: str, slices: pd.DataFrame, plan: pd.DataFrame
) -> tuple[pd.DataFrame, list[str]]:
    """The predictions of one level in ``path`` for the valid and test studies.

    Args:
        path: CSV file in one of the two forms.
        level: study or image; predictions of the other level are left out.
        slices: slices.parquet.
        plan: plan.parquet.

    Returns:
        A table of the studies that it names, as of `clotline.models.prediction.study_level_table`
        or ``image_level_table``, and notes on what was left out. The study level has the columns
        of those labels alone that the file has, ``pe_present`` among them where it has that, and
        all of the truth. Without any prediction for valid studies no operating point can be fixed.

    Raises:
        ClotlineError: no such form; a value that is no probability, an unknown label, or a
            prediction twice, with line numbers; no test study; a study with some of its
            predictions only; or slices that it does not tell apart.
    """
    path = Path(path)
    found = _read(path)
    at_image = found["label"] == IMAGE_LABEL
    found = found[at_image] if level == "image" else found[~at_image]
    if found.empty:
        raise ClotlineError(f"{path} has no predictions at the {level} level")
    key = _key(found, level)
    _refuse(path, found, found.duplicated(key), "stands twice")
    studies = locate_studies(slices, plan)
    studies = studies[studies["split"].isin(EVALUATED)]
    expected = _expected(slices, studies, level, set(found["label"]))
    shared = expected[expected.duplicated(key, keep=False)]
    if len(shared):
        raise ClotlineError(
            f"{path}: {len(shared):,} stored slices share their SOPInstanceUID with another, as "
            f"{shared[SOP_UID].iloc[0]}, so it cannot tell which is meant: name the study, too, in "
            f"a column {STUDY_UID}"
        )
    table = expected.merge(found[[*key, "probability"]], on=key, how="left")
    notes = []
    if ignored := len(found) - int(table["probability"].notna().sum()):
        notes.append(f"{ignored:,} predictions are of no stored valid or test study: left out")
    named = table.groupby(STUDY_UID)["probability"].transform("count") > 0
    notes += _unnamed(path, table, named)
    table = table[named]
    missing = table[table["probability"].isna()]
    if len(missing):
        row = missing.iloc[0]
        raise ClotlineError(
            f"{path} lacks {len(missing):,} of {len(table):,} predictions at the {level} level; "
            f"the first is {row['label']} of {key[-2]} {row[key[-2]]} in the {row['split']} split"
        )
    return (_image_level(table) if level == "image" else _study_level(table, studies)), notes


def _unnamed(path: Path, table: pd.DataFrame, named: pd.Series) -> list[str]:
    """Notes on the studies of each split that have no prediction at all."""
    notes = []
    for split in EVALUATED:
        studies = table.loc[table["split"] == split, STUDY_UID]
        there = studies[named].nunique()
        if there == studies.nunique():
            continue
        if there:
            notes.append(
                f"predictions for {there:,} of {studies.nunique():,} {split} studies: it is "
                "evaluated on these, and compared with each model on the studies of both"
            )
        elif split == "valid":
            notes.append(
                "no predictions for the valid split: no operating points but those of "
                "evaluation.thresholds"
            )
        else:
            raise ClotlineError(
                f"{path} names none of the {studies.nunique():,} stored {split} studies, such as "
                f"{studies.iloc[0]}"
            )
    return notes


def _read(path: Path) -> pd.DataFrame:
    """One row a prediction: study UID or SOP UID or both, ``label``, ``probability``, ``line``."""
    try:
        found = _read_cells(path)
    except FileNotFoundError:
        raise ClotlineError(f"there is no file of predictions {path}") from None
    except (*UNREADABLE, ValueError) as error:
        raise ClotlineError(f"{path} cannot be read as a CSV: {error}") from None
    if not set(LONG) <= set(found) and set(COMPETITION) <= set(found):
        found = _from_competition(found)
    if not set(LONG) <= set(found):
        raise ClotlineError(
            f"{path} has the columns {', '.join(found.columns[:-1])}; it needs {', '.join(LONG)} "
            f"(and {SOP_UID} for slices), or the competition's {' and '.join(COMPETITION)}"
        )
    labels = (PE_PRESENT, *STUDY_LABELS, IMAGE_LABEL)
    known = found["label"].isin(labels)
    _refuse(path, found, ~known, f"is no label; there are {', '.join(labels)}")
    if SOP_UID not in found:
        _refuse(path, found, found["label"] == IMAGE_LABEL, f"needs the column {SOP_UID}")
    probability = _numbers(found["probability"])
    bad = ~probability.between(0, 1)
    if bad.any():
        row = found[bad].iloc[0]
        raise ClotlineError(
            f"{path}, line {row['line']}: the probability {row['probability']!r} must be a number "
            f"from 0 to 1 ({int(bad.sum()):,} such rows){_other_scale(probability, bad)}"
        )
    return found.assign(probability=probability)


def _numbers(texts: pd.Series) -> pd.Series:
    """The numbers nearest to decimal texts, as float64; NaN where a text is no number.

    Of a spreadsheet in many countries the decimal sign is a comma.
    """
    texts = texts.str.strip().str.replace(r"^([+-]?\d*),(\d+)$", r"\1.\2", regex=True)
    numeric = pd.to_numeric(texts, errors="coerce")
    # pandas itself can miss the nearest number by its last bit.
    return numeric.where(numeric.isna(), texts.where(numeric.notna(), "nan").map(float))


def _other_scale(values: pd.Series, bad: pd.Series) -> str:
    """What numbers seem to be that are no probabilities, where they are many."""
    outside = values[bad].dropna()
    if len(outside) < max(2, len(values) / 20):
        return ""
    if values.min() >= 0 and values.max() <= 100:
        return "; these look like percentages: divide them by 100"
    return "; these look like logits: the probability of a logit x is 1 / (1 + exp(-x))"


def _key(found: pd.DataFrame, level: str) -> list[str]:
    """The columns that say of what a prediction is; a label's name is the last."""
    if level == "study":
        return [STUDY_UID, "label"]
    # The competition's form has a slice's SOP UID alone.
    whole = (found[STUDY_UID] != "").all()
    return [STUDY_UID, SOP_UID, "label"] if whole else [SOP_UID, "label"]


def _read_cells(path: Path) -> pd.DataFrame:
    """The cells as text, and the number of each row's ``line``: empty ones count, too."""
    delimiter = delimiter_of(path, (*LONG, *COMPETITION, SOP_UID))
    with open_csv(path) as file:
        found = pd.read_csv(
            file, sep=delimiter, dtype=str, keep_default_na=False, skip_blank_lines=False
        ).fillna("")
    # pandas would take the first column to be the rows' names, and each name for another column's.
    if not isinstance(found.index, pd.RangeIndex):
        raise ValueError("its rows have more cells than its header")
    filled = (found != "").any(axis=1)
    return found.assign(line=range(2, len(found) + 2))[filled]


def _from_competition(found: pd.DataFrame) -> pd.DataFrame:
    parts = found["id"].str.extract(
        rf"^(?P<study>.+?)_(?P<name>{'|'.join((PE_PRESENT, *STUDY_LABELS))})$"
    )
    of_study = parts["name"].notna()
    return pd.DataFrame(
        {
            STUDY_UID: parts["study"].where(of_study, ""),
            SOP_UID: found["id"].where(~of_study, ""),
            "label": parts["name"].where(of_study, IMAGE_LABEL),
            "probability": found["label"],
            "line": found["line"],
        }
    )


def _refuse(path: Path, found: pd.DataFrame, bad: pd.Series, why: str) -> None:
    if bad.any():
        row = found[bad].iloc[0]
        raise ClotlineError(
            f"{path}, line {row['line']}: {row['label']} {why} ({int(bad.sum()):,} such rows)"
        )


def _expected(
    slices: pd.DataFrame, studies: pd.DataFrame, level: str, given: set[str]
) -> pd.DataFrame:
    """One row a prediction that could be there, with its ``truth``, in the order of ``slices``.

    Args:
        slices: slices.parquet.
        studies: of `locate_studies`.
        level: study or image.
        given: the labels that there are predictions of.
    """
    if level == "study":
        labels = [label for label in (PE_PRESENT, *STUDY_LABELS) if label in given]
        studies = studies.assign(**{PE_PRESENT: pe_present(studies)})
        return studies.melt([STUDY_UID, "split"], labels, var_name="label", value_name="truth")
    rows = slices[slices[STUDY_UID].isin(studies[STUDY_UID])]
    columns = [*UIDS, "split", POSITION, IMAGE_LABEL]
    return rows[columns].rename(columns={IMAGE_LABEL: "truth"}).assign(label=IMAGE_LABEL)


def _study_level(table: pd.DataFrame, studies: pd.DataFrame) -> pd.DataFrame:
    wide = studies[studies[STUDY_UID].isin(table[STUDY_UID])].reset_index(drop=True)
    truth = {f"{label}{TRUE}": wide[label].to_numpy("int8") for label in STUDY_LABELS}
    wide = wide[[STUDY_UID, "split"]]
    for label in table["label"].unique():
        rows = table[table["label"] == label]
        wide[label] = rows["probability"].to_numpy("float64")
    return wide.assign(**truth)


def _image_level(table: pd.DataFrame) -> pd.DataFrame:
    wide = table[[*UIDS, "split", POSITION]].reset_index(drop=True)
    wide[IMAGE_LABEL] = table["probability"].to_numpy("float64")
    wide[f"{IMAGE_LABEL}_true"] = table["truth"].to_numpy("int8")
    return wide
