"""Plots the ROC curves of one model."""

import json

from clotline.job import job
from clotline.metrics_files import read_metrics
from clotline.plots import plot_roc, save_figure


def main(snakemake):
    """Writes the plot as SVG and PNG."""
    ((name, metrics),) = read_metrics(snakemake.input).items()
    for path in snakemake.output:
        save_figure(plot_roc(metrics, name), path, json.loads(snakemake.params.cfg)["dpi"])


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
