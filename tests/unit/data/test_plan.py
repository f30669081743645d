import numpy as np
import pytest
from builders import DATA, labels_of

from clotline.data.plan import check_plan, describe_shards, make_plan, planned_rows, split_of
from clotline.errors import ClotlineError
from clotline.labels import COLUMNS, IMAGE_LABEL, SPLITS, STUDY_LABELS, STUDY_UID

STUDIES = {"s0": [0, 1, 0, 0], "s1": [0] * 5, "s2": [1] * 4, "s3": [0, 1], "s4": [0] * 6}
FRACTIONS = (0.725, 0.145, 0.13)
#: Of the twelve UIDs 000000000000 to 00000000000b.
EXPECTED_SPLITS = [
    "test",
    "train",
    "train",
    "train",
    "train",
    "train",
    "train",
    "test",
    "train",
    "valid",
    "train",
    "train",
]


def digests(labels, data=DATA):
    return [shard["digest"] for shard in describe_shards(labels, make_plan(labels, data))]


def by_column():
    return DATA | {"split": DATA["split"] | {"column": "part"}}


def test_studies_keep_the_order_of_their_first_row():
    labels = labels_of(STUDIES).iloc[[4, 0, 20, 5, 1, 9, 13]]
    assert make_plan(labels, DATA)[STUDY_UID].tolist() == ["s1", "s0", "s4", "s2", "s3"]


def test_slices_positives_and_study_labels_are_counted_for_each_study():
    plan = make_plan(labels_of(STUDIES), DATA).set_index(STUDY_UID)
    assert plan["slices"].to_dict() == {"s0": 4, "s1": 5, "s2": 4, "s3": 2, "s4": 6}
    assert plan["positive_slices"].to_dict() == {"s0": 1, "s1": 0, "s2": 4, "s3": 1, "s4": 0}
    assert plan["central_pe"].to_dict() == {"s0": 1, "s1": 0, "s2": 1, "s3": 1, "s4": 0}
    assert list(plan.columns[-9:]) == list(STUDY_LABELS)


def test_a_shard_takes_whole_studies_until_the_next_would_not_fit():
    assert make_plan(labels_of(STUDIES), DATA)["shard"].tolist() == [0, 0, 1, 1, 2]


def test_a_shard_is_filled_to_the_last_slice():
    plan = make_plan(labels_of({"a": [0] * 6, "b": [1] * 4, "c": [0]}), DATA)
    assert plan["shard"].tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("sizes", "shards"), [([3, 25, 3], [0, 1, 2]), ([25, 3], [0, 1]), ([3, 25], [0, 1])]
)
def test_a_study_larger_than_a_shard_gets_one_of_its_own(sizes, shards):
    labels = labels_of({f"s{i}": [0] * size for i, size in enumerate(sizes)})
    assert make_plan(labels, DATA)["shard"].tolist() == shards


def test_an_appended_study_changes_the_last_shard_or_opens_a_new_one():
    before = digests(labels_of(STUDIES))
    fits = digests(labels_of(STUDIES | {"s5": [0, 1]}))
    assert fits[:2] == before[:2]
    assert len(fits) == 3
    assert fits[2] != before[2]
    new = digests(labels_of(STUDIES | {"s5": [0] * 9}))
    assert new[:3] == before
    assert len(new) == 4


def test_the_order_of_a_studys_rows_does_not_change_a_digest():
    labels = labels_of(STUDIES)
    mixed = labels.iloc[[3, 1, 4, 0, 2, *range(5, 21)]]
    assert make_plan(mixed, DATA)[STUDY_UID].tolist() == list(STUDIES)
    assert digests(mixed) == digests(labels)


@pytest.mark.parametrize("column", [IMAGE_LABEL, "qa_motion", "indeterminate"])
def test_a_changed_label_changes_the_digest_of_its_shard_alone(column):
    labels = labels_of(STUDIES)
    before = digests(labels)
    labels.loc[labels[STUDY_UID] == "s2", column] ^= 1
    after = digests(labels)
    assert [a != b for a, b in zip(after, before, strict=True)] == [False, True, False]


def test_a_changed_uid_changes_the_digest():
    labels = labels_of(STUDIES)
    before = digests(labels)
    labels.loc[0, "SOPInstanceUID"] = "other"
    assert digests(labels)[0] != before[0]


def test_another_split_changes_the_digest_of_splits_alone():
    labels = labels_of(STUDIES)
    other = DATA | {"split": DATA["split"] | {"train": 0.1, "valid": 0.1, "test": 0.8}}
    one, two = (describe_shards(labels, make_plan(labels, data)) for data in (DATA, other))
    assert [shard["digest"] for shard in one] == [shard["digest"] for shard in two]
    assert [shard["splits"] for shard in one] != [shard["splits"] for shard in two]


def test_studies_that_swap_places_in_a_shard_change_its_digest():
    swapped = {"s1": STUDIES["s1"], "s0": STUDIES["s0"]} | STUDIES
    assert list(swapped) == ["s1", "s0", "s2", "s3", "s4"]
    before, after = digests(labels_of(STUDIES)), digests(labels_of(swapped))
    assert after[0] != before[0]
    assert after[1:] == before[1:]


def test_dividing_the_studies_anew_leaves_the_shards_as_they_are():
    labels = labels_of(STUDIES)
    other = DATA | {"split": {"column": None, "train": 0.1, "valid": 0.1, "test": 0.8}}
    assert digests(labels, other) == digests(labels)
    assert set(make_plan(labels, other)["split"]) != {"train"}


def test_shards_are_described_by_name_and_counts():
    labels = labels_of(STUDIES)
    shards = describe_shards(labels, make_plan(labels, DATA))
    counts = [(s["name"], s["slices"], s["studies"]) for s in shards]
    assert counts == [("000", 9, 2), ("001", 6, 2), ("002", 6, 1)]
    plan = make_plan(labels, DATA)
    for split in SPLITS:
        part = plan[plan["split"] == split]
        assert sum(s["split_slices"][split] for s in shards) == part["slices"].sum()
        assert sum(s["split_positives"][split] for s in shards) == part["positive_slices"].sum()


def test_a_study_stays_in_its_split_when_others_come():
    uids = [f"{i:012x}" for i in range(300)]
    few, many = (
        make_plan(labels_of({uid: [0] for uid in part}), DATA).set_index(STUDY_UID)["split"]
        for part in (uids[:100], uids[::-1])
    )
    assert many[few.index].equals(few)
    assert set(few) == set(SPLITS)


@pytest.mark.parametrize("fractions", [FRACTIONS, (0.2, 0.3, 0.5), (0.01, 0.01, 0.98)])
def test_the_hash_divides_in_about_the_fractions_asked_for(fractions):
    n = 20_000
    splits = np.array([split_of(f"study {i}", fractions) for i in range(n)])
    for name, fraction in zip(SPLITS, fractions, strict=True):
        error = 5 * np.sqrt(fraction * (1 - fraction) / n)
        assert abs((splits == name).mean() - fraction) < error


def test_the_split_of_a_study_never_changes_between_versions():
    assert [split_of(f"{i:012x}", FRACTIONS) for i in range(12)] == EXPECTED_SPLITS


def test_a_column_of_the_labels_file_gives_the_split_instead():
    labels = labels_of(STUDIES)
    part = dict(zip(STUDIES, ["test", "train", "valid", "train", "test"], strict=True))
    labels["part"] = labels[STUDY_UID].map(part)
    plan = make_plan(labels, by_column())
    assert plan.set_index(STUDY_UID)["split"].to_dict() == part


@pytest.mark.parametrize("wanting", ["train", "valid"])
@pytest.mark.parametrize(
    ("images", "counts"),
    [
        ([0, 0], "1 studies with 0 positive and 2 negative"),
        ([1, 1], "1 studies with 2 positive and 0 negative"),
        (None, "0 studies with 0 positive and 0 negative"),
    ],
)
def test_a_split_to_learn_from_needs_both_classes(wanting, images, counts):
    studies = {name: [0, 1] for name in SPLITS} | {wanting: images}
    labels = labels_of({name: slices for name, slices in studies.items() if slices})
    labels["part"] = labels[STUDY_UID]
    with pytest.raises(ClotlineError) as caught:
        check_plan(make_plan(labels, by_column()))
    assert f"the {wanting} split has {counts}" in str(caught.value)
    assert "data.split" in str(caught.value)


def test_a_sound_plan_passes_whatever_its_test_split():
    labels = labels_of({"train": [0, 1], "valid": [0, 1]})
    labels["part"] = labels[STUDY_UID]
    check_plan(make_plan(labels, by_column()))


def test_planned_rows_are_grouped_by_shard_and_study_and_keep_every_label():
    labels = labels_of(STUDIES).sample(frac=1, random_state=1)
    plan = make_plan(labels, DATA)
    rows = planned_rows(labels, plan)
    assert rows.drop_duplicates(STUDY_UID)[STUDY_UID].tolist() == plan[STUDY_UID].tolist()
    assert rows["shard"].is_monotonic_increasing
    assert (rows[STUDY_UID] != rows[STUDY_UID].shift()).sum() == len(STUDIES)
    key = list(COLUMNS)
    assert rows[key].sort_values(key).values.tolist() == labels.sort_values(key).values.tolist()
    splits = plan.set_index(STUDY_UID)["split"]
    assert (rows["split"] == rows[STUDY_UID].map(splits)).all()
