"""Reads predictions that were made elsewhere."""

import pandas as pd

from clotline.external import read_external
from clotline.feature_sets import split_lstm_name
from clotline.files import atomic
from clotline.job import job, log


def main(snakemake):
    """Writes them like those of a model of our own."""
    _, level = split_lstm_name(snakemake.wildcards.external)
    table, notes = read_external(
        snakemake.input.predictions,
        level,
        pd.read_parquet(snakemake.input.slices),
        pd.read_parquet(snakemake.input.plan),
    )
    for note in notes:
        log.warning("%s", note)
    with atomic(snakemake.output[0]) as path:
        table.to_parquet(path, index=False)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
