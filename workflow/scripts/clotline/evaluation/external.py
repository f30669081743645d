"""Predictions that were made elsewhere, checked and brought into the form of our own.

Two CSV forms are read, plain, gzipped or zipped, with commas, semicolons or tabs between the cells:

- long: ``StudyInstanceUID``, for slices also ``SOPInstanceUID``, ``label`` (a column name of the
  labels file, or ``pe_present`` for PE in the study) and ``probability``;
- the competition's: ``id`` and ``label``, where the id is ``<StudyInstanceUID>_<label name>`` or,
  for a slice, its ``SOPInstanceUID``, and ``label`` is the probability.

A reader study seldom has everything: it may have some of the study labels, and some of the studies.
For each study that it names it must have all of these labels, or all stored slices.
"""

from pathlib import Path

import pandas as pd

from clotline.data.cells import read_cells
from clotline.data.csv_file import UNREADABLE
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
        A table of the studies that the file names, in the form of
        `clotline.models.prediction.study_level_table` or ``image_level_table``, and notes on what
        was left out. At the study level it has all truths, but only the labels that the file has,
        which may include ``pe_present``. Without predictions for valid studies no operating point
        can be fixed.

    Raises:
        ClotlineError: the file has neither form; a value is no probability, a label is unknown, or
            a prediction occurs twice (with line numbers); no test study is named; a study has only
            some of its predictions; or the file does not tell slices apart.
    """
    path = Path(path)
    predictions = _read(path)
    at_image = predictions["label"] == IMAGE_LABEL
    predictions = predictions[at_image] if level == "image" else predictions[~at_image]
    if predictions.empty:
        raise ClotlineError(f"{path} has no predictions at the {level} level")
    key = _key(predictions, level)
    _refuse(path, predictions, predictions.duplicated(key), "stands twice")
    studies = locate_studies(slices, plan)
    studies = studies[studies["split"].isin(EVALUATED)]
    expected = _expected(slices, studies, level, set(predictions["label"]))
    shared = expected[expected.duplicated(key, keep=False)]
    if len(shared):
        raise ClotlineError(
            f"{path}: {len(shared):,} stored slices share their SOPInstanceUID with another, as "
            f"{shared[SOP_UID].iloc[0]}, so it cannot tell which is meant: name the study, too, in "
            f"a column {STUDY_UID}"
        )
    table = expected.merge(predictions[[*key, "probability"]], on=key, how="left")
    notes = []
    if ignored := len(predictions) - int(table["probability"].notna().sum()):
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
        predictions = read_cells(path, (*LONG, *COMPETITION, SOP_UID))
    except FileNotFoundError:
        raise ClotlineError(f"there is no file of predictions {path}") from None
    except (*UNREADABLE, ValueError) as error:
        raise ClotlineError(f"{path} cannot be read as a CSV: {error}") from None
    if not set(LONG) <= set(predictions) and set(COMPETITION) <= set(predictions):
        predictions = _from_competition(predictions)
    if not set(LONG) <= set(predictions):
        raise ClotlineError(
            f"{path} has the columns {', '.join(predictions.columns[:-1])}; it needs "
            f"{', '.join(LONG)} (and {SOP_UID} for slices), or the competition's "
            f"{' and '.join(COMPETITION)}"
        )
    labels = (PE_PRESENT, *STUDY_LABELS, IMAGE_LABEL)
    known = predictions["label"].isin(labels)
    _refuse(path, predictions, ~known, f"is no label; there are {', '.join(labels)}")
    if SOP_UID not in predictions:
        _refuse(
            path, predictions, predictions["label"] == IMAGE_LABEL, f"needs the column {SOP_UID}"
        )
    probability = _numbers(predictions["probability"])
    bad = ~probability.between(0, 1)
    if bad.any():
        row = predictions[bad].iloc[0]
        raise ClotlineError(
            f"{path}, line {row['line']}: the probability {row['probability']!r} must be a number "
            f"from 0 to 1 ({int(bad.sum()):,} such rows){_other_scale(probability, bad)}"
        )
    return predictions.assign(probability=probability)


def _numbers(texts: pd.Series) -> pd.Series:
    """The numbers nearest to decimal texts, as float64; NaN where a text is no number.

    Spreadsheets in many countries write a decimal comma.
    """
    texts = texts.str.strip().str.replace(r"^([+-]?\d*),(\d+)$", r"\1.\2", regex=True)
    numeric = pd.to_numeric(texts, errors="coerce")
    # pandas itself can miss the nearest number by its last bit.
    return numeric.where(numeric.isna(), texts.where(numeric.notna(), "nan").map(float))


def _other_scale(values: pd.Series, bad: pd.Series) -> str:
    """A hint at the scale of values outside 0 to 1, where there are many."""
    outside = values[bad].dropna()
    if len(outside) < max(2, len(values) / 20):
        return ""
    if values.min() >= 0 and values.max() <= 100:
        return "; these look like percentages: divide them by 100"
    return "; these look like logits: the probability of a logit x is 1 / (1 + exp(-x))"


def _key(predictions: pd.DataFrame, level: str) -> list[str]:
    """The columns that identify a prediction; the last is the label."""
    if level == "study":
        return [STUDY_UID, "label"]
    # The competition's form has a slice's SOP UID alone.
    whole = (predictions[STUDY_UID] != "").all()
    return [STUDY_UID, SOP_UID, "label"] if whole else [SOP_UID, "label"]


def _from_competition(predictions: pd.DataFrame) -> pd.DataFrame:
    parts = predictions["id"].str.extract(
        rf"^(?P<study>.+?)_(?P<name>{'|'.join((PE_PRESENT, *STUDY_LABELS))})$"
    )
    of_study = parts["name"].notna()
    return pd.DataFrame(
        {
            STUDY_UID: parts["study"].where(of_study, ""),
            SOP_UID: predictions["id"].where(~of_study, ""),
            "label": parts["name"].where(of_study, IMAGE_LABEL),
            "probability": predictions["label"],
            "line": predictions["line"],
        }
    )


def _refuse(path: Path, predictions: pd.DataFrame, bad: pd.Series, why: str) -> None:
    if bad.any():
        row = predictions[bad].iloc[0]
        raise ClotlineError(
            f"{path}, line {row['line']}: {row['label']} {why} ({int(bad.sum()):,} such rows)"
        )


def _expected(
    slices: pd.DataFrame, studies: pd.DataFrame, level: str, labels: set[str]
) -> pd.DataFrame:
    """One row per possible prediction, with its ``truth``, in the order of ``slices``.

    Args:
        slices: slices.parquet.
        studies: of `locate_studies`.
        level: study or image.
        labels: those with predictions.
    """
    if level == "study":
        columns = [label for label in (PE_PRESENT, *STUDY_LABELS) if label in labels]
        studies = studies.assign(**{PE_PRESENT: pe_present(studies)})
        return studies.melt([STUDY_UID, "split"], columns, var_name="label", value_name="truth")
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
