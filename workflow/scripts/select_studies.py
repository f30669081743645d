"""Chooses the test studies that the viewer shows."""

import json

from clotline.data.tables import read_table, write_table
from clotline.evaluation.metrics_files import read_metrics
from clotline.job.files import atomic
from clotline.job.run import job, log
from clotline.labels import IMAGE_LABEL, UIDS
from clotline.reporting.selection import select


def main(snakemake):
    """Writes the studies with what the models say of them, and their slices."""
    studies = read_table(snakemake.input.study_predictions)
    images = read_table(snakemake.input.image_predictions).set_index(list(UIDS))[IMAGE_LABEL]
    slices = read_table(snakemake.input.slices)
    study_metrics, image_metrics = read_metrics(
        [snakemake.input.study_metrics, snakemake.input.image_metrics]
    ).values()
    selection, table = select(
        studies[studies["split"] == "test"],
        slices[slices["split"] == "test"],
        images,
        study_metrics,
        image_metrics,
        int(snakemake.params.studies),
    )
    write_table(table, snakemake.output.slices)
    with atomic(snakemake.output.studies) as path:
        path.write_text(json.dumps(selection, indent=1), encoding="utf-8")
    log.info("%s of %s test studies", len(selection["studies"]), f"{selection['of']:,}")


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
