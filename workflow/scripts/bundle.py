"""Packs all trained models into one file."""

import json
from pathlib import Path

from clotline.feature_sets import feature_sets
from clotline.job.files import atomic
from clotline.job.run import job
from clotline.models.bundle import write_bundle


def main(snakemake):
    """Writes the bundle."""
    config = json.loads(snakemake.params.cfg)
    need = sum(Path(member).stat().st_size for member in snakemake.input)
    with atomic(snakemake.output[0], need) as path:
        write_bundle(
            path,
            snakemake.input.cnns,
            snakemake.input.lstms,
            snakemake.input.metrics,
            feature_sets(config),
            config,
            snakemake.input.folds,
        )


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
