"""Evaluates one model on the test studies."""

import json

from clotline.data.tables import read_table
from clotline.evaluation.baselines import Baseline
from clotline.evaluation.intervals import describe_estimate
from clotline.evaluation.metrics import Yardstick, evaluate
from clotline.evaluation.metrics_files import describe_baseline, describe_verdict
from clotline.feature_sets import is_in_folds, split_lstm_name
from clotline.job.files import atomic
from clotline.job.run import job, log
from clotline.labels import STUDY_UID


def main(snakemake):
    """Writes the model's metrics with their intervals."""
    model = snakemake.wildcards.model
    _, level = split_lstm_name(model)
    settings = json.loads(snakemake.params.settings)
    metrics = evaluate(
        read_table(snakemake.input.predictions),
        level,
        settings["bootstraps"],
        settings["seed"],
        settings["thresholds"],
        _yardstick(snakemake),
        settings["prevalences"],
        is_in_folds(model),
    )
    target, target_metrics = next(iter(metrics["targets"].items()))
    log.info("%s: AUROC %s", target, describe_estimate(target_metrics["auroc"]))
    log.info(
        "%s",
        describe_verdict(target_metrics["baseline"])
        or describe_baseline(target_metrics["baseline"]),
    )
    with atomic(snakemake.output[0]) as path:
        # allow_nan=False: a metric that is missing must say why
        path.write_text(json.dumps(metrics, indent=1, allow_nan=False), encoding="utf-8")


def _yardstick(snakemake) -> Yardstick:
    """What the rule's inputs hold; at the study level there is no baseline of slices."""
    inputs = snakemake.input
    slices = Baseline("position only", read_table(inputs.slices)) if inputs.slices else None
    studies = Baseline(f"counts of {snakemake.params.scored}", read_table(inputs.studies))
    plan = read_table(inputs.plan).set_index(STUDY_UID)
    return Yardstick(slices, studies, plan["positive_slices"])


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
