"""Predictions made elsewhere, in both forms, and what is wrong with some."""

import zipfile

import numpy as np
import pandas as pd
import pytest
from builders import DATA, labels_of

from clotline.data.plan import make_plan
from clotline.data.tables import read_table, write_table
from clotline.errors import ClotlineError
from clotline.evaluation.external import read_external
from clotline.evaluation.predictions import PE_PRESENT, cases_by_target
from clotline.labels import IMAGE_LABEL, SOP_UID, STUDY_LABELS, STUDY_UID, UIDS

STUDIES = {"aa": [0, 1, 1], "bb": [0, 0], "cc": [1], "dd": [0, 1], "ee": [0]}
SPLITS = dict(zip(STUDIES, ("train", "valid", "test", "test", "valid"), strict=True))


@pytest.fixture(scope="module")
def plan():
    return make_plan(labels_of(STUDIES), DATA).assign(split=list(SPLITS.values()))


@pytest.fixture(scope="module")
def slices():
    table = labels_of(STUDIES)[[*UIDS, IMAGE_LABEL]]
    table["position_mm"] = np.arange(len(table)) * 2.5
    table["split"] = table[STUDY_UID].map(SPLITS)
    return table


@pytest.fixture
def long(slices):
    """Predictions of both levels, each with a probability of its own."""
    studies = [(uid, "", label) for uid in STUDIES for label in STUDY_LABELS]
    images = [(row[STUDY_UID], row[SOP_UID], IMAGE_LABEL) for _, row in slices.iterrows()]
    table = pd.DataFrame(studies + images, columns=[STUDY_UID, SOP_UID, "label"])
    return table.assign(probability=np.linspace(0, 1, len(table)).round(4)).sample(
        frac=1, random_state=0
    )


def competition_form(long):
    of_study = long[SOP_UID] == ""
    ids = (long[STUDY_UID] + "_" + long["label"]).where(of_study, long[SOP_UID])
    return pd.DataFrame({"id": ids, "label": long["probability"]})


@pytest.fixture
def read(tmp_path, slices, plan):
    def read_table(table, level="study", name="p.csv"):
        table.to_csv(tmp_path / name, index=False)
        return read_external(tmp_path / name, level, slices, plan)

    return read_table


def refusal(read, table, level="study"):
    with pytest.raises(ClotlineError) as caught:
        read(table, level)
    return str(caught.value)


@pytest.mark.parametrize("form", [lambda table: table, competition_form])
@pytest.mark.parametrize("name", ["p.csv", "p.csv.gz"])
def test_studies_stand_beside_their_truth_whatever_the_order_and_form(read, long, plan, form, name):
    table, notes = read(form(long), name=name)
    assert table[STUDY_UID].tolist() == ["bb", "cc", "dd", "ee"]
    assert table["split"].tolist() == ["valid", "test", "test", "valid"]
    assert table["negative_exam_for_pe_true"].tolist() == [1, 0, 0, 1]
    given = long.set_index([STUDY_UID, "label"])["probability"]
    for label in STUDY_LABELS:
        expected = [given[uid, label] for uid in table[STUDY_UID]]
        assert table[label].tolist() == pytest.approx(expected)
    assert notes == ["9 predictions are of no stored valid or test study: left out"]


@pytest.mark.parametrize("separator", [";", "\t", ","])
def test_what_a_spreadsheet_writes_makes_no_difference(
    read, long, slices, plan, tmp_path, separator
):
    expected, _ = read(long)
    path = tmp_path / "excel.csv"
    options = {"sep": separator, "decimal": ",", "lineterminator": "\r\n", "encoding": "utf-8-sig"}
    long.to_csv(path, index=False, **options)
    pd.testing.assert_frame_equal(read_external(path, "study", slices, plan)[0], expected)
    with zipfile.ZipFile(tmp_path / "excel.csv.zip", "w") as archive:
        archive.write(path, "excel.csv")
    packed, _ = read_external(tmp_path / "excel.csv.zip", "study", slices, plan)
    pd.testing.assert_frame_equal(packed, expected)


#: Of an overconfident model: in float32 the last three are one number.
CLOSE = ["0.99999999", "0.999999991", "0.9999999911", "1e-12", "0.1"]


@pytest.mark.parametrize("level", ["study", "image"])
def test_no_digit_of_a_probability_is_lost(read, long, tmp_path, level):
    long["probability"] = [CLOSE[number % len(CLOSE)] for number in range(len(long))]
    table, _ = read(long, level)
    write_table(table, tmp_path / "p.parquet")
    table = read_table(tmp_path / "p.parquet")
    names = STUDY_LABELS if level == "study" else [IMAGE_LABEL]
    assert {str(table[name].dtype) for name in names} == {"float64"}
    key = [SOP_UID, STUDY_UID] if level == "image" else [STUDY_UID]
    given = long.set_index([*key, "label"])["probability"]
    for name in names:
        for row in table.to_dict("records"):
            assert row[name] == float(given[(*(row[k] for k in key), name)])
    for name, cases in cases_by_target(table, level).items():
        if name in names:
            assert cases.score.tolist() == table[name].tolist()


def test_a_number_is_the_nearest_to_its_text(read, long):
    rng = np.random.default_rng(0)
    values = rng.random(len(long)) ** 9
    table, _ = read(long.assign(probability=[f"{value:.17g}" for value in values]))
    assert np.isin(table[list(STUDY_LABELS)].to_numpy(), values).all()


@pytest.mark.parametrize("form", [lambda table: table, competition_form])
def test_slices_stand_in_the_order_of_the_stored_ones(read, long, slices, form):
    table, _ = read(form(long), "image")
    stored = slices[slices["split"] != "train"]
    assert table[SOP_UID].tolist() == stored[SOP_UID].tolist()
    assert table["position_mm"].tolist() == stored["position_mm"].tolist()
    assert table[f"{IMAGE_LABEL}_true"].tolist() == stored[IMAGE_LABEL].tolist()
    given = long.set_index(SOP_UID)["probability"]
    assert table[IMAGE_LABEL].tolist() == pytest.approx(given[table[SOP_UID]].tolist())


@pytest.fixture
def numbered(slices, long):
    """Slices and predictions where each study numbers its slices from 1."""
    number = slices.groupby(STUDY_UID).cumcount().add(1).astype(str)
    new = dict(zip(slices[SOP_UID], number, strict=True)) | {"": ""}
    return slices.assign(**{SOP_UID: number}), long.assign(**{SOP_UID: long[SOP_UID].map(new)})


def test_slices_of_two_studies_with_one_sop_uid_are_told_apart(tmp_path, numbered, plan):
    slices, table = numbered
    table.to_csv(tmp_path / "p.csv", index=False)
    found, _ = read_external(tmp_path / "p.csv", "image", slices, plan)
    stored = slices[slices["split"] != "train"]
    assert found[SOP_UID].tolist() == stored[SOP_UID].tolist()
    given = table.set_index([STUDY_UID, SOP_UID])["probability"]
    expected = given[pd.MultiIndex.from_frame(found[[STUDY_UID, SOP_UID]])]
    assert found[IMAGE_LABEL].tolist() == pytest.approx(expected.tolist())


def test_a_form_that_cannot_tell_them_apart_is_refused(tmp_path, numbered, plan):
    slices, table = numbered
    form = competition_form(table[table[STUDY_UID] == "cc"])
    form.to_csv(tmp_path / "p.csv", index=False)
    shared = "6 stored slices share their SOPInstanceUID with another, as 1,"
    with pytest.raises(ClotlineError, match=shared):
        read_external(tmp_path / "p.csv", "image", slices, plan)


def test_without_predictions_for_valid_the_test_studies_remain(read, long):
    table, notes = read(long[~long[STUDY_UID].isin(["bb", "ee"])])
    assert table[STUDY_UID].tolist() == ["cc", "dd"]
    assert (
        "no predictions for the valid split: no operating points but those of evaluation.thresholds"
    ) in notes


def test_a_reader_of_pe_alone_is_taken(read, plan):
    """Some studies, one label, and no more."""
    given = pd.DataFrame(
        {STUDY_UID: ["ee", "dd"], "label": "pe_present", "probability": [0.25, 0.75]}
    )
    table, notes = read(given)
    assert table[STUDY_UID].tolist() == ["dd", "ee"]
    assert table[PE_PRESENT].tolist() == [0.75, 0.25]
    assert not set(STUDY_LABELS) & set(table)
    assert table["negative_exam_for_pe_true"].tolist() == [0, 1]
    assert [note.partition(":")[0] for note in notes] == [
        "predictions for 1 of 2 valid studies",
        "predictions for 1 of 2 test studies",
    ]
    assert set(cases_by_target(table, "study")) == {PE_PRESENT}


def test_a_reader_of_some_labels_has_those_targets(read, long):
    labels = ["negative_exam_for_pe", "indeterminate", "central_pe"]
    table, _ = read(long[long["label"].isin(labels)])
    assert list(cases_by_target(table, "study")) == [PE_PRESENT, *labels[:1], *labels[:0:-1]]
    table, _ = read(long[long["label"] == "central_pe"])
    assert set(cases_by_target(table, "study")) == {"central_pe"}


def test_slices_of_some_studies_are_taken_and_of_these_all(read, long, slices):
    of_dd = slices.loc[slices[STUDY_UID] == "dd", SOP_UID]
    table, notes = read(long[long[SOP_UID].isin(of_dd)], "image")
    assert table[SOP_UID].tolist() == of_dd.tolist()
    assert "predictions for 1 of 2 test studies" in notes[1]
    assert "lacks 1 of 2 predictions" in refusal(
        read, long[long[SOP_UID] == of_dd.iloc[0]], "image"
    )


def test_a_file_of_other_studies_is_refused(read, long):
    other = long.assign(**{STUDY_UID: "x" + long[STUDY_UID]})
    assert "names none of the 2 stored test studies, such as cc" in refusal(read, other)


def test_percentages_and_logits_are_named(read, long):
    percent = refusal(read, long.assign(probability=100 * long["probability"]))
    assert "these look like percentages: divide them by 100" in percent
    logits = refusal(read, long.assign(probability=8 * long["probability"] - 4))
    assert "these look like logits" in logits


def test_without_valid_studies_no_predictions_for_them_are_missed(tmp_path, slices, plan, long):
    path = tmp_path / "p.csv"
    long.to_csv(path, index=False)
    slices, plan = (table.assign(split="test") for table in (slices, plan))
    table, notes = read_external(path, "study", slices, plan)
    assert table[STUDY_UID].tolist() == list(STUDIES)
    assert notes == []


def test_a_missing_prediction_is_named(read, long):
    missing = (long[STUDY_UID] == "dd") & (long["label"] == "central_pe")
    message = refusal(read, long[~missing])
    assert "lacks 1 of 36 predictions at the study level" in message
    assert f"central_pe of {STUDY_UID} dd in the test split" in message


@pytest.mark.parametrize("value", ["1.01", "-0.1", "nan", "", "high"])
def test_a_value_that_is_no_probability_is_named_with_its_line(read, long, value):
    table = long.astype({"probability": str})
    table.iloc[3, table.columns.get_loc("probability")] = value
    assert f"line 5: the probability {value!r} must be a number from 0 to 1" in refusal(read, table)


def test_empty_lines_are_counted_and_left_out(read, tmp_path, slices, plan, long):
    studies = long[long["label"] != IMAGE_LABEL]
    expected, _ = read(studies)
    path = tmp_path / "q.csv"
    head, *rows = studies.to_csv(index=False).splitlines()
    path.write_text("\n".join([head, "", *rows[:3], "", *rows[3:], ""]))
    assert read_external(path, "study", slices, plan)[0].equals(expected)
    rows[4] = rows[4].rpartition(",")[0] + ",2"
    path.write_text("\n".join([head, "", *rows[:3], "", *rows[3:]]))
    with pytest.raises(ClotlineError, match="line 8: the probability '2' must be"):
        read_external(path, "study", slices, plan)


def test_rows_that_are_longer_than_the_header_are_refused(tmp_path, slices, plan, long):
    path = tmp_path / "p.csv"
    head, *rows = long.to_csv(index=False).splitlines()
    path.write_text("\n".join([head, *(f"{row}," for row in rows)]))
    with pytest.raises(ClotlineError, match="its rows have more cells than its header"):
        read_external(path, "study", slices, plan)


def test_an_unknown_label_is_named_with_its_line(read, long):
    table = long.replace({"label": {"central_pe": "centralpe"}})
    assert ": centralpe is no label; there are pe_present, negative_exam_for_pe" in refusal(
        read, table
    )


def test_a_prediction_twice_is_named_with_its_line(read, long):
    row = long[long["label"] == "central_pe"].iloc[:1]
    message = refusal(read, pd.concat([long, row]))
    assert f"line {len(long) + 2}: central_pe stands twice (1 such rows)" in message


def test_slices_need_their_uid(read, long):
    message = refusal(read, long.drop(columns=SOP_UID), "image")
    assert f"{IMAGE_LABEL} needs the column {SOP_UID}" in message


def test_a_file_without_the_level_says_so(read, long):
    studies = long[long["label"] != IMAGE_LABEL]
    assert "has no predictions at the image level" in refusal(read, studies, "image")


def test_other_columns_are_named_beside_those_needed(read):
    message = refusal(read, pd.DataFrame({"uid": ["aa"], "p": [0.5]}))
    assert "has the columns uid, p; it needs StudyInstanceUID, label, probability" in message


def test_a_missing_file_and_an_empty_one_are_named(tmp_path, slices, plan):
    path = tmp_path / "p.csv"
    with pytest.raises(ClotlineError, match="there is no file of predictions"):
        read_external(path, "study", slices, plan)
    path.write_text("")
    with pytest.raises(ClotlineError, match="cannot be read as a CSV"):
        read_external(path, "study", slices, plan)
