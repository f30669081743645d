"""From the labels to the plan: which study goes into which shard and which split.

The plan is made from the labels alone, before any DICOM file is opened, and in such a way that
studies appended to the labels file leave the earlier shards and splits as they were.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import pandas as pd

from clotline.data.labels_file import LABELS, UID_HASH, uid_hashes
from clotline.errors import ClotlineError
from clotline.labels import COLUMNS, IMAGE_LABEL, SPLITS, STUDY_LABELS, STUDY_UID, UIDS

#: Column of the plan that is the same for the studies of a patient, where patients are told apart.
GROUP = "group"


def split_of(study_uid: str, fractions: Sequence[float]) -> str:
    """The split of a study by a hash of its UID: it never changes when other studies come.

    Args:
        study_uid: the study's UID.
        fractions: fractions of train, valid and test, in this order.
    """
    digest = hashlib.sha256(study_uid.encode()).digest()
    fraction = int.from_bytes(digest[:8], "big") / 2**64
    edges = np.cumsum(fractions)[:-1]
    return SPLITS[int(np.searchsorted(edges, fraction, side="right"))]


def make_plan(
    labels: pd.DataFrame, data_config: dict, first: pd.Series | None = None
) -> pd.DataFrame:
    """The studies with their shard and split.

    Studies keep the order of their first row in the labels file, and fill one shard after the
    other, so that appended studies change the last shard or open a new one.

    Args:
        labels: table of `read_labels`.
        data_config: the configuration's ``data`` section.
        first: of `clotline.data.patients.first_studies`: the split of a study is that of the first
            one of its patient. None divides studies, as does whoever needs no splits.

    Returns:
        One row a study: UID, ``shard`` (int), ``split``, ``slices`` and ``positive_slices``
        (counts), and the nine study labels (int8). With ``first`` also ``group``: the UID of the
        patient's first study.
    """
    code, _ = pd.factorize(labels[STUDY_UID])
    first_rows = labels[~labels[STUDY_UID].duplicated()].set_index(STUDY_UID)
    plan = first_rows[list(STUDY_LABELS)].copy()
    plan.insert(0, "slices", np.bincount(code))
    positive = code[labels[IMAGE_LABEL].to_numpy() == 1]
    plan.insert(1, "positive_slices", np.bincount(positive, minlength=len(plan)))
    shard, filled, shards = -1, 0, []
    for count in plan["slices"]:
        if shard < 0 or filled + count > data_config["slices_per_shard"]:
            shard, filled = shard + 1, 0
        filled += count
        shards.append(shard)
    split = data_config["split"]
    deciding = plan.index if first is None else [first.get(uid, uid) for uid in plan.index]
    if split["column"]:
        splits = first_rows[split["column"]]
    else:
        fractions = [split[name] for name in SPLITS]
        splits = [split_of(uid, fractions) for uid in deciding]
    plan.insert(0, "shard", shards)
    plan.insert(1, "split", splits)
    if first is not None:
        plan[GROUP] = pd.Series(deciding, plan.index, dtype="str")
    return plan.reset_index().astype({STUDY_UID: "str"})


def check_plan(plan: pd.DataFrame) -> None:
    """Checks that training is possible with this plan.

    Raises:
        ClotlineError: the train or valid split has no study, no positive or no negative slice.
    """
    for name in ("train", "valid"):
        part = plan[plan["split"] == name]
        positive = int(part["positive_slices"].sum())
        negative = int(part["slices"].sum()) - positive
        if not positive or not negative:
            raise ClotlineError(
                f"the {name} split has {len(part)} studies with {positive:,} positive and "
                f"{negative:,} negative slices; it needs both. Change data.split, or add studies"
            )


def describe_shards(labels: pd.DataFrame, plan: pd.DataFrame) -> list[dict]:
    """What the workflow must know of every shard before any job runs.

    Args:
        labels: table of `read_labels`, or one that lacks its ``uid_hash`` or, with that, its UIDs
            of slices.
        plan: table of `make_plan`.

    Returns:
        For each shard its ``name`` (three digits, as in ``shard-000.h5``), the number of its
        ``slices`` and ``studies``, for each split those of its ``split_slices`` and
        ``split_positives`` (positive slices), a ``digest`` of its rows' UIDs and labels, which
        changes if, and only if, they do, and one of its studies' ``splits`` and groups.
    """
    code, studies = pd.factorize(labels[STUDY_UID])
    shard = plan.set_index(STUDY_UID)["shard"].loc[studies].to_numpy(np.int32)[code]
    hashes = labels[UID_HASH].to_numpy() if UID_HASH in labels else uid_hashes(labels)
    described = []
    for number, part in plan.groupby("shard"):
        # Sorted: the order of a study's rows in the labels file means nothing.
        content = np.sort(_row_hashes(hashes, labels, shard == number)).tobytes()
        order = "\n".join(part[STUDY_UID]).encode()
        counts = part.groupby("split")[["slices", "positive_slices"]].sum()
        counts = counts.reindex(SPLITS, fill_value=0)
        described.append(
            {
                "name": f"{number:03}",
                "slices": int(part["slices"].sum()),
                "studies": len(part),
                "split_slices": counts["slices"].to_dict(),
                "split_positives": counts["positive_slices"].to_dict(),
                "digest": _digest(content + order),
                "splits": _digest("\n".join([*part["split"], *part.get(GROUP, [])]).encode()),
            }
        )
    return described


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _row_hashes(hashes: np.ndarray, labels: pd.DataFrame, rows: np.ndarray) -> np.ndarray:
    """One hash a row of its UIDs and labels, the same on every machine.

    Args:
        hashes: (n,) uint64 of the UIDs.
        labels: n rows.
        rows: (n,) bool, which are chosen: of all at once such numbers would be large.

    Returns:
        (chosen,) uint64.
    """
    flags = np.zeros(np.count_nonzero(rows), np.uint64)
    for number, name in enumerate(LABELS):
        flags |= labels[name].to_numpy()[rows].astype(np.uint64) << np.uint64(number)
    # An odd factor keeps different labels different, and spreads them over all bits.
    return hashes[rows] ^ flags * np.uint64(0x9E3779B97F4A7C15)


def planned_rows(labels: pd.DataFrame, plan: pd.DataFrame) -> pd.DataFrame:
    """The labels grouped by shard and study in the plan's order, with ``shard`` and ``split``.

    Args:
        labels: table of `read_labels`.
        plan: table of `make_plan`, or some of its rows: other studies are then left out.
    """
    order = plan[[STUDY_UID, "shard", "split"]].assign(order=range(len(plan)))
    rows = labels[list(COLUMNS)].astype(dict.fromkeys(UIDS, "str"))
    rows = rows.merge(order, on=STUDY_UID, validate="many_to_one")
    return rows.sort_values("order", kind="stable").drop(columns="order").reset_index(drop=True)
