"""The neighbouring slices that a network sees beside each slice, as further channels."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from clotline.data.shards import CHECKSUM, POSITION
from clotline.labels import SERIES_UID, STUDY_UID

#: A step of more than this many usual ones is a gap, beyond which no neighbour is looked for.
GAP = 2


def plane_columns(planes: int) -> tuple[list[str], list[str]]:
    """Columns of the rows and of the checksums of a slice's planes, from feet to head.

    The middle ones are the slice's own, ``row`` and ``checksum``.
    """
    half = planes // 2
    endings = [f"{offset:+d}" if offset else "" for offset in range(-half, half + 1)]
    return [f"row{ending}" for ending in endings], [f"{CHECKSUM}{ending}" for ending in endings]


def add_planes(slices: pd.DataFrame, planes: int, distance_mm: float | None) -> pd.DataFrame:
    """A table of stored slices with the columns of `plane_columns`.

    Where there is no neighbour, at the ends of a scan and at gaps, the last slice before stands for
    it: mostly the slice itself.

    Args:
        slices: all slices of whole scans in the order of their shards, with study and series UID,
            ``row``, ``position_mm`` and checksum.
        planes: number of planes, odd; 1 changes nothing.
        distance_mm: from one plane to the next, each the slice nearest to there; None takes the
            next slices. Where positions are unknown, these are taken anyway.
    """
    if planes == 1:
        return slices
    found = np.concatenate(
        [np.empty((0, planes), np.int64)]
        + [
            first + _neighbours(positions, planes // 2, distance_mm)
            for first, positions in _scans(slices)
        ]
    )
    rows, checksums = slices["row"].to_numpy(), slices[CHECKSUM].to_numpy()
    names = zip(*plane_columns(planes), strict=True)
    return slices.assign(
        **{
            name: values[found[:, plane]]
            for plane, columns in enumerate(names)
            for name, values in zip(columns, (rows, checksums), strict=True)
        }
    )


def _scans(slices: pd.DataFrame) -> Iterator[tuple[int, np.ndarray]]:
    """Of each scan where it begins, and its slices' positions in mm."""
    uids = slices[[STUDY_UID, SERIES_UID]].to_numpy()
    positions = slices[POSITION].to_numpy()
    # Of several scans in one series, one is stored after the other: there positions fall.
    begins = (uids[1:] != uids[:-1]).any(1) | (positions[1:] < positions[:-1])
    starts = np.flatnonzero(np.r_[True, begins][: len(uids)])
    stops = np.append(starts[1:], len(uids))[: len(starts)]
    for start, stop in zip(starts, stops, strict=True):
        yield start, positions[start:stop]


def _neighbours(positions: np.ndarray, half: int, distance_mm: float | None) -> np.ndarray:
    """(n, 2 half + 1) int: the planes of a scan's n slices, from feet to head."""
    steps = np.diff(positions)
    known = (steps >= 0).all()  # no step from or to an unknown position is
    offsets = np.arange(-half, half + 1)
    if known and distance_mm is not None:
        return _nearest(positions, positions[:, None] + offsets * distance_mm)
    here = np.arange(len(positions))
    first, last = np.zeros_like(here), np.full_like(here, len(here) - 1)
    if known and len(steps):
        gaps = np.flatnonzero(steps > GAP * np.median(steps)) + 1
        part = np.searchsorted(gaps, here, side="right")
        first, last = np.r_[0, gaps][part], np.r_[gaps, len(here)][part] - 1
    return (here[:, None] + offsets).clip(first[:, None], last[:, None])


def _nearest(positions: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Indices of the ascending positions that lie nearest to some places."""
    above = np.searchsorted(positions, places).clip(1).clip(max=len(positions) - 1)
    below = np.maximum(above - 1, 0)
    return np.where(places - positions[below] <= positions[above] - places, below, above)
