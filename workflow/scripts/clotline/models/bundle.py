"""The bundle: all trained models of a run in one file, to hand on and to apply elsewhere.

A ZIP file of uncompressed members with the same bytes for the same models:

====================================  ============================================================
member                                content
====================================  ============================================================
``manifest.json``                     format, version, `preprocessing`, configuration, feature
                                      sets, the SHA-256 of every other member but the card, and
                                      ``training``: how the training studies were made, as of
                                      `clotline.evaluation.shift.distributions`
``MODEL_CARD.md``                     what the models are, were tested on, and are not for
``cnn/<backbone>.pt``                 checkpoints of stage 1
``lstm/<features>-<level>.pt``        checkpoints of stage 2
``folds/<fold>/...``                  checkpoints of the networks of a fold
``finetuned/<network>/cnn.pt``        checkpoint of a backbone that was trained on together with a
                                      network of stage 2, whose one is ``lstm.pt`` beside it
``metrics/<model>.json``              metrics on the test studies, and the thresholds
``seen/studies.npy``, ``slices.npy``  what the training data are recognised by, of
                                      `clotline.data.overlap.digests_of_training`; since version 2
====================================  ============================================================
"""

import hashlib
import io
import json
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from clotline.data.dicom.orientation import AXIAL
from clotline.data.prepared import MANIFEST, grid_fields, prepared_grid
from clotline.errors import ClotlineError
from clotline.evaluation.intervals import describe_estimate
from clotline.evaluation.metrics_files import read_metrics
from clotline.feature_sets import folds_model, models_of, origin_of, split_lstm_name
from clotline.grid import AIR_HU, PUBLISHED, Grid
from clotline.job.disk import is_full
from clotline.job.files import unusable
from clotline.loading.scaling import MEAN, STD
from clotline.sections.cnn import cnn_sections
from clotline.version import CLOTLINE_VERSION

FORMAT, VERSION = "clotline-bundle", 2

#: Versions that are read. One of version 1 does not say what it was trained on.
READ = (1, VERSION)

#: What this version of Clotline does to a slice before a network sees it, where it is stored in the
#: published grid. A bundle of models that were trained on anything else is refused.
PREPROCESSING = {
    "unit": "HU",
    "slice": list(PUBLISHED.shape),
    "dtype": "int16",
    "resampling": "area average",
    "outside_hu": AIR_HU,
    "orientation": AXIAL,
    "order": "along the scan axis, from feet to head",
    "mean": MEAN,
    "std": STD,
}

CARD = "MODEL_CARD.md"

#: Members that a bundle can have; names become paths, so nothing else is taken.
MEMBER = re.compile(
    r"(folds/\d+/)?(cnn/[a-z][a-z0-9_]*|lstm/[a-z][a-z0-9_]*-(image|study|joint))\.pt"
    r"|finetuned/[a-z][a-z0-9_]*-finetuned-(image|study|joint)/(cnn|lstm)\.pt"
    r"|metrics/[a-z][a-z0-9_]*(-finetuned)?(-joint)?(-folds)?-(image|study)\.json"
    r"|seen/(studies|slices)\.npy"
)

SEEN = ("seen/studies.npy", "seen/slices.npy")


@dataclass(frozen=True)
class Bundle:
    """An unpacked bundle.

    Attributes:
        folder: where its members lie.
        manifest: its manifest.
        fold: whose networks these are, as ``folds/0/``; empty for those trained on train.
    """

    folder: Path
    manifest: dict
    fold: str = ""

    @property
    def folds(self) -> list["Bundle"]:
        """The bundle as each fold's networks, if there are any."""
        found = [m.split("/")[1] for m in self.manifest["members"] if m.startswith("folds/")]
        return [replace(self, fold=f"folds/{number}/") for number in dict.fromkeys(found)]

    @property
    def backbones(self) -> list[str]:
        """Names of the CNNs."""
        return self._names("cnn")

    @property
    def lstms(self) -> list[str]:
        """Names of the LSTMs, as <features>-<level>."""
        return self._names("lstm")

    @property
    def models(self) -> list[str]:
        """Names of the models: of networks, by `clotline.feature_sets.models_of`, and ensembles."""
        return [
            *(model for lstm in self.lstms for model in models_of(lstm)),
            *(folds_model(m) for lstm in self.folded for m in models_of(lstm)),
            *(model for network in self.finetuned for model in models_of(network)),
            *self.ensembles,
        ]

    @property
    def folded(self) -> list[str]:
        """Names of the LSTMs that were trained in folds, too."""
        return self.folds[0].lstms if self.folds else []

    @property
    def finetuned(self) -> list[str]:
        """Names of the networks that were trained on together with their backbone."""
        found = [m.split("/")[1] for m in self.manifest["members"] if m.startswith("finetuned/")]
        return list(dict.fromkeys(found))

    def finetuned_checkpoint(self, network: str, stage: str) -> Path:
        """The file of a finetuned network's part; the stage is cnn or lstm."""
        return self.folder / f"finetuned/{network}/{stage}.pt"

    @property
    def ensembles(self) -> dict[str, list[str]]:
        """Ensemble to its members; older bundles have none."""
        return self.manifest["config"].get("ensembles", {})

    def _names(self, stage: str) -> list[str]:
        start = f"{self.fold}{stage}/"
        return [Path(m).stem for m in self.manifest["members"] if m.startswith(start)]

    def checkpoint(self, stage: str, name: str) -> Path:
        """A network's file; the stage is cnn or lstm."""
        return self.folder / f"{self.fold}{stage}/{name}.pt"

    def features(self, lstm: str) -> list[str]:
        """The backbones whose features an LSTM reads, in order."""
        return self.manifest["features"][split_lstm_name(origin_of(lstm))[0]]

    @property
    def training(self) -> dict | None:
        """How its training studies were made; None where an older Clotline made the bundle."""
        return self.manifest.get("training")

    def metrics(self, model: str) -> dict:
        """A model's metrics on the test studies that it was evaluated on."""
        path = self.folder / f"metrics/{model}.json"
        return read_metrics([path])[model]

    @property
    def seen(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Digests of the training data's studies and slices; None in a bundle that has none."""
        if not set(SEEN) <= set(self.manifest["members"]):
            return None
        studies, slices = (np.load(self.folder / name, allow_pickle=False) for name in SEEN)
        return studies, slices

    @property
    def grid(self) -> Grid:
        """In which form its models want slices."""
        return prepared_grid(self.manifest["preprocessing"])

    @property
    def lacking(self) -> str:
        """What an older bundle cannot tell, in words; empty for one of today."""
        if self.seen is not None:
            return ""
        maker = self.manifest.get("clotline", "before 0.9.0")
        return (
            f"the bundle, made by Clotline {maker}, has no digests of its training data: whether "
            "studies were among these was not looked for"
        )


def preprocessing(grid: Grid) -> dict:
    """`PREPROCESSING`, of slices of another grid."""
    return PREPROCESSING | grid_fields(grid)


def write_bundle(
    path: str | Path,
    cnns: Iterable[str | Path],
    lstms: Iterable[str | Path],
    metrics: Iterable[str | Path],
    features: dict[str, list[str]],
    config: dict,
    seen: tuple[np.ndarray, np.ndarray],
    training: dict | None = None,
    folds: Iterable[str | Path] = (),
    finetuned: Iterable[str | Path] = (),
    grid: Grid = PUBLISHED,
) -> None:
    """Writes a bundle.

    Args:
        path: ZIP file to write.
        cnns: checkpoints of stage 1.
        lstms: checkpoints of stage 2.
        metrics: those of all models.
        features: feature set to its backbones, in order.
        config: the configuration that made the models.
        seen: of `clotline.data.overlap.digests_of_training`.
        training: how the training studies were made, of `clotline.evaluation.shift.distributions`;
            None where it is not known.
        folds: checkpoints of the folds' networks, at .../folds/<fold>/<stage>/<name>.pt.
        finetuned: those of finetuned networks, at .../finetuned/<network>/<stage>.pt.
        grid: of the slices that the models were trained on.
    """
    # Each is read when its turn comes: networks of folds may be more than fits in memory.
    members: dict[str, Callable[[], bytes]] = {
        f"{folder}/{Path(file).name}": Path(file).read_bytes
        for folder, files in (("cnn", cnns), ("lstm", lstms), ("metrics", metrics))
        for file in files
    }
    members |= {"/".join(Path(file).parts[-4:]): Path(file).read_bytes for file in folds}
    members |= {"/".join(Path(file).parts[-3:]): Path(file).read_bytes for file in finetuned}
    members |= {name: partial(_npy, array) for name, array in zip(SEEN, seen, strict=True)}
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "clotline": CLOTLINE_VERSION,
        "preprocessing": preprocessing(grid),
        "features": features,
        "config": config,
        "members": {name: hashlib.sha256(read()).hexdigest() for name, read in members.items()},
    }
    if training is not None:
        manifest["training"] = training
    card = model_card(manifest, read_metrics(metrics))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        _store(archive, MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())
        _store(archive, CARD, card.encode())
        for name, read in members.items():
            _store(archive, name, read())


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _store(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    # With a fixed time, so that the same models give the same bytes.
    archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content)


#: What zipfile raises of a damaged file.
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError)


def unpack_bundle(path: str | Path, folder: str | Path, start: str = "") -> Bundle:
    """Unpacks a bundle, checking every member that is unpacked against the manifest.

    Args:
        path: ZIP file.
        folder: existing folder to write its members to.
        start: of the names of those that are needed, such as ``metrics/``; without it all are.

    Raises:
        ClotlineError: the file is missing, damaged, no bundle, or of another format or
            preprocessing.
    """
    with _opened(path) as (archive, manifest):
        for name, digest in manifest["members"].items():
            if name.startswith(start):
                _unpack(archive, name, digest, Path(folder), path)
    return Bundle(Path(folder), manifest)


def read_training(path: str | Path) -> dict | None:
    """How the training studies of a bundle were made, without unpacking its models.

    Returns:
        As of `clotline.evaluation.shift.distributions`; None where the bundle does not say.

    Raises:
        ClotlineError: as of `unpack_bundle`.
    """
    with _opened(path) as (_, manifest):
        return Bundle(Path(), manifest).training


@contextmanager
def _opened(path: str | Path) -> Iterator[tuple[zipfile.ZipFile, dict]]:
    """A bundle's archive with its manifest, which was checked; errors as of `unpack_bundle`."""
    try:
        with zipfile.ZipFile(path) as archive:
            manifest = json.loads(archive.read(MANIFEST))
            _check_manifest(manifest, path)
            yield archive, manifest
    except FileNotFoundError:
        raise ClotlineError(f"there is no bundle of models {path}") from None
    except OSError as error:
        if is_full(error):
            raise
        raise unusable(path, error) from None
    except (*_DAMAGE, KeyError, ValueError, TypeError, AttributeError) as error:
        raise ClotlineError(
            f"the bundle of models {path} cannot be read ({error}): copy or remake it"
        ) from None


def _check_manifest(manifest: dict, path: str | Path) -> None:
    made_as = manifest["format"], manifest["version"]
    if made_as not in [(FORMAT, version) for version in READ]:
        raise ClotlineError(
            f"{path} has format {made_as[0]} version {made_as[1]}, and this Clotline takes "
            f"{FORMAT} version {' and '.join(map(str, READ))}: use {_maker(manifest)}, which made "
            "it, or one that reads it"
        )
    theirs = manifest["preprocessing"]
    ours = preprocessing(prepared_grid(theirs))
    differing = [
        f"{key} is {theirs.get(key)}, here {ours.get(key)}"
        for key in sorted(theirs.keys() | ours.keys())
        if theirs.get(key) != ours.get(key)
    ]
    if differing:
        raise ClotlineError(
            f"the models of {path} were trained on slices prepared in another way: "
            + "; ".join(differing)
            + f". Their probabilities would be wrong here; use {_maker(manifest)}, which made the "
            "bundle"
        )
    for name in manifest["members"]:
        if not MEMBER.fullmatch(name):
            raise ClotlineError(f"{path} has a member {name!r}, which no bundle has")
    for name in manifest["config"].get("ensembles", {}):
        if f"metrics/{name}.json" not in manifest["members"]:
            raise ClotlineError(f"{path} has an ensemble {name!r} without its metrics")


def _maker(manifest: dict) -> str:
    """The Clotline that made a bundle; the first ones did not say which they were."""
    return f"Clotline {manifest.get('clotline', 'before 0.9.0')} (this is {CLOTLINE_VERSION})"


def _unpack(archive: zipfile.ZipFile, name: str, digest: str, folder: Path, path) -> None:
    member = archive.getinfo(name)
    if member.compress_type != zipfile.ZIP_STORED:
        raise ClotlineError(f"{path} has the compressed member {name}, which no bundle has")
    content = archive.read(member)
    if hashlib.sha256(content).hexdigest() != digest:
        raise ClotlineError(f"{name} in {path} is damaged: copy or remake the bundle")
    target = folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)


def model_card(manifest: dict, metrics: dict[str, dict]) -> str:
    """What a receiver of the models has to know, as Markdown.

    Args:
        manifest: of the bundle.
        metrics: LSTM to its metrics.
    """
    made, packed = manifest["config"], Bundle(Path(), manifest)
    rows = []
    for name, model in metrics.items():
        auroc = next(iter(model["targets"].values()))["auroc"]
        unit = "slices" if split_lstm_name(name)[1] == "image" else "studies"
        rows.append(
            f"| {name} | {describe_estimate(auroc)} | {model['n_studies']:,} | "
            f"{auroc['n_positive']:,} {unit} |"
        )
    backbones = [
        f"- {name}: {section.architecture} of {section.library}, input "
        f"{section.input_size} × {section.input_size} pixels, window level "
        f"{section.window_level:g} HU, width {section.window_width:g} HU"
        f"{section.describe_channels()}"
        for name, section in cnn_sections(made).items()
    ]
    data = (
        "an embedded phantom: drawings, no patients. The models prove that the pipeline works "
        "and say nothing about patients"
        if made["phantom"]
        else "the data set of those who made this bundle; ask them"
    )
    return "\n".join(
        [
            "# Detection of pulmonary embolism on CT pulmonary angiography",
            "",
            "**Research use, not for diagnosis.**",
            "",
            "## Models",
            "",
            "Two stages: CNNs turn each slice into features, LSTMs read a study's slices from "
            "feet to head and give the probability of an embolus on each slice (image level), "
            "of nine labels of the study (study level), or both (joint).",
            "",
            *backbones,
            f"- LSTMs: {', '.join(made['lstm'])}",
            *(
                f"- {name}: the mean of the probabilities of {', '.join(members)}"
                for name, members in made["ensembles"].items()
            ),
            *(
                f"- {folds_model(model)}: {model} trained in {len(packed.folds)} folds; the mean "
                "of the probabilities of all"
                for lstm in packed.folded
                for model in models_of(lstm)
            ),
            *(
                f"- {network}: {origin_of(network)} and its CNN, trained on together on each "
                "study's most suspicious slices"
                for network in packed.finetuned
            ),
            "",
            "## Trained and tested on",
            "",
            f"{data[0].upper()}{data[1:]}.",
            "",
            "| model | AUROC on test (95% interval) | studies | positive |",
            "|---|---|---|---|",
            *rows,
            "",
            "All figures and the thresholds are in `metrics/`.",
            "",
            f"Made by Clotline {manifest['clotline']}.",
            "",
            "## Input",
            "",
            "Axial CT pulmonary angiography, one slice a DICOM file, in Hounsfield units by the "
            f"file's own rescale slope and intercept, {packed.grid} by area averaging, "
            "turned to show the patient's left on the right.",
            "",
            "## Limits",
            "",
            "- No figure here holds for another hospital, scanner, protocol or population.",
            "- Probabilities are not calibrated beyond what `metrics/` shows.",
            "- A negative result excludes nothing; an activation map names a region, not a clot.",
            "",
        ]
    )
