"""Collects the metrics of all models in one table, and what speaks against them in another."""

import pandas as pd

from clotline.evaluation.comparison import metrics_table
from clotline.evaluation.learning import warnings_table
from clotline.evaluation.metrics_files import read_metrics
from clotline.feature_sets import network_at
from clotline.job.files import atomic
from clotline.job.run import job


def main(snakemake):
    """Writes metrics.csv and warnings.csv."""
    metrics = read_metrics(snakemake.input.metrics)
    histories = {network_at(path): pd.read_csv(path) for path in snakemake.input.histories}
    warnings = warnings_table(histories, metrics)
    with atomic(snakemake.output.warnings) as path:
        warnings.to_csv(path, index=False)
    with atomic(snakemake.output.table) as path:
        metrics_table(metrics, warnings).to_csv(path, index=False)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
