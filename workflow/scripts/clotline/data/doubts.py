"""What a user should doubt about a stored scan: notes with numbers.

Each note begins with what it is of, by which notes are counted, then a colon and the numbers. With
``predict_strict`` a study of which one is said is refused.
"""

import math
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from statistics import median

from clotline.data.attenuation import (
    ENHANCED_HU,
    LUNG_SHARE,
    Chest,
    Look,
    summarize,
    wrong_scale,
)
from clotline.data.dicom.ct_slice import Slice
from clotline.data.scans import MIN_SLICES
from clotline.titles import counted

#: A step of more than this many usual ones is a gap.
_GAP = 1.5

#: Steps that differ by more than this share from the usual one are others; in mm, by rounding.
_STEP_SHARE, _STEP_MM = 0.1, 0.11

#: Share of the steps that differ from which on the spacing changes, instead of having gaps.
_CHANGING = 0.1

#: Thickest slices in mm of the studies that the recipe was published for, and shortest chest.
THICKEST_MM, SHORTEST_MM = 3.0, 120.0

#: Shortest extent in mm of the lungs in a scan that holds them; those of adults take 200 to 300.
SHORTEST_LUNGS_MM = 150.0

#: Fewest slices with known positions of which the lungs' extent is told.
_LOOKS = 6
#: How near to an end of the scan a slice tells of that end, in mm or as a share of the scan.
_NEAR_MM, _NEAR = 15.0, 0.06
#: Share of the largest lung from which on a scan's end lies in their middle: towards their tips and
#: bases they take less and less of the body.
_CUT = 0.9

#: Fields of view in mm beyond which the picture has another scale than the training's.
_FIELD_MM = (220.0, 520.0)

#: Smallest angle in degrees that is a tilt of the gantry.
_TILT = 2.0


def doubts_of(
    slices: Sequence[Slice], positions: Sequence[float], looks: Sequence[Look | None]
) -> list[str]:
    """Notes on one scan.

    Args:
        slices: what was read of each, in their order.
        positions: along the scan axis in mm; NaN where unknown.
        looks: what the pixels of some of them show; None for the others.
    """
    if len(slices) < MIN_SLICES:
        return []
    known = [position for position in positions if not math.isnan(position)]
    notes = _spacing_notes(known)
    notes += _geometry_notes(slices)
    chest = summarize([look for look in looks if look is not None])
    scanners = sorted({s.scanner for s in slices if s.scanner})
    if len(scanners) > 1:
        notes.append(f"several scanners: {', '.join(scanners[:3])}")
    if chest is not None:
        notes += _pixel_notes(chest)
        if not wrong_scale(chest):
            seen = [(p, look.lung) for p, look in zip(positions, looks, strict=True)
                    if look is not None and not math.isnan(p)]  # fmt: skip
            notes += _coverage_notes(sorted(seen), known)
    return notes


def _coverage_notes(seen: list[tuple[float, float]], positions: list[float]) -> list[str]:
    """Whether the scan holds the lungs.

    Args:
        seen: position of each slice that was looked at, from the feet on, and the fraction of the
            body in it that is lung.
        positions: of all slices.
    """
    shown = [k for k, (_, lung) in enumerate(seen) if lung >= LUNG_SHARE]
    if len(seen) < _LOOKS or not shown:
        return []
    start, stop = min(positions), max(positions)
    if stop - start < SHORTEST_MM:
        return []  # told by its length
    # They may go on as far as the next slice that was looked at and shows none.
    low = seen[shown[0] - 1][0] if shown[0] else start
    high = seen[shown[-1] + 1][0] if shown[-1] + 1 < len(seen) else stop
    if high - low < SHORTEST_LUNGS_MM:
        return [
            f"the scan does not hold the lungs: they are in at most {high - low:.0f} of its "
            f"{stop - start:.0f} mm, where 200 mm and more are usual"
        ]
    most = max(lung for _, lung in seen)
    near = max(_NEAR_MM, _NEAR * (stop - start))
    cut = [
        f"{lung:.0%} of the body is lung at its {end} end"
        for end, edge, (position, lung) in (("lower", start, seen[0]), ("upper", stop, seen[-1]))
        if abs(position - edge) <= near and lung >= _CUT * most
    ]
    if not cut:
        return []
    return [f"the scan does not hold the lungs: {' and '.join(cut)}, and {most:.0%} at most"]


def _spacing_notes(positions: list[float]) -> list[str]:
    """Gaps, spacing that changes, and a scan that is short."""
    steps = [(b - a, a) for a, b in pairwise(sorted(positions)) if b > a]
    if not steps:
        return []
    usual = median(step for step, _ in steps)
    slack = max(_STEP_MM, _STEP_SHARE * usual)
    notes = []
    odd = [(step, at) for step, at in steps if abs(step - usual) > slack]
    gaps = [(step, at) for step, at in odd if step > _GAP * usual]
    if odd and len(odd) > max(1, _CHANGING * len(steps)) and len(gaps) < len(odd):
        low, high = min(steps)[0], max(steps)[0]
        notes.append(f"spacing that changes: slices lie {low:.4g} to {high:.4g} mm apart")
    elif gaps:
        missing = sum(round(step / usual) - 1 for step, _ in gaps)
        step, at = max(gaps)
        notes.append(
            f"missing slices: about {missing} in {counted(len(gaps), 'gap', 'gaps')}; the largest "
            f"is of {step:.4g} mm above {at:.1f} mm, where slices lie {usual:.4g} mm apart"
        )
    if usual > THICKEST_MM + slack:
        notes.append(f"slices far apart: {usual:.3g} mm, where up to {THICKEST_MM:g} mm is usual")
    extent = max(positions) - min(positions) + usual
    if extent < SHORTEST_MM:
        notes.append(
            f"a short scan: {extent:.0f} mm, which cannot hold the lungs (200 mm and more)"
        )
    return notes


def _geometry_notes(slices: Sequence[Slice]) -> list[str]:
    """Thickness, tilt, pixels and field of view, each as most slices have it."""
    notes = []
    thickness = _most([s.traits.thickness for s in slices])
    if thickness and thickness > THICKEST_MM + 0.1:
        notes.append(f"thick slices: {thickness:g} mm, where up to {THICKEST_MM:g} mm is usual")
    axes = _most([s.traits.axes for s in slices])
    if axes is not None and (tilt := _tilt(axes)) > _TILT:
        notes.append(f"a tilted gantry: by {tilt:.0f} degrees")
    spacing = _most([s.traits.spacing or None for s in slices])
    if spacing and not math.isclose(*spacing, rel_tol=0.01):
        notes.append(f"pixels that are not square: {spacing[0]:g} × {spacing[1]:g} mm, made square")
    field = _most([s.traits.field_mm for s in slices])
    if field and not _FIELD_MM[0] <= field <= _FIELD_MM[1]:
        notes.append(f"an unusual field of view: {field:.0f} mm, where 300 to 500 mm is usual")
    return notes


def _most(values: list):
    """The value that most slices have; None where they have none."""
    known = Counter(value for value in values if value is not None)
    return known.most_common(1)[0][0] if known else None


def _tilt(axes: tuple[float, ...]) -> float:
    """Angle in degrees between the slices' normal and the nearest axis of the patient."""
    (a, b, c), (d, e, f) = axes[:3], axes[3:]
    normal = b * f - c * e, c * d - a * f, a * e - b * d
    length = math.hypot(*normal)
    return math.degrees(math.acos(min(1.0, max(map(abs, normal)) / length))) if length else 0.0


def _pixel_notes(chest: Chest) -> list[str]:
    wrong = wrong_scale(chest)
    if wrong:
        return [f"Hounsfield units that cannot be: {wrong}"]
    if chest.lungs == 0:
        return ["no lungs in the picture: perhaps another part of the body"]
    if math.isnan(chest.blood):
        return ["contrast not known: no heart or large vessel was recognised"]
    if chest.blood < ENHANCED_HU:
        return [
            f"looks unenhanced: blood of about {chest.blood:.0f} HU, where a CTPA has "
            f"{ENHANCED_HU} HU or more"
        ]
    return []
