"""Collects the figures of all models in one table."""

from clotline.evaluation.comparison import metrics_table
from clotline.evaluation.metrics_files import read_metrics
from clotline.job.files import atomic
from clotline.job.run import job


def main(snakemake):
    """Writes metrics.csv."""
    with atomic(snakemake.output[0]) as path:
        metrics_table(read_metrics(snakemake.input)).to_csv(path, index=False)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
