"""Reads predictions that were made elsewhere."""

from clotline.data.tables import read_table, write_table
from clotline.evaluation.external import read_external
from clotline.feature_sets import split_lstm_name
from clotline.job.run import job, log


def main(snakemake):
    """Writes them like those of a model of our own."""
    _, level = split_lstm_name(snakemake.wildcards.external)
    table, notes = read_external(
        snakemake.input.predictions,
        level,
        read_table(snakemake.input.slices),
        read_table(snakemake.input.plan),
    )
    for note in notes:
        log.warning("%s", note)
    write_table(table, snakemake.output[0])


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
