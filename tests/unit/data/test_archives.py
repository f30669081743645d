"""What lies packed in a folder is entered, and nothing of it gets out or stays."""

import bz2
import gzip
import io
import lzma
import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from clotline.data.archives import LIMITS, Limits, located, unpacked
from clotline.data.series import NothingChosenError, find_series
from clotline.job.files import files_under


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "export"
    folder.mkdir()
    return folder


def zipped(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(members, mode="w"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def contents(folder, **arguments):
    """What each file holds that is there once all is unpacked, and what is refused."""
    with unpacked(folder, files_under(folder), **arguments) as found:
        held = {path: Path(located(found.folder, path)).read_bytes() for path in found.files}
        return held, found.refused


TWO = [("DICOM/1", b"one"), ("DICOM/2", b"two")]


@pytest.mark.parametrize(
    "pack",
    [zipped, tarred, *(lambda m, w=w: tarred(m, f"w:{w}") for w in ("gz", "bz2", "xz"))],
    ids=["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"],
)
def test_members_are_called_by_their_archive_and_read_like_files(folder, scratch, pack):
    (folder / "study").write_bytes(pack(TWO))
    (folder / "3").write_bytes(b"three")
    held, refused = contents(folder)
    assert held == {"3": b"three", "study//DICOM/1": b"one", "study//DICOM/2": b"two"}
    assert refused == {}
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_file_packed_by_itself_keeps_its_name(folder, scratch, pack):
    (folder / "a").mkdir()
    (folder / "a/scan.nii.gz").write_bytes(pack(b"volume"))
    assert contents(folder)[0] == {"a/scan.nii.gz//scan.nii": b"volume"}


def test_archives_in_archives_are_entered_to_a_depth(folder, scratch):
    content = b"slice"
    for depth in range(LIMITS.depth):
        content = zipped([(f"{depth}", content)])
    (folder / "z").write_bytes(content)
    assert contents(folder)[0] == {"z//3//2//1//0": b"slice"}
    (folder / "z").write_bytes(zipped([("deeper", content), ("beside", b"slice")]))
    held, refused = contents(folder)
    assert held.pop("z//beside") == b"slice"
    assert list(held) == ["z//deeper//3//2//1"] == list(refused)
    (why,) = refused.values()
    assert why == "an archive that cannot be unpacked: archives within archives, 5 deep"


def test_an_archive_may_be_named_instead_of_a_folder(folder, scratch):
    (folder / "study.zip").write_bytes(zipped(TWO))
    held, _ = contents(folder / "study.zip")
    assert held == {"study.zip//DICOM/1": b"one", "study.zip//DICOM/2": b"two"}


def test_the_same_files_are_found_again_and_no_others_unpacked(folder, scratch):
    inner = zipped([("x", b"slice"), ("y", b"other")])
    (folder / "b.tar").write_bytes(tarred([("inner.zip", inner), ("z", b"another")]))
    (folder / "c.zip").write_bytes(zipped(TWO))
    (folder / "plain").write_bytes(b"plain")
    only = {"b.tar//inner.zip//x", "plain"}
    with unpacked(folder, only=only) as found:
        assert Path(located(found.folder, "b.tar//inner.zip//x")).read_bytes() == b"slice"
        assert Path(located(found.folder, "plain")).read_bytes() == b"plain"
        assert len([*next(scratch.iterdir()).iterdir()]) == 1


def test_an_archive_whose_name_is_no_utf8_text_is_not_entered_but_listed(folder, scratch):
    path = os.fsencode(folder) + b"/M\xfcller.zip"
    Path(os.fsdecode(path)).write_bytes(zipped(TWO))
    (folder / "study.zip").write_bytes(zipped(TWO))
    with unpacked(folder, files_under(folder)) as found:
        assert len(found.files) == 3 and found.refused == {}
        with pytest.raises(NothingChosenError, match=r"its name is no UTF-8 text: rename it"):
            find_series(found.folder, found.files, refused=found.refused)


def test_nothing_packed_needs_no_scratch(folder, scratch):
    (folder / "1").write_bytes(bytes(128) + b"DICM")
    (folder / "2").write_bytes(b"PK\x03\x04".ljust(128, b"\0") + b"DICM")  # a preamble may be all
    with unpacked(folder, files_under(folder)) as found:
        assert found.folder.unpacked is None
        assert found.files == ["1", "2"]
        assert list(scratch.iterdir()) == []


HOSTILE = ["../../evil", "/etc/evil", "C:\\evil", "a//../..//evil", "\n\x1b[31mevil", "x" * 3000]


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_members_of_any_name_stay_in_the_scratch_folder(folder, scratch, tmp_path, pack):
    (folder / "study").write_bytes(pack([(name, b"evil") for name in HOSTILE]))
    before = {path for path in tmp_path.rglob("*") if scratch not in path.parents}
    with unpacked(folder, files_under(folder)) as found:
        assert len(set(found.files)) == len(HOSTILE)
        (target,) = scratch.iterdir()
        assert target.stat().st_mode & 0o077 == 0
        for path in found.files:
            assert path.isprintable()
            assert path.count("//") == 1
            assert Path(located(found.folder, path)).parent == target
            assert Path(located(found.folder, path)).read_bytes() == b"evil"
    assert {path for path in tmp_path.rglob("*") if scratch not in path.parents} == before


def test_members_of_the_same_name_are_all_there(folder, scratch):
    (folder / "study").write_bytes(tarred([("1", b"a"), ("1", b"b"), ("/1", b"c")]))
    assert contents(folder)[0] == {
        "study//1": b"a", "study//1 (2)": b"b", "study//1 (3)": b"c"}  # fmt: skip


def test_links_and_devices_in_an_archive_are_passed_over(folder, scratch, tmp_path):
    (tmp_path / "secret").write_bytes(b"secret")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, way in (("link", tarfile.SYMTYPE), ("hard", tarfile.LNKTYPE),
                          ("pipe", tarfile.FIFOTYPE), ("null", tarfile.CHRTYPE)):  # fmt: skip
            member = tarfile.TarInfo(name)
            member.type, member.linkname = way, str(tmp_path / "secret")
            archive.addfile(member)
        member = tarfile.TarInfo("1")
        member.size = 3
        archive.addfile(member, io.BytesIO(b"one"))
    (folder / "study.tar").write_bytes(buffer.getvalue())
    assert contents(folder)[0] == {"study.tar//1": b"one"}


@pytest.mark.parametrize(
    ("limits", "why"),
    [
        (Limits(size=3_000_000), "more than 3,000,000 bytes when unpacked"),
        (
            Limits(small=1_000_000, ratio=20),
            "bytes become 1,048,576 and more, as in a bomb of zero",
        ),
        (Limits(members=4), "more than 4 files"),
    ],
)
@pytest.mark.parametrize("pack", [zipped, lambda m: tarred(m, "w:gz")], ids=["zip", "tar.gz"])
def test_a_bomb_is_refused_and_what_lies_beside_it_is_read(folder, scratch, pack, limits, why):
    (folder / "a.zip").write_bytes(zipped(TWO))
    (folder / "bomb").write_bytes(pack([(str(n), bytes(2**20)) for n in range(5)]))
    (folder / "c.zip").write_bytes(zipped(TWO))
    held, refused = contents(folder, limits=limits)
    assert sorted(held) == [
        "a.zip//DICOM/1", "a.zip//DICOM/2", "bomb", "c.zip//DICOM/1", "c.zip//DICOM/2"
    ]  # fmt: skip
    assert list(refused) == ["bomb"]
    assert refused["bomb"].startswith("an archive that cannot be unpacked: ")
    assert why in refused["bomb"]


def test_what_a_refused_archive_had_unpacked_is_removed_at_once(folder, scratch):
    (folder / "bomb").write_bytes(zipped([(str(n), bytes(2**20)) for n in range(5)]))
    with unpacked(folder, files_under(folder), limits=Limits(size=3_000_000)) as found:
        assert found.refused
        assert list(next(scratch.iterdir()).iterdir()) == []


def test_damaged_and_locked_archives_are_refused_with_the_reason(folder, scratch):
    whole = zipped([(f"{n}", bytes(range(256)) * 99) for n in range(3)])
    (folder / "cut.zip").write_bytes(whole[:-80])
    (folder / "cut.tgz").write_bytes(tarred(TWO, "w:gz")[:-20])
    locked = bytearray(whole)
    locked[locked.index(b"PK\x01\x02") + 8] |= 1
    (folder / "locked.zip").write_bytes(locked)
    held, refused = contents(folder)
    assert sorted(held) == sorted(refused) == ["cut.tgz", "cut.zip", "locked.zip"]
    assert refused["locked.zip"] == "an archive that cannot be unpacked: it has a password"
    assert refused["cut.zip"].endswith("damaged or of an unknown way: BadZipFile")
