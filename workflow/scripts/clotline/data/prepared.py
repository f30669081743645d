"""In which form a bundle of models wants slices, as its manifest says it.

Snakemake asks before any job runs, so nothing here imports more than it needs.
"""

import json
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from clotline.grid import LUNGS, PUBLISHED, SIZES, WHOLE, Grid

MANIFEST = "manifest.json"


def prepared_grid(preprocessing: Mapping) -> Grid:
    """The grid in the field ``preprocessing`` of a manifest; the published one where none is known.

    Args:
        preprocessing: ``slice`` is rows and columns, ``crop`` what they show; that key is there in
            no bundle whose slices show the whole picture.
    """
    told = {key: preprocessing[key] for key in ("slice", "crop") if key in preprocessing}
    grids = (Grid(size, crop) for size in SIZES for crop in (WHOLE, LUNGS))
    return next((grid for grid in grids if grid_fields(grid) == told), PUBLISHED)


def grid_fields(grid: Grid) -> dict:
    """What a manifest says of a grid."""
    return {"slice": list(grid.shape)} | ({} if grid.crop == WHOLE else {"crop": grid.crop})


def bundle_grid(path: str | Path) -> Grid:
    """The grid of the slices that a bundle's models were trained on.

    Of a file that cannot be read the published one: whoever applies the models tells what is wrong.

    Args:
        path: of the bundle.
    """
    with (
        suppress(OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError),
        suppress(KeyError, ValueError, TypeError, AttributeError),
        zipfile.ZipFile(path) as archive,
    ):
        return prepared_grid(json.loads(archive.read(MANIFEST))["preprocessing"])
    return PUBLISHED
