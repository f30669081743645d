import numpy as np
import pandas as pd
import pytest

from clotline.errors import ClotlineError
from clotline.evaluation.ensembles import mean_of
from clotline.labels import IMAGE_LABEL, STUDY_LABELS, STUDY_UID

UID = ["1.1", "1.2", "1.3"]


def table(seed, truth=True):
    rng = np.random.default_rng(seed)
    made = pd.DataFrame({STUDY_UID: UID, "split": ["valid", "test", "test"]})
    for name in STUDY_LABELS:
        made[name] = rng.random(3)
        if truth:
            made[f"{name}_true"] = np.int8([0, 1, 0])
    return made


@pytest.mark.parametrize("truth", [True, False])
def test_it_is_the_mean_of_the_probabilities_beside_the_same_truth(truth):
    members = {name: table(seed, truth) for seed, name in enumerate("abc")}
    mean = mean_of(members)
    assert mean.columns.tolist() == members["a"].columns.tolist()
    for name in STUDY_LABELS:
        expected = [np.mean([m[name][row] for m in members.values()]) for row in range(3)]
        assert mean[name].tolist() == pytest.approx(expected)
    others = mean.columns.difference(STUDY_LABELS)
    assert mean[others].equals(members["c"][others])


def test_slices_are_averaged_too():
    slices = pd.DataFrame({STUDY_UID: UID, IMAGE_LABEL: [0.2, 0.4, 1.0]})
    other = slices.assign(**{IMAGE_LABEL: [0.4, 0.0, 0.0]})
    assert mean_of({"a": slices, "b": other})[IMAGE_LABEL].tolist() == pytest.approx(
        [0.3, 0.2, 0.5]
    )


def test_members_of_other_cases_are_refused_by_name():
    other = table(1)
    other.loc[0, STUDY_UID] = "9.9"
    with pytest.raises(ClotlineError, match="a and c were not evaluated on the same cases"):
        mean_of({"a": table(0), "b": table(2), "c": other})
