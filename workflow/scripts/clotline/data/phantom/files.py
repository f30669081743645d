"""The cohort as DICOM files in the published layout: CT Image Storage, in several encodings.

The same study gives the same bytes: no clock, no random UID, no version of a library in a file.
"""

import hashlib
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import cv2
import gdcm
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLosslessSV1,
    RLELossless,
)

from clotline.job.processes import end_with_parent

from .cohort import Study, draw_cohort, labels_table
from .render import outside_field, render

_TRANSFER_SYNTAX = {
    "explicit": ExplicitVRLittleEndian,
    "implicit": ImplicitVRLittleEndian,
    "big endian": ExplicitVRBigEndian,
    "rle": RLELossless,
    "jpeg lossless": JPEGLosslessSV1,
}

#: A stored value that no tissue has, for pixels outside the field of view.
_PADDING = -2000

#: Names this writer in the file meta information; fixed, so that files do not change with pydicom.
_IMPLEMENTATION_UID = UID("2.25.272021140523414711130717023905401130191")
_IMPLEMENTATION_NAME = "CLOTLINE_PHANTOM"


def write_cohort(
    settings: Mapping,
    folder: str | Path,
    labels_csv: str | Path,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Writes `<folder>/<study>/<series>/<sop>.dcm` for every study, then the labels file.

    The labels file appears last and whole: where it is, the files are.

    Args:
        settings: as for `draw_cohort`.
        folder: for the files.
        labels_csv: path of the labels file.
        workers: how many processes write; the result does not depend on it.
        progress: called with the number of studies written and of all.
    """
    cohort = draw_cohort(settings)
    folder, labels_csv = Path(folder), Path(labels_csv)
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [(study, folder) for study in cohort]
    if workers <= 1:
        _report(map(_write_job, jobs), len(jobs), progress)
    else:
        # Forked: a spawned process would run the calling script again. OpenCV's own threads do not
        # survive a fork and would be waited for, so they end before it.
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)
        try:
            with ProcessPoolExecutor(workers, get_context("fork"), end_with_parent) as pool:
                _report(pool.map(_write_job, jobs), len(jobs), progress)
        finally:
            cv2.setNumThreads(threads)
    labels_csv.parent.mkdir(parents=True, exist_ok=True)
    partial = labels_csv.with_name(f".{labels_csv.name}.partial")
    labels_table(cohort).to_csv(partial, index=False)
    partial.replace(labels_csv)


def _report(written, total: int, progress: Callable[[int, int], None] | None) -> None:
    for done, _ in enumerate(written, start=1):
        if progress is not None:
            progress(done, total)


def _write_job(job: tuple[Study, Path]) -> None:
    write_study(*job)


def write_study(study: Study, folder: Path) -> None:
    """Renders a study and writes its files below a folder."""
    write_slices(study, render(study), folder)


def write_slices(study: Study, volume: np.ndarray, folder: Path) -> None:
    """Writes a study that is rendered already.

    Args:
        study: of this phantom or another with its `grid`, `acquisition` and UIDs.
        volume: (slices, size, size) int16 in HU, in scan order (ascending z).
        folder: for `<study>/<series>/<sop>.dcm`.
    """
    series = folder / study.uid / study.series_uid
    series.mkdir(parents=True, exist_ok=True)
    outside = outside_field(study.grid) if study.acquisition.round_field else None
    dataset = _header(study)
    for k, values in enumerate(volume):
        _fill_slice(dataset, study, k, values, outside)
        dataset.save_as(series / f"{study.sop_uids[k]}.dcm", enforce_file_format=True)


def _dotted(*words: object) -> UID:
    """A valid UID of the 2.25 branch, the same for the same words."""
    digest = hashlib.sha256(" ".join(map(str, words)).encode()).digest()
    return UID(f"2.25.{int.from_bytes(digest[:15], 'big')}")


def _header(study: Study) -> Dataset:
    """What all files of a study share; the order of elements is sorted on writing."""
    grid, scan = study.grid, study.acquisition
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.TransferSyntaxUID = _TRANSFER_SYNTAX[scan.encoding]
    meta.ImplementationClassUID = _IMPLEMENTATION_UID
    meta.ImplementationVersionName = _IMPLEMENTATION_NAME
    dataset = Dataset()
    dataset.file_meta = meta
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.SOPClassUID = CTImageStorage
    dataset.StudyInstanceUID = _dotted(study.uid)
    dataset.SeriesInstanceUID = _dotted(study.series_uid)
    dataset.FrameOfReferenceUID = _dotted(study.uid, "frame of reference")
    dataset.StudyDate = dataset.SeriesDate = "20200101"
    dataset.StudyTime = dataset.SeriesTime = "120000"
    dataset.AccessionNumber = ""
    dataset.Modality = "CT"
    dataset.Manufacturer = "Clotline"
    dataset.ManufacturerModelName = "Phantom"
    dataset.ReferringPhysicianName = ""
    dataset.StudyDescription = "CT PULMONARY ANGIOGRAPHY"
    dataset.SeriesDescription = "PHANTOM"
    dataset.PatientName = dataset.PatientID = "PHANTOM"
    dataset.PatientBirthDate = dataset.PatientSex = ""
    dataset.PatientPosition = "FFS" if scan.feet_first else "HFS"
    dataset.PositionReferenceIndicator = ""
    dataset.BodyPartExamined = "CHEST"
    dataset.StudyID = "1"
    dataset.SeriesNumber = 2
    dataset.AcquisitionNumber = 1
    dataset.KVP = 100
    dataset.SliceThickness = f"{grid.spacing:.3f}"
    dataset.ReconstructionDiameter = f"{grid.pixel * grid.size:.3f}"
    way = -1 if scan.upside_down else 1
    dataset.ImageOrientationPatient = [way, 0, 0, 0, way, 0]
    dataset.PixelSpacing = [f"{grid.pixel:.6f}"] * 2
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows = dataset.Columns = grid.size
    dataset.BitsAllocated = 16
    dataset.BitsStored = 16 if scan.signed else 12
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(scan.signed)
    if scan.round_field:
        dataset.PixelPaddingValue = _PADDING
    dataset.RescaleIntercept = str(scan.intercept)
    dataset.RescaleSlope = str(scan.slope)
    dataset.RescaleType = "HU"
    dataset.WindowCenter, dataset.WindowWidth = "100", "700"
    return dataset


def _fill_slice(
    dataset: Dataset, study: Study, k: int, values: np.ndarray, outside: np.ndarray | None
) -> None:
    """Sets what differs in slice k of a study; values are (size, size) int16 in HU."""
    grid, scan = study.grid, study.acquisition
    uid = _dotted(study.sop_uids[k])
    dataset.file_meta.MediaStorageSOPInstanceUID = uid
    dataset.SOPInstanceUID = uid
    dataset.InstanceNumber = grid.slices - k if scan.downwards else k + 1
    z = scan.table_position + float(grid.z[k])
    dataset.SliceLocation = f"{z:.3f}"
    first = -1 if scan.upside_down else 0
    corner = (float(grid.x[first]), float(grid.y[first]), z)
    dataset.ImagePositionPatient = [f"{v:.3f}" for v in corner]
    stored = (values.astype(np.int32) - scan.intercept) // scan.slope
    if outside is not None:
        stored[outside] = _PADDING
    if scan.upside_down:
        stored = stored[::-1, ::-1]
    byte_order = ">" if scan.encoding == "big endian" else "<"
    pixels = stored.astype(f"{byte_order}i2" if scan.signed else f"{byte_order}u2").tobytes()
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        pixels = encapsulate([_compress(pixels, dataset)])
    dataset.PixelData = pixels
    dataset["PixelData"].VR = "OB" if dataset.file_meta.TransferSyntaxUID.is_compressed else "OW"


def _compress(pixels: bytes, dataset: Dataset) -> bytes:
    """One frame of little-endian values in the dataset's encoding, RLE or JPEG Lossless."""
    writer = gdcm.ImageWriter()  # owns the image
    image = writer.GetImage()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((dataset.Columns, dataset.Rows, 1))
    image.SetPhotometricInterpretation(
        gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2)
    )
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.ExplicitVRLittleEndian))
    image.SetPixelFormat(
        gdcm.PixelFormat(
            1, 16, dataset.BitsStored, dataset.BitsStored - 1, dataset.PixelRepresentation
        )
    )
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetByteStringValue(pixels)
    image.SetDataElement(element)
    converter = gdcm.ImageChangeTransferSyntax()
    syntax = gdcm.TransferSyntax.GetTSType(dataset.file_meta.TransferSyntaxUID)
    converter.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    converter.SetInput(image)
    if not converter.Change():
        raise RuntimeError(f"cannot encode as {dataset.file_meta.TransferSyntaxUID.name}")
    fragments = converter.GetOutput().GetDataElement().GetSequenceOfFragments()
    if fragments is None or fragments.GetNumberOfFragments() != 1:
        raise RuntimeError("expected one fragment per frame")
    return fragments.GetFragment(0).GetByteValue().GetBuffer().encode("utf-8", "surrogateescape")
