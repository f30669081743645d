"""Which scan of a study is the CT pulmonary angiogram, why, and how surely.

Scans are compared by `CRITERIA`, one after the other: the first in which two differ decides. What
pixels show comes before what headers say, for de-identification and habit take words away.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from clotline.data.attenuation import ENHANCED_HU, UNENHANCED_HU, Chest, wrong_scale
from clotline.data.dicom.words import MONOENERGETIC, PROJECTION, SCAN

#: Least fraction of a chest scan's slices that show lungs, its ends left out. Scans of the neck or
#: the abdomen show their tips or bases in a tenth or two, those of chest and abdomen in a third.
LUNGS_SHOWN = 0.3

#: Least share of the brightest scan's blood in HU: in a venous phase the heart has half of what it
#: has in a CTPA, and may still have 150 HU. More than `PLENTY_HU` speaks for no scan.
ENHANCEMENT, PLENTY_HU = 2 / 3, 400

#: Thickness in mm that the recipe's studies have; a tenth is rounding.
THICKNESS_MM = (0.5, 3.0)


@dataclass(frozen=True)
class Scan:
    """What is known of a scan, without its pixels.

    Attributes:
        study: StudyInstanceUID.
        series: SeriesInstanceUIDs, several where an archive split it.
        told_by: what tells it from others of its series; may be empty.
        files: its slices, as whoever made it knows them.
        positions: how many it has along the scan axis.
        picture: type, of `clotline.data.dicom.words`.
        derived: whether ImageType says that it was made of other pictures.
        agent: what the header says of contrast agent: True, False or None.
        described: what the description says of it: True, False or None.
        chest_said: whether the words are of the chest: True, False or None.
        sharp: whether its kernel is: True, False or None.
        thickness: of its slices in mm, or how far they lie apart, or None.
        field_mm: side of the picture, or None.
        chest: what its pixels show; None where they were not or could not be looked at.
        problem: why it cannot be taken; empty where it can.
        enhancement: its blood in HU as a share of that of the study's brightest scan, or of
            `PLENTY_HU`; 1 where it is not known.
    """

    study: str
    series: tuple[str, ...]
    files: tuple
    positions: int
    told_by: str = ""
    picture: str = SCAN
    derived: bool = False
    agent: bool | None = None
    described: bool | None = None
    chest_said: bool | None = None
    sharp: bool | None = None
    thickness: float | None = None
    field_mm: float | None = None
    chest: Chest | None = None
    problem: str = ""
    enhancement: float = field(default=1.0, compare=False)

    @property
    def blood(self) -> float | None:
        """HU of the blood pool; None where it is not known."""
        return None if self.chest is None or math.isnan(self.chest.blood) else self.chest.blood

    @property
    def contrast(self) -> bool:
        """Whether its blood is enhanced: by the pixels or, without any, by the words."""
        if self.blood is not None:
            return self.blood >= ENHANCED_HU
        return bool(self.agent if self.agent is not None else self.described)

    @property
    def name(self) -> str:
        """How it is called in reasons."""
        told_by = f" ({self.told_by})" if self.told_by else ""
        return f"series {self.series[0]}{told_by}"


@dataclass(frozen=True)
class Criterion:
    """One row of the order.

    Attributes:
        name: what is compared.
        rank: of a scan: less is better.
        value: of a scan, in words.
        standing: "clear" where it decides what is the CTPA, "like" where it decides between two
            reconstructions of equal standing.
    """

    name: str
    rank: Callable[[Scan], float]
    value: Callable[[Scan], str]
    standing: str


#: Types that can be taken, the best one first; others only if a user names the series.
PICTURES = (SCAN, MONOENERGETIC, PROJECTION)


def _picture(scan: Scan) -> int:
    known = scan.picture in PICTURES
    return PICTURES.index(scan.picture) if known else len(PICTURES)


def _shows(scan: Scan) -> bool:
    """Whether it may show lungs and blood that was enhanced: what does not is no CTPA."""
    return _body(scan) != _NO_LUNGS and (scan.blood is None or scan.blood >= UNENHANCED_HU)


def _shows_value(scan: Scan) -> str:
    if _body(scan) == _NO_LUNGS:
        return _body_value(scan)
    return "blood not known" if scan.blood is None else _contrast_value(scan)


#: Rank of a picture of the body in which no slice shows lungs.
_NO_LUNGS = 3


def _body(scan: Scan) -> int:
    if scan.chest is not None and scan.chest.body:
        if scan.chest.lungs == 0:
            return _NO_LUNGS
        if scan.chest.lungs < LUNGS_SHOWN:
            return 2
    return 1 if scan.chest_said is False else 0


def _body_value(scan: Scan) -> str:
    if _body(scan) == 2:
        return f"lungs in {scan.chest.lungs:.0%} of the slices"
    return ("the chest", "another body part", "", "a picture without lungs")[_body(scan)]


def _contrast(scan: Scan) -> int:
    if scan.blood is None:
        return _said(scan.agent if scan.agent is not None else scan.described)
    return (scan.blood < ENHANCED_HU) + (scan.blood < UNENHANCED_HU)


def _contrast_value(scan: Scan) -> str:
    if scan.blood is not None:
        return f"blood of {scan.blood:.0f} HU"
    return ("said to be enhanced", "nothing said", "said to be unenhanced")[_contrast(scan)]


def _said(verdict: bool | None) -> int:
    """0 for yes, 1 where nothing is said, 2 for no."""
    return 1 if verdict is None else 2 * (not verdict)


def _thickness(scan: Scan) -> float:
    low, high = THICKNESS_MM
    if scan.thickness is None:
        return 0
    if scan.thickness < low - 0.05:
        return 1
    # Of thicker ones the less thick one.
    return 0 if scan.thickness <= high + 0.1 else 1 + scan.thickness


def _mm(value: float | None) -> str:
    return "unknown" if value is None else f"{value:g} mm"


def _scale(scan: Scan) -> int:
    return int(scan.chest is not None and bool(wrong_scale(scan.chest)))


CRITERIA = (
    # Before contrast: noise alone can make a maximum of several slices brighter than each of them.
    Criterion(
        "single slices",
        lambda s: _picture(s) > PICTURES.index(MONOENERGETIC),
        lambda s: s.picture,
        "clear",
    ),
    Criterion(
        "Hounsfield units",
        _scale,
        lambda s: (wrong_scale(s.chest) if _scale(s) else "") or "as of a chest",
        "clear",
    ),
    # Before the energy: some scanners make nothing but monoenergetic images of a scan with contrast
    # agent, beside a plain one without, or of the head.
    Criterion("lungs and contrast", lambda s: not _shows(s), _shows_value, "clear"),
    Criterion("all energies", _picture, lambda s: s.picture, "clear"),
    Criterion("body part", _body, _body_value, "clear"),
    Criterion("contrast", _contrast, _contrast_value, "clear"),
    Criterion(
        "enhancement", lambda s: s.enhancement < ENHANCEMENT,
        _contrast_value, "clear",
    ),
    Criterion(
        "original or derived", lambda s: s.derived,
        lambda s: "derived" if s.derived else "original", "clear",
    ),
    Criterion(
        "contrast agent in the header", lambda s: _said(s.agent),
        lambda s: ("named", "unnamed", "said to be none")[_said(s.agent)], "clear",
    ),
    Criterion(
        "description", lambda s: s.described is False,
        lambda s: "of a scan without contrast agent" if s.described is False else "of no such scan",
        "clear",
    ),
    Criterion(
        "kernel", lambda s: (0, 1, 2)[{False: 0, None: 1, True: 2}[s.sharp]],
        lambda s: {False: "soft", None: "unknown", True: "sharp"}[s.sharp], "like",
    ),
    Criterion("thickness", _thickness, lambda s: _mm(s.thickness), "like"),
    Criterion("positions", lambda s: -s.positions, lambda s: f"{s.positions:,}", "like"),
    Criterion("field of view", lambda s: -(s.field_mm or 0), lambda s: _mm(s.field_mm), "like"),
)  # fmt: skip


@dataclass(frozen=True)
class Choice:
    """One study's choice.

    Attributes:
        scans: all scans of the study, each with its reason as ``problem`` where it was not taken.
        chosen: the one that was taken, or None.
        reason: why.
        certainty: "only one", "clear", "like" (several of equal standing, of which one is
            reconstructed more suitably), "none" (nothing tells them apart) or "named".
        doubts: what a user should know, with numbers.
    """

    scans: list[Scan]
    chosen: Scan | None = None
    reason: str = ""
    certainty: str = ""
    doubts: list[str] = field(default_factory=list)


def choose(scans: Sequence[Scan], named: frozenset[str] = frozenset()) -> Choice:
    """Chooses one scan of a study.

    Args:
        scans: all of the study.
        named: SeriesInstanceUIDs that a user wants, whatever the criteria say.
    """
    wanted = [scan for scan in scans if named.intersection(scan.series) and not scan.problem]
    fit = wanted or [scan for scan in scans if not scan.problem]
    if not fit:
        return Choice(list(scans))
    brightest = min(max(scan.blood or 0 for scan in fit), PLENTY_HU)
    fit = [
        replace(s, enhancement=s.blood / brightest) if s.contrast and s.blood else s for s in fit
    ]
    # The UID only makes the choice the same everywhere.
    ranked = sorted(fit, key=lambda s: (*(c.rank(s) for c in CRITERIA), s.series, s.told_by))
    best = ranked[0]
    reason, certainty = _why(best, ranked[1:])
    doubts = []
    if wanted:
        reason, certainty = "named by the configuration (series)", "named"
        own = choose(scans)
        if own.chosen != best:
            doubts.append(
                f"series named by the configuration: {own.chosen.name} would have been chosen"
            )
    elif certainty == "none":
        doubts.append(
            f"several scans of equal standing: {best.name} was taken by its UID alone, before "
            + " and ".join(s.name for s in ranked[1:] if not _deciding(best, s))
        )
    if best.picture != SCAN:
        were = "were" if best.picture.endswith("images") else "was"
        plain = any(scan.picture == SCAN for scan in fit)
        which = " that can be the CTPA" if plain and not wanted else ""
        doubts.append(f"no plain scan{which}: {best.picture} {were} taken")
    if len(best.series) > 1:
        doubts.append(f"one scan in {len(best.series)} series: put together")
    others = {scan.files: _against(best, scan) for scan in ranked[1:]}
    if wanted:
        others = {
            scan.files: f"{best.name} was named by the configuration"
            for scan in scans
            if not scan.problem and scan.files != best.files
        }
    told = [replace(s, problem=others.get(s.files, s.problem)) for s in scans]
    return Choice(told, best, reason, certainty, doubts)


def _deciding(best: Scan, other: Scan) -> Criterion | None:
    """The first criterion in which two scans differ."""
    return next((c for c in CRITERIA if c.rank(best) != c.rank(other)), None)


def _against(best: Scan, other: Scan) -> str:
    """Why a scan was not taken."""
    criterion = _deciding(best, other)
    if criterion is None:
        return f"{best.name} was preferred: of equal standing, by UID alone"
    return (
        f"{best.name} was preferred: {criterion.name} "
        f"({criterion.value(best)}; here {criterion.value(other)})"
    )


def _why(best: Scan, others: Sequence[Scan]) -> tuple[str, str]:
    contrast = ", with contrast agent" if best.contrast else ", without contrast agent"
    if best.blood is not None:
        contrast += f" (blood of {best.blood:.0f} HU)"
    if not others:
        return f"the only axial CT scan{contrast}", "only one"
    criterion = _deciding(best, others[0])
    if criterion is None:
        return f"one of {1 + len(others)} of equal standing, by UID alone{contrast}", "none"
    rival = f"{criterion.value(best)}, not {criterion.value(others[0])}"
    if criterion.standing == "like":
        like = 1 + sum(getattr(_deciding(best, s), "standing", "like") == "like" for s in others)
        return (
            f"one of {like} of equal standing, by {criterion.name} ({rival}){contrast}",
            "like",
        )
    return (
        f"the best of {1 + len(others)} axial CT scans, by {criterion.name} ({rival}){contrast}",
        "clear",
    )
