"""Compares the models of each level with one another on the same test studies."""

import json
from pathlib import Path

import pandas as pd

from clotline.data.tables import read_table
from clotline.evaluation.comparison import compare
from clotline.evaluation.predictions import PE_PRESENT
from clotline.job.files import atomic
from clotline.job.run import job, log
from clotline.labels import IMAGE_LABEL


def main(snakemake):
    """Writes the paired differences in AUROC."""
    tables = {Path(path).stem: read_table(path) for path in snakemake.input}
    settings = json.loads(snakemake.params.settings)
    reference = snakemake.params.reference
    table = compare(tables, reference, settings["bootstraps"], settings["seed"])
    for row in table[table["target"].isin((PE_PRESENT, IMAGE_LABEL))].itertuples():
        difference = "not computable" if pd.isna(row.value) else f"{row.value:+.3f}"
        log.info("AUROC of %s minus %s: %s", row.reference, row.model, difference)
    with atomic(snakemake.output[0]) as path:
        table.to_csv(path, index=False)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
