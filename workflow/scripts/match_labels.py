"""Puts the scans of a cohort and its labels together."""

import json

import pandas as pd

from clotline.data.cohort import match_labels, read_cohort
from clotline.data.rejects import count_reasons, read_lists, read_series
from clotline.data.tables import read_table, write_table
from clotline.job.files import atomic, remove
from clotline.job.run import job, log
from clotline.labels import STUDY_UID
from clotline.titles import counted


def main(snakemake):
    """Writes the slices to decode, the labels of their studies, and what has not both."""
    # What other labels gave must not lie beside a refusal of these.
    for path in snakemake.params.later:
        remove(path)
    description = json.loads(snakemake.params.description)
    matched = match_labels(
        read_cohort(snakemake.config["validate"], description),
        read_table(snakemake.input.rows),
        read_series(snakemake.input.series),
        read_lists([snakemake.input.left_out]),
        description,
        json.loads(snakemake.params.recalibration),
    )
    write_table(matched.rows, snakemake.output.rows)
    write_table(matched.labels, snakemake.output.labels)
    for table, target in ((matched.unlabelled, "unlabelled"), (matched.missing, "missing")):
        with atomic(snakemake.output[target]) as path:
            table.to_csv(path, index=False)
    log.info("%s with labels", counted(len(matched.labels), "study", "studies"))
    _tell(matched.missing, "rows of labels count for nothing", snakemake.output.missing)
    unlabelled = matched.unlabelled.drop_duplicates(STUDY_UID)
    _tell(unlabelled, "studies have no labels", snakemake.output.unlabelled)
    if matched.patients is not None:
        patients, several = matched.patients
        log.info("%s, %s with several studies", counted(patients, "patient", "patients"), several)


def _tell(table: pd.DataFrame, what: str, path: str) -> None:
    if len(table):
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in count_reasons(table).items())
        log.warning("%s %s: %s (listed in %s)", f"{len(table):,}", what, reasons, path)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
