import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import clotline
from clotline.job.scratch import nearby, scratch_folder

SCRIPTS = Path(clotline.__file__).parents[1]


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / "data" / f"shard-{number:03}.h5" for number in range(3)]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.write_text(path.name)
    return [str(path) for path in paths]


@pytest.fixture
def scratch(scratch, monkeypatch):
    """The same by a variable of the node."""
    monkeypatch.setenv("NODE_DISK", str(scratch))
    monkeypatch.setenv("CLOTLINE_SCRATCH", "$NODE_DISK")
    return scratch


def test_copies_lie_on_the_nodes_disk_and_are_removed(files, scratch):
    with nearby(files) as copies:
        assert [Path(copy).read_text(encoding="utf-8") for copy in copies] == [
            Path(f).read_text(encoding="utf-8") for f in files
        ]
        (folder,) = {Path(copy).parent for copy in copies}
        assert folder.parent == scratch
    assert list(scratch.iterdir()) == []
    assert all(Path(file).exists() for file in files)


def test_copies_of_a_job_that_fails_are_removed(files, scratch):
    with pytest.raises(KeyError), nearby(files):
        raise KeyError
    assert list(scratch.iterdir()) == []


def test_copies_of_a_job_that_is_told_to_end_are_removed(files, scratch):
    code = (
        "import sys, time\nfrom clotline.job.scratch import nearby\n"
        "with nearby(sys.argv[1:]) as copies:\n    print(copies[0], flush=True)\n    time.sleep(60)"
    )
    job = subprocess.Popen(
        [sys.executable, "-c", code, *files],
        env=os.environ | {"PYTHONPATH": str(SCRIPTS)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert Path(job.stdout.readline().strip()).exists()
    job.terminate()
    assert job.wait(timeout=30) == 128 + signal.SIGTERM
    assert list(scratch.iterdir()) == []


def test_without_a_scratch_folder_the_files_themselves_are_read(files, monkeypatch):
    monkeypatch.delenv("CLOTLINE_SCRATCH", raising=False)
    with nearby(files) as paths:
        assert paths == files


def test_files_that_do_not_fit_are_read_where_they_are(files, scratch, caplog):
    # A hole as large as all that is free: it takes no room of its own.
    os.truncate(files[1], os.statvfs(scratch).f_bavail * os.statvfs(scratch).f_frsize)
    with nearby(files) as paths:
        assert paths == files
    assert list(scratch.iterdir()) == []
    assert "GB free" in caplog.text


def test_a_folder_that_the_node_lacks_is_named(files, monkeypatch, caplog):
    monkeypatch.delenv("NODE_DISK", raising=False)
    monkeypatch.setenv("CLOTLINE_SCRATCH", "$NODE_DISK")
    with nearby(files) as paths:
        assert paths == files
    assert "CLOTLINE_SCRATCH=$NODE_DISK is no folder here" in caplog.text


def test_a_disk_that_fails_while_copying_leaves_nothing_behind(files, scratch, caplog):
    Path(files[1]).unlink()
    Path(files[1]).mkdir()
    with nearby(files) as paths:
        assert paths == files
        assert list(scratch.iterdir()) == []
    assert "no copies on the node's own disk" in caplog.text


def test_what_a_killed_job_has_left_is_removed_and_what_another_one_uses_is_not(scratch):
    left = scratch / "clotline-scratch-_left_01"
    users_own = [scratch / name for name in ("clotline-results", "clotline-scratch-of-mine")]
    for folder in (left, *users_own):
        folder.mkdir()
        (folder / "slice").write_text("pixels")
        os.utime(folder, (0, 0))
    new = scratch / "clotline-scratch-new_0123"
    new.mkdir()
    with scratch_folder() as used:
        os.utime(used, (0, 0))
        assert not left.exists()
        with scratch_folder() as other:
            assert used.is_dir()
            assert other.stat().st_mode & 0o077 == 0
        assert not other.exists()
    assert sorted(scratch.iterdir()) == sorted([new, *users_own])
    assert all((folder / "slice").read_text() == "pixels" for folder in users_own)


def test_a_scratch_folder_that_is_not_there_is_told(scratch, monkeypatch, caplog):
    monkeypatch.setenv("CLOTLINE_SCRATCH", "/nowhere")
    with scratch_folder() as folder:
        assert folder.is_dir()
        assert scratch not in folder.parents
    assert "CLOTLINE_SCRATCH=/nowhere is no folder here" in caplog.text
