"""Predicts the test studies from counts and percentiles of one model's slice scores."""

from clotline.data.tables import read_table, write_table
from clotline.evaluation.baselines import count_baseline
from clotline.job.run import job, log


def main(snakemake):
    """Writes the probabilities."""
    image, plan = read_table(snakemake.input.image), read_table(snakemake.input.plan)
    table = count_baseline(image, plan)
    write_table(table, snakemake.output[0])
    log.info("%s test studies", f"{len(table):,}")


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
