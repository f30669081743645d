"""Decodes the slices of new studies."""

import pandas as pd

from clotline.job import job
from clotline.shards import store_slices


def main(snakemake):
    """Writes a shard of its own and the lists of what could not be taken and of notes."""
    store_slices(
        pd.read_parquet(snakemake.input[0]),
        snakemake.config["predict"],
        snakemake.output,
        snakemake.threads,
    )


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
