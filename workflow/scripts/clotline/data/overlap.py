"""Whether studies were among those that models were trained on.

Told by digests alone, of UIDs and of stored slices, which a bundle can carry to another hospital:
from a digest nobody gets at a picture or a UID, and only who has the same study can tell that it
was there. A study that was anonymised again, or converted to another format, has other UIDs and the
same slices.
"""

from hashlib import blake2b

import numpy as np
import pandas as pd

from clotline.data.shards import CHECKSUM
from clotline.labels import STUDY_UID

#: Splits whose studies a network has seen, or that chose its epoch and its thresholds.
TRAINED_ON = ("train", "valid")

#: Different slices that a study shares with the training data before it is said to be one of it. Of
#: two scans no two slices are equal, noise sees to that; blank ones are, and each other's copies.
SHARED_SLICES = 2


def fitted_on(in_folds: bool) -> tuple[str, ...]:
    """Splits whose studies a network's weights come of: with folds valid, too, for theirs."""
    return TRAINED_ON if in_folds else TRAINED_ON[:1]


def digests_of_training(slices: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """What the studies that were trained on are recognised by.

    Args:
        slices: slices.parquet.

    Returns:
        Sorted uint64: digests of the studies' UIDs, and of their slices as stored, without those
        that several studies share, such as blank ones.
    """
    seen = slices[slices["split"].isin(TRAINED_ON)]
    of_studies = {_digest(uid) for uid in seen[STUDY_UID].unique()}
    pairs = seen[[STUDY_UID, CHECKSUM]].drop_duplicates()
    own = pairs.drop_duplicates(CHECKSUM, keep=False)[CHECKSUM]
    return np.array(sorted(of_studies), np.uint64), np.sort(own.to_numpy(np.uint64))


def _digest(uid: str) -> int:
    return int.from_bytes(blake2b(uid.encode(), digest_size=8).digest(), "big")


def overlapping(
    slices: pd.DataFrame, seen_studies: np.ndarray, seen_slices: np.ndarray
) -> dict[str, str]:
    """The studies that were trained on, and how that is known.

    Args:
        slices: of a shard: StudyInstanceUID and ``checksum``.
        seen_studies: of `digests_of_training`.
        seen_slices: of `digests_of_training`.

    Returns:
        StudyInstanceUID to the reason.
    """
    checksums = slices[CHECKSUM].to_numpy(np.uint64)
    table = pd.DataFrame({"study": slices[STUDY_UID].to_numpy(), "slice": checksums})
    counts = table.groupby("study").size()
    known = table[np.isin(checksums, seen_slices)].groupby("study")["slice"]
    shared = known.agg(["size", "nunique"]).reindex(counts.index, fill_value=0)
    seen = set(seen_studies.tolist())
    found = {}
    for (uid, same, different), count in zip(shared.itertuples(), counts, strict=True):
        if _digest(uid) in seen:
            found[uid] = "trained on: its StudyInstanceUID is one of the training data"
        elif different >= SHARED_SLICES:
            found[uid] = (
                f"trained on: {same:,} of its {count:,} slices have the pixels of slices of the "
                "training data, under another UID"
            )
    return found
