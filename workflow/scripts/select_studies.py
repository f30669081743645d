"""Chooses the test studies that the viewer shows."""

import json
from pathlib import Path

from clotline.data.tables import read_table, write_table
from clotline.evaluation.metrics_files import read_metrics
from clotline.feature_sets import image_level_of
from clotline.job.files import atomic
from clotline.job.run import job, log
from clotline.labels import IMAGE_LABEL, UIDS
from clotline.reporting.pages import describe_data
from clotline.reporting.selection import choose_model, select


def main(snakemake):
    """Writes the studies with what the models say of them, and their slices."""
    predictions = {Path(path).stem: path for path in snakemake.input.predictions}
    metrics = read_metrics(snakemake.input.metrics)
    model, why = choose_model(metrics, predictions)
    image_model = image_level_of(model)
    studies = read_table(predictions[model])
    images = read_table(predictions[image_model]).set_index(list(UIDS))[IMAGE_LABEL]
    slices = read_table(snakemake.input.slices)
    selection, table = select(
        studies[studies["split"] == "test"],
        slices[slices["split"] == "test"],
        images,
        metrics[model],
        metrics[image_model],
        int(snakemake.params.studies),
    )
    selection |= {"model": model, "why": why}
    selection["source"] = describe_data(json.loads(snakemake.params.data))
    write_table(table, snakemake.output.slices)
    with atomic(snakemake.output.studies) as path:
        path.write_text(json.dumps(selection, indent=1), encoding="utf-8")
    log.info("%s of %s test studies", len(selection["studies"]), f"{selection['of']:,}")


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
