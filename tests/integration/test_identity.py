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
import yaml
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from workflow_run import ON_TWO_CORES, PROJECT, TINY, Run, write_config

WORD, DATE, TIME = "ZQIDENT", "18760314", "031415.926"
UID, NUMBER, COUNT = "2.25.8765432109876", "87654.321", "876543210"
#: The data folder: its name comes into the report with the configuration.
FOLDER = "dicom<img src=x onerror=alert(1)>&"
MARKERS = {
    "DA": DATE, "TM": TIME, "DT": DATE + TIME, "UI": UID, "DS": NUMBER, "IS": COUNT,
    "AS": "113Y", "US": 54321, "OB": WORD.encode() * 2, "UN": WORD.encode() * 2,
}  # fmt: skip
#: What to look for: the markers, and dates as they are often written.
NEEDLES = [
    text.encode() for text in (WORD, WORD.lower(), DATE, "1876-03-14", TIME, UID, NUMBER, COUNT)
]


def identifying_tags() -> list[Tag]:
    lines = (PROJECT / "tests/identifying_tags.txt").read_text().splitlines()
    return [Tag(line[:9].split(",")) for line in lines if not line.startswith("#")]


def planted() -> Dataset:
    """A data set with a marker in every identifying attribute, and in private ones."""
    dataset = Dataset()
    for tag in identifying_tags():
        if tag.group in (0x0000, 0x0002):
            continue  # not of a file's data set
        vr = "OB" if tag.group >= 0x5000 and tag.element == 0x3000 else dictionary_VR(tag)
        value = MARKERS.get(vr, WORD)
        if vr == "SQ":
            value = [item()]
        dataset.add_new(tag, vr, value)
    block = dataset.private_block(0x0099, WORD, create=True)
    for element, vr in enumerate(("PN", "LO", "LT", "DA", "UI"), start=1):
        block.add_new(element, vr, MARKERS.get(vr, WORD))
    return dataset


def item() -> Dataset:
    nested = Dataset()
    nested.PatientName, nested.PatientID = f"{WORD}^NESTED", WORD
    return nested


@pytest.fixture(scope="module")
def marked(tiny, tmp_path_factory) -> Run:
    """A whole run on the tiny cohort with markers in every file, one of them no slice."""
    run = Run(PROJECT, tmp_path_factory.mktemp("marked"))
    source, target = tiny.folder / "data/phantom/train", run.folder / FOLDER
    markers = planted()
    for number, path in enumerate(sorted(source.rglob("*.dcm"))):
        dataset = pydicom.dcmread(path)
        dataset.update(markers)
        dataset.file_meta.MediaStorageSOPInstanceUID = UID
        dataset.file_meta.SourceApplicationEntityTitle = WORD
        dataset.preamble = WORD.encode().ljust(128, b" ")
        if number == 0:
            del dataset.PixelData
        made = target / path.relative_to(source)
        made.parent.mkdir(parents=True, exist_ok=True)
        dataset.save_as(made)
    config = yaml.safe_load(TINY)
    del config["phantom"]
    labels = tiny.folder / "data/phantom/train.csv"
    config["data"] |= {"labels": str(labels), "dicom": FOLDER, "max_rejects": 0.01}
    write_config(run, yaml.safe_dump(config))
    run.build(*ON_TWO_CORES, "all")
    return run


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
    path = next((marked.folder / FOLDER).rglob("*.dcm"))
    dataset = pydicom.dcmread(path)
    absent = {tag for tag in tags if tag not in dataset and tag not in dataset.file_meta}
    assert {tag.group for tag in absent} <= {0x0000, 0x0002}
    assert all(needle in path.read_bytes() for needle in NEEDLES[:1] + NEEDLES[2:3] + NEEDLES[4:7])


def test_no_marker_is_in_any_artifact_log_or_page(marked):
    rejects = [path.read_text() for path in marked.folder.rglob("*.rejects.csv")]
    assert "no PixelData" in "".join(rejects)
    searched = 0
    for path in marked.folder.rglob("*"):
        if not path.is_file() or path.is_relative_to(marked.folder / FOLDER):
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
    page = Images((marked.folder / "results/report.html").read_text())
    assert FOLDER in page.text
    assert page.sources
    assert all(source.startswith("data:image/") for source in page.sources)
