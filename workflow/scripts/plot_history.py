"""Plots the course of one training."""

import pandas as pd

from clotline.job.run import job
from clotline.reporting.plots import plot_history, save_figure


def main(snakemake):
    """Draws loss and AUROC by epoch."""
    figure = plot_history(pd.read_csv(snakemake.input[0]), snakemake.wildcards.name)
    save_figure(figure, snakemake.output[0])


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
