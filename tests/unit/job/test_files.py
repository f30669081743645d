import hashlib
import os
from pathlib import Path

import pytest
from hostile import fill_disk, small_disk

from clotline.errors import ClotlineError
from clotline.job.files import atomic, files_under, remove, sha256, unusable


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


def test_what_a_killed_writer_left_is_removed_by_the_next_and_nothing_else(tmp_path):
    left = tmp_path / ".a[1].4711.tmp.h5"
    others = [tmp_path / name for name in (".b.4711.tmp.h5", ".a[1].4711.tmp.csv", "a[1].csv")]
    for path in (left, *others):
        path.touch()
    with atomic(tmp_path / "a[1].h5") as temporary:
        temporary.touch()
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "a[1].h5", *others])


def test_too_little_space_is_warned_of_before_anything_is_written(tmp_path, caplog):
    with atomic(tmp_path / "a.h5", need=10**18) as temporary:
        assert "may run full" in caplog.text
        assert not temporary.exists()
        temporary.touch()


def test_a_full_disk_is_named_with_need_and_free_space_and_leaves_what_was_there(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    with small_disk(tmp_path / "disk", 10_000_000) as disk:
        path = disk / "a.bin"
        path.write_bytes(b"old")
        fill_disk(disk, left=2_000_000)
        with pytest.raises(ClotlineError) as caught, atomic(path, need=5_000_000) as temporary:
            temporary.write_bytes(bytes(5_000_000))
        message = str(caught.value)
        assert f"the disk {disk} is full: {path} needs about 5.0 MB, and 2.0 MB were" in message
        assert path.read_bytes() == b"old"
        assert sorted(file.name for file in disk.iterdir()) == [".ballast", "a.bin"]


@pytest.mark.parametrize(
    ("path", "remedy"),
    [
        ("results/cnn/a.pt", "To remake it, rm results/cnn/a.pt and run the same snakemake"),
        (".clotline/a.pt", "To remake it, rm .clotline/a.pt and run the same snakemake"),
        ("published/a.pt", "Put an intact copy in its place"),
        ("/data/results/a.pt", "Put an intact copy in its place"),
    ],
)
def test_only_files_that_the_workflow_makes_are_to_be_deleted(path, remedy):
    message = str(unusable(path, ValueError("wrong header. Details follow\nand more")))
    assert message.startswith(f"{path} cannot be used: wrong header. {remedy}")
    assert "Details" not in message


def test_files_are_found_through_links_and_once(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/b").write_text("")
    folder = tmp_path / "folder"
    (folder / "deep/er").mkdir(parents=True)
    (folder / "deep/er/a").write_text("")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "deep/round").symlink_to(folder)
    (folder / "one").symlink_to(tmp_path / "elsewhere/b")
    (folder / "gone").symlink_to(tmp_path / "nowhere")
    assert files_under(folder) == ["deep/er/a", "gone", "linked/b", "one"]


def test_a_file_itself_is_found_under_an_empty_path(tmp_path):
    (tmp_path / "study.zip").write_text("slices")
    assert files_under(tmp_path / "study.zip") == [""]
    assert (tmp_path / "study.zip" / "").read_text(encoding="utf-8") == "slices"


def test_a_folder_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ClotlineError, match=r"folder .*nowhere cannot be read: No such file"):
        files_under(tmp_path / "nowhere")


def test_a_file_or_folder_is_removed_and_nothing_is_no_error(tmp_path):
    (tmp_path / "folder/deep").mkdir(parents=True)
    (tmp_path / "folder/deep/a").write_text("")
    (tmp_path / "b").write_text("")
    for name in ("folder", "b", "nothing"):
        remove(tmp_path / name)
    assert list(tmp_path.iterdir()) == []
