"""Predicts the valid and test studies with one LSTM."""

from clotline.data.slice_table import locate_studies
from clotline.data.tables import read_table, write_table
from clotline.feature_sets import split_lstm_name
from clotline.job.run import job, log
from clotline.models.prediction import predict_level


def main(snakemake):
    """Writes probabilities beside the truth."""
    slices = read_table(snakemake.input.slices)
    studies = locate_studies(slices, read_table(snakemake.input.plan))
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
    write_table(table, snakemake.output[0])
    log.info("%s studies", f"{len(studies):,}")


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
