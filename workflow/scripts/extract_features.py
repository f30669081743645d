"""Extracts one CNN's features of one shard's slices."""

from clotline.extraction import extract_shard_features
from clotline.files import atomic
from clotline.job import job
from clotline.scratch import nearby


def main(snakemake):
    """Writes a features file whose rows are the shard's."""
    with nearby([snakemake.input.shard]) as (shard,), atomic(snakemake.output[0]) as path:
        extract_shard_features(
            snakemake.input.checkpoint,
            shard,
            path,
            snakemake.wildcards.backbone,
            snakemake.resources.get("gpu", 0),
            snakemake.threads,
        )


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
