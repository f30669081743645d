"""The order of a study's slices along the scan axis, and what is odd about it."""

import math
from statistics import covariance
from typing import NamedTuple

from clotline.data.dicom.ct_slice import Slice
from clotline.data.dicom.orientation import AXIAL, UNKNOWN_ORIENTATION, stored_orientation
from clotline.data.scans import MIN_SLICES, one_stack, split_scans
from clotline.data.shards import POSITION
from clotline.labels import SERIES_UID


class Order(NamedTuple):
    """What orders the slices of a study.

    Attributes:
        scans: of each slice, which scan of its series it belongs to, from 0.
        along: of each slice, a number that rises along the scan axis within its scan.
        positions: of each slice, in mm; NaN where unknown.
        notes: on the study.
    """

    scans: list[int]
    along: list[float]
    positions: list[float]
    notes: list[str]


def along_scan(series: list[str], slices: list[Slice]) -> Order:
    """What orders the slices of each series.

    Args:
        series: SeriesInstanceUID of each slice, or whatever else is to be in order as one.
        slices: what was read of each.
    """
    count = len(slices)
    order = Order([0] * count, [0.0] * count, [math.nan] * count, [])
    for uid in dict.fromkeys(series):
        members = [member for member, of in enumerate(series) if of == uid]
        parts = _scans_of(members, slices)
        for number, part in enumerate(parts):
            along, positions, note = _order_series([slices[member] for member in part])
            for member, value, position in zip(part, along, positions, strict=True):
                order.scans[member] = number
                order.along[member], order.positions[member] = value, position
            if note:
                order.notes.append(note)
        if len(parts) > 1:
            counts = ", ".join(map(str, map(len, parts)))
            order.notes.append(f"several scans in one series, one after the other: {counts} slices")
    return order._replace(notes=list(dict.fromkeys(order.notes)))


def _scans_of(members: list[int], slices: list[Slice]) -> list[list[int]]:
    """A series' slices by scan, where they lie between each other; else all of them."""
    traits = [slices[member].traits for member in members]
    positions = [t.position for t in traits]
    told = len(set(positions))
    if None in positions or told < 2:
        return [members]
    parts = [part.members for part in split_scans(traits)]
    # A single odd slice stays where it lies, and so does what follows on.
    large = [part for part in parts if len(part) >= MIN_SLICES]
    repeated = told < len(positions)
    if len(parts) < 2 or not (repeated or len(large) > 1):
        return [members]
    if one_stack([[positions[m] for m in part] for part in parts]):
        return [members]
    return [[members[m] for m in part] for part in parts]


def _order_series(slices: list[Slice]) -> tuple[list[float], list[float], str]:
    """As `along_scan`, of one scan."""
    positions = [s.position for s in slices]
    if None not in positions:
        locations = [s.location for s in slices]
        if len(set(positions)) > 1 or None in locations or len(set(locations)) == 1:
            return positions, positions, ""
        # What tells nothing apart is not known.
        unknown = [math.nan] * len(slices)
        note = f"{len(slices)} slices have the same ImagePositionPatient: ordered by SliceLocation"
        return locations, unknown, f"{note}, perhaps from head to feet"
    lacking = (
        f"{positions.count(None)} of {len(slices)} slices lack a usable ImagePositionPatient or "
        "ImageOrientationPatient"
    )
    known = [math.nan if p is None else p for p in positions]
    sources = {
        "the height of ImagePositionPatient": [s.height for s in slices],
        "SliceLocation": [s.location for s in slices],
        "InstanceNumber": [s.instance for s in slices],
    }
    # Of those that every slice has, the one that tells most of them apart.
    able = {said: v for said, v in sources.items() if None not in v and len(set(v)) > 1}
    if able:
        said, values = max(able.items(), key=lambda source: len(set(source[1])))
        heights = [s.height for s in slices]
        direction = 1 if values == heights else _direction(values, positions, heights)
        if not direction:
            return values, known, f"{lacking}: ordered by {said}, perhaps from head to feet"
        values = [float(value) * direction for value in values]
        in_mm = said != "InstanceNumber" and positions.count(None) == len(slices)
        return values, values if in_mm else known, f"{lacking}: ordered by {said}"
    if positions.count(None) < len(slices):
        # After those whose position is known.
        last = [math.inf if p is None else p for p in positions]
        return last, known, f"{lacking}, and nothing else orders them: put last"
    nothing = "" if len(slices) == 1 else ", and nothing else orders them: by SOPInstanceUID"
    return [0.0] * len(slices), known, lacking + nothing


def _direction(
    values: list[float], positions: list[float | None], heights: list[float | None]
) -> int:
    """1 where values rise along the scan axis, -1 where they fall, 0 if unknown.

    Args:
        values: one a slice.
        positions: along the scan axis, of those slices of which it is known.
        heights: the next best.
    """
    for along in (positions, heights):
        known = [(v, p) for v, p in zip(values, along, strict=True) if p is not None]
        slope = covariance(*zip(*known, strict=True)) if len(known) > 1 else 0
        if slope:
            return 1 if slope > 0 else -1
    return 0


def oddities(
    columns: dict[str, list], headers: list[Slice], scans: list[tuple[str, int]]
) -> list[str]:
    """Notes on a study whose slices may not be one scan, or not lie as most do.

    Args:
        columns: the stored rows in their order.
        headers: what was read of each.
        scans: which scan each belongs to.
    """
    series = columns[SERIES_UID]
    pairs = zip(scans, columns[POSITION], strict=True)
    known = [(scan, position) for scan, position in pairs if not math.isnan(position)]
    own_series = {(uid, header.series_uid) for uid, header in zip(series, headers, strict=True)}
    notes = []
    if len({group for group, _ in scans}) > 1:
        notes.append("several series: one after the other")
    if len(set(known)) < len(known):
        notes.append("slices at the same position: ordered by InstanceNumber, then SOPInstanceUID")
    if len(own_series) > len(set(series)):
        notes.append("headers of one series name several SeriesInstanceUIDs")
    if len({header.sop_uid for header in headers}) < len(headers):
        notes.append("headers of several slices name the same SOPInstanceUID")
    orientations = {header.orientation for header in headers}
    if UNKNOWN_ORIENTATION in orientations:
        notes.append(
            "slices without a usable ImageOrientationPatient: left and right are not known"
        )
    if any(way != AXIAL == stored_orientation(way) for way in orientations):
        notes.append("slices turned until the patient's left is on the right and the back below")
    if any(stored_orientation(way) not in (AXIAL, UNKNOWN_ORIENTATION) for way in orientations):
        notes.append("slices that are not axial: stored as they are")
    remarks = sorted({remark for header in headers for remark in header.remarks})
    return notes + [f"files that are not as they should be: {remark}" for remark in remarks]
