import hashlib
from pathlib import Path

import pytest

from clotline.files import atomic, sha256


def test_the_file_appears_whole_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "new" / "folder" / "a.txt"
    with atomic(path) as temporary:
        temporary.write_text("half")
        assert not path.exists()
        temporary.write_text("whole")
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("before", [None, "old"])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_what_was_there_and_nothing_else(tmp_path, before, error):
    path = tmp_path / "a.txt"
    if before:
        path.write_text(before)
    with pytest.raises(error), atomic(path) as temporary:
        temporary.write_text("half")
        raise error
    assert [p.read_text() for p in tmp_path.iterdir()] == ([before] if before else [])


def test_nothing_written_is_an_error_and_not_an_empty_file(tmp_path):
    with pytest.raises(FileNotFoundError), atomic(tmp_path / "a.txt"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_the_temporary_name_lies_beside_the_file_and_ends_alike(tmp_path):
    with atomic(str(tmp_path / "plot.svg")) as temporary:
        assert isinstance(temporary, Path)
        assert (temporary.parent, temporary.suffix) == (tmp_path, ".svg")
        assert temporary.name.startswith(".")
        temporary.touch()


def test_sha256_is_that_of_the_bytes(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"clot\n" * 100_000)
    assert sha256(path) == hashlib.sha256(b"clot\n" * 100_000).hexdigest()
