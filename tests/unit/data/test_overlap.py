"""Studies that were trained on are recognised, also under other UIDs."""

import numpy as np
import pandas as pd

from clotline.data.overlap import digests_of_training, overlapping
from clotline.labels import STUDY_UID


def slices(studies, split=None):
    rows = [(uid, checksum) for uid, checksums in studies.items() for checksum in checksums]
    table = pd.DataFrame(rows, columns=[STUDY_UID, "checksum"]).astype({"checksum": np.uint64})
    return table if split is None else table.assign(split=table[STUDY_UID].map(split))


BLANK = 7
TRAINED = slices(
    {"1.1": [BLANK, 11, 12, 13], "1.2": [BLANK, 21, 22], "1.3": [31, 32, 2**64 - 1]},
    {"1.1": "train", "1.2": "valid", "1.3": "test"},
)


def test_studies_of_train_and_valid_are_recognised_by_uid_or_pixels():
    new = slices(
        {
            "1.1": [90, 91],  # other slices of a study that is known
            "9.1": [22, 21, 92],  # known slices under another UID
            "9.2": [31, 32],  # of the test split: nothing was trained on it
            "9.3": [BLANK, 93],
            "9.4": [11, 94, 95],  # one slice alone
            "9.5": [12, 12, 12, 96],  # one, blank, several times
        }
    )
    found = overlapping(new, *digests_of_training(TRAINED))
    assert found == {
        "1.1": "trained on: its StudyInstanceUID is one of the training data",
        "9.1": "trained on: 2 of its 3 slices have the pixels of slices of the training data, "
        "under another UID",
    }


def test_the_digests_hold_no_uid_and_no_slice_of_several_studies():
    of_studies, of_slices = digests_of_training(TRAINED)
    assert of_studies.dtype == of_slices.dtype == np.uint64
    assert len(of_studies) == 2
    assert of_slices.tolist() == [11, 12, 13, 21, 22]
