"""Writes what the models say of new studies as DICOM instances."""

import json
from pathlib import Path

import pandas as pd

from clotline.data.activation_file import read_activations
from clotline.data.archives import unpacked
from clotline.data.shards import read_rows, shard_grid
from clotline.data.tables import read_table
from clotline.job.files import atomic
from clotline.job.progress import progress
from clotline.job.run import job, log
from clotline.labels import SERIES_UID, STUDY_UID
from clotline.reporting.dicom_results import write_results
from clotline.titles import counted


def main(snakemake):
    """Writes reports and maps, and a list of them with what was left out and why."""
    inputs, output = snakemake.input, snakemake.output
    rows, slices = read_table(inputs.rows), read_rows(inputs.shard)
    selection = json.loads(Path(inputs.selection).read_text(encoding="utf-8"))
    # A UID can look like a number, or be NA.
    texts = {STUDY_UID: str, SERIES_UID: str}
    predictions = pd.read_csv(inputs.predictions, dtype=texts, keep_default_na=False)
    predictions = predictions[predictions["model"] == selection["model"]]
    studies = slices[STUDY_UID].nunique()

    def step(groups):
        return progress(groups, studies, "DICOM results", "studies")

    made_by = [f"models of SHA-256 {snakemake.params.bundle}", selection["source"]["title"]]
    with unpacked(snakemake.config["predict"], only=set(rows["path"])) as packed:
        table = write_results(
            output.folder,
            slices,
            rows,
            packed.folder,
            predictions,
            read_activations([inputs.activations]),
            made_by,
            step,
            shard_grid(inputs.shard).size,
        )
    Path(output.folder).mkdir(exist_ok=True)
    with atomic(output.table) as path:
        table.to_csv(path, index=False)
    for reason, count in table.loc[table["file"] == "", "reason"].value_counts().items():
        log.warning("%s left out: %s", counted(count, "DICOM result", "DICOM results"), reason)
    log.info("%s in %s", counted((table["file"] != "").sum(), "result", "results"), output.folder)
    log.warning(
        "the DICOM results hold the patient's name, number, birth date and sex, as an archive needs"
    )


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
