"""Real CT in encodings that hospitals send, and as tall studies for the viewer."""

import shutil
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from bench.data import PROCESSES, Cohort
from clotline.data.shards import CHECKSUM, StoredPixels
from clotline.grid import SIZE
from clotline.job.processes import end_with_parent
from clotline.labels import STUDY_UID, UIDS, slice_path

#: Encoding, as folders and tables name it, to its transfer syntax.
ENCODINGS = {
    "uncompressed": ExplicitVRLittleEndian,
    "JPEG Lossless": JPEGLosslessSV1,
    "JPEG-LS": JPEGLSLossless,
    "RLE": RLELossless,
    "HTJ2K": HTJ2KLossless,
}


def encode(
    realct: Path,
    folder: Path,
    studies: Sequence[str],
    encodings: Sequence[str] = tuple(ENCODINGS),
    copies: int = 1,
) -> dict[str, Path]:
    """Writes data in the competition's layout in each encoding, labels included.

    Args:
        realct: folder of ``train.csv`` and ``train``; files of JPEG Lossless are copied as they
            are where that is asked for.
        folder: for a folder of each encoding.
        studies: which ones.
        encodings: of `ENCODINGS`.
        copies: how often each study is there, as another study each time.

    Returns:
        Encoding to its folder.
    """
    head, *rows = (realct / "train.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [row for row in rows if row.partition(",")[0] in studies]
    copied = [f"{copy}{row}" for copy in _copies(copies) for row in kept]
    folders = {name: folder / name.replace(" ", "-") for name in encodings}
    for target in folders.values():
        target.mkdir(parents=True)
        (target / "train.csv").write_text(head + "".join(copied), encoding="utf-8")
    files = [path for study in studies for path in (realct / "train" / study).rglob("*.dcm")]
    targets = [
        {name: target / path.relative_to(realct) for name, target in folders.items()}
        for path in files
    ]
    with ProcessPoolExecutor(PROCESSES, initializer=end_with_parent) as pool:
        list(pool.map(_encode_file, files, targets, chunksize=8))
    for target in folders.values():
        for study in studies:
            for copy in _copies(copies)[1:]:
                # Files of their own: links would be read from the disk once.
                shutil.copytree(target / "train" / study, target / "train" / f"{copy}{study}")
    return folders


def _copies(copies: int) -> list[str]:
    """What comes before the StudyInstanceUID of each copy; nothing before the first one."""
    return ["", *(f"{number}." for number in range(1, copies))]


def _encode_file(source: Path, targets: dict[str, Path]) -> None:
    for name, target in targets.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        dataset, syntax = pydicom.dcmread(source), ENCODINGS[name]
        if dataset.file_meta.TransferSyntaxUID == syntax:
            shutil.copyfile(source, target)
            continue
        values = dataset.pixel_array
        # pydicom's own way to an uncompressed data set, from which it encodes.
        if dataset.file_meta.TransferSyntaxUID.is_compressed:
            dataset.decompress(generate_instance_uid=False)
        if syntax == JPEGLosslessSV1:
            _encapsulate(dataset, imagecodecs.jpeg8_encode(values, lossless=True, predictor=1))
        elif syntax == HTJ2KLossless:
            _encapsulate(dataset, imagecodecs.htj2k_encode(values, reversible=True))
        elif syntax.is_compressed:
            plugin = "gdcm" if syntax == RLELossless else "pyjpegls"
            dataset.compress(syntax, encoding_plugin=plugin, generate_instance_uid=False)
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.save_as(target)


def _encapsulate(dataset: pydicom.Dataset, stream: bytes) -> None:
    dataset.PixelData = encapsulate([stream])
    dataset["PixelData"].VR = "OB"


def predictable(realct: Path) -> list[Path]:
    """Folders of studies of 130 to 170 slices whose headers give each slice a UID of its own.

    Raises:
        FileNotFoundError: there are fewer than two.
    """
    found = []
    for study in sorted((realct / "train").iterdir()):
        files = sorted(study.rglob("*.dcm"))
        if 130 <= len(files) <= 170:
            headers = [pydicom.dcmread(path, specific_tags=["SOPInstanceUID"]) for path in files]
            if len({header.SOPInstanceUID for header in headers}) == len(files):
                found.append(study)
    if len(found) < 2:
        raise FileNotFoundError(f"{realct} has fewer than two studies of 130 to 170 slices")
    return found[:2]


#: Side of a tall study's pixels in mm, about that of chest CT at 256 × 256.
_MM = 1.3


def write_tall(cohort: Cohort, folder: Path, studies: int, slices: int) -> None:
    """Writes studies of so many slices, real ones up and down again, as a hospital's folder.

    Slices are uncompressed, of the published size, 1 mm apart: decoding is not measured here.

    Args:
        cohort: real CT.
        folder: for a folder a study.
        studies: how many.
        slices: of each.
    """
    pixels = StoredPixels(cohort.shard)
    real = [part for _, part in cohort.stored.groupby(STUDY_UID, sort=False)]
    for number in range(studies):
        rows = real[number % len(real)]
        located = zip(rows["row"], rows[CHECKSUM], strict=True)
        stored = [pixels.read(row, checksum) for row, checksum in located]
        study = folder / f"{number:02}"
        study.mkdir(parents=True)
        dataset = _tall_header(cohort.dicom / slice_path(*rows[list(UIDS)].iloc[0]), number)
        # So that no two studies are copies of each other.
        first = 37 * (number // len(real))
        for k in range(slices):
            place = (first + k) % (2 * len(stored))
            values = stored[min(place, 2 * len(stored) - 1 - place)]
            _fill(dataset, number, k, values)
            dataset.save_as(study / f"{k:04}.dcm")


def _tall_header(source: Path, number: int) -> pydicom.Dataset:
    """A real header, of a study and series of its own, for slices in Hounsfield units."""
    dataset = pydicom.dcmread(source, stop_before_pixels=True)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.PixelSpacing = [f"{_MM:g}"] * 2
    # Stored slices are upright.
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.Rows = dataset.Columns = SIZE
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 1
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
    dataset.StudyInstanceUID = _uid(number)
    dataset.SeriesInstanceUID = _uid(number, "series")
    dataset.FrameOfReferenceUID = _uid(number, "frame of reference")
    for name in ("PixelPaddingValue", "SmallestImagePixelValue", "LargestImagePixelValue"):
        dataset.pop(name, None)
    return dataset


def _fill(dataset: pydicom.Dataset, number: int, k: int, values: np.ndarray) -> None:
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = _uid(number, k)
    dataset.InstanceNumber = k + 1
    corner = f"{-_MM * (SIZE - 1) / 2:g}"
    dataset.SliceLocation = f"{k + 0.01 * number:.2f}"
    dataset.ImagePositionPatient = [corner, corner, dataset.SliceLocation]
    dataset.PixelData = values.astype("<i2").tobytes()
    dataset["PixelData"].VR = "OW"


def _uid(*words: object) -> UID:
    return generate_uid(entropy_srcs=["clotline bench", *map(str, words)])
