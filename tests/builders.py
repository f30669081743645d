"""What several tests share: labels tables, DICOM files, shards, configuration sections, a score."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import gdcm
import h5py
import imagecodecs
import numpy as np
import pandas as pd
import pydicom
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import (
    HTJ2K,
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    generate_uid,
)

from clotline.data.chunks import create_pixels, pack
from clotline.data.dicom.jpeg_xl import JPEGXL, JPEGXL_FAMILY, JPEGXLJPEGRecompression
from clotline.data.fact_names import COVERAGE, NOISE, SPACING
from clotline.data.shards import (
    BLOOD,
    KERNEL,
    ORIENTATION,
    PIXEL,
    POSITION,
    THICKNESS,
    ShardWriter,
)
from clotline.data.study import DecodedStudy
from clotline.evaluation.competition import loss_terms
from clotline.grid import SIZE, Grid
from clotline.labels import COLUMNS, IMAGE_LABEL, SERIES_UID, SOP_UID, STUDY_LABELS, STUDY_UID, UIDS
from clotline.models.checkpoint import Checkpoint
from clotline.sections.cnn import CNNSection, cnn_sections
from clotline.sections.lstm import LSTMSection, lstm_sections
from clotline.workflow.config import load_config

DATA = {
    "slices_per_shard": 10,
    "split": {"column": None, "group": None, "train": 0.725, "valid": 0.145, "test": 0.13},
}


def facts_of(uids: Sequence[str], **columns) -> pd.DataFrame:
    """A table of `clotline.data.study_facts.study_facts`; ``columns`` are other values."""
    usual = {
        THICKNESS: 1.25, SPACING: 1.25, BLOOD: 300.0, NOISE: 12.0, COVERAGE: 300.0,
        ORIENTATION: "LP", KERNEL: "B30f",
    }  # fmt: skip
    return pd.DataFrame({STUDY_UID: list(uids)}).assign(**(usual | columns))


#: What `clotline.data.patient_counts.count_patients` says where patients are not known.
NO_PATIENTS = dict.fromkeys(
    ("studies", "known", "patients", "repeated", "of_repeated", "split", "of_split"), 0
) | {"source": "the PatientID of the DICOM files"}


def labels_of(studies: dict[str, list[int]]) -> pd.DataFrame:
    """A labels table with one row a slice.

    Args:
        studies: study UID to the image labels of its slices.
    """
    rows = []
    for study, images in studies.items():
        present = int(any(images))
        for number, image in enumerate(images):
            uids = {STUDY_UID: study, SERIES_UID: f"{study}.1", SOP_UID: f"{study}.1.{number}"}
            labels = {
                IMAGE_LABEL: image,
                "negative_exam_for_pe": 1 - present,
                "rv_lv_ratio_lt_1": present,
                "central_pe": present,
            }
            rows.append(dict.fromkeys(COLUMNS, 0) | uids | labels)
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return table.astype(dict.fromkeys(COLUMNS[len(UIDS) :], "int8"))


def write_dicom(path: Path, stored: np.ndarray, syntax=ExplicitVRLittleEndian, **tags) -> Path:
    """Writes an axial CT slice.

    Args:
        path: file to write.
        stored: (rows, columns) integers, the values as stored.
        syntax: transfer syntax; if it is a compressed one, ``tags`` bring the PixelData.
        tags: more elements, or other values; None leaves an element out, and
            a DataElement brings its own tag and VR.
    """
    uid = generate_uid(entropy_srcs=[str(path)])
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = uid
    dataset = Dataset()
    dataset.file_meta = meta
    order = "<" if syntax.is_little_endian else ">"
    elements = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": uid,
        "Modality": "CT",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "ImagePositionPatient": [0, 0, 0],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "RescaleSlope": 1,
        "RescaleIntercept": 0,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": stored.shape[0],
        "Columns": stored.shape[1],
        "BitsAllocated": 8 * stored.itemsize,
        "BitsStored": 8 * stored.itemsize,
        "HighBit": 8 * stored.itemsize - 1,
        "PixelRepresentation": int(stored.dtype.kind == "i"),
        "PixelData": stored.astype(stored.dtype.newbyteorder(order)).tobytes(),
    }
    for name, value in (elements | tags).items():
        if isinstance(value, DataElement):
            dataset.add(value)
        elif value is not None:
            setattr(dataset, name, value)
    if "PixelData" in dataset and dataset["PixelData"].VR == "OB or OW":
        dataset["PixelData"].VR = "OB" if syntax.is_encapsulated or stored.itemsize == 1 else "OW"
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_enhanced(
    path: Path,
    stored: np.ndarray,
    syntax=ExplicitVRLittleEndian,
    shared: dict | None = None,
    frames: Sequence[dict] | None = None,
    **tags,
) -> Path:
    """Writes an Enhanced CT file of axial frames, 3 mm apart.

    Args:
        path: file to write.
        stored: (frames, rows, columns) integers, the values as stored.
        syntax: transfer syntax; if it is a compressed one, ``tags`` bring the PixelData.
        shared: functional groups of all frames: a sequence's name and the elements of its item;
            None leaves a group out.
        frames: of each frame, such groups of its own.
        tags: more elements of the file itself.
    """
    groups = {
        "PlaneOrientationSequence": {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]},
        "PixelMeasuresSequence": {"PixelSpacing": [0.7, 0.7], "SliceThickness": 3},
        "PixelValueTransformationSequence": {
            "RescaleIntercept": 0, "RescaleSlope": 1, "RescaleType": "HU",
        },
        "CTImageFrameTypeSequence": {"FrameType": ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]},
    }  # fmt: skip
    own = [
        {
            "PlanePositionSequence": {"ImagePositionPatient": [0, 0, 3.0 * k]},
            "FrameContentSequence": {"FrameAcquisitionNumber": 1, "StackID": "1"},
        }
        for k in range(len(stored))
    ]
    per_frame = [_groups(base | more) for base, more in zip(own, frames or own, strict=True)]
    elements = {
        "SOPClassUID": EnhancedCTImageStorage,
        "NumberOfFrames": len(stored),
        "InstanceNumber": 1,
        "SharedFunctionalGroupsSequence": [_groups(groups | (shared or {}))],
        "PerFrameFunctionalGroupsSequence": per_frame,
        "PixelData": stored.astype(
            stored.dtype.newbyteorder("<" if syntax.is_little_endian else ">")
        ).tobytes(),
    }
    elements |= dict.fromkeys(
        ("ImagePositionPatient", "ImageOrientationPatient", "RescaleSlope", "RescaleIntercept")
    )
    return write_dicom(path, stored[0], syntax, **(elements | tags))


def _groups(groups: dict[str, dict | None]) -> Dataset:
    """One item of functional groups."""
    dataset = Dataset()
    for name, elements in groups.items():
        if elements is None:
            continue
        item = Dataset()
        for keyword, value in elements.items():
            setattr(item, keyword, value)
        setattr(dataset, name, [item])
    return dataset


def codestream_of(path: Path) -> bytes:
    """The compressed image of a single-frame file."""
    return get_frame(pydicom.dcmread(path).PixelData, 0, number_of_frames=1)


def compress_dicom(source: Path, target: Path, syntax) -> Path:
    """Writes ``source`` again in a compressed transfer syntax."""
    if syntax in (HTJ2K, HTJ2KLossless, HTJ2KLosslessRPCL, *JPEGXL_FAMILY):
        dataset = pydicom.dcmread(source)
        dataset.PixelData = encapsulate([_by_imagecodecs(dataset.pixel_array, syntax)])
        dataset["PixelData"].VR = "OB"
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.save_as(target, enforce_file_format=True)
        return target
    reader = gdcm.ImageReader()
    reader.SetFileName(str(source))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(syntax)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(target))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    return target


def _by_imagecodecs(stored: np.ndarray, syntax) -> bytes:
    """The codestream of a picture in an encoding that GDCM does not know."""
    if syntax not in JPEGXL_FAMILY:
        return imagecodecs.htj2k_encode(stored, reversible=syntax != HTJ2K)
    # It knows no sign, as little as JPEG-LS does.
    words = stored.view(f"u{stored.itemsize}")
    if syntax == JPEGXLJPEGRecompression:
        return imagecodecs.jpegxl_encode_jpeg(imagecodecs.jpeg8_encode(words, level=95))
    if syntax == JPEGXL:
        return imagecodecs.jpegxl_encode(words, lossless=False, distance=0.01)
    # At effort 1 libjxl 0.11.2 writes beyond its memory where noise fills all of 16 bits.
    return imagecodecs.jpegxl_encode(words, lossless=True, effort=3)


def dicom_path(folder: Path, row: pd.Series) -> Path:
    """Where the slice of a labels row lies in a DICOM folder."""
    return Path(folder, row[STUDY_UID], row[SERIES_UID], f"{row[SOP_UID]}.dcm")


def write_study(
    folder: Path, count: int = 3, labels: pd.DataFrame | None = None, **tags
) -> pd.DataFrame:
    """Writes the files of one study, each slice of one value, its number; gives their labels.

    Args:
        folder: the DICOM folder.
        count: of its slices.
        labels: other rows to write files for.
        tags: an element's name and a function of the slice's number that gives its value.
    """
    labels = labels_of({"s": [0] * count}) if labels is None else labels
    for number, (_, row) in enumerate(labels.iterrows()):
        stored = np.full((256, 256), number, np.int16)
        values = {name: value(number) for name, value in tags.items()}
        write_dicom(dicom_path(folder, row), stored, **values)
    return labels


def write_cohort(labels: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """Writes a DICOM file for each row; the labels with the ``hu`` and the ``z`` of each slice.

    Every slice is of one value of its own. Files and rows are not in the order of the positions.
    """
    place = labels.groupby(STUDY_UID).cumcount()
    made = labels.assign(hu=np.arange(len(labels)), z=2.5 * ((place * 7 + 3) % 11))
    for number, (_, row) in enumerate(made.iterrows()):
        write_dicom(
            dicom_path(folder, row),
            np.full((256, 256), row["hu"], np.int16),
            ImagePositionPatient=[-170, -160, row["z"]],
            InstanceNumber=number,
        )
    return made


def pixels_of(study: DecodedStudy, size: int = SIZE) -> np.ndarray:
    """The slices of a decoded study, (n, size, size) int16."""
    with h5py.File("study", "w", driver="core", backing_store=False) as file:
        pixels = create_pixels(file, len(study.chunks), size)
        for row, chunk in enumerate(study.chunks):
            pixels.id.write_direct_chunk((row, 0, 0), chunk.content)
        return pixels[:]


def write_slices(path: Path, pixels: np.ndarray, image_labels: Sequence[int]) -> None:
    """Writes a shard of one study: (n, size, size) int16 pixels and (n,) image labels."""
    count = len(pixels)
    rows = pd.DataFrame({STUDY_UID: ["s"] * count, SERIES_UID: "s.1"})
    rows[SOP_UID] = [f"s.1.{number}" for number in range(count)]
    rows[POSITION], rows[ORIENTATION], rows[IMAGE_LABEL] = (
        np.arange(float(count)),
        "LP",
        image_labels,
    )
    rows = rows.assign(**{PIXEL: 1.25, THICKNESS: 1.0, KERNEL: "B30f", BLOOD: 300.0})
    with ShardWriter(path, Grid(pixels.shape[-1])) as writer:
        writer.append(rows, dict.fromkeys(STUDY_LABELS, 0), map(pack, pixels))


def weighted_log_loss(*exams: np.ndarray) -> float:
    """The competition's score, of what `clotline.evaluation.competition.loss_terms` takes."""
    above, below = loss_terms(*exams)
    return above.sum() / below.sum()


def write_noise(path: Path, slices: int = 12) -> np.ndarray:
    """Writes a shard of noise, every other slice positive; gives its pixels."""
    pixels = np.random.default_rng(0).integers(-1000, 1000, (slices, 256, 256)).astype(np.int16)
    write_slices(path, pixels, np.arange(slices) % 2)
    return pixels


class KilledError(Exception):
    """What ends a training in place of a kill."""


class DyingBatches:
    """Batches of which the first one comes and then a `KilledError`."""

    def __init__(self, batches):
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self):
        yield next(iter(self._batches))
        raise KilledError


def cnn_section(**keys) -> CNNSection:
    """A complete ``cnn`` entry of the configuration, from random weights unless told otherwise.

    What it names, an architecture or a file, is not looked into.
    """
    entry = {"library": "torchvision", "architecture": "resnet18", "init": "random"}
    return replace(cnn_sections(load_config({"cnn": {"network": entry}}))["network"], **keys)


def checkpoint_of(section: CNNSection | LSTMSection, weights: dict, width: int = 0) -> Checkpoint:
    """A trained network, as of its first epoch."""
    stage = "cnn" if isinstance(section, CNNSection) else "lstm"
    about = {"kind": stage, "name": "network", "config": section.as_dict()}
    return Checkpoint(**about, seed=0, width=width, epoch=1, weights=weights)


def lstm_section(**keys) -> LSTMSection:
    """A complete ``lstm`` entry of the configuration; a file that it names is not looked into."""
    return replace(lstm_sections(load_config({}))["combined-study"], **keys)
