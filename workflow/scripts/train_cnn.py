"""Trains one CNN on epochs of slices."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import torch

from clotline.data.tables import read_table
from clotline.job.files import STATE_FOLDER
from clotline.job.run import job, log
from clotline.job.scratch import nearby
from clotline.job.speed import inference_batch_size, loading_processes
from clotline.labels import IMAGE_LABEL
from clotline.loading.planes import add_planes
from clotline.loading.preprocessing import View
from clotline.loading.sampling import locate_slices, training_epochs, validation_slices
from clotline.loading.slice_loader import SliceLoader, StoredSlices
from clotline.models.backbones import for_training
from clotline.models.checkpoint import Checkpoint
from clotline.models.devices import make_training_fabric
from clotline.models.monitoring import auroc
from clotline.models.training import (
    base_rate_loss,
    drop_states,
    fit,
    save_fitted,
    train_together,
    training_state,
    warn_of_training,
)
from clotline.sections.cnn import CNNSection


def main(snakemake):
    """Writes the best and the last epoch's checkpoint and the history."""
    with nearby([*snakemake.input.shards, snakemake.input.positives]) as (*shards, positives):
        train_on(snakemake, Path(shards[0]).parent, positives)


def train_on(snakemake, shard_folder, positives):
    """Trains on the slices in a folder of shards and in a file of positive slices."""
    section = CNNSection(**json.loads(snakemake.params.cfg))
    seed = json.loads(snakemake.params.seed)
    name = snakemake.wildcards.backbone
    # With the number of the fold, if there is one.
    state_name = "-".join(snakemake.wildcards)
    gpus = snakemake.resources.get("gpu", 0)
    fabric = make_training_fabric(section.precision, gpus, snakemake.threads)
    view, batch_size = View.of(section), section.batch_size
    slices = read_table(snakemake.input.slices)
    slices = add_planes(slices, view.planes, view.plane_distance_mm)
    tables = locate_slices(slices, shard_folder, positives, view.planes)
    train = [table[table["split"] == "train"] for table in tables]
    epochs = training_epochs(section, *train, seed)
    first = epochs.table(0)[IMAGE_LABEL].to_numpy()
    valid = [table[table["split"] == "valid"] for table in tables]
    valid = validation_slices(*valid, seed, epochs.share)
    processes = loading_processes(snakemake.threads, fabric)
    valid_size = inference_batch_size(batch_size, fabric)
    log.info(
        "%s of %s positive slices and %s of %s negative ones an epoch; validation on %s slices, "
        "%.0f%% of them positive",
        *(f"{first.sum():,}", f"{len(train[0]):,}"),
        *(f"{(first == 0).sum():,}", f"{len(train[1]):,}"),
        *(f"{len(valid):,}", 100 * valid[IMAGE_LABEL].mean()),
    )

    def train_batches(epoch):
        slices = StoredSlices(epochs.table(epoch), view, augment_seed=(seed, epoch))
        return SliceLoader(slices, batch_size, fabric, processes, train=True)

    state = training_state(
        STATE_FOLDER,
        state_name,
        [snakemake.params.cfg, str(seed), snakemake.params.code],
        list(snakemake.input),
    )

    def run():
        torch.manual_seed(seed)
        return fit(
            for_training(section, snakemake.input.imagenet or None),
            section,
            train_batches,
            SliceLoader(StoredSlices(valid, view, None), valid_size, fabric, processes),
            auroc,
            fabric,
            state,
            seed,
            base_rate_loss(np.array([epochs.share])),
        )

    fitted = train_together(fabric, run, state)
    warn_of_training(name, fitted.history)
    width = fitted.best["head.weight"].shape[1]
    config, output = section.as_dict(), snakemake.output
    about = partial(Checkpoint, kind="cnn", name=name, config=config, seed=seed, width=width)
    save_fitted(fitted, about, output.history, output.best, output.last)
    drop_states(STATE_FOLDER, state_name)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
