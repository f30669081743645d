"""Extracts one CNN's features of one shard's slices."""

import pandas as pd

from clotline.backbones import load_classifier
from clotline.checkpoint import load_checkpoint
from clotline.features import extract_features, features_size
from clotline.files import atomic, sha256
from clotline.job import job
from clotline.shards import read_rows
from clotline.slices import StoredSlices, View, slice_loader
from clotline.training import make_fabric

BATCH_SIZE = 64


def main(snakemake):
    """Writes a features file whose rows are the shard's."""
    checkpoint = load_checkpoint(snakemake.input.checkpoint)
    section = checkpoint["config"]
    fabric = make_fabric(section["precision"], snakemake.resources.get("gpu", 0), snakemake.threads)
    rows: pd.DataFrame = read_rows(snakemake.input.shard)
    table = rows.assign(file=snakemake.input.shard, row=range(len(rows)))
    slices = StoredSlices(table, View.of(section), None)
    loader = slice_loader(slices, BATCH_SIZE, snakemake.threads, fabric)
    model = load_classifier(checkpoint, snakemake.input.checkpoint)
    with atomic(snakemake.output[0], need=features_size(len(rows), model.width)) as path:
        extract_features(
            model,
            loader,
            path,
            snakemake.wildcards.backbone,
            sha256(snakemake.input.checkpoint),
            fabric,
        )


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
