"""Plots the ROC curves of all models side by side."""

import json

from clotline.evaluation.metrics_files import read_metrics
from clotline.job.run import job
from clotline.reporting.plots import plot_roc_comparison, save_figure


def main(snakemake):
    """Writes the plot as SVG and PNG."""
    metrics = read_metrics(snakemake.input)
    for path in snakemake.output:
        save_figure(plot_roc_comparison(metrics), path, json.loads(snakemake.params.cfg)["dpi"])


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
