import numpy as np
import pandas as pd
import pytest

from clotline.errors import ClotlineError
from clotline.evaluation.ensembles import join_folds, mean_of
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
    other.loc[0, "central_pe_true"] = 1
    with pytest.raises(ClotlineError, match="a and c were not evaluated on the same cases"):
        mean_of({"a": table(0), "b": table(2), "c": other})


def test_members_of_other_studies_are_averaged_on_those_of_all():
    mean = mean_of({"a": table(0), "b": table(1).iloc[1:]})
    assert mean[STUDY_UID].tolist() == UID[1:]
    assert mean.index.tolist() == [0, 1]


SPLITS = pd.Series({"4": "train", "1": "valid", "9": "test", "3": "train"})


def of_fold(valid, test, score):
    """Two slices a study."""
    rows = [(uid, "valid") for uid in valid] + [(uid, "test") for uid in test]
    made = pd.DataFrame(rows, columns=[STUDY_UID, "split"])
    made = made.loc[made.index.repeat(2)].reset_index(drop=True)
    return made.assign(position_mm=[0.0, 1.0] * len(rows), **{IMAGE_LABEL: score})


def test_of_folds_each_study_is_predicted_by_those_that_never_saw_it():
    tables = [
        of_fold(["3"], ["1", "9"], 0.1),
        of_fold(["4"], ["3", "9"], 0.2),
        of_fold(["1"], ["4", "9"], 0.6),
    ]
    joined = join_folds(tables, SPLITS)
    # In the order of the plan, as other models' predictions are.
    assert joined[STUDY_UID].tolist() == [uid for uid in SPLITS.index for _ in "12"]
    assert joined["position_mm"].tolist() == [0, 1] * 4
    assert joined["split"].tolist() == ["valid"] * 4 + ["test"] * 2 + ["valid"] * 2
    assert joined[IMAGE_LABEL].tolist() == pytest.approx(
        [0.6] * 2 + [0.1] * 2 + [0.3] * 2 + [0.2] * 2
    )
    tables[1] = of_fold(["4"], ["1", "9"], 0.2)
    with pytest.raises(ClotlineError, match="1 was held out by two folds"):
        join_folds(tables, SPLITS)
