"""Predicts the valid and test studies with one LSTM."""

from clotline.checkpoint import load_checkpoint
from clotline.feature_sets import split_lstm_name
from clotline.job import job, log
from clotline.labels import IMAGE_LABEL
from clotline.lstm import load_lstm
from clotline.studies import (
    FeatureSequences,
    image_level_table,
    locate_studies,
    predict_studies,
    study_level_table,
)
from clotline.tables import read_table, write_table
from clotline.training import make_fabric


def main(snakemake):
    """Writes probabilities beside the truth."""
    _, level = split_lstm_name(snakemake.wildcards.lstm)
    checkpoint = load_checkpoint(snakemake.input.checkpoint)
    model = load_lstm(checkpoint, level, snakemake.input.checkpoint)
    fabric = make_fabric(
        checkpoint["config"]["precision"], snakemake.resources.get("gpu", 0), snakemake.threads
    )
    slices = read_table(snakemake.input.slices)
    studies = locate_studies(slices, read_table(snakemake.input.plan))
    studies = studies[studies["split"].isin(("valid", "test"))]
    sequences = FeatureSequences(
        studies, list(snakemake.input.features), level, slices[IMAGE_LABEL].to_numpy()
    )
    probabilities = predict_studies(model, sequences, fabric)
    table = (
        image_level_table(slices, studies, probabilities)
        if level == "image"
        else study_level_table(studies, probabilities)
    )
    write_table(table, snakemake.output[0])
    log.info("%s studies", f"{len(studies):,}")


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
