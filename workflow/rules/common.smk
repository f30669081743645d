# Helpers for the rules: named input functions, and what a rule's params must hold.

import os
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

# By this file's path: the workflow may be a module of another one, whose Snakefile lies elsewhere.
PROJECT = Path(workflow.current_basedir.get_path_or_uri(secret_free=True)).parents[1]
if not PROJECT.is_dir():
    raise WorkflowError(f"clone Clotline and name a path, not {PROJECT}")
sys.path.insert(0, str(PROJECT / "workflow" / "scripts"))

from clotline.errors import ClotlineError
from clotline.feature_sets import REFERENCE, level_pairs
from clotline.feature_sets import own_models
from clotline.job.files import sha256
from clotline.job.processes import STARTER
from clotline.workflow.code_digest import code_digest
from clotline.workflow.console import watch
from clotline.workflow.estimate import Data
from clotline.workflow.resources import growing
from clotline.workflow.snakefile import Pipeline, check_paths_stay, contents

# Optional, for who applies a bundle needs no configuration; otherwise as the directive configfile.
if Path("config/config.yaml").exists():
    workflow.configfile("config/config.yaml")

# Threads that spin long while they wait starve loading processes and neighbours a hundredfold.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
# OpenCV's threads do not survive the fork of loading processes.
os.environ.setdefault("OPENCV_FOR_THREADS_NUM", "1")

# Jobs end when this process does, even if it is gone before they start.
os.environ[STARTER] = str(os.getpid())

try:
    check_paths_stay(workflow.modifier)
    pipeline = Pipeline(config, workflow.configfiles)
except ClotlineError as error:
    raise WorkflowError(str(error))

# Scripts read from here what does not change a result: where the data lies.
config.update(pipeline.config)
watch(workflow, Data(pipeline.config, pipeline.shards))

# The phantom's pixels can change while its labels stay the same; a user's folder is not stat'ed.
PHANTOM = {} if config["phantom"] is None else config["data"]
# Predictions made elsewhere are evaluated like those of the LSTMs.
EXTERNAL = config["evaluation"]["external"]
OWN_MODELS = own_models(config)
MODELS = [*OWN_MODELS, *EXTERNAL]
# A study level and an image level together can be scored as the competition did.
PAIRS = level_pairs(MODELS)
PLOTS = ("roc", "precision_recall", "calibration", "confusion", "decision")


wildcard_constraints:
    shard="|".join(pipeline.shards) or r"\d+",
    backbone="|".join(pipeline.config["cnn"]),
    lstm="|".join(pipeline.config["lstm"]),
    stage="cnn|lstm|finetuned",
    model="|".join(MODELS),
    external="|".join(EXTERNAL),
    ensemble="|".join(config["ensembles"]),
    fold=r"\d+",
    pair="|".join(PAIRS),


def shard_file(wildcards):
    return f"results/data/shards/shard-{wildcards.shard}.h5"


def all_shards(ending):
    def paths(wildcards):
        return expand(
            f"results/data/shards/shard-{{s}}.{ending}", s=pipeline.shard_names()
        )

    return paths


def backbone_section(wildcards):
    return pipeline.section("cnn", wildcards.backbone)


def backbone_weights(wildcards):
    section = pipeline.cnn[wildcards.backbone]
    checksum = f" {section.weights_sha256}" if section.weights_sha256 else ""
    return f"{section.library} {section.architecture}{checksum}"


def imagenet_weights(wildcards):
    imagenet = pipeline.cnn[wildcards.backbone].init == "imagenet"
    return f"resources/weights/{wildcards.backbone}.pth" if imagenet else []


def initial_weights(section):
    return [] if section.init in ("imagenet", "random") else section.init


def initial_backbone(wildcards):
    return initial_weights(pipeline.cnn[wildcards.backbone])


def initial_lstm(wildcards):
    return initial_weights(pipeline.lstm[wildcards.lstm])


def feature_parts(wildcards):
    return expand(
        "{folder}/features/{backbone}/shard-{shard}.h5",
        folder=pipeline.folder(wildcards),
        backbone=wildcards.backbone,
        shard=pipeline.shard_names(),
    )


def all_features(wildcards):
    return expand("results/features/{backbone}.h5", backbone=config["cnn"])


def lstm_section(wildcards):
    return pipeline.section("lstm", wildcards.lstm)


def all_models(wildcards):
    cnns = expand("results/cnn/{name}.pt", name=config["cnn"])
    lstms = expand("results/lstm/{name}.pt", name=config["lstm"])
    return [*cnns, *lstms, *pipeline.further_checkpoints()]


def curves(stage, ending="svg"):
    return expand(f"results/{stage}/{{name}}.{ending}", name=config[stage])


def model_plots(ending):
    return [f"results/{plot}/{{model}}.{ending}" for plot in PLOTS]


def plots(plot, names=MODELS):
    return expand(
        "results/{plot}/{name}.{ending}", plot=plot, name=names, ending=("svg", "png")
    )
