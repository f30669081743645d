"""Evaluates one model on the test studies."""

import json

from clotline.data.tables import read_table
from clotline.evaluation.intervals import describe_estimate
from clotline.evaluation.metrics import evaluate
from clotline.feature_sets import split_lstm_name
from clotline.job.files import atomic
from clotline.job.run import job, log


def main(snakemake):
    """Writes the model's figures with their intervals."""
    _, level = split_lstm_name(snakemake.wildcards.model)
    metrics = evaluate(
        read_table(snakemake.input[0]),
        level,
        json.loads(snakemake.params.bootstraps),
        json.loads(snakemake.params.seed),
        json.loads(snakemake.params.thresholds),
    )
    target, figures = next(iter(metrics["targets"].items()))
    log.info("%s: AUROC %s", target, describe_estimate(figures["auroc"]))
    with atomic(snakemake.output[0]) as path:
        # allow_nan=False: a figure that is missing must say why
        path.write_text(json.dumps(metrics, indent=1, allow_nan=False), encoding="utf-8")


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
