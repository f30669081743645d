from builders import labels_of

from clotline.data.consistency import inconsistent_studies

KEPT = {"aa": [0, 1, 0], "bb": [0, 0], "cc": [1]}


def changed(study, **labels):
    table = labels_of(KEPT)
    for name, value in labels.items():
        table.loc[table["StudyInstanceUID"] == study, name] = value
    return inconsistent_studies(table)


def test_studies_that_keep_to_the_rules_are_not_named():
    assert inconsistent_studies(labels_of(KEPT)) == []


def test_studies_that_break_a_rule_are_named():
    assert changed("aa", negative_exam_for_pe=1) == ["aa"]
    assert changed("aa", central_pe=0) == ["aa"]
    assert changed("aa", rv_lv_ratio_gte_1=1) == ["aa"]
    assert changed("bb", leftsided_pe=1) == ["bb"]
    assert changed("bb", negative_exam_for_pe=0) == ["bb"]
    assert changed("cc", pe_present_on_image=0) == ["cc"]


def test_the_order_of_rows_makes_no_difference():
    table = labels_of(KEPT)
    table.loc[table["StudyInstanceUID"] == "aa", "central_pe"] = 0
    assert inconsistent_studies(table.iloc[[3, 0, 5, 4, 1, 2]]) == ["aa"]
