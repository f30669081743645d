"""The viewer: a page that shows studies with what the networks say of them.

``index.html`` holds the page and the list of studies; each study's slices lie beside it in
``studies/<number>.js``, a script that the page loads when the study is opened. So it works from a
folder as well as from any web server, and asks nothing of the network. ``studies/index.html`` is
the same page for whoever has that folder alone, as Snakemake's report in a ZIP file.
"""

import base64
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from markupsafe import Markup
from scipy.special import expit

from clotline.data.activation_file import Activation
from clotline.data.rejects import NOTE_COLUMNS, count_notes
from clotline.data.shards import CHECKSUM, ORIENTATION, PIXEL, POSITION, StoredPixels
from clotline.data.tables import uid_triples
from clotline.evaluation.predictions import PE_PRESENT
from clotline.evaluation.shift import SHIFT_COLUMNS
from clotline.feature_sets import image_level_of
from clotline.job.files import atomic
from clotline.labels import IMAGE_LABEL, STUDY_LABELS, STUDY_UID, UNKNOWN
from clotline.reporting.pages import FOLDER, templates
from clotline.reporting.selection import ERRORS
from clotline.reporting.series_facts import NOTED, describe_series
from clotline.titles import TITLES, counted

TEMPLATE_FOLDER = FOLDER / "viewer"

#: Names, window levels and window widths in Hounsfield units.
WINDOWS = (("PE", 100, 700), ("Mediastinum", 40, 400), ("Lung", -600, 1500))

#: Targets in the order of the page's table.
TARGETS = (PE_PRESENT, *STUDY_LABELS)

#: What the list can be narrowed to: group of `clotline.reporting.selection.GROUPS` to title. Those
#: of `clotline.reporting.selection.ERRORS` are there where the truth is, `NOTED` where a note is.
FILTERS = {
    "all": "All",
    "false_negative": "False negatives",
    "false_positive": "False positives",
    "indeterminate": "Indeterminate",
    "positive": "Called positive",
    "negative": "Called negative",
    NOTED: "With notes",
}

UNSAID = {"phantom": False, "title": ""}
NO_NOTES = pd.DataFrame(columns=list(NOTE_COLUMNS))
NO_SHIFT = pd.DataFrame(columns=list(SHIFT_COLUMNS))
NO_SERIES = pd.DataFrame({STUDY_UID: [], "chosen": np.zeros(0, bool)})


@dataclass(frozen=True)
class ShownStudy:
    """One study as the page shows it.

    Attributes:
        about: what a study-level model says of it, of
            `clotline.reporting.selection.describe_studies`, and what
            `clotline.reporting.series_facts.describe_series` does.
        pixels: (n, size, size) int16 Hounsfield units, in scan order.
        positions: (n,) mm along the scan axis; NaN where unknown.
        orientations: of each slice, where its rows and columns run, such as LP; empty where
            unknown.
        curves: what is drawn under the slices: name to (n,) probabilities.
        activations: backbone to its maps of these slices.
        pixel_mm: (n,) side of a pixel in mm; NaN where unknown.
        truth: (n,) bool, which slices show an embolus; None where unknown.
    """

    about: dict
    pixels: np.ndarray
    positions: np.ndarray
    orientations: list[str]
    curves: dict[str, np.ndarray]
    activations: dict[str, Activation]
    pixel_mm: np.ndarray
    truth: np.ndarray | None = None


def shown_studies(
    studies: list[dict],
    slices: pd.DataFrame,
    shards: list[str],
    activations: dict[str, Activation],
    model: str,
    notes: pd.DataFrame = NO_NOTES,
    series: pd.DataFrame = NO_SERIES,
    shift: pd.DataFrame = NO_SHIFT,
) -> Iterator[ShownStudy]:
    """The studies as the page shows them, one after the other.

    Args:
        studies: of `clotline.reporting.selection.choose_studies`.
        slices: of `clotline.reporting.selection.select`, grouped by study.
        shards: shard files; the slices' ``shard`` is a file's name without ``shard-`` and ending.
        activations: backbone to its maps of these slices, and others.
        model: name of the study-level model, whose image-level counterpart gave the probabilities.
        notes: on studies, with the columns of `clotline.data.rejects.NOTE_COLUMNS`.
        series: of series.csv, which says why each was chosen; none where a labels file names them.
        shift: of shift.csv, all as text; none where nothing is known of the training data.
    """
    files = {Path(path).stem.removeprefix("shard-"): path for path in shards}
    by_study = dict(list(slices.groupby(STUDY_UID)))
    curve = image_level_of(model)
    for about in studies:
        rows = by_study[about["uid"]]
        stored = StoredPixels(files[rows["shard"].iloc[0]])
        located = zip(rows["row"], rows[CHECKSUM], strict=True)
        pixels = np.stack([stored.read(row, checksum) for row, checksum in located])
        own_maps = {name: maps.of(uid_triples(rows)) for name, maps in activations.items()}
        curves = {curve: rows["probability"].to_numpy()}
        curves |= {name: expit(maps.logits) for name, maps in own_maps.items()}
        labels = rows[IMAGE_LABEL].to_numpy()
        truth = None if (labels == UNKNOWN).any() else labels == 1
        told = describe_series(rows, series, notes, shift, stored.size)
        groups = about["groups"] + [NOTED] * bool(told["notes"])
        yield ShownStudy(
            about | {"groups": groups} | told,
            pixels,
            rows[POSITION].to_numpy(),
            rows[ORIENTATION].tolist(),
            curves,
            own_maps,
            rows[PIXEL].to_numpy(),
            truth,
        )


def write_viewer(
    index: str | Path,
    folder: str | Path,
    studies: Iterable[ShownStudy],
    model: str,
    backbones: list[str],
    subject: str = "test studies",
    slice_threshold: float | None = None,
    source: Mapping = UNSAID,
    why: str = "",
    account: str = "",
) -> None:
    """Writes the page and its studies, one study in memory at a time.

    Args:
        index: path of the page.
        folder: for the studies; beside the page.
        studies: in the order of the list.
        model: name of the study-level model.
        backbones: the CNNs whose maps the studies have.
        subject: what the studies are.
        slice_threshold: where the curves are called positive.
        source: what the data or the models are, of `clotline.reporting.pages.describe_data` or
            ``describe_bundle``.
        why: why it is this model.
        account: how many studies have no prediction, in words.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    listed = []
    for number, study in enumerate(studies):
        with atomic(folder / f"{number}.js") as path:
            path.write_text(
                f"clotlineStudy({number}, {_script_json(study_data(study))});\n", encoding="utf-8"
            )
        listed.append(study.about | {"slices": len(study.pixels)})
    told = model, backbones, subject, slice_threshold, source, why, account
    for target, beside in ((index, folder.name), (folder / "index.html", ".")):
        with atomic(target) as path:
            path.write_text(render_page(listed, beside, *told), encoding="utf-8")


def notes_summary(notes: pd.DataFrame, studies: int, path: str) -> str:
    """What to look at before new studies' probabilities are read, in one line.

    Args:
        notes: with the columns of `clotline.data.rejects.NOTE_COLUMNS`.
        studies: how many were decoded.
        path: where the notes are listed.
    """
    of = counted(studies, "study", "studies")
    noted = notes[STUDY_UID].nunique()
    if not noted:
        return f"no notes on {of}"
    sorts = list(count_notes(notes).items())
    return (
        f"notes on {noted:,} of {of}, in {path}: "
        + "; ".join(f"{note} ({count:,})" for note, count in sorts[:5])
        + ("; and more" if len(sorts) > 5 else "")
    )


def render_page(
    studies: list[dict],
    folder: str,
    model: str,
    backbones: list[str],
    subject: str,
    slice_threshold: float | None,
    source: Mapping = UNSAID,
    why: str = "",
    account: str = "",
) -> str:
    """The page as HTML text; everything from outside is escaped.

    Args:
        studies: `Exam.about` of each study, with its number of ``slices``.
        folder: name of the folder of the studies.
        model: as for `write_viewer`.
        backbones: as for `write_viewer`.
        subject: as for `write_viewer`.
        slice_threshold: as for `write_viewer`.
        source: as for `write_viewer`.
        why: as for `write_viewer`.
        account: as for `write_viewer`.
    """
    groups = {group for study in studies for group in study["groups"]}
    truth = any(study["targets"][PE_PRESENT]["truth"] is not None for study in studies)
    without = {*(() if truth else ERRORS), *(() if NOTED in groups else (NOTED,))}
    filters = {name: title for name, title in FILTERS.items() if name not in without}
    return (
        templates(TEMPLATE_FOLDER)
        .get_template("index.html.j2")
        .render(
            # Our own files: all that is not escaped.
            style=Markup((TEMPLATE_FOLDER / "viewer.css").read_text(encoding="utf-8")),
            script=Markup((TEMPLATE_FOLDER / "viewer.js").read_text(encoding="utf-8")),
            windows=WINDOWS,
            backbones=backbones,
            model=model,
            subject=subject,
            source=source["title"],
            phantom=source["phantom"],
            why=why,
            account=account,
            filters=filters,
            data={
                "folder": folder,
                "studies": studies,
                "targets": [[name, TITLES.get(name, name)] for name in TARGETS],
                "sliceThreshold": slice_threshold,
            },
        )
    )


def study_data(study: ShownStudy) -> dict:
    """All of one study that its script holds."""
    return {
        "uid": study.about["uid"],
        "size": study.pixels.shape[-1],
        "pixels": [pack_slice(pixels) for pixels in study.pixels],
        "positions": _without_nan(study.positions, 2),
        "pixelMm": _without_nan(study.pixel_mm, 4),
        "orientations": study.orientations,
        "curves": {
            name: [round(float(p), 4) for p in curve] for name, curve in study.curves.items()
        },
        "truth": None if study.truth is None else [int(shown) for shown in study.truth],
        "maps": {name: pack_maps(maps) for name, maps in study.activations.items()},
    }


def _without_nan(values: np.ndarray, digits: int) -> list[float | None]:
    """Rounded numbers; None for NaN, which JSON does not know."""
    return [None if np.isnan(value) else round(float(value), digits) for value in values]


def pack_slice(pixels: np.ndarray) -> str:
    """A slice's int16 as text: the low bytes, then the high bytes; zlib; base64."""
    planes = pixels.astype("<i2").view(np.uint8).reshape(-1, 2).T
    return _base64(zlib.compress(planes.tobytes(), 6))


def pack_maps(activation: Activation) -> dict:
    """Maps as bytes from 0 to the study's highest value: slices are to be compared by brightness.

    Returns:
        ``rows`` and ``columns`` of a map, the side ``crop`` of the central square that it covers
        and ``values``, base64 of one byte an element.
    """
    highest = float(activation.maps.max(initial=0))
    scaled = activation.maps * (255 / highest) if highest > 0 else activation.maps
    _, rows, columns = activation.maps.shape
    return {
        "rows": rows,
        "columns": columns,
        "crop": activation.crop,
        "values": _base64(np.rint(scaled).astype(np.uint8).tobytes()),
    }


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _script_json(value) -> str:
    # ASCII alone, so that no character can end a line of the script early.
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
