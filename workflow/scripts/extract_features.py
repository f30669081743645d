"""Extracts one CNN's features of one shard's slices."""

import pandas as pd

from clotline.backbones import load_classifier
from clotline.checkpoint import load_checkpoint
from clotline.features import extract_features
from clotline.files import atomic, sha256
from clotline.job import job
from clotline.scratch import nearby
from clotline.shards import read_rows
from clotline.slices import StoredSlices, View, slice_loader
from clotline.training import make_fabric

BATCH_SIZE = 64


def main(snakemake):
    """Writes a features file whose rows are the shard's."""
    checkpoint = load_checkpoint(snakemake.input.checkpoint)
    section = checkpoint["config"]
    fabric = make_fabric(section["precision"], snakemake.resources.get("gpu", 0), snakemake.threads)
    with nearby([snakemake.input.shard]) as (shard,), atomic(snakemake.output[0]) as path:
        rows: pd.DataFrame = read_rows(shard)
        table = rows.assign(file=shard, row=range(len(rows)))
        slices = StoredSlices(table, View.of(section), None)
        extract_features(
            load_classifier(checkpoint, snakemake.input.checkpoint),
            slice_loader(slices, BATCH_SIZE, snakemake.threads, fabric),
            path,
            snakemake.wildcards.backbone,
            sha256(snakemake.input.checkpoint),
            fabric,
        )


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
