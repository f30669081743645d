"""Trains a backbone and a network of stage 2 on together."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

from clotline.data.slice_table import locate_studies
from clotline.data.tables import read_table
from clotline.feature_sets import split_lstm_name
from clotline.job.files import STATE_FOLDER, atomic
from clotline.job.run import job, log
from clotline.job.scratch import nearby
from clotline.labels import IMAGE_LABEL
from clotline.loading.preprocessing import View
from clotline.loading.study_loader import FeatureSequences
from clotline.loading.suspicious_slices import (
    SuspiciousSlices,
    all_slices,
    most_suspicious,
    stored_slices_of,
)
from clotline.models.checkpoint import Checkpoint
from clotline.models.devices import make_fabric, make_training_fabric
from clotline.models.finetuning import calibrated, finetune
from clotline.models.training import drop_states, training_state, warn_of_training
from clotline.sections.cnn import CNNSection
from clotline.sections.finetune import FinetuneSection


def main(snakemake):
    """Writes the kept epoch's checkpoint of both networks and the history."""
    with nearby(list(snakemake.input.shards)) as shards:
        train_on(snakemake, Path(shards[0]).parent)


def train_on(snakemake, shard_folder):
    """Trains on the slices in a folder of shards."""
    section = FinetuneSection(**json.loads(snakemake.params.cfg))
    seed = json.loads(snakemake.params.seed)
    name = snakemake.wildcards.lstm
    level = split_lstm_name(name)[1]
    gpus = snakemake.resources.get("gpu", 0)
    fabric = make_training_fabric(section.precision, gpus, snakemake.threads)
    cnn, lstm = (Checkpoint.load(path) for path in (snakemake.input.cnn, snakemake.input.lstm))
    view = View.of(CNNSection.of_checkpoint(cnn.config, snakemake.input.cnn))
    slices = read_table(snakemake.input.slices)
    studies = locate_studies(slices, read_table(snakemake.input.plan))
    features, image_labels = snakemake.input.features, slices[IMAGE_LABEL].to_numpy()
    head = cnn.weights["head.weight"].double().numpy().ravel()

    def studies_of(split, choose):
        part = studies[studies["split"] == split]
        chosen = choose(part)
        table = stored_slices_of(slices, part, chosen, shard_folder, view)
        sequences = FeatureSequences(part, [features], level, image_labels)
        return SuspiciousSlices(sequences, table, view, chosen)

    choose = partial(most_suspicious, features=features, head=head, most=section.slices)
    train, valid = studies_of("train", choose), studies_of("valid", all_slices)
    log.info(
        "%s studies to train on, up to %d slices of each; %s to validate, all of their slices",
        *(f"{len(train):,}", section.slices, f"{len(valid):,}"),
    )
    state = training_state(
        STATE_FOLDER,
        name,
        [snakemake.params.cfg, str(seed), snakemake.params.code],
        list(snakemake.input),
    )
    tuned = finetune(section, cnn, lstm, level, train, valid, fabric, state, seed)
    history = tuned.fitted.history
    warn_of_training(name, history)
    one_device = make_fabric(section.precision, gpus, snakemake.threads)
    tuned = calibrated(tuned, level, valid, section, one_device)
    tuned.cnn.save(snakemake.output.cnn)
    replace(tuned.lstm, name=name).save(snakemake.output.lstm)
    with atomic(snakemake.output.history) as path:
        history.to_csv(path, index=False)
    drop_states(STATE_FOLDER, name)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
