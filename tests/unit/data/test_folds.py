"""Every study is held out once, by networks that never saw it; the test split by all of them."""

import pandas as pd
import pytest
from builders import DATA, labels_of
from hypothesis import given
from hypothesis import strategies as st

from clotline.data.folds import fold_of, plan_of_fold
from clotline.data.plan import make_plan
from clotline.errors import ClotlineError
from clotline.labels import STUDY_UID

PLAN = make_plan(labels_of({f"1.{i}": [0, i % 2] for i in range(120)}), DATA)
FOLDS = 4


def splits(plan):
    return [plan_of_fold(plan, fold, FOLDS).set_index(STUDY_UID)["split"] for fold in range(FOLDS)]


def test_each_study_is_tested_once_validated_once_and_else_trained_on():
    of_folds = pd.concat(splits(PLAN), axis=1)
    tested = (PLAN["split"] == "test").to_numpy()
    assert 0 < tested.sum() < len(PLAN)
    assert (of_folds[tested] == "test").all(axis=None)
    counts = of_folds[~tested].apply(pd.Series.value_counts, axis=1)
    assert (counts[["test", "valid", "train"]] == [1, 1, FOLDS - 2]).all(axis=None)
    # All folds are of about the same size.
    sizes = (of_folds[~tested] == "test").sum()
    assert sizes.max() < 2 * sizes.min()


def test_a_fold_changes_the_splits_alone():
    columns = PLAN.columns.drop("split")
    assert plan_of_fold(PLAN, 1, FOLDS)[columns].equals(PLAN[columns])


def test_studies_of_one_group_are_never_apart():
    grouped = PLAN.assign(group=[i // 6 for i in range(len(PLAN))], split="train")
    for found in splits(grouped):
        by_group = found.groupby(grouped["group"].to_numpy()).nunique()
        assert (by_group == 1).all()
    assert any(not a.equals(b) for a, b in zip(splits(grouped), splits(PLAN), strict=True))


@given(st.text(min_size=1, max_size=64), st.integers(3, 20))
def test_a_fold_is_one_of_so_many(key, folds):
    assert 0 <= fold_of(key, folds) < folds


def test_folds_do_not_follow_the_splits():
    uids = [f"1.2.{i}" for i in range(4000)]
    plan = pd.DataFrame({"uid": uids, "fold": [fold_of(uid, FOLDS) for uid in uids]})
    plan["split"] = make_plan(labels_of({uid: [0] for uid in uids}), DATA)["split"]
    shares = plan.groupby("split")["fold"].value_counts(normalize=True)
    assert shares.between(0.19, 0.31).all()


def test_too_few_studies_are_named_with_the_fold():
    few = PLAN.head(4)
    with pytest.raises(ClotlineError, match=r"fold \d of 4 \(data\.split\.folds\): the .* split"):
        splits(few)
