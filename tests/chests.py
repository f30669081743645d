"""Pictures of a chest, drawn, and series of them as DICOM files."""

from pathlib import Path

import numpy as np
from builders import write_dicom


def chest_picture(
    side: int = 256, blood: float = 300, lungs: bool = True, bone: float = 600, noise: float = 0
) -> np.ndarray:
    """(side, side) int16 HU: a body of fat and muscle in air with lungs, heart, spine and sternum.

    Args:
        side: of the picture, which shows 360 mm.
        blood: HU of the heart.
        lungs: whether there are any.
        bone: HU of bone.
        noise: standard deviation in HU.
    """
    y, x = (np.mgrid[:side, :side] + 0.5) * 360 / side - 180
    hu = np.full((side, side), -1000.0)
    hu[np.hypot(y / 110, x / 165) < 1] = -90
    hu[np.hypot(y / 95, x / 150) < 1] = 40
    if lungs:
        for centre in (-72, 72):
            hu[np.hypot(y / 80, (x - centre) / 52) < 1] = -850
    hu[np.hypot((y + 5) / 38, (x - 10) / 42) < 1] = blood
    hu[np.hypot((y - 62) / 20, x / 22) < 1] = bone
    hu[np.hypot((y + 85) / 7, x / 25) < 1] = bone
    for centre in (-130, 130):
        hu[np.hypot(y / 30, (x - centre) / 5) < 1] = bone
    if noise:
        hu += np.random.default_rng(0).normal(0, noise, hu.shape)
    return np.rint(hu).astype(np.int16)


def write_scan(
    folder: Path,
    series: str = "1.1",
    study: str = "1",
    count: int = 20,
    first: int = 0,
    step: float = 3.0,
    side: int = 64,
    **tags,
) -> None:
    """Writes slices of a chest, each marked by its number in HU at the start of its second row.

    Args:
        folder: of the files.
        series: SeriesInstanceUID.
        study: StudyInstanceUID.
        count: of the slices.
        first: number of the lowest one.
        step: mm from one to the next.
        side: of the pictures.
        tags: more elements; a function is asked with the slice's number. ``blood`` is HU, and
            ``lungs`` whether a slice shows any.
    """
    blood = tags.pop("blood", 300)
    lungs = tags.pop("lungs", lambda number: True)
    name = tags.pop("name", series)
    for number in range(first, first + count):
        pixels = chest_picture(side, blood, lungs(number))
        pixels[1, :4] = number
        elements = {
            "StudyInstanceUID": study,
            "SeriesInstanceUID": series,
            "SOPInstanceUID": f"{series}.{len(name)}.{number}",
            "InstanceNumber": number + 1,
            "ImagePositionPatient": [-180, -180, step * number],
            "PixelSpacing": [360 / side, 360 / side],
            "FrameOfReferenceUID": f"{study}.9",
            "SeriesNumber": 1,
            "AcquisitionNumber": 1,
            "SliceThickness": step,
        }
        for tag, value in (elements | tags).items():
            elements[tag] = value(number) if callable(value) else value
        write_dicom(folder / f"{name}-{number:03}", pixels, **elements)
