"""Epochs have the slices that they promise, and rotate through them."""

import numpy as np
import pandas as pd
import pytest
from builders import cnn_section
from hypothesis import given
from hypothesis import strategies as st

from clotline.labels import IMAGE_LABEL, STUDY_UID
from clotline.loading.sampling import (
    LabelEpochs,
    Rotation,
    StudyEpochs,
    locate_slices,
    training_epochs,
    validation_slices,
)

SIZE, TOTAL, SEED = st.integers(1, 30), st.integers(1, 60), st.integers(0, 1000)


def test_positives_are_read_from_their_own_file_and_negatives_from_the_shards():
    slices = pd.DataFrame(
        {
            "shard": ["000", "000", "000", "001", "001", "001", "001"],
            "row": [0, 1, 2, 0, 1, 2, 3],
            "split": ["train", "train", "test", "valid", "valid", "train", "test"],
            IMAGE_LABEL: [0, 1, 1, 1, 0, 0, 0],
            "checksum": range(10, 17),
            STUDY_UID: list("aaabbcc"),
        }
    )
    positive, negative = locate_slices(slices, "shards", "positives.h5")
    assert positive.values.tolist() == [
        ["a", "positives.h5", 0, "train", 1, 11],
        ["b", "positives.h5", 1, "valid", 1, 13],
    ]
    assert negative.values.tolist() == [
        ["a", "shards/shard-000.h5", 0, "train", 0, 10],
        ["b", "shards/shard-001.h5", 1, "valid", 0, 14],
        ["c", "shards/shard-001.h5", 2, "train", 0, 15],
    ]


@given(SIZE, TOTAL, SEED)
def test_all_are_used_once_before_any_is_used_again(size, total, seed):
    rotation = Rotation(size, total, (seed,))
    drawn = np.concatenate([rotation.drawn(epoch) for epoch in range(3 * total // size + 1)])
    for start in range(0, len(drawn) - total + 1, total):
        assert sorted(drawn[start : start + total]) == list(range(total))


@given(SIZE, TOTAL, SEED, st.integers(0, 20))
def test_nothing_stands_twice_in_an_epoch_where_there_is_enough(size, total, seed, epoch):
    drawn = Rotation(size, total, (seed,)).drawn(epoch)
    assert len(drawn) == size
    used = np.bincount(drawn, minlength=total)
    # Of a larger epoch as often as any other, but for once.
    assert used.max() - used.min() <= 1


@given(SIZE, TOTAL, SEED, st.integers(0, 20))
def test_any_epoch_can_be_had_alone(size, total, seed, epoch):
    rotation = Rotation(size, total, (seed,))
    in_turn = [rotation.drawn(number) for number in range(epoch + 1)][-1]
    assert (in_turn == Rotation(size, total, (seed,)).drawn(epoch)).all()


def test_epochs_and_seeds_draw_differently():
    def drawn(seed, epoch):
        return Rotation(50, 1000, (seed,)).drawn(epoch).tolist()

    assert drawn(0, 0) != drawn(1, 0)
    assert drawn(0, 0) != drawn(0, 1)
    assert drawn(0, 0) != drawn(0, 20)  # the second permutation is another one


def stage_1_tables(positives=6, negatives=20, studies=4):
    """Slices of studies a, b, …, whose rows are counted by label."""

    def table(n, label):
        uids = [chr(ord("a") + row % studies) for row in range(n)]
        columns = {STUDY_UID: uids, "file": f"of {label}", "row": range(n), IMAGE_LABEL: label}
        return pd.DataFrame(columns)

    return table(positives, 1), table(negatives, 0)


def rows_by_label(table):
    return {label: part["row"].tolist() for label, part in table.groupby(IMAGE_LABEL)}


def section_of(**keys):
    return cnn_section(architecture="resnet18", **keys)


def test_a_balanced_epoch_has_all_positives_and_as_many_negatives_mixed():
    tables = stage_1_tables()
    epochs = training_epochs(section_of(), *tables, seed=3)
    first, second = epochs.table(0), epochs.table(1)
    for epoch, table in enumerate((first, second)):
        parts = rows_by_label(table)
        assert sorted(parts[1]) == list(range(6))
        assert sorted(parts[0]) == sorted(Rotation(6, 20, (3,)).drawn(epoch))
        assert table[IMAGE_LABEL].tolist() != sorted(table[IMAGE_LABEL], reverse=True)
    assert first[IMAGE_LABEL].tolist() != second[IMAGE_LABEL].tolist()
    assert LabelEpochs(*tables, 3, (6, 6)).table(1).equals(second)


@pytest.mark.parametrize(
    ("keys", "positive", "negative"),
    [
        ({"epoch_slices": 4}, 2, 2),
        ({"epoch_slices": 8, "positive_share": 0.25}, 2, 6),
        ({"positive_share": 0.25}, 6, 18),
        ({"positive_share": 0.75}, 6, 2),
        # At least one of each.
        ({"epoch_slices": 4, "positive_share": 0.01}, 1, 3),
        ({"epoch_slices": 4, "positive_share": 0.99}, 3, 1),
    ],
)
def test_an_epoch_has_as_many_slices_of_each_label_as_its_keys_say(keys, positive, negative):
    epochs = training_epochs(section_of(**keys), *stage_1_tables(), seed=3)
    assert epochs.share == positive / (positive + negative)
    drawn = {0: [], 1: []}
    for epoch in range(6):
        parts = rows_by_label(epochs.table(epoch))
        assert (len(parts[1]), len(parts[0])) == (positive, negative)
        for label, rows in parts.items():
            assert len(set(rows)) == len(rows)
            drawn[label] += rows
    # Six epochs rotate through all positives, and through as many negatives as they have.
    assert set(drawn[1]) == set(range(6))
    assert len(set(drawn[0])) == min(6 * negative, 20)


def test_an_epoch_larger_than_the_positives_repeats_them():
    epochs = training_epochs(section_of(epoch_slices=20), *stage_1_tables(), seed=3)
    used = np.bincount(rows_by_label(epochs.table(0))[1])
    assert used.sum() == 10
    assert used.max() - used.min() == 1


def test_an_epoch_by_studies_has_as_many_slices_of_each_and_rotates():
    positives, negatives = stage_1_tables(positives=5, negatives=14, studies=4)
    few = negatives.iloc[:2].assign(**{STUDY_UID: "short", "row": [100, 101]})
    section = section_of(study_slices=3)
    epochs = training_epochs(section, positives, pd.concat([negatives, few]), seed=3)
    slices = pd.concat([positives, negatives, few])
    whole = slices.groupby(STUDY_UID)["row"].size()
    seen = {uid: [] for uid in whole.index}
    for epoch in range(2):
        table = epochs.table(epoch)
        counts = table.groupby(STUDY_UID)["row"].size()
        assert counts.to_dict() == {uid: min(3, n) for uid, n in whole.items()}
        assert table[STUDY_UID].tolist() != sorted(table[STUDY_UID])
        for uid, part in table.groupby(STUDY_UID):
            seen[uid] += list(zip(part[IMAGE_LABEL], part["row"], strict=True))
    for uid, drawn in seen.items():
        if uid != "short":  # 4 or 5 slices: two epochs of three use up a permutation
            assert set(drawn) == set(
                slices[slices[STUDY_UID] == uid][[IMAGE_LABEL, "row"]].itertuples(index=False)
            )
    # Each study's own share, by how many of its slices an epoch has: in this one of 12 + 2.
    means = slices.groupby(STUDY_UID)[IMAGE_LABEL].mean()
    expected = sum(means[uid] * min(3, n) for uid, n in whole.items()) / len(table)
    assert epochs.share == pytest.approx(expected)
    again = StudyEpochs(pd.concat([positives, negatives, few], ignore_index=True), 3, 3)
    assert again.table(1).equals(table)
    other = StudyEpochs(pd.concat([positives, negatives, few], ignore_index=True), 4, 3)
    assert not other.table(1).equals(table)
    # Another seed draws other slices, not only another order.
    columns = [STUDY_UID, IMAGE_LABEL, "row"]
    drawn, others = (set(t[columns].itertuples(index=False)) for t in (table, other.table(1)))
    assert drawn != others


def test_the_validation_set_is_fixed_and_has_no_slice_twice():
    positives, negatives = stage_1_tables()
    table = validation_slices(positives, negatives, seed=3)
    assert table[IMAGE_LABEL].value_counts().to_dict() == {1: 6, 0: 6}
    assert not table.duplicated().any()
    assert validation_slices(positives, negatives, seed=3).equals(table)
    assert not validation_slices(positives, negatives, seed=4).equals(table)


@pytest.mark.parametrize(("share", "negative"), [(0.75, 2), (0.25, 18), (0.1, 20)])
def test_validation_has_the_proportion_of_training(share, negative):
    table = validation_slices(*stage_1_tables(), 3, share)
    assert table[IMAGE_LABEL].value_counts().to_dict() == {1: 6, 0: negative}


def test_validation_takes_all_negatives_where_there_are_few():
    table = validation_slices(*stage_1_tables(positives=6, negatives=4), seed=3)
    assert table[IMAGE_LABEL].value_counts().to_dict() == {1: 6, 0: 4}
