"""Real lungs, pulmonary vessels and emboli, read from masks of CT pulmonary angiograms.

Lengths in mm; arrays are (slices, rows, columns): slices run to the head, rows to the patient's
back, columns to the left.
"""

import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from scipy import ndimage

from clotline.errors import ClotlineError
from clotline.job.files import sha256

#: What a tree's voxels are, as bits; arteries hold their emboli.
LUNG, ARTERY, VEIN = 1, 2, 4

#: The masks of a case: lungs; 1 artery and 2 vein; emboli.
_FILES = ("lungmask", "vessel", "aanet_pe")

#: Least distance between the slices of a tree that is kept, in mm.
_STEP_MM = 1.0

#: A slice shows an embolus of which it holds this area, in mm²; where it is less, it is not drawn.
LEAST_MM2 = 5.0

#: An artery is central where a ball of this radius, in mm, fits into it: trunk, main and
#: interlobar arteries, 14 mm wide and more.
CENTRAL_MM = 7.0

#: An embolus is central, or on a side, if that share of its voxels is.
_SHARE = 0.2


@dataclass(frozen=True)
class Tree:
    """One patient's masks.

    Attributes:
        name: of the case.
        pixel: pixel spacing in mm.
        z: (thin,) float, height of each slice in mm, ascending.
        centre: (column, row) of the middle of the lungs.
        width: of both lungs in mm.
        height: (2,) float, z of the lungs' lowest and highest slice in mm.
        labels: (thin, rows, columns) uint8, bits `LUNG`, `ARTERY` and `VEIN`; columns run to the
            patient's left, rows to the back.
        embolus: the same shape, unsigned: number of the embolus from 1 on, 0 elsewhere.
        left: (emboli,) bool, which have a part in the patient's left half.
        right: likewise.
        central: (emboli,) bool, which have a part in a central artery.
        hilum: z of the central arteries' middle in mm.
    """

    name: str
    pixel: float
    z: np.ndarray
    centre: tuple[float, float]
    width: float
    height: np.ndarray
    labels: np.ndarray
    embolus: np.ndarray
    left: np.ndarray
    right: np.ndarray
    central: np.ndarray
    hilum: float

    @cached_property
    def areas(self) -> np.ndarray:
        """(emboli, thin) float: area of each embolus in each slice in mm²."""
        numbers = len(self.left) + 1
        counts = [np.bincount(slice_.ravel(), minlength=numbers) for slice_ in self.embolus]
        return np.array(counts).T[1:] * self.pixel**2


def find_trees(folder: Path) -> list[str]:
    """Names of the cases whose masks are in a folder, sorted.

    Raises:
        ClotlineError: there are fewer than three, one for each split.
    """
    names = sorted(path.name.partition("_")[0] for path in folder.glob(f"*_{_FILES[1]}.nii.gz"))
    if len(names) < 3:
        raise ClotlineError(
            f"{folder} has the masks of {len(names)} cases, and each split needs one: "
            + ", ".join(f"NNN_{file}.nii.gz" for file in _FILES)
        )
    return names


def masks_of(folder: Path) -> dict[str, str]:
    """Name of each file of masks to its SHA-256.

    Raises:
        ClotlineError: as of `find_trees`; a mask is missing.
    """
    paths = [folder / f"{name}_{file}.nii.gz" for name in find_trees(folder) for file in _FILES]
    if missing := [path.name for path in paths if not path.exists()]:
        raise ClotlineError(f"{folder} lacks {', '.join(missing)}")
    return {path.name: sha256(path) for path in paths}


def read_tree(folder: Path, name: str) -> Tree:
    """Reads the masks of a case.

    Raises:
        ClotlineError: a mask cannot be read, has another grid than the others, or is empty.
    """
    images, arrays = zip(*(_read(folder / f"{name}_{file}.nii.gz") for file in _FILES), strict=True)
    first = images[0]
    for image in images[1:]:
        if image.shape != first.shape or not np.allclose(image.affine, first.affine, atol=1e-3):
            raise ClotlineError(f"{name}: the masks in {folder} lie on different grids")
    across, down, along = (float(v) for v in first.header.get_zooms())
    if abs(across - down) > 1e-3:
        raise ClotlineError(f"{name}: pixels are {across:g} × {down:g} mm, not square")
    step = max(1, round(_STEP_MM / along))
    lungs, vessels, emboli = (array[::step] for array in arrays)
    kinds = {"lungs": lungs > 0, "arteries": vessels == 1, "emboli": emboli > 0}
    if empty := [kind for kind, mask in kinds.items() if not mask.any()]:
        raise ClotlineError(f"{name}: the masks in {folder} have no {', '.join(empty)}")
    of_any = (lungs > 0) | (vessels > 0) | (emboli > 0)
    box = ndimage.find_objects(of_any.astype(np.uint8))[0]
    lungs, vessels, emboli = lungs[box] > 0, vessels[box], emboli[box] > 0
    # The masks of vessels and of emboli come from different networks: where an embolus is, an
    # artery is, in the negative twin as well.
    labels = LUNG * lungs.astype(np.uint8)
    labels[vessels == 2] |= VEIN
    arteries = emboli | (vessels == 1)
    labels[arteries] = labels[arteries] & LUNG | ARTERY
    numbers, _ = ndimage.label(emboli, np.ones((3, 3, 3)))
    wide = central_arteries(arteries, (step * along, down, across))
    numbers, parts = _visible_parts(numbers, across**2)
    is_left = np.zeros_like(emboli)
    is_left[:, :, _midline(lungs) :] = True
    shares = {
        key: np.array([part[numbers == n].mean() >= _SHARE for n in parts], bool)
        for key, part in {"left": is_left, "right": ~is_left, "central": wide}.items()
    }
    rows, columns = (np.flatnonzero(lungs.any((0, axis))) for axis in (2, 1))
    z = step * along * np.arange(len(labels))
    return Tree(
        name=name,
        pixel=across,
        z=z,
        width=float(columns[-1] - columns[0]) * across,
        height=z[np.flatnonzero(lungs.any((1, 2)))[[0, -1]]],
        centre=((columns[0] + columns[-1]) / 2, (rows[0] + rows[-1]) / 2),
        labels=labels,
        embolus=numbers,
        hilum=float(z[np.flatnonzero(wide.any((1, 2)))].mean()) if wide.any() else float(z.mean()),
        **shares,
    )


def _read(path: Path) -> tuple[nibabel.Nifti1Image, np.ndarray]:
    """A mask in the nearest patient axes, and its voxels as (slices, rows, columns)."""
    try:
        image = nibabel.as_closest_canonical(nibabel.load(path))
        voxels = np.asanyarray(image.dataobj)
    except (OSError, EOFError, zlib.error, ImageFileError) as error:
        raise ClotlineError(f"{path} cannot be read: {error}") from None
    return image, voxels[::-1, ::-1].T


def central_arteries(arteries: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """Where arteries are so wide that a ball of radius `CENTRAL_MM` fits: their opening by it.

    Args:
        arteries: (slices, rows, columns) bool.
        spacing: of the voxels along these axes in mm.

    Returns:
        The same shape, bool; of every second row and column, for speed, then repeated.
    """
    few = arteries[:, ::2, ::2]
    spacing = (spacing[0], 2 * spacing[1], 2 * spacing[2])
    middle = ndimage.distance_transform_edt(few, spacing) >= CENTRAL_MM
    opened = np.zeros_like(few)
    if middle.any():
        opened = few & (ndimage.distance_transform_edt(~middle, spacing) <= CENTRAL_MM)
    repeated = opened.repeat(2, 1).repeat(2, 2)
    return repeated[:, : arteries.shape[1], : arteries.shape[2]] & arteries


def _visible_parts(numbers: np.ndarray, pixel_mm2: float) -> tuple[np.ndarray, range]:
    """Numbers anew those emboli that some slice shows; the others are contrast."""
    most = np.zeros(numbers.max() + 1, int)
    for slice_ in numbers:
        most = np.maximum(most, np.bincount(slice_.ravel(), minlength=len(most)))
    found = np.flatnonzero(most[1:] * pixel_mm2 >= LEAST_MM2) + 1
    new = np.zeros(len(most), np.min_scalar_type(len(found)))
    new[found] = np.arange(1, len(found) + 1)
    return new[numbers], range(1, len(found) + 1)


def _midline(lungs: np.ndarray) -> int:
    """The column between the lungs: the one with the least of them in the middle half of it all."""
    profile = lungs.sum((0, 1))
    below = profile.cumsum() / profile.sum()
    first, last = np.searchsorted(below, (0.25, 0.75))
    lowest = np.flatnonzero(profile[first:last] == profile[first:last].min())
    return int(first + lowest[len(lowest) // 2])


def split_trees(folder: Path) -> dict[str, str]:
    """Case to its split: every third tests, one validates, the others train.

    They are dealt in the order of how much of a scan their emboli take, so that each split has
    trees with few positive slices and with many.

    Raises:
        ClotlineError: as of `find_trees`; a mask cannot be read.
    """
    reach = {}
    for name in find_trees(folder):
        image, emboli = _read(folder / f"{name}_{_FILES[2]}.nii.gz")
        reach[name] = float(image.header.get_zooms()[2]) * (emboli > 0).any((1, 2)).sum()
    ordered = sorted(reach, key=lambda name: (reach[name], name))
    others = [name for k, name in enumerate(ordered) if k % 3 != 1]
    valid = others[len(others) // 2]
    return {
        name: "valid" if name == valid else "train" if name in others else "test"
        for name in sorted(ordered)
    }
