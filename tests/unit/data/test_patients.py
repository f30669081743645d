import json

import pandas as pd
import pytest
from builders import DATA, labels_of, write_study

from clotline.data.folds import plan_of_fold
from clotline.data.labels_file import group_column, read_labels
from clotline.data.patients import check_splits, first_studies, patients_by_column
from clotline.data.plan import describe_shards, make_plan
from clotline.errors import ClotlineError
from clotline.labels import SPLITS, STUDY_UID

#: Forty studies of a slice each, of twenty patients with one to four.
PATIENTS = {f"{k:012x}": f"SECRET{(k * k) % 20}" for k in range(40)}
STUDIES = {uid: [k % 2] for k, uid in enumerate(PATIENTS)}
FRACTIONS = {"train": 0.4, "valid": 0.3, "test": 0.3}


def data_of(folder, group, column=None, links_root=None):
    split = DATA["split"] | FRACTIONS | {"group": group, "column": column}
    paths = {"labels": str(folder / "train.csv"), "dicom": str(folder / "dicom")}
    return DATA | paths | {"split": split, "links_root": links_root, "studies": None}


@pytest.fixture
def cohort(tmp_path, monkeypatch):
    """Labels whose column ``patient`` says whose a study is; files whose PatientID does."""
    labels = labels_of(STUDIES)
    labels["patient"] = labels[STUDY_UID].map(PATIENTS)
    labels.to_csv(tmp_path / "train.csv", index=False)
    write_study(tmp_path / "dicom", labels=labels, PatientID=lambda k: labels["patient"].iloc[k])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def plan_of(cohort, group, **other):
    data = data_of(cohort, group, **other)
    column = group_column(data["labels"], group)
    labels = read_labels(data["labels"], other.get("column"), column)
    first = first_studies(labels, data)
    return make_plan(labels, data, first).set_index(STUDY_UID)["split"], first


def in_several(splits):
    patients = splits.index.map(PATIENTS)
    return int((splits.groupby(patients).nunique() > 1).sum())


@pytest.mark.parametrize("group", ["patient", "PatientID"])
def test_no_patient_is_in_two_splits(cohort, group):
    by_study, _ = plan_of(cohort, None)
    assert in_several(by_study) > 2
    splits, _ = plan_of(cohort, group)
    assert in_several(splits) == 0
    assert set(splits) == set(SPLITS)


#: Of many patients, who have three studies each.
THREE_EACH = {f"{k:012x}": f"SECRET{k // 3}" for k in range(120)}


def grouped(cohort, patients):
    """Labels, and the plan by patient."""
    labels = labels_of({uid: [k % 2] for k, uid in enumerate(patients)})
    labels["patient"] = labels[STUDY_UID].map(patients)
    data = data_of(cohort, "patient")
    labels.to_csv(data["labels"], index=False)
    return labels, make_plan(labels, data, first_studies(labels, data))


@pytest.mark.parametrize("fold", range(3))
def test_no_patient_is_in_two_folds_nor_in_two_splits_of_one(cohort, fold):
    _, plan = grouped(cohort, THREE_EACH)
    splits = plan_of_fold(plan, fold, 3)["split"]
    patients = plan[STUDY_UID].map(THREE_EACH)
    assert (splits.groupby(patients).nunique() == 1).all()
    assert set(splits) == set(SPLITS)
    by_study = plan_of_fold(plan.drop(columns="group"), fold, 3)["split"]
    assert (by_study.groupby(patients).nunique() > 1).any()


def test_other_patients_in_the_same_splits_make_the_plan_anew(cohort):
    labels, plan = grouped(cohort, THREE_EACH)
    first, second = plan.loc[plan["split"] == "train", "group"].unique()[:2]
    names = {THREE_EACH[second]: THREE_EACH[first]}
    _, other = grouped(cohort, {uid: names.get(name, name) for uid, name in THREE_EACH.items()})
    assert other["split"].tolist() == plan["split"].tolist()
    digests = [
        tuple(shard["splits"] for shard in describe_shards(labels, table))
        for table in (plan, other, plan.drop(columns="group"))
    ]
    assert len(set(digests)) == 3


def test_the_files_and_a_column_give_the_same_splits(cohort):
    assert plan_of(cohort, "patient")[0].equals(plan_of(cohort, "PatientID")[0])


def test_a_patient_has_the_split_of_the_first_study_and_one_with_a_single_study_keeps_it(cohort):
    by_study, _ = plan_of(cohort, None)
    splits, first = plan_of(cohort, "patient")
    assert (splits == by_study[first[splits.index]].to_numpy()).all()
    alone = [uid for uid, who in PATIENTS.items() if list(PATIENTS.values()).count(who) == 1]
    assert splits[alone].equals(by_study[alone])


def test_appended_studies_change_no_earlier_split(cohort):
    before, _ = plan_of(cohort, "patient")
    labels = read_labels(cohort / "train.csv", None, "patient")
    more = labels.head(3).assign(patient=["SECRET1", "new", ""])
    more[STUDY_UID] = ["ffff0", "ffff1", "00000"]
    pd.concat([labels.drop(columns="uid_hash"), more.drop(columns="uid_hash")]).to_csv(
        cohort / "train.csv", index=False
    )
    after, first = plan_of(cohort, "patient")
    assert after[before.index].equals(before)
    assert first["ffff0"] == next(uid for uid, who in PATIENTS.items() if who == "SECRET1")
    # Whose a study is that has nothing there, nobody knows.
    assert "00000" not in first


def test_what_is_remembered_of_the_files_names_no_patient(cohort, monkeypatch):
    _, first = plan_of(cohort, "PatientID")
    (cache,) = (cohort / ".clotline").glob("patients.json")
    text = cache.read_text()
    assert "SECRET" not in text
    assert json.loads(text)["first"] == first.to_dict()
    # Read once: jobs need not look at all files again.
    monkeypatch.setattr("clotline.data.patients.patients_by_files", None)
    assert plan_of(cohort, "PatientID")[1].to_dict() == first.to_dict()


def test_files_are_read_again_where_links_to_them_may_be_followed(cohort):
    study = next(iter(PATIENTS))
    for path in list((cohort / "dicom" / study).rglob("*.dcm")):
        target = cohort / "elsewhere" / path.name
        target.parent.mkdir(exist_ok=True)
        path.rename(target)
        path.symlink_to(target)
    assert study not in plan_of(cohort, "PatientID")[1]
    assert study in plan_of(cohort, "PatientID", links_root=str(cohort / "elsewhere"))[1]


def test_files_that_come_later_tell_their_patients_then(cohort):
    """The first dry run may be made while a data set is still being fetched."""
    late = [uid for k, uid in enumerate(PATIENTS) if k % 3]
    for uid in late:
        (cohort / "dicom" / uid).rename(cohort / uid)
    before, first = plan_of(cohort, "PatientID")
    assert not set(late) & set(first.index)
    assert in_several(before) > 0
    for uid in late:
        (cohort / uid).rename(cohort / "dicom" / uid)
    after, first = plan_of(cohort, "PatientID")
    assert set(late) <= set(first.index)
    assert in_several(after) == 0


@pytest.mark.parametrize(("value", "what"), [("ANON", "all studies have"), ("", "no file")])
def test_files_that_tell_no_patients_apart_are_refused_with_what_to_do(cohort, value, what):
    labels = labels_of(STUDIES)
    write_study(cohort / "dicom", labels=labels, PatientID=lambda _: value)
    with pytest.raises(ClotlineError, match=f"{what}.*Name a column of the labels file, or null"):
        plan_of(cohort, "PatientID")


def test_a_column_of_patient_ids_goes_before_those_of_the_files(cohort):
    labels = pd.read_csv(cohort / "train.csv").rename(columns={"patient": "PatientID"})
    labels.to_csv(cohort / "train.csv", index=False)
    write_study(cohort / "dicom", labels=labels_of(STUDIES), PatientID=lambda _: "ANON")
    assert in_several(plan_of(cohort, "PatientID")[0]) == 0


def test_a_missing_column_and_rows_that_disagree_are_told(cohort):
    with pytest.raises(ClotlineError, match="lacks the column whose; it has"):
        plan_of(cohort, "whose")
    labels = labels_of({"1.2": [0, 1]}).assign(patient=["A", "B"])
    labels.to_csv(cohort / "train.csv", index=False)
    with pytest.raises(ClotlineError, match="line 3: patient contradicts earlier rows of study"):
        plan_of(cohort, "patient")


def test_a_column_of_splits_must_not_put_a_patient_into_two(cohort):
    labels = pd.read_csv(cohort / "train.csv", dtype={STUDY_UID: str})
    labels["part"] = [SPLITS[k % 3] for k in range(len(labels))]
    labels.to_csv(cohort / "train.csv", index=False)
    labels = read_labels(cohort / "train.csv", "part", "patient")
    data = data_of(cohort, "patient", "part")
    first = first_studies(labels, data)
    plan = make_plan(labels, data, first)
    assert plan["split"].tolist() == [SPLITS[k % 3] for k in range(40)]
    with pytest.raises(
        ClotlineError, match=r"part, puts \d+ patients into more than one split"
    ) as e:
        check_splits(plan, first, "part")
    assert "SECRET" not in str(e.value)
    check_splits(plan.assign(split="test"), first, "part")


def test_a_labels_file_of_studies_without_patients_gives_none(cohort):
    labels = pd.read_csv(cohort / "train.csv").assign(patient=" ")
    labels.to_csv(cohort / "train.csv", index=False)
    labels = read_labels(cohort / "train.csv", None, "patient")
    assert patients_by_column(labels, "patient").empty


def test_one_patient_is_written_in_several_ways(cohort):
    """As PatientID is in files: padded, and in other cases."""
    labels = labels_of({f"1.2.{k}": [0, 1] for k in range(4)})
    labels["patient"] = ["P1", "P1 ", "p1", " P1\xa0", "P2", "P2", "P1", "P1"]
    labels.to_csv(cohort / "train.csv", index=False)
    first = first_studies(
        read_labels(cohort / "train.csv", None, "patient"), data_of(cohort, "patient")
    )
    assert first.to_dict() == {
        "1.2.0": "1.2.0",
        "1.2.1": "1.2.0",
        "1.2.2": "1.2.2",
        "1.2.3": "1.2.0",
    }
