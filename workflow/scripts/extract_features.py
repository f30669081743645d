"""Extracts one CNN's features of one shard's slices."""

from clotline.extraction import extract_shard_features
from clotline.job import job


def main(snakemake):
    """Writes a features file whose rows are the shard's."""
    extract_shard_features(
        snakemake.input.checkpoint,
        snakemake.input.shard,
        snakemake.output[0],
        snakemake.wildcards.backbone,
        snakemake.resources.get("gpu", 0),
        snakemake.threads,
    )


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
