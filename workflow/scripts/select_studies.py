"""Chooses the test studies that the viewer shows."""

import json

import pandas as pd

from clotline.files import atomic
from clotline.job import job, log
from clotline.labels import IMAGE_LABEL, SOP_UID
from clotline.metrics_files import read_metrics
from clotline.selection import select


def main(snakemake):
    """Writes the studies with what the models say of them, and their slices."""
    studies = pd.read_parquet(snakemake.input.study_predictions)
    images = pd.read_parquet(snakemake.input.image_predictions).set_index(SOP_UID)[IMAGE_LABEL]
    slices = pd.read_parquet(snakemake.input.slices)
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
    with atomic(snakemake.output.slices) as path:
        table.to_parquet(path, index=False)
    with atomic(snakemake.output.studies) as path:
        path.write_text(json.dumps(selection, indent=1))
    log.info("%s of %s test studies", len(selection["studies"]), f"{selection['of']:,}")


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
