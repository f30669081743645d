"""How many patients have several studies, and are in several splits, in numbers and in words."""

import pandas as pd

from clotline.labels import STUDY_UID
from clotline.titles import counted


def count_patients(patients: pd.Series, plan: pd.DataFrame, source: str) -> dict:
    """How many studies are of patients who have several, and in several splits.

    Args:
        patients: study UID to anything that tells patients apart.
        plan: plan.parquet.
        source: what told it, in words.

    Returns:
        ``source``; the numbers of ``studies`` and of those ``known``; of ``patients``; of
        ``repeated`` ones, who have several studies, and ``of_repeated``, these studies; and of
        ``split``, patients in several splits, and ``of_split``, their studies. Where all studies
        seem to be of one patient, nothing is known.
    """
    counts = dict.fromkeys(("known", "patients", "repeated", "of_repeated", "split", "of_split"), 0)
    counts = {"source": source, "studies": len(plan)} | counts
    if len(plan) > 1 and patients.nunique() < 2:
        return counts
    splits = plan.set_index(STUDY_UID)["split"].reindex(patients.index)
    table = pd.DataFrame({"patient": patients.to_numpy(), "split": splits.to_numpy()})
    each = table.groupby("patient")["split"].agg(["size", "nunique"])
    repeated, in_several = each[each["size"] > 1], each[each["nunique"] > 1]
    return counts | {
        "known": len(table),
        "patients": len(each),
        "repeated": len(repeated),
        "of_repeated": int(repeated["size"].sum()),
        "split": len(in_several),
        "of_split": int(in_several["size"].sum()),
    }


def describe_patients(counts: dict) -> str:
    """What `count_patients` found, in one sentence; of patients in several splits what to do."""
    if not counts["known"]:
        return f"Patients are not known: {counts['source']} tells none apart."
    known = f"{counts['known']:,} of {counted(counts['studies'], 'study', 'studies')}"
    patients = counted(counts["patients"], "patient", "patients")
    text = f"By {counts['source']}, {known} are of {patients}"
    if not counts["split"]:
        return f"{text}, none of whom is in more than one split."
    who = "patient is" if counts["split"] == 1 else "patients are"
    return (
        f"{text}; {counts['split']:,} {who} in more than one split, with {counts['of_split']:,} "
        "studies: what is learned of them in training is tested on them. Set data.split.group "
        "to split by patient."
    )
