"""What the viewer says of how a study's series was made and chosen, and what is doubtful of it."""

import numpy as np
import pandas as pd

from clotline.data.attenuation import ENHANCED_HU, UNENHANCED_HU
from clotline.data.shards import BLOOD, KERNEL, PIXEL, POSITION, THICKNESS
from clotline.evaluation.shift import TITLES, written
from clotline.grid import SIZE
from clotline.labels import SERIES_UID, STUDY_UID
from clotline.titles import counted

#: Group of the studies with a note, beside those of `clotline.reporting.selection.GROUPS`.
NOTED = "noted"

#: What series.csv's column ``certainty`` means to a reader.
_CERTAINTY = {
    "clear": "",
    "only one": "",
    "named": "",
    "like": "; scans of equal standing",
    "none": "; nothing tells them apart",
}


def series_facts(
    slices: pd.DataFrame, series: pd.DataFrame, size: int = SIZE
) -> list[tuple[str, str]]:
    """Names and values of what is known of a study's series, for people.

    Args:
        slices: the study's stored slices: SeriesInstanceUID and the columns ``position_mm``,
            ``pixel_mm``, ``thickness_mm``, ``kernel`` and ``blood_hu`` of a shard.
        series: the study's rows of series.csv; none where a labels file names the series.
        size: side of a stored slice, in pixels.
    """
    facts = [
        ("Slices", _slices(slices)),
        ("Slice thickness", _mm(slices[THICKNESS])),
        ("Pixel size", _pixel_size(slices[PIXEL], size)),
        ("Kernel", ", ".join(dict.fromkeys(filter(None, slices[KERNEL])))),
        ("Contrast", _contrast(slices[BLOOD])),
        ("Series", ", ".join(dict.fromkeys(slices[SERIES_UID]))),
    ]
    for row in series[series["chosen"]].head(1).to_dict("records"):
        facts.append(("Chosen", row["reason"] + _CERTAINTY[row["certainty"]]))
    return [(name, value or "not known") for name, value in facts]


def _slices(slices: pd.DataFrame) -> str:
    """How many there are and how far they lie apart."""
    text = counted(len(slices), "slice", "slices")
    steps = np.diff(np.sort(slices[POSITION].dropna().unique()))
    return f"{text}, {np.median(steps):.3g} mm apart" if len(steps) else text


def _mm(values: pd.Series) -> str:
    """The values in mm that there are, from the least to the largest."""
    low, high = values.min(), values.max()
    if np.isnan(low):
        return ""
    return f"{low:.3g} mm" if low == high else f"{low:.3g} to {high:.3g} mm"


def _pixel_size(values: pd.Series, size: int) -> str:
    text = _mm(values)
    return f"{text}; field of view {_mm(values * size)}" if text else ""


def _contrast(values: pd.Series) -> str:
    """What the blood of the scan says; of several the least."""
    blood = values.min()
    if np.isnan(blood):
        return ""
    if blood >= ENHANCED_HU:
        word = "enhanced"
    else:
        word = "weakly enhanced" if blood >= UNENHANCED_HU else "unenhanced"
    return f"{word}: blood of about {blood:.0f} HU"


def describe_series(
    slices: pd.DataFrame,
    series: pd.DataFrame,
    notes: pd.DataFrame,
    shift: pd.DataFrame,
    size: int = SIZE,
) -> dict:
    """What the page says of one study beside its models' words.

    Args:
        slices: as for `series_facts`.
        series: as for `series_facts`.
        notes: those on all studies, with the columns of `clotline.data.rejects.NOTE_COLUMNS`.
        shift: where all studies lie in the training data, of shift.csv, all as text.
        size: as for `series_facts`.

    Returns:
        ``facts``, of `series_facts`; ``notes``, a list of texts; and ``shift``, of `shift_facts`.
    """
    uid = slices[STUDY_UID].iloc[0]
    return {
        "facts": series_facts(slices, series[series[STUDY_UID] == uid], size),
        "notes": notes.loc[notes[STUDY_UID] == uid, "note"].tolist(),
        "shift": shift_facts(shift[shift[STUDY_UID] == uid]),
    }


def shift_facts(shift: pd.DataFrame) -> list[dict]:
    """Where a study lies in the training data, as rows of the page's table.

    Args:
        shift: the study's rows of shift.csv, all as text.

    Returns:
        ``fact`` (its title), ``value``, ``training`` (the range of most of the training studies),
        ``told`` in words, and whether it lies ``outside``; those of which nothing is known are left
        out.
    """
    return [
        {
            "fact": TITLES[row["fact"]][0],
            "value": f"{row['value']} {row['unit']}".strip(),
            "training": _training(row),
            "told": row["told"],
            "outside": row["outside"] == "True",
        }
        for row in shift.to_dict("records")
        if row["value"]
    ]


def _training(row: dict) -> str:
    if not row["training_5"]:
        return ""
    low, high = (
        written(float(row[end]), row["unit"]).removesuffix(row["unit"]).strip()
        for end in ("training_5", "training_95")
    )
    return low if low == high else f"{low}–{high}"
