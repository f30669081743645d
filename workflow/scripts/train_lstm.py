"""Trains one LSTM on sequences of slice features."""

import json
from dataclasses import replace
from functools import partial

from clotline.data.slice_table import locate_studies
from clotline.data.tables import read_table
from clotline.feature_sets import split_lstm_name
from clotline.job.files import STATE_FOLDER
from clotline.job.run import job, log
from clotline.labels import IMAGE_LABEL
from clotline.loading.study_loader import FeatureSequences
from clotline.models.checkpoint import Checkpoint
from clotline.models.devices import make_fabric, make_training_fabric
from clotline.models.lstm_training import train_lstm
from clotline.models.odds import calibrate_odds
from clotline.models.training import (
    drop_states,
    save_fitted,
    training_state,
    warn_of_training,
)
from clotline.sections.lstm import LSTMSection


def main(snakemake):
    """Writes the best epoch's checkpoint and the history."""
    section = LSTMSection(**json.loads(snakemake.params.cfg))
    seed = json.loads(snakemake.params.seed)
    name = snakemake.wildcards.lstm
    # With the number of the fold, if there is one.
    state_name = "-".join(snakemake.wildcards)
    _, level = split_lstm_name(name)
    gpus = snakemake.resources.get("gpu", 0)
    fabric = make_training_fabric(section.precision, gpus, snakemake.threads)
    slices = read_table(snakemake.input.slices)
    studies = locate_studies(slices, read_table(snakemake.input.plan))
    files, image_labels = list(snakemake.input.features), slices[IMAGE_LABEL].to_numpy()
    train, valid = (
        FeatureSequences(studies[studies["split"] == split], files, level, image_labels)
        for split in ("train", "valid")
    )
    log.info("%s studies to train on, %s to validate", f"{len(train):,}", f"{len(valid):,}")
    state = training_state(
        STATE_FOLDER,
        state_name,
        [snakemake.params.cfg, str(seed), snakemake.params.code],
        list(snakemake.input),
    )
    fitted = train_lstm(section, level, train, valid, fabric, state, seed)
    warn_of_training(name, fitted.history)
    config, width = section.as_dict(), train.width
    about = partial(Checkpoint, kind="lstm", name=name, config=config, seed=seed, width=width)
    if section.calibrate_odds:
        trained = about(epoch=fitted.best_epoch, weights=fitted.best)
        one_device = make_fabric(section.precision, gpus, snakemake.threads)
        best = calibrate_odds(trained, level, valid, section.batch_size, one_device)
        fitted = replace(fitted, best=best)
    save_fitted(fitted, about, snakemake.output.history, snakemake.output.best)
    drop_states(STATE_FOLDER, state_name)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
