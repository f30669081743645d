import csv
import gzip
import zipfile

import pytest

from clotline.data.csv_file import delimiter_of, open_csv, rows_of
from clotline.errors import ClotlineError

TEXT = 'a,b\n1,"two\nlines"\n\n3,4\n'


def pack(path, **members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(name.replace("__MACOSX_", "__MACOSX/"), text)
    return path


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.csv.zip"])
def test_a_file_is_read_however_it_is_packed(tmp_path, name):
    path = tmp_path / name
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(TEXT.encode()))
    elif name.endswith(".zip"):
        pack(path, **{"train.csv": TEXT, "__MACOSX_train.csv": "x", "README.txt": "x"})
    else:
        path.write_text(TEXT)
    with open_csv(path) as file:
        assert file.read().decode() == TEXT
    rows = [(1, ["a", "b"]), (2, ["1", "two\nlines"]), (5, ["3", "4"])]
    assert list(rows_of(path, ",")) == rows


@pytest.mark.parametrize(
    ("members", "there"),
    [({}, "nothing"), ({"x.txt": ""}, "x.txt"), ({"a.csv": "", "b.csv": ""}, "a.csv, b.csv")],
)
def test_a_zip_file_without_the_one_table_says_what_it_holds(tmp_path, members, there):
    path = pack(tmp_path / "a.zip", **members)
    with pytest.raises(ClotlineError, match=f"and holds {there}: unpack it"):
        open_csv(path)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("quoted", [csv.QUOTE_ALL, csv.QUOTE_MINIMAL])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_the_delimiter_is_the_one_between_the_known_columns(tmp_path, delimiter, quoted, encoding):
    path = tmp_path / "a.csv"
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.writer(file, delimiter=delimiter, quoting=quoted)
        writer.writerows([["study", "a, b; c", "label"], ["1", "2", "3"]])
    assert delimiter_of(path, ("study", "label")) == delimiter
    assert delimiter_of(path, ("Study", "LABEL")) == delimiter


@pytest.mark.parametrize("text", ["", "\n", "x y z\n1;2;3\n"])
def test_where_no_column_is_known_it_is_a_comma(tmp_path, text):
    path = tmp_path / "a.csv"
    path.write_text(text)
    assert delimiter_of(path, ("study", "label")) == ","


def test_cells_can_be_of_any_size(tmp_path):
    path = tmp_path / "a.csv"
    report = "line\n" * 100_000
    path.write_text(f'a\n"{report}"\n2\n')
    before = csv.field_size_limit()
    assert list(rows_of(path, ",")) == [(1, ["a"]), (2, [report]), (100_003, ["2"])]
    assert csv.field_size_limit() == before
