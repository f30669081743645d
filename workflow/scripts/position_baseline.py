"""Predicts the test slices from their position alone."""

from clotline.data.tables import read_table, write_table
from clotline.evaluation.baselines import position_baseline
from clotline.job.run import job, log


def main(snakemake):
    """Writes the probabilities."""
    table = position_baseline(read_table(snakemake.input[0]))
    write_table(table, snakemake.output[0])
    log.info("%s test slices", f"{len(table):,}")


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
