import pandas as pd
import pytest

from clotline.data.rejects import REFUSED, REJECT_COLUMNS, read_lists, read_series
from clotline.data.series import SERIES_COLUMNS
from clotline.data.unpredicted import (
    UNPREDICTED_COLUMNS,
    describe_account,
    list_unpredicted,
    nothing_predicted,
)
from clotline.errors import ClotlineError
from clotline.labels import SERIES_UID, STUDY_UID, UIDS


def series_of(*rows):
    """A table of series: study, slices, whether it was chosen, and the reason."""
    columns = [STUDY_UID, "slices", "chosen", "reason"]
    table = pd.DataFrame(rows, columns=columns)
    return table.reindex(columns=list(SERIES_COLUMNS), fill_value="")


def rejects_of(*rows):
    """Rejected slices: study and reason."""
    table = pd.DataFrame(rows, columns=[STUDY_UID, "reason"])
    return table.reindex(columns=list(REJECT_COLUMNS), fill_value="")


SERIES = series_of(
    ("1", 40, True, "the only axial CT scan"),
    ("2", 2, False, "a localizer, not a slice"),
    ("2", 12, False, "too few slices: 12; at least 16 are needed"),
    ("3", 9, False, "too few slices: 9; at least 16 are needed"),
    ("4", 30, True, "the best of 2 axial CT scans"),
    ("4", 40, False, "series 4.1 was preferred"),
    ("5", 30, True, "the only axial CT scan"),
)
REJECTS = rejects_of(
    ("1", "no PixelData"),
    ("4", "no PixelData"),
    *[("4", "pixels cannot be decoded: too short")] * 29,
    *[("5", f"{REFUSED}: thick slices: 5 mm, where up to 3 mm is usual")] * 30,
)


def test_each_study_without_a_prediction_has_its_files_and_a_reason():
    table = list_unpredicted(SERIES, REJECTS, {"1"})
    assert tuple(table.columns) == UNPREDICTED_COLUMNS
    assert table.values.tolist() == [
        ["2", 14, "too few slices: 12; at least 16 are needed"],
        ["3", 9, "too few slices: 9; at least 16 are needed"],
        ["4", 70, "undecodable: pixels cannot be decoded: too short"],
        ["5", 30, f"{REFUSED}: thick slices: 5 mm, where up to 3 mm is usual"],
    ]
    assert describe_account(1, table, "list.csv") == (
        "1 predicted, 4 not: 2 too few slices, 1 undecodable, 1 refused by predict_strict "
        "(listed in list.csv)"
    )


def test_where_every_study_is_predicted_the_list_is_empty():
    table = list_unpredicted(SERIES[:1], REJECTS[:0], ["1"])
    assert (tuple(table.columns), len(table)) == (UNPREDICTED_COLUMNS, 0)
    assert describe_account(1234, table, "list.csv") == "1,234 predicted, 0 not"


def test_lists_that_are_not_of_one_run_are_an_error():
    with pytest.raises(ClotlineError, match=r"such as 6: delete what the run has written"):
        list_unpredicted(SERIES, REJECTS, {"1", "6"})
    with pytest.raises(ClotlineError, match="no slice was stored or rejected"):
        list_unpredicted(SERIES, REJECTS[:0], {"1"})


def test_where_none_is_predicted_the_list_is_written_and_the_error_counts(tmp_path):
    path = tmp_path / "results/unpredicted.csv"
    path.parent.mkdir()
    error = nothing_predicted(ClotlineError("no CTPA"), SERIES[1:4], REJECTS[:0], str(path))
    assert str(error) == f"no CTPA\n0 predicted, 2 not: 2 too few slices (listed in {path})"
    assert read_lists([path])[STUDY_UID].tolist() == ["2", "3"]


def test_a_list_of_series_is_read_as_it_was_written(tmp_path):
    odd = SERIES.assign(**dict.fromkeys(UIDS, "NA"), blood_hu=["", "312", *[""] * 5])
    odd[list(SERIES_COLUMNS)].to_csv(tmp_path / "series.csv", index=False)
    table = read_series(tmp_path / "series.csv")
    assert table["chosen"].tolist() == SERIES["chosen"].tolist()
    assert table["slices"].tolist() == SERIES["slices"].tolist()
    assert set(table[SERIES_UID]) == {"NA"}
    assert table["blood_hu"].tolist() == ["", "312", *[""] * 5]
