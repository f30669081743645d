"""Rows of tables as people have them, with the lines that they stand on."""

import pytest

from clotline.data.cells import read_cells


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_rows_line_counts_line_ends_within_quotes_and_empty_lines(tmp_path, end):
    lines = ["study,report", 'a,"first', 'second"', "", "b,", 'c,"x', "", 'y"', "d,z"]
    path = tmp_path / "table.csv"
    path.write_bytes(end.join(lines).encode())
    table = read_cells(path, ("study",))
    assert dict(zip(table["study"], table["line"], strict=True)) == {"a": 2, "b": 5, "c": 6, "d": 9}


def test_a_header_may_have_line_ends(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text('study,"what\nwas found"\na,1\n')
    assert read_cells(path, ("study",))["line"].tolist() == [3]
