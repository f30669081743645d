"""The tiny cohort of most whole runs: an identity stands in every tag that could hold one."""

from pathlib import Path

import pydicom
import yaml
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from workflow_run import PROJECT

from clotline.data import phantom
from clotline.workflow.config import load_config

WORD, DATE, TIME = "ZQIDENT", "18760314", "031415.926"
UID, NUMBER, COUNT = "2.25.8765432109876", "87654.321", "876543210"
#: The data folder's name comes into the report with the configuration.
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
            value = [_item()]
        dataset.add_new(tag, vr, value)
    block = dataset.private_block(0x0099, WORD, create=True)
    for element, vr in enumerate(("PN", "LO", "LT", "DA", "UI"), start=1):
        block.add_new(element, vr, MARKERS.get(vr, WORD))
    return dataset


def _item() -> Dataset:
    nested = Dataset()
    nested.PatientName, nested.PatientID = f"{WORD}^NESTED", WORD
    return nested


#: So few and short studies that the whole workflow takes a minute or two.
STUDIES = {"studies": 16, "seed": 1, "slices_min": 8, "slices_max": 10}
SPLIT = {"train": 0.5, "valid": 0.25, "test": 0.25}


def write_marked_cohort(folder: Path) -> None:
    """Writes ``train.csv`` and the DICOM files, all with markers and one of them no slice."""
    settings = load_config({"phantom": STUDIES})["phantom"]
    phantom.write_cohort(settings, folder / FOLDER, folder / "train.csv", workers=2)
    markers = planted()
    for number, path in enumerate(sorted((folder / FOLDER).rglob("*.dcm"))):
        dataset = pydicom.dcmread(path)
        dataset.update(markers)
        dataset.file_meta.MediaStorageSOPInstanceUID = UID
        dataset.file_meta.SourceApplicationEntityTitle = WORD
        dataset.preamble = WORD.encode().ljust(128, b" ")
        if number == 0:
            del dataset.PixelData
        dataset.save_as(path)


def tiny_config(folder: Path) -> str:
    """A configuration that trains on that cohort, with networks as small as it."""
    backbone = {
        "library": "torchvision",
        "architecture": "shufflenet_v2_x0_5",
        "init": "random",
        "input_size": 32,
        "epochs": 3,
        "lr": 0.01,
        "schedule": "one_cycle",
        "precision": "32-true",
    }
    lstms = [f"{f}-{level}" for f in ("resnext50", "efficientnet_b0", "combined")
             for level in ("image", "study")]  # fmt: skip
    config = {
        "data": {
            "labels": str(folder / "train.csv"),
            "dicom": str(folder / FOLDER),
            "slices_per_shard": 90,
            "split": SPLIT,
            "max_rejects": 0.01,
        },
        "cnn": {"resnext50": backbone, "efficientnet_b0": backbone},
        "lstm": {name: {"epochs": 2} for name in lstms},
        "evaluation": {"bootstraps": 100},
        "plots": {"dpi": 50},
    }
    return yaml.safe_dump(config)
