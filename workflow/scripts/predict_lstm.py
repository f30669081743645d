"""Predicts the valid and test studies with one LSTM."""

import pandas as pd

from clotline.feature_sets import split_lstm_name
from clotline.files import atomic
from clotline.job import job, log
from clotline.studies import locate_studies, predict_level


def main(snakemake):
    """Writes probabilities beside the truth."""
    slices = pd.read_parquet(snakemake.input.slices)
    studies = locate_studies(slices, pd.read_parquet(snakemake.input.plan))
    studies = studies[studies["split"].isin(("valid", "test"))]
    table = predict_level(
        snakemake.input.checkpoint,
        split_lstm_name(snakemake.wildcards.lstm)[1],
        slices,
        studies,
        list(snakemake.input.features),
        snakemake.resources.get("gpu", 0),
        snakemake.threads,
    )
    with atomic(snakemake.output[0]) as path:
        table.to_parquet(path, index=False)
    log.info("%s studies", f"{len(studies):,}")


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
