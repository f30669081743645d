"""Writes the viewer: a page to look at test studies."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from clotline.activation_files import read_activation
from clotline.job import job
from clotline.labels import IMAGE_LABEL, SOP_UID, STUDY_UID
from clotline.metrics_files import read_metrics
from clotline.progress import progress
from clotline.shards import POSITION, open_shard
from clotline.viewer import Exam, write_viewer


def exams(snakemake, chosen: list[dict], model: str):
    """The chosen studies one after the other."""
    slices = pd.read_parquet(snakemake.input.slices)
    by_study = dict(
        list(slices[slices[STUDY_UID].isin([s["uid"] for s in chosen])].groupby(STUDY_UID))
    )
    predictions = pd.read_parquet(snakemake.input.predictions).set_index(SOP_UID)[IMAGE_LABEL]
    shards = {Path(path).stem.removeprefix("shard-"): path for path in snakemake.input.shards}
    activations = {Path(path).stem: read_activation(path) for path in snakemake.input.activations}
    for about in progress(chosen, len(chosen), "viewer", "studies"):
        rows = by_study[about["uid"]]
        uids = list(rows[SOP_UID])
        with open_shard(shards[rows["shard"].iloc[0]]) as file:
            pixels = file["pixels"][rows["row"].min() : rows["row"].max() + 1]
        found = {name: maps.of(uids) for name, maps in activations.items()}
        curves = {model: predictions.loc[uids].to_numpy()}
        curves |= {name: 1 / (1 + np.exp(-maps.logits)) for name, maps in found.items()}
        truth = rows[IMAGE_LABEL].to_numpy() == 1
        yield Exam(about, pixels, rows[POSITION].to_numpy(), curves, found, truth)


def main(snakemake):
    """Writes the page and the studies' scripts."""
    selection = json.loads(Path(snakemake.input.studies).read_text())
    ((model, metrics),) = read_metrics([snakemake.input.metrics]).items()
    write_viewer(
        snakemake.output.index,
        snakemake.output.studies,
        exams(snakemake, selection["studies"], model),
        selection["model"],
        [Path(path).stem for path in snakemake.input.activations],
        metrics["targets"][IMAGE_LABEL]["operating_points"][0]["threshold"],
    )


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
