"""Divides the studies for the networks of one fold."""

import json

from clotline.data.folds import plan_of_fold
from clotline.data.tables import read_table, write_table
from clotline.job.run import job, log
from clotline.labels import STUDY_UID


def main(snakemake):
    """Writes the fold's plan.parquet and slices.parquet: those of all with other splits."""
    fold, folds = int(snakemake.wildcards.fold), json.loads(snakemake.params.folds)
    plan = plan_of_fold(read_table(snakemake.input.plan), fold, folds)
    slices = read_table(snakemake.input.slices)
    splits = plan.set_index(STUDY_UID)["split"]
    write_table(plan, snakemake.output.plan)
    write_table(
        slices.assign(split=slices[STUDY_UID].map(splits).astype("str")), snakemake.output.slices
    )
    log.info("studies: %s", ", ".join(f"{n:,} {name}" for name, n in splits.value_counts().items()))


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
