"""Packs all trained models into one file."""

import json
from pathlib import Path

from clotline.data.overlap import digests_of_training, fitted_on
from clotline.data.tables import read_table
from clotline.evaluation.shift import distributions
from clotline.feature_sets import feature_sets
from clotline.grid import Grid
from clotline.job.files import atomic
from clotline.job.run import job
from clotline.labels import STUDY_UID
from clotline.models.bundle import write_bundle


def main(snakemake):
    """Writes the bundle."""
    config = json.loads(snakemake.params.cfg)
    facts = read_table(snakemake.input.facts)
    splits = read_table(snakemake.input.plan).set_index(STUDY_UID)["split"]
    folds = snakemake.input.folds
    splits_used = fitted_on(in_folds=bool(folds))
    training = distributions(facts[facts[STUDY_UID].map(splits).isin(splits_used)])
    finetuned = snakemake.input.finetuned
    networks = [*snakemake.input.cnns, *snakemake.input.lstms, *folds, *finetuned]
    need = sum(Path(network).stat().st_size for network in networks)
    with atomic(snakemake.output[0], need) as path:
        write_bundle(
            path,
            snakemake.input.cnns,
            snakemake.input.lstms,
            snakemake.input.metrics,
            feature_sets(config),
            config,
            digests_of_training(read_table(snakemake.input.slices)),
            training,
            folds,
            finetuned,
            Grid(json.loads(snakemake.params.size), json.loads(snakemake.params.crop)),
        )


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
