"""Where studies lie outside of the data that models were trained on.

A bundle keeps the distributions of its training studies, never a row of one: percentiles of each
quantity, and how many studies have each word of a category, if several do.
"""

import math

import numpy as np
import pandas as pd

from clotline.data.fact_names import CATEGORIES, COVERAGE, NOISE, QUANTITIES, SPACING
from clotline.data.rejects import NOTE_COLUMNS
from clotline.data.shards import BLOOD, KERNEL, ORIENTATION, THICKNESS
from clotline.labels import SPLITS, STUDY_UID

#: What each fact is called, and its unit.
TITLES = {
    THICKNESS: ("slice thickness", "mm"),
    SPACING: ("distance between slices", "mm"),
    # As `clotline.data.attenuation` measures it.
    BLOOD: ("contrast in heart and great vessels", "HU"),
    NOISE: ("noise", "HU"),
    COVERAGE: ("coverage along the scan axis", "mm"),
    ORIENTATION: ("orientation", ""),
    KERNEL: ("kernel", ""),
}

#: A study lies outside where at most this share of the training studies are as low, or as high.
TAIL = 0.02

#: Words that fewer training studies have are not kept: a rare one could tell whose study it was.
LEAST = 5

#: How a note begins, up to the fact.
UNLIKE = "unlike the training data in"

_PERCENTS = np.arange(101)

#: Columns of `compare_with_training`.
SHIFT_COLUMNS = (
    STUDY_UID, "fact", "value", "unit", "training_5", "training_50", "training_95", "less", "more",
    "outside", "told",
)  # fmt: skip


def distributions(facts: pd.DataFrame) -> dict:
    """What a bundle keeps of its training studies, as plain values.

    Args:
        facts: of `clotline.data.study_facts.study_facts`, of the training studies alone.

    Returns:
        ``studies``, their number; ``quantities``: name to ``known``, the number of studies of which
        it is, and their 101 ``percentiles`` from 0 to 100%; and ``categories``: name to the share
        of the studies that have each word; words of fewer than `LEAST` are left out.
    """
    quantities = {}
    for name in QUANTITIES:
        known = facts[name].dropna().to_numpy()
        values = np.percentile(known, _PERCENTS) if len(known) else []
        quantities[name] = {
            "known": len(known), "percentiles": [float(f"{value:.5g}") for value in values],
        }  # fmt: skip
    categories = {}
    for name in CATEGORIES:
        counts = facts.loc[facts[name] != "", name].value_counts()
        counts = counts[counts >= LEAST].sort_index()
        categories[name] = {word: round(n / len(facts), 4) for word, n in counts.items()}
    return {"studies": len(facts), "quantities": quantities, "categories": categories}


def compare_with_training(facts: pd.DataFrame, training: dict) -> pd.DataFrame:
    """Each fact of each study beside the training studies.

    Args:
        facts: of `clotline.data.study_facts.study_facts`.
        training: of `distributions`.

    Returns:
        One row a study and fact with `SHIFT_COLUMNS`: the ``value`` as a text, the training
        studies' median and 5th and 95th percentile, the shares of them that have ``less`` and
        ``more`` (all five NaN of categories and of what is not known), whether the study lies
        ``outside``, and both in words, as ``told``.
    """
    rows = [
        {STUDY_UID: study[STUDY_UID], "fact": name} | _place(name, study[name], training)
        for study in facts.to_dict("records")
        for name in (*QUANTITIES, *CATEGORIES)
    ]
    numbers = dict.fromkeys(SHIFT_COLUMNS[4:9], "float64")
    return pd.DataFrame(rows, columns=list(SHIFT_COLUMNS)).astype(numbers | {"outside": "bool"})


def _place(name: str, value: float | str, training: dict) -> dict:
    title, unit = TITLES[name]
    row = {"value": "", "unit": unit, "outside": False, "told": f"{title} not known"}
    if name in CATEGORIES:
        shares = training["categories"].get(name, {})
        if not value:
            return row
        row |= {"value": value, "told": f"{title} {value}"}
        if not shares:
            return row | {"told": f"{title} {value}; no {LEAST} training studies share one"}
        if value in shares:
            told = f"{title} {value}, as {shares[value]:.0%} of the training studies"
            return row | {"told": told}
        told = f"{title} {value}; fewer than {LEAST} of {training['studies']:,} training studies"
        return row | {"outside": True, "told": f"{told} had it"}
    if math.isnan(value):
        return row
    text = written(value, unit)
    row |= {"value": text.removesuffix(f" {unit}"), "told": f"{title} {text}"}
    kept = training["quantities"].get(name, {})
    percentiles = np.array(kept.get("percentiles", []))
    if not len(percentiles):
        return row | {"told": f"{title} {text}; that of the training studies is not known"}
    # Kept to five digits, so that a value is compared as it was kept.
    value = float(f"{value:.5g}")
    less, more = float((percentiles < value).mean()), float((percentiles > value).mean())
    # Of few studies most percentiles lie between two, but the least and the highest are one each.
    most = 1 - 1 / kept["known"]
    less = min(less, most) if value <= percentiles[-1] else less
    more = min(more, most) if value >= percentiles[0] else more
    row |= {"training_5": percentiles[5], "training_50": percentiles[50]}
    row |= {"training_95": percentiles[95], "less": less, "more": more}
    row["outside"] = 1 - max(less, more) <= TAIL
    share, word = (more, "more") if more >= less else (less, "less")
    if share < 0.5:
        return row | {"told": f"{title} {text}, the median of the training studies"}
    of = "all" if share == 1 else f"{share:.0%} of the"
    return row | {"told": f"{title} {text}; {of} training studies had {word}"}


def written(value: float, unit: str) -> str:
    """``95 HU``, ``1.25 mm``: as many digits as are of use."""
    return f"{value:.0f} {unit}" if unit == "HU" or abs(value) >= 100 else f"{value:.3g} {unit}"


def shift_notes(shift: pd.DataFrame) -> pd.DataFrame:
    """A note on each study for each fact in which it lies outside.

    Args:
        shift: of `compare_with_training`.

    Returns:
        The columns of `clotline.data.rejects.NOTE_COLUMNS`; notes on one fact begin alike.
    """
    outside = shift[shift["outside"].to_numpy(bool)].reset_index(drop=True)
    notes = [
        f"{UNLIKE} {TITLES[row['fact']][0]}: {row['told'].removeprefix(TITLES[row['fact']][0])[1:]}"
        for row in outside.to_dict("records")
    ]
    return pd.DataFrame({STUDY_UID: outside[STUDY_UID], "note": notes})[list(NOTE_COLUMNS)]


def shift_of_splits(facts: pd.DataFrame, splits: pd.Series) -> list[dict]:
    """How studies of each split were made, and how many lie outside of the training data.

    Args:
        facts: of `clotline.data.study_facts.study_facts`, of all splits.
        splits: split by study UID.

    Returns:
        For each quantity that is known of any study, its ``title``, ``unit`` and, for each split,
        ``median``, ``low`` and ``high`` (5th and 95th percentile; None
        where nothing is known), ``studies`` and how many are ``outside``.
    """
    of = facts[STUDY_UID].map(splits)
    training = distributions(facts[of == "train"])
    shift = compare_with_training(facts, training)
    shift["split"] = shift[STUDY_UID].map(splits)
    rows = []
    for name in QUANTITIES:
        if facts[name].isna().all():
            continue
        title, unit = TITLES[name]
        row = {"title": title, "unit": unit, "splits": {}}
        for split in (split for split in SPLITS if (of == split).any()):
            known = facts.loc[of == split, name].dropna()
            ends = np.percentile(known, (5, 50, 95)).tolist() if len(known) else [None] * 3
            member = (shift["split"] == split) & (shift["fact"] == name)
            row["splits"][split] = {
                **dict(zip(("low", "median", "high"), ends, strict=True)),
                "studies": len(known),
                "outside": int((member & shift["outside"]).sum()),
            }
        rows.append(row)
    return rows
