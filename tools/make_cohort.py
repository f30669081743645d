"""Writes phantoms as another hospital might send them, to try validation on.

    python -m tools.make_cohort FOLDER [--studies 40] [--seed 4711]

Other patients than the demo's, with fainter contrast and more noise, as NIfTI, and ``labels.csv``
with one label a study.
"""

import argparse
import dataclasses
from pathlib import Path

import nibabel
import numpy as np

from clotline.data import phantom
from clotline.job.progress import progress
from clotline.workflow.config import load_config

#: How much of the contrast above soft tissue, of 60 HU, is left.
CONTRAST, SOFT_TISSUE = 0.8, 60
#: Times the noise of the demo's phantoms.
NOISE = 1.3


def write_cohort(folder: Path, studies: int, seed: int, **keys: int) -> list[str]:
    """Writes the scans of a cohort.

    Args:
        folder: that gets ``case00.nii.gz`` and so on.
        studies: their number.
        seed: of the cohort.
        keys: further keys of the configuration's section ``phantom``.

    Returns:
        The lines of ``labels.csv``, to be written by whoever may add to them.
    """
    settings = {"studies": studies, "seed": seed} | keys
    cohort = phantom.draw_cohort(load_config({"phantom": settings})["phantom"])
    lines = ["file,PE,sex,age"]
    for number, study in enumerate(progress(cohort, len(cohort), "writing", "studies")):
        scan = study.acquisition
        noisy = dataclasses.replace(scan, noise=NOISE * scan.noise)
        hu = np.stack(list(phantom.render(dataclasses.replace(study, acquisition=noisy))))
        hu = np.where(hu > SOFT_TISSUE, SOFT_TISSUE + CONTRAST * (hu - SOFT_TISSUE), hu)
        grid = study.grid
        affine = np.diag([-grid.pixel, -grid.pixel, grid.spacing, 1.0])
        affine[:3, 3] = -grid.x[0], -grid.y[0], grid.bottom
        image = nibabel.Nifti1Image(hu.transpose(2, 1, 0).round().astype(np.int16), affine)
        nibabel.save(image, folder / f"case{number:02}.nii.gz")
        lines.append(f"case{number:02},{int(study.positive)},{'MF'[number % 2]},{30 + number}")
    return lines


def main(arguments: list[str] | None = None) -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="to write to")
    parser.add_argument("--studies", type=int, default=40)
    parser.add_argument("--seed", type=int, default=4711)
    given = parser.parse_args(arguments)
    given.folder.mkdir(parents=True, exist_ok=True)
    lines = write_cohort(given.folder, given.studies, given.seed)
    (given.folder / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
