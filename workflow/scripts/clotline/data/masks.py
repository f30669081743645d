"""Masks of emboli: which slices of a scan they mark.

A slice shows an embolus where its mask is not empty. Masks lie in NIfTI, NRRD or MATLAB files, and
say where their slices lie, or follow the files of the scan in an order that the description of the
cohort names.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from clotline.data.archives import located, unpacked
from clotline.data.dicom.ct_slice import image_corner, position_along_scan
from clotline.data.dicom.orientation import image_axes
from clotline.data.dicom.rejection import SliceError, one_line
from clotline.data.dicom.volume import VolumeFile, is_volume
from clotline.data.shards import POSITION
from clotline.errors import ClotlineError

#: Ways in which the slices of a mask follow those of the scan, of the description's ``mask_order``.
GEOMETRY, FILE_NAMES, UPWARDS, DOWNWARDS = "geometry", "file names", "feet to head", "head to feet"

#: How far a mask's slice may lie from that of the scan, as a part of the distance between slices.
_NEAR = 0.5


class _MaskVolume(VolumeFile):
    """A volume of marks: its values are no Hounsfield units."""

    def _check_values(self) -> None:
        pass

    def not_empty(self) -> np.ndarray:
        """(count,) bool, which slices have a value other than 0; what is no number is none."""
        return np.array([self._marks(self._array[:, :, k]).any() for k in range(self.count)])

    def _marks(self, stored: np.ndarray) -> np.ndarray:
        if stored.dtype.kind == "f":
            values = stored * self._slope + self._intercept
            return (values != 0) & ~np.isnan(values)
        # Software that scales 0 and 1 to all of an integer's range stores 0 as the lowest value.
        return stored != round(-self._intercept / self._slope)

    def positions(self) -> np.ndarray:
        """(count,) mm along the scan axis, as of a scan's slices."""
        first, last = (
            position_along_scan(image_corner(header), image_axes(header))
            for header in (self.frame(1), self.frame(self.count))
        )
        return np.linspace(first, last, self.count)


def slice_labels(path: str | Path, slices: pd.DataFrame, description: Mapping) -> np.ndarray:
    """Which slices of a scan a mask marks.

    Args:
        path: of the mask.
        slices: those stored of the scan, in order along the scan axis, with ``position_mm``,
            ``path`` and ``frame``, and the column ``slices``: how many the scan has with those
            that were not stored.
        description: of the cohort.

    Returns:
        (n,) int8, 1 where the mask is not empty.

    Raises:
        SliceError: the mask cannot be read, or does not fit the scan; says why.
    """
    try:
        # One at a time: unpacked, all of a data set's can be hundreds of gigabytes.
        with unpacked(Path(path).parent, [Path(path).name]) as packed:
            if len(packed.files) != 1:
                why = "; ".join(packed.refused.values())
                raise SliceError(why or "an archive of several files")
            marked, positions = _read(located(packed.folder, packed.files[0]), description)
    except (SliceError, ClotlineError, MemoryError):  # no room to unpack it is no fault of it
        raise
    except Exception as error:  # readers raise many types on damaged files
        raise SliceError(f"the mask is unreadable: {one_line(error)}") from error
    order = description["mask_order"]
    if order == GEOMETRY:
        if positions is None:
            raise SliceError(
                "a MATLAB mask does not say where its slices lie: name the order (mask_order)"
            )
        return _by_position(marked, positions, slices[POSITION].to_numpy())
    count = int(slices["slices"].iloc[0])
    if len(marked) != count:
        raise SliceError(f"the mask has {len(marked):,} slices and the scan {count:,}")
    if len(slices) != count:
        raise SliceError(
            f"{count - len(slices):,} slices of the scan were not stored, and the mask's follow "
            f"by number"
        )
    if order == FILE_NAMES:
        ranks = slices[["path", "frame"]].apply(tuple, axis=1).rank(method="first").astype(int) - 1
        return marked[ranks.to_numpy()].astype(np.int8)
    return (marked if order == UPWARDS else marked[::-1]).astype(np.int8)


def _read(path: str, description: Mapping) -> tuple[np.ndarray, np.ndarray | None]:
    """Which slices of a mask are not empty, and where they lie, if it says so."""
    if not is_volume(path):
        return _of_matlab(path, description["mask_variable"]), None
    mask = _MaskVolume(path)
    return mask.not_empty(), mask.positions()


def _by_position(marked: np.ndarray, lies_at: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """The mark of the mask's slice at each position."""
    if np.isnan(positions).any():
        raise SliceError(
            "the positions of the scan's slices are not known, so its mask cannot be laid on it"
        )
    step = np.median(np.diff(np.sort(lies_at))) if len(lies_at) > 1 else 1.0
    distance = np.abs(lies_at[None, :] - positions[:, None])
    nearest = distance.argmin(axis=1)
    farthest = distance.min(axis=1).max()
    if farthest > _NEAR * step:
        raise SliceError(
            f"the mask lies from {lies_at.min():.1f} to {lies_at.max():.1f} mm along the scan "
            f"axis and the scan from {positions.min():.1f} to {positions.max():.1f} mm"
        )
    return marked[nearest].astype(np.int8)


def _of_matlab(path: str | Path, variable: str) -> np.ndarray:
    """(slices,) bool, which slices of a MATLAB array (rows, columns, slices) are not empty."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    with Path(path).open("rb") as file:
        start = file.read(128)
    if b"MATLAB 7.3" in start:
        import h5py

        with h5py.File(path) as file:
            if variable not in file:
                raise SliceError(
                    f"{Path(path).name} has no variable {variable}; it has {', '.join(file)}"
                )
            # HDF5 has a MATLAB array's axes in reverse.
            mask = file[variable][()].T
    else:
        try:
            content = loadmat(path, variable_names=[variable])
        except (MatReadError, ValueError, NotImplementedError) as error:
            raise SliceError(f"no NIfTI, NRRD or MATLAB file: {one_line(error)}") from None
        if variable not in content:
            raise SliceError(f"{Path(path).name} has no variable {variable} (mask_variable)")
        mask = content[variable]
    if mask.ndim != 3:
        raise SliceError(f"a mask of {mask.ndim} dimensions: rows, columns and slices are needed")
    return (mask != 0).any(axis=(0, 1))
