"""Plots one model's metrics on the test studies."""

import json
from pathlib import Path

from clotline.evaluation.metrics_files import read_metrics
from clotline.job.run import job
from clotline.reporting.plots import EVALUATION_PLOTS, save_figure


def main(snakemake):
    """Writes each plot as SVG and PNG."""
    ((name, metrics),) = read_metrics(snakemake.input).items()
    dpi = json.loads(snakemake.params.cfg)["dpi"]
    for path in snakemake.output:
        save_figure(EVALUATION_PLOTS[Path(path).parent.name](metrics, name), path, dpi)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
