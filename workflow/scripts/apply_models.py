"""Applies all models of a bundle to new studies."""

import json
import tempfile
from pathlib import Path

import pandas as pd

from clotline.data.activation_file import write_activation
from clotline.data.cohort import TARGETS
from clotline.data.lone_shard import stored_slices
from clotline.data.rejects import read_lists, read_series
from clotline.data.tables import read_table, write_table
from clotline.data.unpredicted import list_unpredicted
from clotline.evaluation.predictions import TRUE
from clotline.feature_sets import image_level_of
from clotline.job.files import BUNDLE, atomic, remove
from clotline.job.phases import Phases
from clotline.job.run import job, log
from clotline.labels import IMAGE_LABEL, STUDY_UID, UIDS
from clotline.models.activation import map_slices
from clotline.models.bundle import unpack_bundle
from clotline.models.inference import (
    apply_models,
    predictions_by_slice,
    predictions_by_study,
)
from clotline.reporting.pages import describe_bundle
from clotline.reporting.selection import choose_model, select
from clotline.titles import counted


def main(snakemake):
    """Writes predictions for people, and what the viewer needs."""
    output, shard = snakemake.output, snakemake.input.shard
    # What other models said must not lie beside this.
    for path in snakemake.params.later:
        remove(path)
    gpus, threads = snakemake.resources.get("gpu", 0), snakemake.threads
    phases = Phases()
    # Beside the output, where there must be room; features of many studies do not fit in memory.
    with tempfile.TemporaryDirectory(dir=Path(output.studies).parent) as folder:
        # Its path is from the configuration, not a parameter: where it lies changes no result.
        with phases("reading the models"):
            bundle = unpack_bundle(snakemake.config["models"] or BUNDLE, folder)
        stored = stored_slices(shard)
        predictions = apply_models(bundle, shard, stored, folder, gpus, threads, phases)
        metrics = {name: bundle.metrics(name) for name in bundle.models}
        study_model, why = choose_model(metrics, metrics)
        image_model = image_level_of(study_model)
        studies, slices = _beside_truth(snakemake, predictions[study_model], stored)
        selection, shown = select(
            studies,
            slices,
            predictions[image_model].set_index(list(UIDS))[IMAGE_LABEL],
            metrics[study_model],
            metrics[image_model],
            int(snakemake.params.studies),
        )
        mapped = slices if json.loads(snakemake.params.all_maps) else shown
        source = describe_bundle(bundle.manifest["config"], study_model, metrics[study_model])
        selection |= {"model": study_model, "why": why, "source": source}
        # Of a cohort some are predicted that do not count, and are not shown.
        selection["predicted"] = len(predictions[study_model])
        if source["phantom"]:
            log.warning("%s", source["title"])
        Path(output.activations).mkdir()
        for name in bundle.backbones:
            checkpoint = bundle.checkpoint("cnn", name)
            with phases("activation maps"):
                activation = map_slices(checkpoint, mapped.assign(file=shard), gpus, threads)
            with atomic(Path(output.activations, f"{name}.h5")) as path:
                write_activation(path, activation, name)
    write_table(shown, output.selected_slices)
    with atomic(output.selection) as path:
        path.write_text(json.dumps(selection, indent=1), encoding="utf-8")
    with atomic(output.slices) as path:
        predictions_by_slice(predictions).to_csv(path, index=False)
    studies = predictions_by_study(predictions, stored)
    with atomic(output.studies) as path:
        studies.assign(trained_on_phantom=source["phantom"]).to_csv(path, index=False)
    series, rejects = read_series(snakemake.input.series), read_lists(snakemake.input.rejects)
    with atomic(output.unpredicted) as path:
        list_unpredicted(series, rejects, set(studies[STUDY_UID])).to_csv(path, index=False)
    log.info(
        "%s; the viewer shows the %s most suspicious (viewer.studies)",
        counted(selection["of"], "study", "studies"),
        f"{len(selection['studies']):,}",
    )
    phases.tell()


def _beside_truth(
    snakemake, studies: pd.DataFrame, slices: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The studies and slices that the viewer can show, with the truth where there is one."""
    if not snakemake.input.truth:
        return studies, slices
    truth = read_table(snakemake.input.truth)
    named = {name: f"{name}{TRUE}" for name in TARGETS}
    studies = studies.merge(truth.rename(columns=named), on=STUDY_UID)
    of_slices = read_table(snakemake.input.slice_truth)
    return studies, slices.drop(columns=IMAGE_LABEL).merge(of_slices, on=list(UIDS))


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
