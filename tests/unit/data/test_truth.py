"""Which studies of a cohort count, and what is true of them."""

import numpy as np
import pandas as pd
import pytest
import scipy.io

from clotline.data.cohort import EXCLUDED_COLUMNS, PE_PRESENT, match_labels, read_cohort
from clotline.data.truth import cohort_digests, settle
from clotline.errors import ClotlineError
from clotline.labels import IMAGE_LABEL, SERIES_UID, SOP_UID, STUDY_UID
from clotline.workflow.cohort_description import load_description

NOTHING_SEEN = np.zeros(0, np.uint64), np.zeros(0, np.uint64)
NO_LISTS = (
    pd.DataFrame({STUDY_UID: [], "chosen": [], "reason": []}).astype({"chosen": bool}),
    pd.DataFrame({"path": [], "reason": []}, dtype=str),
)


def slices_of(*names, count=3):
    """Stored slices of studies whose UID is 1.<name> and whose files lie in <name>/."""
    rows = [(name, k) for name in names for k in range(count)]
    return pd.DataFrame(
        {
            STUDY_UID: [f"1.{name}" for name, _ in rows],
            SERIES_UID: "s",
            SOP_UID: [f"sop{k}" for _, k in rows],
            "path": [f"{name}/D{k}.dcm" for name, k in rows],
            "frame": 0,
            "position_mm": [2.5 * k for _, k in rows],
            "checksum": np.arange(100, 100 + len(rows), dtype=np.uint64),
        }
    )


def settled(folder, text, *names, seen=NOTHING_SEEN, stored=None, planned=None, **keys):
    if text is not None:
        (folder / "labels.csv").write_text(text)
    description = load_description(folder, None) | keys
    cohort = read_cohort(folder, description)
    rows = slices_of(*names) if planned is None else planned
    matched = match_labels(cohort, rows, *NO_LISTS, description, 0.3)
    stored = rows if stored is None else stored
    slices = stored.drop(columns=["path", "frame"])
    return settle(cohort, matched.labels, matched.rows, slices, folder, description, seen)


def present(truth):
    return truth.studies.set_index(STUDY_UID)[PE_PRESENT].to_dict()


def test_labels_of_studies_alone_leave_slices_unknown(tmp_path):
    truth = settled(tmp_path, "study,PE\na,1\nb,0\n", "a", "b")
    assert present(truth) == {"1.a": 1, "1.b": 0}
    assert (truth.slices[IMAGE_LABEL] == -1).all() and len(truth.slices) == 6
    assert truth.notes == []


def test_labels_of_slices_go_to_their_slices_by_uid_or_by_file(tmp_path):
    for column, names in (("uid", ["sop0", "sop1", "sop2"]), ("file", ["D0.dcm", "D1", "D2.dcm"])):
        lines = [f"a,{name},{label}" for name, label in zip(names, (0, 1, 0), strict=True)]
        lines += [f"b,{name},0" for name in names]
        text = "\n".join([f"study,{column},label", *lines])
        keys = {"labels": {PE_PRESENT: "label"}, "slice": column}
        truth = settled(tmp_path, text, "a", "b", **keys)
        assert truth.slices[IMAGE_LABEL].tolist() == [0, 1, 0, 0, 0, 0]
        assert present(truth) == {"1.a": 1, "1.b": 0}


@pytest.mark.parametrize("ending", ["dcm", "DCM", "IMA"])
def test_files_of_slices_may_have_endings_in_capitals(tmp_path, ending):
    stored = slices_of("a").assign(path=[f"a/D{k}.{ending}" for k in range(3)])
    text = "study,file,label\na,D0,0\na,D1,1\na,D2,0\n"
    keys = {"labels": {PE_PRESENT: "label"}, "slice": "file"}
    truth = settled(tmp_path, text, "a", planned=stored, **keys)
    assert truth.slices[IMAGE_LABEL].tolist() == [0, 1, 0]


def test_labels_that_name_no_slice_are_counted(tmp_path):
    text = "study,uid,label\na,sop0,0\na,sop1,1\na,of another series,0\na,and another,\nb,x,0\n"
    keys = {"labels": {PE_PRESENT: "label"}, "slice": "uid"}
    # A slice that was rejected has a label too.
    truth = settled(tmp_path, text, "a", "b", stored=slices_of("a", "b").drop(index=1), **keys)
    assert truth.notes[0] == (
        "2 labels of slices do not count, of 2 studies: they name no slice of the scan that was "
        "taken"
    )
    assert truth.slices[IMAGE_LABEL].tolist() == [0, -1, -1, -1, -1]


def write_masks(folder, **marked):
    for name, slices in marked.items():
        mask = np.zeros((4, 4, 3), np.uint8)
        mask[1, 1, slices] = 1
        scipy.io.savemat(folder / f"{name}.mat", {"Mask": mask})


MASKS = {"masks": "{study}.mat", "mask_order": "file names"}


def test_masks_alone_label_slices_and_studies(tmp_path):
    write_masks(tmp_path, a=[1], b=[])
    truth = settled(tmp_path, None, "a", "b", table=None, **MASKS)
    assert present(truth) == {"1.a": 1, "1.b": 0}
    assert truth.slices[IMAGE_LABEL].tolist() == [0, 1, 0, 0, 0, 0]


def test_a_mask_that_does_not_fit_costs_its_study_only_where_nothing_else_labels_it(tmp_path):
    write_masks(tmp_path, a=[1])
    (tmp_path / "b.mat").write_bytes(b"damaged" * 99)
    truth = settled(tmp_path, None, "a", "b", table=None, **MASKS)
    assert present(truth) == {"1.a": 1}
    (row,) = truth.excluded.to_dict("records")
    assert row[STUDY_UID] == "1.b" and row["labels"] == "b.mat"
    assert row["reason"].startswith("its mask cannot be used: ")
    truth = settled(tmp_path, "study,PE\na,1\nb,0\n", "a", "b", **MASKS)
    assert present(truth) == {"1.a": 1, "1.b": 0}
    assert truth.slices.loc[truth.slices[STUDY_UID] == "1.b", IMAGE_LABEL].eq(-1).all()
    assert any("its slices do not count" in note for note in truth.notes)


def test_slices_that_contradict_the_table_are_listed(tmp_path):
    write_masks(tmp_path, a=[1], b=[0])
    truth = settled(tmp_path, "study,PE\na,1\nb,0\n", "a", "b", **MASKS)
    assert present(truth) == {"1.a": 1}
    assert truth.excluded["reason"].tolist() == [
        "contradicting labels: the table says that there is no PE, and slices show one"
    ]


def test_studies_that_were_trained_on_do_not_count(tmp_path):
    seen = np.zeros(0, np.uint64), np.array([100, 101], np.uint64)
    truth = settled(tmp_path, "study,PE\na,1\nb,0\n", "a", "b", seen=seen)
    assert present(truth) == {"1.b": 0}
    assert truth.excluded.columns.tolist() == list(EXCLUDED_COLUMNS)
    assert truth.excluded["labels"].tolist() == ["labels.csv, line 2"]
    assert truth.excluded["reason"][0].startswith("trained on: 2 of its 3 slices")
    everything = np.zeros(0, np.uint64), np.arange(100, 106, dtype=np.uint64)
    with pytest.raises(ClotlineError, match=r"none of 2 studies.*can count; of the first: trained"):
        settled(tmp_path, "study,PE\na,1\nb,0\n", "a", "b", seen=everything)


@pytest.mark.parametrize(("label", "only"), [(0, "negative"), (1, "positive")])
def test_a_cohort_of_one_class_is_told(tmp_path, label, only):
    truth = settled(tmp_path, f"study,PE\na,{label}\nb,{label}\n", "a", "b")
    (note,) = truth.notes
    assert note.startswith(f"all 2 studies are {only}")


def test_a_cohort_is_told_by_its_slices_and_its_labels(tmp_path):
    first = settled(tmp_path, "study,PE\na,1\nb,0\n", "a", "b")
    other = settled(tmp_path, "study,PE\na,0\nb,0\n", "a", "b")
    slices = slices_of("a", "b")
    of_first, of_other = (cohort_digests(truth, slices) for truth in (first, other))
    assert of_first["slices of the cohort"] == of_other["slices of the cohort"]
    assert of_first["labels of the cohort"] != of_other["labels of the cohort"]
    # Not by the order in which they lie, nor by what else was stored.
    turned = pd.concat([slices[::-1], slices_of("c")])
    assert cohort_digests(first, turned) == of_first
    changed = slices.assign(checksum=slices["checksum"] + 1)
    found = cohort_digests(first, changed)
    assert found["slices of the cohort"] != of_first["slices of the cohort"]
