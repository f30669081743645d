"""No patient identity in artifacts and logs: markers stand in every tag that could hold one."""

import base64
import html.parser
import re
import zipfile
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401
import pandas as pd
import pydicom
import pytest
from tiny_cohort import FOLDER, NEEDLES, identifying_tags


@pytest.fixture(scope="module")
def marked(tiny) -> Path:
    """The working directory of a whole run on files with markers."""
    return tiny.folder


def contents_of(path: Path):
    """A file's bytes, and what compression and encodings hide in it."""
    content = path.read_bytes()
    yield content
    if path.suffix == ".parquet":
        yield pd.read_parquet(path).to_csv().encode()
    if path.suffix == ".h5":
        with h5py.File(path) as file:
            found = []
            file.visititems(
                lambda name, item: found.append(
                    item[:].tobytes()
                    if isinstance(item, h5py.Dataset) and name not in ("pixels", "features")
                    else str(dict(item.attrs)).encode()
                )
            )
        yield from found
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            yield from map(archive.read, archive.namelist())
    for encoded in re.findall(rb"base64,([A-Za-z0-9+/=]+)", content):
        yield base64.b64decode(encoded)


def test_markers_are_planted_in_every_identifying_attribute(marked):
    tags = set(identifying_tags())
    assert len(tags) > 600
    path = next((marked.parent / "cohort" / FOLDER).rglob("*.dcm"))
    dataset = pydicom.dcmread(path)
    absent = {tag for tag in tags if tag not in dataset and tag not in dataset.file_meta}
    assert {tag.group for tag in absent} <= {0x0000, 0x0002}
    assert all(needle in path.read_bytes() for needle in NEEDLES[:1] + NEEDLES[2:3] + NEEDLES[4:7])


def test_no_marker_is_in_any_artifact_log_or_page(marked):
    rejects = [path.read_text() for path in marked.rglob("*.rejects.csv")]
    assert "no PixelData" in "".join(rejects)
    searched = 0
    for path in marked.rglob("*"):
        if not path.is_file():
            continue
        searched += 1
        for content in contents_of(path):
            found = [needle for needle in NEEDLES if needle in content]
            assert not found, f"{path}: {found}"
    assert searched > 150


class Images(html.parser.HTMLParser):
    """Where the images of a page come from, and its text."""

    def __init__(self, page: str):
        super().__init__()
        self.sources, self.text = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        if tag == "img":
            self.sources.append(dict(attributes)["src"])

    def handle_data(self, data):
        self.text += data


def test_the_report_shows_a_hostile_name_as_text(marked):
    page = Images((marked / "results/report.html").read_text())
    assert FOLDER in page.text
    assert page.sources
    assert all(source.startswith("data:image/") for source in page.sources)
