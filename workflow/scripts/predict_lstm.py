"""Predicts the valid and test studies with one network of stage 2."""

from clotline.data.slice_table import locate_studies
from clotline.data.tables import read_table, write_table
from clotline.job.run import job, log
from clotline.models.prediction import predict_models


def main(snakemake):
    """Writes each level's probabilities beside the truth."""
    slices = read_table(snakemake.input.slices)
    studies = locate_studies(slices, read_table(snakemake.input.plan))
    studies = studies[studies["split"].isin(("valid", "test"))]
    tables = predict_models(
        snakemake.input.checkpoint,
        snakemake.wildcards.lstm,
        slices,
        studies,
        list(snakemake.input.features),
        snakemake.resources.get("gpu", 0),
        snakemake.threads,
    )
    for table, path in zip(tables.values(), snakemake.output, strict=True):
        write_table(table, path)
    log.info("%s studies", f"{len(studies):,}")


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
