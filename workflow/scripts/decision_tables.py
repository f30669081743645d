"""Collects what whoever decides about studies asks of all models, in three tables."""

from clotline.evaluation.decision_tables import (
    decision_curves_table,
    predictive_values_table,
    sample_size_table,
)
from clotline.evaluation.metrics_files import read_metrics
from clotline.job.files import atomic
from clotline.job.run import job


def main(snakemake):
    """Writes decision curves, predictive values and sample sizes."""
    metrics = read_metrics(snakemake.input)
    for table, target in (
        (decision_curves_table(metrics), snakemake.output.curves),
        (predictive_values_table(metrics), snakemake.output.values),
        (sample_size_table(metrics), snakemake.output.sizes),
    ):
        with atomic(target) as path:
            table.to_csv(path, index=False)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
