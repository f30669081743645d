import gzip
import time
import zipfile

import pytest
from builders import labels_of

from clotline.data import labels_file
from clotline.data.labels_file import read_labels
from clotline.errors import ClotlineError
from clotline.labels import COLUMNS, IMAGE_LABEL, SERIES_UID, SOP_UID, STUDY_UID

LABELS = labels_of({"aa": [0, 1, 0], "bb": [0, 0], "cc": [1]})


def write(folder, table=LABELS, **options):
    path = folder / "train.csv"
    table.to_csv(path, index=False, **options)
    return path


def message_of(path, split_column=None):
    with pytest.raises(ClotlineError) as caught:
        read_labels(path, split_column)
    assert str(path) in str(caught.value)
    return str(caught.value)


def changed(row, column, value, table=LABELS):
    table = table.astype({column: object})
    table.loc[row, column] = value
    return table


def test_a_good_file_is_read_as_it_is(tmp_path):
    labels = read_labels(write(tmp_path))
    assert labels[STUDY_UID].tolist() == ["aa", "aa", "aa", "bb", "bb", "cc"]
    assert labels[IMAGE_LABEL].dtype == "int8"
    assert labels[list(COLUMNS)].astype(str).equals(LABELS.astype(str))


def test_windows_line_ends_a_byte_order_mark_and_gzip_make_no_difference(tmp_path):
    plain = read_labels(write(tmp_path))
    assert read_labels(write(tmp_path, lineterminator="\r\n")).equals(plain)
    assert read_labels(write(tmp_path, encoding="utf-8-sig")).equals(plain)
    packed = tmp_path / "train.csv.gz"
    packed.write_bytes(gzip.compress(write(tmp_path).read_bytes()))
    assert read_labels(packed).equals(plain)


@pytest.mark.parametrize("separator", [";", "\t"])
def test_what_a_spreadsheet_writes_makes_no_difference(tmp_path, separator):
    plain = read_labels(write(tmp_path))
    table = LABELS.assign(remark="one, two; three\tfour")
    found = write(tmp_path, table, sep=separator, lineterminator="\r\n", encoding="utf-8-sig")
    assert read_labels(found).equals(plain)
    wrong = write(tmp_path, changed(3, "qa_motion", 7, table), sep=separator)
    assert "line 5: qa_motion is '7'" in message_of(wrong)


def test_kaggles_zip_file_makes_no_difference(tmp_path):
    plain = read_labels(write(tmp_path))
    path = tmp_path / "train.csv.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(tmp_path / "train.csv", "train.csv")
    assert read_labels(path).equals(plain)


@pytest.mark.parametrize("content", [b"", b"PK", b"plain text"])
def test_a_damaged_zip_file_is_refused(tmp_path, content):
    path = tmp_path / "train.csv.zip"
    path.write_bytes(content)
    assert "cannot be read" in message_of(path)


def reports(rows, size):
    """Reports with line ends, quotes and separators, of so many characters each."""
    line = 'No filling defect, "as far as seen"; see above.\r\nSigned: ä\n\n'
    return [(line * (size // len(line) + 1))[:size] + str(row) for row in range(rows)]


@pytest.mark.parametrize("size", [300, 3_000, 900_000])
def test_reports_of_any_size_are_read_over(tmp_path, size):
    """Beyond the 1 MiB that are parsed at a time, and one alone beyond that."""
    studies = {f"{n:012x}": [0, 1] for n in range(3 * 2**20 // (2 * size) + 1)}
    table = labels_of(studies)
    texts = reports(len(table), size)
    texts[1] *= 3_000_000 // size
    plain = read_labels(write(tmp_path, table))
    assert read_labels(write(tmp_path, table.assign(report=texts))).equals(plain)
    turned = table.assign(report=texts)[["report", *COLUMNS]]
    assert read_labels(write(tmp_path, turned)).equals(plain)
    # A mistake behind them is named by the line it begins on.
    last = len(table) - 1
    wrong = write(tmp_path, changed(last, "qa_motion", 2, table.assign(report=texts)))
    with wrong.open(encoding="utf-8", newline="") as file:
        lines = sum(len(text.splitlines()) - 1 for text in texts[:-1])
        assert last + 2 + lines == line_of(file, table[SOP_UID].iloc[last])
    assert f"line {last + 2 + lines}: qa_motion is '2'" in message_of(wrong)


def line_of(file, text):
    return next(n for n, line in enumerate(file.read().splitlines(), 1) if text in line)


def test_a_short_row_behind_reports_is_named_by_its_line(tmp_path):
    path = write(tmp_path, LABELS.assign(report="one\ntwo"))
    text = path.read_text()
    path.write_text(text + "aa,aa.1,aa.1.9,0\n")
    line = len(text.splitlines()) + 1
    assert f"line {line}: 4 cells where the header has 18" in message_of(path)


def test_the_order_of_columns_makes_no_difference_and_further_ones_are_left_out(tmp_path):
    plain = read_labels(write(tmp_path))
    turned = LABELS[list(COLUMNS[::-1])].assign(comment="x, y")
    assert read_labels(write(tmp_path, turned)).equals(plain)


@pytest.mark.parametrize("uid", ["123456789012", "12345e678901", "000000000001", "1e5", "0x12"])
def test_uids_that_look_like_numbers_stay_text(tmp_path, uid):
    labels = read_labels(write(tmp_path, labels_of({uid: [0, 1]})))
    assert labels[STUDY_UID].tolist() == [uid, uid]


@pytest.mark.parametrize("uid", ["NA", "nan", "null"])
def test_uids_that_look_like_missing_values_stay_text(tmp_path, uid):
    assert read_labels(write(tmp_path, labels_of({uid: [0]})))[STUDY_UID].tolist() == [uid]


def test_a_missing_file_is_named_with_the_key(tmp_path):
    assert "data.labels" in message_of(tmp_path / "none.csv")


def test_a_missing_column_is_named_beside_those_there(tmp_path):
    message = message_of(write(tmp_path, LABELS.drop(columns=["central_pe", "qa_motion"])))
    assert "lacks the column qa_motion, central_pe" in message
    assert "it has StudyInstanceUID" in message


def test_a_missing_split_column_is_named(tmp_path):
    assert "lacks the column part" in message_of(write(tmp_path), "part")


def test_a_header_without_rows_is_refused(tmp_path):
    assert "has no rows" in message_of(write(tmp_path, LABELS[:0]))


def test_an_empty_file_is_refused(tmp_path):
    path = tmp_path / "train.csv"
    path.touch()
    assert "is not a CSV with a header line" in message_of(path)


def test_a_row_with_too_few_fields_is_shown(tmp_path):
    path = write(tmp_path)
    lines = path.read_text().splitlines()
    lines[3] = lines[3].rsplit(",", 2)[0]
    path.write_text("\n".join(lines))
    assert message_of(path) == f"{path}, line 4: 15 cells where the header has 17"


NO_LABELS = ["2", "-1", "-0", "+1", " 1", "01", "1.0", "0.5", "1e0", "0x1", "9" * 30]
NO_LABELS += ["", "yes", "TRUE", "NaN", "=1", "\u0661"]


@pytest.mark.parametrize("value", NO_LABELS)
def test_a_value_that_is_no_label_is_named_with_its_line(tmp_path, value):
    message = message_of(write(tmp_path, changed(3, "qa_motion", value)))
    assert "line 5: qa_motion is " in message
    assert value in message
    assert "must be 0 or 1" in message


def test_of_many_bad_lines_the_first_five_are_listed(tmp_path):
    table = labels_of({"aa": [0] * 8})
    table[IMAGE_LABEL] = 3
    assert "line 2, 3, 4, 5, 6 and 3 more:" in message_of(write(tmp_path, table))


NO_UIDS = ["..", "1..2", "../../x", "a/b", "/etc", "a\\b", "C:\\a", ".hidden", "~", "$HOME", "*"]
NO_UIDS += ["", "a b", "a,b", 'a"b', "a\n", "a\r\n", "a\t", "a\0", "\x1b[31ma", "a\u202e"]
NO_UIDS += ["\ufeffa", "\uff41", "é", "=1+1", "+1", "-1", "@SUM(A1)", '=HYPERLINK("http://a")']


@pytest.mark.parametrize("column", [STUDY_UID, SERIES_UID, SOP_UID])
@pytest.mark.parametrize("uid", NO_UIDS)
def test_a_uid_that_could_leave_the_data_folder_is_refused(tmp_path, column, uid):
    message = message_of(write(tmp_path, changed(1, column, uid)))
    assert f"line 3: {column} {uid!r} is no usable UID" in message


def test_a_uid_of_more_than_64_characters_is_refused(tmp_path):
    read_labels(write(tmp_path, changed(5, STUDY_UID, "1" * 64)))
    assert "line 7" in message_of(write(tmp_path, changed(5, STUDY_UID, "1" * 65)))


@pytest.mark.parametrize("uid", ["1.2.3#1", "1.2.3#999999"])
def test_a_frame_of_an_enhanced_ct_file_is_named_by_its_number(tmp_path, uid):
    assert read_labels(write(tmp_path, changed(1, SOP_UID, uid)))[SOP_UID][1] == uid
    for column in (STUDY_UID, SERIES_UID):
        assert "is no usable UID" in message_of(write(tmp_path, changed(1, column, uid)))


@pytest.mark.parametrize(
    "uid", ["1.2#0", "1.2#", "#1", "1.2#1#2", "1.2#01", "1.2#1/..", "1.2#1000000"]
)
def test_what_is_no_number_of_a_frame_is_refused(tmp_path, uid):
    assert "is no usable UID" in message_of(write(tmp_path, changed(1, SOP_UID, uid)))


def test_a_slice_that_stands_twice_is_named_with_its_second_line(tmp_path):
    table = LABELS.iloc[[0, 1, 2, 3, 1, 4]]
    message = message_of(write(tmp_path, table))
    assert f"line 6: {SOP_UID} aa.1.1 stands twice" in message


def test_slices_of_different_studies_may_share_a_name(tmp_path):
    assert len(read_labels(write(tmp_path, changed(3, SOP_UID, "aa.1.0")))) == len(LABELS)


def test_rows_of_one_study_that_contradict_each_other_are_refused(tmp_path):
    message = message_of(write(tmp_path, changed(2, "central_pe", 0)))
    assert "line 4: central_pe contradicts earlier rows of study aa" in message


def test_a_contradiction_is_found_where_a_studys_rows_do_not_lie_together(tmp_path):
    table = changed(2, "central_pe", 0).iloc[[0, 3, 5, 1, 2, 4]]
    message = message_of(write(tmp_path, table))
    assert "line 6: central_pe contradicts earlier rows of study aa" in message


def test_the_image_label_may_differ_within_a_study(tmp_path):
    assert read_labels(write(tmp_path))[IMAGE_LABEL].tolist() == [0, 1, 0, 0, 0, 1]


def test_a_split_column_is_read_and_checked(tmp_path):
    split = ["train"] * 3 + ["valid"] * 2 + ["test"]
    table = LABELS.assign(part=split)
    assert read_labels(write(tmp_path, table), "part")["part"].tolist() == split
    message = message_of(write(tmp_path, changed(5, "part", "holdout", table)), "part")
    assert "line 7: part is 'holdout'; it must be train, valid, test" in message


def test_a_study_in_two_splits_is_refused(tmp_path):
    table = LABELS.assign(part=["train", "test", "train", "valid", "valid", "test"])
    message = message_of(write(tmp_path, table), "part")
    assert "line 3: part contradicts earlier rows of study aa" in message


def test_a_positive_slice_in_a_negative_exam_is_named_with_its_line(tmp_path):
    message = message_of(write(tmp_path, changed(4, IMAGE_LABEL, 1)))
    assert "line 6: pe_present_on_image is 1 in a study whose negative_exam_for_pe is 1" in message


def test_line_numbers_count_empty_lines_and_lines_within_quotes(tmp_path):
    path = write(tmp_path, LABELS.assign(comment="one\ntwo"))
    text = path.read_text().splitlines(keepends=True)
    path.write_text("".join([text[0], "\n\n", *text[1:5], "\n", *text[5:]]).replace("bb", "b b"))
    lines = path.read_text().splitlines()
    places = [n for n, line in enumerate(lines, start=1) if line.startswith("b b")]
    assert len(places) == 2
    assert f"line {places[0]}, {places[1]}: StudyInstanceUID 'b b'" in message_of(path)


def test_empty_lines_make_no_difference(tmp_path):
    plain = read_labels(write(tmp_path))
    path = tmp_path / "train.csv"
    path.write_text(path.read_text().replace("\n", "\n\n"))
    assert read_labels(path).equals(plain)


def test_line_ends_of_old_computers_make_no_difference(tmp_path):
    plain = read_labels(write(tmp_path))
    assert read_labels(write(tmp_path, lineterminator="\r")).equals(plain)


def latin_1(text):
    return text.replace("bb,", "b\xe9,").encode("latin-1")


def packed(text):
    return gzip.compress(text.encode())


def other(old, new, count=-1):
    return lambda text: text.replace(old, new, count).encode()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.encode("utf-16"), "line 1: byte 1 is no UTF-8 text"),
        (latin_1, "line 5: byte 2 is no UTF-8 text"),
        (packed, "its name must end in .gz"),
        (lambda text: bytes(1000), "is not a CSV with a header line"),
        (lambda text: text.split("\n", 1)[1].encode(), "lacks the column"),
        (lambda text: (text.split("\n")[0] + "\n" + text).encode(), "line 2: pe_present_on_image"),
        (other(",", ":"), "lacks the column StudyInstanceUID"),
        (other("qa_motion", "central_pe"), "has 2 columns central_pe"),
        (other("aa,", '"aa,', 1), "cells where the header has 17"),
        (other(",0\naa", ",0,9\naa", 1), "line 2: 18 cells where the header has 17"),
        (
            other("aa,", "a" * 9_000_000 + ",", 1),
            "9,000,000 characters, and the labels file",
        ),
    ],
)
def test_a_damaged_file_is_refused_with_what_is_wrong(tmp_path, change, message):
    path = write(tmp_path)
    path.write_bytes(change(path.read_text()))
    assert message in message_of(path)


def test_damaged_gzip_files_are_refused(tmp_path):
    whole = packed(write(tmp_path).read_text())
    path = tmp_path / "train.csv.gz"
    changed = whole[:60] + bytes(9) + whole[69:]
    for content in (whole[:-20], whole[:100], b"", b"plain text", changed):
        path.write_bytes(content)
        message_of(path)


def test_what_is_no_readable_file_is_refused(tmp_path):
    assert "cannot be read" in message_of(tmp_path)
    link = tmp_path / "link.csv"
    link.symlink_to("nowhere.csv")
    assert "there is no labels file" in message_of(link)


def test_the_time_to_read_grows_no_faster_than_the_rows(tmp_path):
    header = ",".join(COLUMNS) + "\n"
    seconds = []
    for studies in (100, 1000):
        rows = (f"{n:012x},{n:012x},{n:06x}{k:06x},0,1" for n in range(studies) for k in range(246))
        path = tmp_path / "train.csv"
        path.write_text(header + "".join(row + ",0" * 12 + "\n" for row in rows))
        start = time.process_time()
        assert len(read_labels(path)) == 246 * studies
        seconds.append(time.process_time() - start)
    assert seconds[1] < 20 * max(seconds[0], 0.05)


def test_a_gzip_bomb_is_refused_by_its_unpacked_size(tmp_path, monkeypatch):
    path = tmp_path / "train.csv.gz"
    path.write_bytes(gzip.compress(bytes(5_000_000)))
    monkeypatch.setattr(labels_file, "MAX_BYTES", 4_000_000)
    with pytest.raises(ClotlineError, match="more than 4,000,000 bytes when unpacked"):
        read_labels(path)
