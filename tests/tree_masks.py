"""Made-up masks of lungs, vessels and emboli, in the files of real ones."""

from pathlib import Path

import nibabel
import numpy as np

#: Voxels of a mask along x, y and z, and their size in mm.
SHAPE, VOXEL = (120, 96, 64), (2.0, 2.0, 3.0)

#: Emboli of a made-up tree: (x, y, z) of the first and last point in mm, and the radius. In this
#: order: in the right main artery (central), in a right one, in a left one.
EMBOLI = (
    ((-40, 0, -15), (-25, 0, -15), 6.0),
    ((-60, 5, -60), (-60, 5, -20), 3.0),
    ((60, 5, 5), (60, 5, 13), 3.0),
)


def tree_masks(longer: float = 1.0) -> dict[str, np.ndarray]:
    """The masks of one case: x to the patient's left, y to the back, z to the head.

    Args:
        longer: times the length of the embolus in the right lower artery.

    Returns:
        File's name to `SHAPE` uint8.
    """
    axes = [(np.arange(n) - (n - 1) / 2) * v for n, v in zip(SHAPE, VOXEL, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij")

    def tube(first, last, radius):
        first, last = np.array(first, float), np.array(last, float)
        along = last - first
        at = [v - f for v, f in zip((x, y, z), first, strict=True)]
        share = sum(a * d for a, d in zip(at, along, strict=True)) / (along @ along)
        share = np.clip(share, 0, 1)
        away = [a - share * d for a, d in zip(at, along, strict=True)]
        return np.sqrt(sum(a**2 for a in away)) <= radius

    lungs = np.zeros(SHAPE, bool)
    for side in (-1, 1):
        lungs |= ((x - 60 * side) / 40) ** 2 + (y / 75) ** 2 + (z / 90) ** 2 < 1
    artery = tube((-45, 0, -15), (10, -20, -5), 10) | tube((45, 0, -5), (10, -20, -5), 10)
    vein = tube((-30, 30, -30), (30, 30, -30), 8)
    emboli = np.zeros(SHAPE, bool)
    for number, (first, last, radius) in enumerate(EMBOLI):
        if number == 1:
            last = (*last[:2], first[2] + longer * (last[2] - first[2]))
        emboli |= tube(first, last, radius)
    for side in (-1, 1):
        artery |= tube((60 * side, 5, -65), (60 * side, 5, 40), 5)
        artery |= tube((45 * side, 0, -10), (60 * side, 5, -10), 5)
        vein |= tube((30 * side, 30, -30), (70 * side, 40, -50), 4)
    return {
        "lungmask": lungs.astype(np.uint8),
        "vessel": np.where(artery, 1, np.where(vein, 2, 0)).astype(np.uint8),
        "aanet_pe": emboli.astype(np.uint8),
    }


def write_masks(folder: Path, name: str, masks: dict[str, np.ndarray]) -> None:
    """Writes the masks of a case as NIfTI files."""
    folder.mkdir(parents=True, exist_ok=True)
    affine = np.diag([-VOXEL[0], -VOXEL[1], VOXEL[2], 1.0])
    for file, mask in masks.items():
        nibabel.save(nibabel.Nifti1Image(mask, affine), folder / f"{name}_{file}.nii.gz")


def write_cases(folder: Path) -> None:
    """Writes three cases, whose emboli are of different lengths."""
    for number, longer in enumerate((1.0, 0.5, 1.5)):
        write_masks(folder, f"{number:03}", tree_masks(longer))
