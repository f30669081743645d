"""Chooses the test studies that the viewer shows."""

import json

import pandas as pd

from clotline.files import atomic
from clotline.job import job, log
from clotline.metrics_files import read_metrics
from clotline.selection import choose_studies, describe_studies, fixed_thresholds


def main(snakemake):
    """Writes the studies with what the model says of them, and the thresholds."""
    ((model, metrics),) = read_metrics([snakemake.input.metrics]).items()
    predictions = pd.read_parquet(snakemake.input.predictions)
    test = predictions[predictions["split"] == "test"]
    studies = describe_studies(test, fixed_thresholds(metrics))
    chosen = choose_studies(studies, int(snakemake.params.studies))
    with atomic(snakemake.output[0]) as path:
        path.write_text(json.dumps({"model": model, "studies": chosen}, indent=1))
    log.info("%s of %s test studies", len(chosen), f"{len(studies):,}")


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
