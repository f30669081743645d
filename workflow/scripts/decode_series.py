"""Decodes the slices of new studies."""

import pandas as pd

from clotline.job import job
from clotline.shards import store_slices


def main(snakemake):
    """Writes a shard of its own and the list of slices that could not be taken."""
    store_slices(
        pd.read_parquet(snakemake.input[0]),
        snakemake.config["predict"],
        snakemake.output.shard,
        snakemake.output.rejects,
        snakemake.threads,
    )


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
