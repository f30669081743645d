"""A mark at a known place in the patient is found there again on the stored slice."""

import numpy as np
import pytest
from builders import write_dicom

from clotline.data.dicom.ct_slice import read_slice
from clotline.data.dicom.placement import Plane
from clotline.data.dicom.source import read_source
from clotline.grid import PICTURE, SIZE, Box


def tilted(degrees):
    angle = np.deg2rad(degrees)
    return [1, 0, 0, 0, float(np.cos(angle)), float(-np.sin(angle))]


ORIENTATIONS = {
    "supine": [1, 0, 0, 0, 1, 0],
    "prone": [-1, 0, 0, 0, -1, 0],
    "mirrored": [-1, 0, 0, 0, 1, 0],
    "upside down": [1, 0, 0, 0, -1, 0],
    "transposed": [0, 1, 0, 1, 0, 0],
    "transposed and turned": [0, -1, 0, 1, 0, 0],
    "tilted by 20 degrees": tilted(20),
    "oblique in the plane": [0.9848078, 0.1736482, 0, -0.1736482, 0.9848078, 0],
    "coronal": [1, 0, 0, 0, 0, -1],
}


def marked(folder, matrix, spacing, axes, at, corner=(-171.5, -160.25, 43.75)):
    """A file of air with a mark of some pixels, and where its centre lies in the patient."""
    row, column = at
    half = 4
    stored = np.full(matrix, -1000, np.int16)
    stored[row - half : row + half + 1, column - half : column + half + 1] = 1000
    path = write_dicom(
        folder / "slice.dcm", stored, PixelSpacing=list(spacing), ImageOrientationPatient=axes,
        ImagePositionPatient=list(corner), StudyInstanceUID="1.2", SeriesInstanceUID="1.2.3",
    )  # fmt: skip
    # As PS3.3, C.7.6.2.1.1 has it.
    place = np.array(corner) + np.array(axes[:3]) * spacing[1] * column
    return path, place + np.array(axes[3:]) * spacing[0] * row


def found(path, size=SIZE, box=PICTURE):
    """Where the mark's centre lies by the stored pixels and their plane."""
    weights = read_slice(path, size=size, box=box).pixels.astype(float) + 1000
    rows, columns = np.mgrid[:size, :size]
    total = weights.sum()
    plane = read_source(path, size=size, box=box).plane
    return plane.at((columns * weights).sum() / total, (rows * weights).sum() / total)


@pytest.mark.parametrize("axes", ORIENTATIONS.values(), ids=ORIENTATIONS)
@pytest.mark.parametrize(
    ("matrix", "spacing"),
    [
        ((512, 512), (0.7, 0.7)),
        ((256, 256), (1.4, 1.4)),
        ((300, 400), (0.8, 0.8)),
        ((512, 512), (0.6, 0.9)),
        ((401, 333), (1.1, 0.7)),
    ],
    ids=str,
)
def test_a_mark_is_found_where_it_is(tmp_path, matrix, spacing, axes):
    path, place = marked(tmp_path, matrix, spacing, axes, at=(70, 190))
    # A tenth of a stored pixel: what is stretched by lines between centres is less exact.
    pixel = max(n * mm for n, mm in zip(matrix, spacing, strict=True)) / SIZE
    assert found(path) == pytest.approx(place, abs=0.1 * pixel)


#: The marks of all matrices and orientations lie in it.
PART = Box(0.083, 0.061, 0.857)


@pytest.mark.parametrize("axes", ORIENTATIONS.values(), ids=ORIENTATIONS)
@pytest.mark.parametrize(
    ("matrix", "spacing"),
    [((512, 512), (0.7, 0.7)), ((300, 400), (0.8, 0.8)), ((512, 512), (0.6, 0.9))],
    ids=str,
)
@pytest.mark.parametrize(
    ("size", "box"), [(512, PICTURE), (256, PART), (384, PART), (512, PART)], ids=str
)
def test_a_mark_is_found_where_it_is_in_another_grid(tmp_path, matrix, spacing, axes, size, box):
    path, place = marked(tmp_path, matrix, spacing, axes, at=(150, 190))
    pixel = max(n * mm for n, mm in zip(matrix, spacing, strict=True)) / SIZE
    assert found(path, size, box) == pytest.approx(place, abs=0.1 * pixel)
    read = read_slice(path, size=size, box=box)
    assert read.pixels.shape == (size, size)
    sides = read_source(path, size=size, box=box).plane.spacing
    # What is not square is stretched to whole pixels.
    assert sides == pytest.approx([read.traits.field_mm * read.shown / size] * 2, rel=0.005)


def test_the_planes_sides_are_those_of_the_file(tmp_path):
    path, _ = marked(tmp_path, (512, 512), (0.7, 0.7), [1, 0, 0, 0, 1, 0], (70, 190))
    plane = read_source(path).plane
    assert plane.spacing == pytest.approx((1.4, 1.4))
    assert plane.orientation == pytest.approx([1, 0, 0, 0, 1, 0])
    # The first stored pixel is the mean of four: its centre lies between theirs.
    assert plane.corner == pytest.approx([-171.5 + 0.35, -160.25 + 0.35, 43.75])


def test_a_grid_of_cells_covers_its_square():
    plane = Plane(np.array([10.0, 20, 5]), np.array([2.0, 0, 0]), np.array([0, 3.0, 0]))
    cells = plane.part(16, 16, 224, columns=7, rows=4)
    assert cells.spacing == pytest.approx((224 / 4 * 3, 32 * 2))
    # The upper left edge of the first cell is that of the square.
    edge = cells.at(-0.5, -0.5)
    assert edge == pytest.approx(plane.at(15.5, 15.5))
    assert cells.at(6.5, 3.5) == pytest.approx(plane.at(15.5 + 224, 15.5 + 224))
