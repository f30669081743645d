import pandas as pd
import pytest

from clotline.data.accounting import check_rejects
from clotline.data.rejects import count_reasons, read_lists
from clotline.errors import ClotlineError


def test_as_many_rejects_as_allowed_pass_and_one_more_does_not():
    rejected = pd.DataFrame({"reason": ["no such file"] * 3 + ["not a DICOM file"] * 2})
    check_rejects(rejected, 1000, 0.005)
    with pytest.raises(ClotlineError) as caught:
        check_rejects(rejected, 1000, 0.004)
    message = str(caught.value)
    assert "5 of 1,000 slices were rejected" in message
    assert "data.max_rejects (0.004)" in message
    lines = [line.split(maxsplit=1) for line in message.splitlines()[1:3]]
    assert lines == [["3", "no such file"], ["2", "not a DICOM file"]]


def test_reasons_are_counted_by_what_stands_before_the_colon():
    reasons = ["no such file", "unreadable: one", "unreadable: two: three"]
    counts = count_reasons(pd.DataFrame({"reason": reasons}))
    assert counts.to_dict() == {"unreadable": 2, "no such file": 1}


def test_without_rejects_there_is_nothing_to_count_and_nothing_to_stop():
    none = pd.DataFrame({"reason": []}, dtype=str)
    assert count_reasons(none).empty
    check_rejects(none, 10, 0)


def test_lists_are_read_one_after_the_other_and_a_uid_may_be_called_na(tmp_path):
    paths = [tmp_path / "1.csv", tmp_path / "2.csv"]
    for path, uid in zip(paths, ["NA", "007"], strict=True):
        pd.DataFrame({"SOPInstanceUID": [uid], "reason": [""]}).to_csv(path, index=False)
    assert read_lists(paths).values.tolist() == [["NA", ""], ["007", ""]]
