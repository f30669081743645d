"""Extracts one CNN's features of one shard's slices."""

from clotline.job.run import job
from clotline.job.scratch import nearby
from clotline.models.features import extract_shard_features


def main(snakemake):
    """Writes a features file whose rows are the shard's."""
    with nearby([snakemake.input.shard]) as (shard,):
        extract_shard_features(
            snakemake.input.checkpoint,
            shard,
            snakemake.output[0],
            snakemake.wildcards.backbone,
            snakemake.resources.get("gpu", 0),
            snakemake.threads,
        )


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
