"""Studies of a large ZIP file are fetched by range requests, and nothing else of it."""

import zipfile

import numpy as np
import pytest
from builders import labels_of
from file_server import serve

from clotline.data import zipped
from clotline.data.labels_file import read_labels
from clotline.labels import SERIES_UID, SOP_UID, STUDY_UID
from tools import fetch_studies

LABELS = labels_of({"s1": [0, 1], "s2": [0, 0, 0], "s3": [1]})
SIZE = 40_000


def name_of(row):
    return f"{row[STUDY_UID]}/{row[SERIES_UID]}/{row[SOP_UID]}.dcm"


@pytest.fixture
def packed(tmp_path):
    """The ZIP file, and what each slice holds."""
    path = tmp_path / "all.zip"
    rng = np.random.default_rng(0)
    contents = {name_of(row): rng.bytes(SIZE) for _, row in LABELS.iterrows()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("set/train.csv", LABELS.to_csv(index=False))
        for number, (name, content) in enumerate(contents.items()):
            archive.writestr(f"set/train/{name}", content)
            archive.writestr(f"set/test/other{number}", rng.bytes(20 * SIZE))
    return path, contents


@pytest.fixture
def server(packed):
    """A server of that file, and the number of bytes that each request asked for."""
    with serve(packed[0]) as served:
        yield served.address, served.asked


def fetched(folder):
    train = folder / "train"
    return {str(path.relative_to(train)): path.read_bytes() for path in train.rglob("*.dcm")}


def chosen(contents, *studies):
    return {name: content for name, content in contents.items() if name.split("/")[0] in studies}


def test_named_studies_are_fetched_from_a_path(packed, tmp_path):
    path, contents = packed
    said = fetch_studies.fetch_studies(str(path), tmp_path / "out", {"s1", "s3"}, None)
    assert said == "3 slices fetched, 0 were there"
    assert fetched(tmp_path / "out") == chosen(contents, "s1", "s3")
    labels = read_labels(tmp_path / "out/train.csv")
    assert labels[STUDY_UID].astype(str).tolist() == ["s1", "s1", "s3"]


def test_a_server_is_asked_for_the_list_and_the_studies_alone(
    server, packed, tmp_path, monkeypatch
):
    address, asked = server
    monkeypatch.setattr(zipped, "_RUN", 2**17)
    monkeypatch.setattr(zipped, "_GAP", 2**12)
    fetch_studies.fetch_studies(address, tmp_path / "out", {"s2"}, None)
    assert fetched(tmp_path / "out") == chosen(packed[1], "s2")
    assert sum(asked) < packed[0].stat().st_size / 3
    # A second time nothing but the list.
    before = len(asked)
    (tmp_path / "out/train/s2" / next(iter(chosen(packed[1], "s2")))[3:]).unlink()
    said = fetch_studies.fetch_studies(address, tmp_path / "out", {"s2"}, None)
    assert said == "1 slices fetched, 2 were there"
    assert sum(asked[before:]) < sum(asked[:before])


def test_what_is_not_there_is_said(packed, tmp_path):
    path, _ = packed
    out = tmp_path / "out"
    with pytest.raises(fetch_studies.ClotlineError, match="1 of 2 studies have no labels, as s9"):
        fetch_studies.fetch_studies(str(path), out, {"s1", "s9"}, None)
    more = labels_of({"s1": [0, 1, 1]})
    more.to_csv(tmp_path / "more.csv", index=False)
    with pytest.raises(fetch_studies.ClotlineError, match="lacks 1 of 3 slices"):
        fetch_studies.fetch_studies(str(path), out, {"s1"}, str(tmp_path / "more.csv"))
    with pytest.raises(fetch_studies.ClotlineError, match="is no ZIP file"):
        fetch_studies.fetch_studies(str(tmp_path / "more.csv"), out, {"s1"}, None)
    assert not out.exists()
    with pytest.raises(SystemExit, match="cannot be read"):
        (tmp_path / "list.txt").write_text("s1\n")
        fetch_studies.main(
            [str(tmp_path / "no.zip"), str(out), "--studies", str(tmp_path / "list.txt")]
        )


def test_without_a_list_the_labels_file_alone_is_fetched(packed, tmp_path):
    fetch_studies.main([str(packed[0]), str(tmp_path / "out")])
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["train.csv"]
    assert len(read_labels(tmp_path / "out/train.csv")) == len(LABELS)


def test_a_damaged_member_is_named_and_leaves_no_file(packed, tmp_path):
    path, _ = packed
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo(
            next(n for n in archive.namelist() if n.startswith("set/train/s3"))
        )
    content = bytearray(path.read_bytes())
    content[member.header_offset + 2000] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(fetch_studies.ClotlineError, match=r"set/train/s3.* is damaged"):
        fetch_studies.fetch_studies(str(path), tmp_path / "out", {"s3"}, None)
    assert fetched(tmp_path / "out") == {}
