"""What the Snakefile asks while it is parsed: the configuration, the shards, digests, targets.

Every job parses the Snakefile again, so nothing here imports more than it needs.
"""

import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache, cached_property
from pathlib import Path

from clotline.data.prepared import bundle_grid
from clotline.errors import ClotlineError
from clotline.feature_sets import (
    REFERENCE,
    backbones_of,
    finetuned_networks,
    folded_backbones,
    folded_networks,
    image_level_of,
    origin_of,
    own_models,
    split_lstm_name,
)
from clotline.grid import PUBLISHED, grid_of
from clotline.job.files import (
    BUNDLE,
    PHANTOM_SOURCE,
    STATE_FOLDER,
    any_there,
    atomic,
    file_version,
    files_under,
    sha256,
)
from clotline.sections.cnn import cnn_sections
from clotline.sections.lstm import lstm_sections
from clotline.workflow.code_digest import code_digest
from clotline.workflow.config import (
    as_written,
    canonical,
    check_data_paths,
    check_keys_stand_once,
    load_config,
)


class Pipeline:
    """One configuration with the shards that follow from its labels file.

    Attributes:
        config: the complete configuration.
        cnn, lstm: its sections of networks, by name.
        finetuned: the networks of stage 2 that are trained on together with their backbone.
        shards: name to description, as of `clotline.data.plan.describe_shards`; none where models
            are applied and there is nothing to train on.
    """

    def __init__(self, user_config: dict, files: Sequence[str | Path] = ()):
        """Completes the configuration.

        Args:
            user_config: as Snakemake read it.
            files: those it was read from.

        Raises:
            ClotlineError: the configuration or the labels file cannot be used.
        """
        check_keys_stand_once(files)
        self.config = load_config(user_config, as_written(files, sys.argv))
        self.cnn, self.lstm = cnn_sections(self.config), lstm_sections(self.config)
        self.finetuned = finetuned_networks(self.config)
        self.shards, self._absent = {}, None
        try:
            check_data_paths(self.config)
        except ClotlineError as error:
            if self.config["predict"] is None and self.config["validate"] is None:
                raise
            self._absent = error
            return
        self.shards = {shard["name"]: shard for shard in self._describe_shards()}

    def shard_names(self) -> list[str]:
        """Names of the shards to make.

        Raises:
            ClotlineError: there is no data to make them of.
        """
        if self._absent:
            raise self._absent
        return list(self.shards)

    def shard_digest(self, wildcards) -> str:
        """All that a shard depends on, beside its files and the code."""
        digest, grid = self.shards[wildcards.shard]["digest"], grid_of(self.config["data"])
        # The published grid adds nothing, so that no shard is made anew that was there before.
        return digest if grid == PUBLISHED else canonical([digest, *grid])

    def section(self, *keys: str) -> str:
        """The configuration's value at ``keys`` as canonical JSON, for a rule's ``params``."""
        value = self.config
        for key in keys:
            value = value[key]
        return canonical(value)

    def sections(self, *keys: str) -> str:
        """Several of the configuration's sections as canonical JSON."""
        return canonical({key: self.config[key] for key in keys})

    def evaluation(self, *keys: str) -> str:
        """The seed, and values of the section ``evaluation``, by their names as canonical JSON.

        As one of a rule's ``params``: Snakemake 9 compares their values without their names, and
        would not see that two have swapped theirs.
        """
        values = {key: self.config["evaluation"][key] for key in keys}
        return canonical({"seed": self.config["seed"]} | values)

    def plan_digest(self, wildcards) -> str:
        """All that the plan depends on; not the labels file's name, time or further columns.

        Raises:
            ClotlineError: there is no data to plan.
        """
        shards = [self.shards[name] for name in self.shard_names()]
        return canonical([[shard["digest"], shard["splits"]] for shard in shards])

    def backbones_of(self, wildcards) -> list[str]:
        """The backbones whose features an LSTM reads, in their order."""
        return backbones_of(self.config, wildcards.lstm)

    def features_of(self, wildcards) -> str:
        """The same for a rule's ``params``: Snakemake forgets the order of inputs."""
        return canonical(self.backbones_of(wildcards))

    def feature_files(self, wildcards) -> list[str]:
        """The features files that an LSTM reads, in their order."""
        folder = self.folder(wildcards)
        return [f"{folder}/features/{name}.h5" for name in self.backbones_of(wildcards)]

    def folder(self, wildcards) -> str:
        """Where features lie: those of a fold, of a finetuned network, or of all others."""
        if hasattr(wildcards, "fold"):
            return f"results/folds/{wildcards.fold}"
        network = getattr(wildcards, "lstm", None)
        return f"results/finetuned/{network}" if network in self.finetuned else "results"

    def origin_section(self, wildcards) -> str:
        """How a finetuned network is trained, as canonical JSON, for a rule's ``params``."""
        return self.section("finetune", origin_of(wildcards.lstm))

    def origin_cnn(self, wildcards) -> str:
        """The checkpoint of the backbone that a finetuned network starts from."""
        return f"results/cnn/{self.backbones_of(wildcards)[0]}.pt"

    def origin_lstm(self, wildcards) -> str:
        """The checkpoint of the network of stage 2 that a finetuned network starts from."""
        return f"results/lstm/{origin_of(wildcards.lstm)}.pt"

    def origin_features(self, wildcards) -> str:
        """The features that it was trained on."""
        return f"results/features/{self.backbones_of(wildcards)[0]}.h5"

    def finetuned_checkpoints(self) -> list[str]:
        """The checkpoints of all finetuned networks, the backbone's before that of stage 2."""
        folders = [f"results/finetuned/{network}" for network in self.finetuned]
        return [f"{folder}/{part}.pt" for folder in folders for part in ("cnn", "lstm")]

    def further_checkpoints(self) -> list[str]:
        """The checkpoints of the networks of folds, and of the finetuned ones."""
        return [*self.fold_checkpoints(), *self.finetuned_checkpoints()]

    def finetuned_curves(self, ending: str = "svg") -> list[str]:
        """The plots of their trainings, or their histories (``csv``)."""
        return [f"results/finetuned/{network}.{ending}" for network in self.finetuned]

    def bundled_sections(self) -> str:
        """The sections that a bundle has, as canonical JSON; that of finetuning where it is set."""
        keys = ["seed", "phantom", "cnn", "features", "lstm", "ensembles"]
        return self.sections(*keys, *(["finetune"] if self.finetuned else []))

    def fold_checkpoints(self, ending: str = "pt") -> list[str]:
        """The checkpoints of all folds' networks, or their histories (``csv``)."""
        networks = [f"cnn/{name}" for name in folded_backbones(self.config)]
        networks += [f"lstm/{name}" for name in folded_networks(self.config)]
        folds = range(self.config["data"]["split"]["folds"] or 0)
        return [f"results/folds/{fold}/{name}.{ending}" for fold in folds for name in networks]

    def fold_predictions(self, wildcards) -> list[str]:
        """What the networks of each fold say."""
        name = f"{wildcards.features}-{wildcards.level}"
        folds = range(self.config["data"]["split"]["folds"])
        return [f"results/folds/{fold}/predictions/{name}.parquet" for fold in folds]

    def ensemble_members(self, wildcards) -> list[str]:
        """The predictions of an ensemble's members."""
        members = self.config["ensembles"][wildcards.ensemble]
        return [f"results/predictions/{name}.parquet" for name in members]

    def external_file(self, wildcards) -> str:
        """The file of predictions that were made elsewhere."""
        return self.config["evaluation"]["external"][wildcards.external]

    def scored_slices(self, wildcards) -> str:
        """The image-level model whose slice scores make a model's baseline.

        A model without an image level of its own is set beside that of all features together.
        """
        own = image_level_of(wildcards.model)
        models = {*own_models(self.config), *self.config["evaluation"]["external"]}
        return own if own in models else f"{REFERENCE}-image"

    def slice_baseline(self, wildcards) -> str | list:
        """The baseline of a model's slices; nothing at the study level."""
        level = split_lstm_name(wildcards.model)[1]
        return "results/baselines/position.parquet" if level == "image" else []

    def study_baseline(self, wildcards) -> str:
        """The baseline of a model's studies."""
        return f"results/baselines/{self.scored_slices(wildcards)}.parquet"

    def new_files(self, wildcards) -> str:
        """Digest of the files to predict: their names, and what changes if one is replaced.

        Raises:
            ClotlineError: no folder is set, or one cannot be read.
        """
        if self.config["predict"] is None:
            raise ClotlineError(
                "no studies to predict: name their folder, as in --config predict=FOLDER"
            )
        return canonical(self._new_files)

    def cohort_scans(self, wildcards) -> str:
        """The same of the cohort to validate on, without its tables.

        Raises:
            ClotlineError: no folder is set, or one cannot be read.
        """
        self.cohort_description(wildcards)
        return self._cohort_files[0]

    def cohort_tables(self, wildcards) -> str:
        """The same of its tables alone: other labels decode no scan anew.

        Raises:
            ClotlineError: as of `cohort_scans`.
        """
        self.cohort_description(wildcards)
        return self._cohort_files[1]

    def cohort_description(self, wildcards) -> str:
        """How the cohort to validate on lies in its folder, as canonical JSON.

        Raises:
            ClotlineError: no folder is set, or the description cannot be used.
        """
        if self.config["validate"] is None:
            raise ClotlineError(
                "no cohort to validate on: name its folder, as in --config validate=COHORT"
            )
        return self._cohort_description

    # Several rules ask, and a folder can be large, or a schema long.
    @cached_property
    def _new_files(self) -> tuple[str, str]:
        return _digests_of(self.config["predict"])

    @cached_property
    def _cohort_files(self) -> tuple[str, str]:
        return _digests_of(self.config["validate"])

    @cached_property
    def _cohort_description(self) -> str:
        from clotline.workflow.cohort_description import load_description

        return canonical(load_description(self.config["validate"], self.config["cohort"]))

    def bundle_to_apply(self, wildcards) -> str:
        """Path of the bundle of models to apply.

        Raises:
            ClotlineError: there is no bundle.
        """
        path = Path(self.config["models"] or BUNDLE).absolute()
        if not path.is_file():
            named = self.config["predict"] or self.config["validate"]
            folder = "" if named else "; and the studies, as in predict=FOLDER"
            raise ClotlineError(
                f"no trained models: {path} does not exist. Train them first (snakemake "
                f"{BUNDLE}), or name a bundle, as in --config models=clotline.zip{folder}"
            )
        return str(path)

    def bundle_grid(self, wildcards) -> str:
        """Size and crop of the slices that the bundle to apply wants, as canonical JSON.

        Raises:
            ClotlineError: there is no bundle.
        """
        return canonical(bundle_grid(self.bundle_to_apply(wildcards)))

    def no_bundle_as_input(self, wildcards) -> list[str]:
        """No file: the bundle's contents are a parameter, for its path means nothing.

        So it can be moved and renamed, and a prediction can never train anything.

        Raises:
            ClotlineError: as of `bundle_to_apply`, before any job has begun.
        """
        self.bundle_to_apply(wildcards)
        return []

    def _describe_shards(self) -> list[dict]:
        """The shards, from a small cache where the labels file has not changed.

        Reading 1.8 million rows for every job would cost seconds and half a gigabyte.
        """
        labels = Path(self.config["data"]["labels"])
        made = self.config["phantom"] is not None and not self._is_phantom_there(labels)
        source = self._phantom_source() if made else [str(labels), *file_version(labels)]
        data = self.config["data"]
        code = code_digest("plan.py", without=("data.dicom",))
        key = [source, data["split"], data["slices_per_shard"], code]
        # Where PatientID tells patients apart it is read of the files.
        key += [data["dicom"], data["links_root"]] if data["split"]["group"] else []
        key += file_version(data["studies"]) if data["studies"] else []
        key = canonical(key)
        cache = STATE_FOLDER / "plan.json"
        try:
            cached = json.loads(cache.read_text(encoding="utf-8"))
            if cached["key"] == key and not any_there(cached["absent"]):
                return cached["shards"]
        except (OSError, ValueError, KeyError, TypeError):
            pass  # no cache, or another version's
        shards, absent = self._read_shards(made)
        cached = {"key": key, "shards": shards, "absent": absent}
        # Jobs that start together may each write it, and remove what another is writing.
        with suppress(FileNotFoundError), atomic(cache) as temporary:
            temporary.write_text(json.dumps(cached), encoding="utf-8")
        return shards

    def _phantom_source(self) -> str:
        return f"{self.section('phantom')}\n{code_digest('phantom.py')}"

    def _is_phantom_there(self, labels: Path) -> bool:
        """Whether the labels file is this phantom's; that of another phantom will be replaced."""
        try:
            return (
                labels.exists()
                and PHANTOM_SOURCE.read_text(encoding="utf-8") == self._phantom_source()
            )
        except OSError:
            return False

    def _read_shards(self, made: bool) -> tuple[list[dict], list[str]]:
        """The shards, and files that are not there and may change the splits once they are."""
        from clotline.data import labels_file, patients, plan
        from clotline.labels import SOP_UID

        data, first, absent = self.config["data"], None, []
        if made:
            from clotline.data import phantom

            labels = phantom.labels_table(phantom.draw_cohort(self.config["phantom"]))
        else:
            labels = labels_file.read_planned_labels(data)
            first = patients.first_studies(labels, data)
            absent = patients.absent_files(labels, data, first)
            # The hash stands for it; it is two fifths of the table.
            labels = labels.drop(columns=SOP_UID)
        studies = plan.make_plan(labels, data, first)
        plan.check_plan(studies)
        if first is not None and data["split"]["column"]:
            patients.check_splits(studies, first, data["split"]["column"])
        return plan.describe_shards(labels, studies), absent


#: How names of tables and of descriptions end.
_TABLES = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".csv.zip", ".yaml")


def _digests_of(folder: str) -> tuple[str, str]:
    """Digests of a folder's scans, and of its tables.

    Each is of their names, and of what changes if one is replaced.
    """
    digests = hashlib.sha256(), hashlib.sha256()
    for name in files_under(folder):
        path = Path(folder) / name
        # A link may lead to nothing.
        version = file_version(path) if path.exists() else ()
        line = f"{name} {' '.join(map(str, version))}\n"
        digests[name.lower().endswith(_TABLES)].update(line.encode(errors="surrogateescape"))
    return digests[0].hexdigest(), digests[1].hexdigest()


def check_paths_stay(modifier) -> None:
    """Checks that no module statement of another workflow gives this one's paths a prefix.

    Args:
        modifier: Snakemake's, of the module that is being read.

    Raises:
        ClotlineError: with what to do instead.
    """
    paths = modifier.path_modifier
    while paths is not None:
        if paths.prefix or paths.modifies_prefixes:
            raise ClotlineError(
                "Clotline as a module takes no prefix and no replace_prefix: its jobs also write "
                "beside their outputs, at paths under results/ and .clotline/. Leave it out, and "
                "for another folder run that module's rules in a working directory of their own "
                "(snakemake --directory)"
            )
        paths = paths.inner_modifier


def asks_for_zip(arguments: Sequence[str]) -> bool:
    """Whether Snakemake is asked for a report that is a ZIP file: no other can hold folders.

    Args:
        arguments: of the command line.
    """
    for argument, after in zip(arguments, [*arguments[1:], ""], strict=True):
        option, _, path = argument.partition("=")
        if option in ("--report", "--report-html-path") and (path or after).endswith(".zip"):
            return True
    return False


def contents(path_of: Callable) -> Callable:
    """A rule's param: the digest of a file that a user gives.

    A file that replaces it may have an older time, which Snakemake would not notice.

    Args:
        path_of: a rule's input function: wildcards to the file's path, or to none.
    """

    def digest(wildcards) -> str | None:
        path = path_of(wildcards)
        return _sha256(path, file_version(path)) if path else None

    return digest


@cache
def _sha256(path: str, version: tuple[int, ...]) -> str:
    """A file's SHA-256 as long as it is the same: several rules ask, and a bundle can be large."""
    return sha256(path)
