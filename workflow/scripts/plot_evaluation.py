"""Plots one model's figures on the test studies."""

import json

from clotline.job import job
from clotline.metrics_files import read_metrics
from clotline.plots import EVALUATION_PLOTS, save_figure


def main(snakemake):
    """Writes the plot as SVG and PNG."""
    ((name, metrics),) = read_metrics(snakemake.input).items()
    draw = EVALUATION_PLOTS[snakemake.wildcards.plot]
    for path in snakemake.output:
        save_figure(draw(metrics, name), path, json.loads(snakemake.params.cfg)["dpi"])


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
