"""Makes one CNN's class activation maps of the studies that the viewer shows."""

import json
from pathlib import Path

import pandas as pd

from clotline.activation import activation_maps
from clotline.activation_files import Activation, write_activation
from clotline.backbones import load_classifier
from clotline.checkpoint import load_checkpoint
from clotline.files import atomic
from clotline.job import job
from clotline.labels import SOP_UID, STUDY_UID
from clotline.slices import StoredSlices, View, slice_loader
from clotline.training import make_fabric

BATCH_SIZE = 32


def main(snakemake):
    """Writes the maps of all slices of these studies, in the order of slices.parquet."""
    checkpoint = load_checkpoint(snakemake.input.checkpoint)
    view = View.of(checkpoint["config"])
    chosen = json.loads(Path(snakemake.input.studies).read_text())["studies"]
    slices = pd.read_parquet(snakemake.input.slices)
    slices = slices[slices[STUDY_UID].isin({study["uid"] for study in chosen})]
    paths = {Path(path).stem.removeprefix("shard-"): path for path in snakemake.input.shards}
    table = slices.assign(file=slices["shard"].map(paths))
    fabric = make_fabric("32-true", snakemake.resources.get("gpu", 0), snakemake.threads)
    loader = slice_loader(StoredSlices(table, view, None), BATCH_SIZE, snakemake.threads, fabric)
    model = load_classifier(checkpoint, snakemake.input.checkpoint)
    maps, logits = activation_maps(model, loader, fabric)
    with atomic(snakemake.output[0]) as path:
        write_activation(
            path,
            Activation(maps, logits, list(slices[SOP_UID]), view.crop),
            snakemake.wildcards.backbone,
        )


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
