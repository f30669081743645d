"""Evaluates the models of a bundle on another cohort."""

import json
import tempfile
from pathlib import Path

from clotline.data.archives import unpacked
from clotline.data.cohort import read_cohort
from clotline.data.lone_shard import stored_slices
from clotline.data.people import groups_of, people_of
from clotline.data.tables import read_table
from clotline.evaluation.comparison import metrics_table
from clotline.evaluation.intervals import describe_estimate
from clotline.evaluation.learning import warnings_table
from clotline.evaluation.validation import validate, with_truth
from clotline.feature_sets import split_lstm_name
from clotline.grid import PUBLISHED
from clotline.job.files import BUNDLE, atomic
from clotline.job.run import job, log
from clotline.labels import STUDY_UID
from clotline.models.bundle import unpack_bundle
from clotline.reporting.selection import choose_model


def main(snakemake):
    """Writes the metrics of all models, and their table."""
    output, params = snakemake.output, snakemake.params
    settings = json.loads(params.settings)
    truth, slice_truth = (read_table(snakemake.input[n]) for n in ("truth", "slice_truth"))
    slices = stored_slices(snakemake.input.shard)
    slices = slices[slices[STUDY_UID].isin(truth[STUDY_UID])]
    rows = read_table(snakemake.input.rows)
    rows = rows[rows[STUDY_UID].isin(truth[STUDY_UID])]
    description = json.loads(params.description)
    folder = snakemake.config["validate"]
    with unpacked(folder, only=set(rows.drop_duplicates(STUDY_UID)["path"])) as packed:
        # Sex and age live in this process alone: what is written are figures of groups.
        people = people_of(read_cohort(folder, description), rows, packed.folder, description)
    groups = groups_of(slices, people)
    with tempfile.TemporaryDirectory(dir=Path(output.metrics).parent) as unpacked_to:
        bundle = unpack_bundle(snakemake.config["models"] or BUNDLE, unpacked_to, "metrics/")
        internal = {name: bundle.metrics(name) for name in bundle.models}
        config, folded, grid = bundle.manifest["config"], bundle.folded, bundle.grid
    if grid != PUBLISHED:
        config |= {"data": grid._asdict()}
    tables = with_truth(snakemake.input.studies, snakemake.input.slices, truth, slice_truth)
    metrics = {}
    for name, table in tables.items():
        metrics[name] = validate(
            table,
            split_lstm_name(name)[1],
            internal[name],
            groups,
            settings["bootstraps"],
            settings["seed"],
            settings["thresholds"],
            settings["prevalences"],
        )
        for target, measured in list(metrics[name]["targets"].items())[:1]:
            log.info("%s, %s: AUROC %s", name, target, describe_estimate(measured["auroc"]))
    metrics = {name: measured for name, measured in metrics.items() if measured["targets"]}
    about = json.loads(Path(snakemake.input.about).read_text(encoding="utf-8"))
    about["digests"]["code of the metrics"] = params.code
    # As for the viewer, whatever labels this cohort has.
    model, why = choose_model(internal, internal)
    content = {"about": about, "trained": config, "folds": folded, "models": metrics}
    content["chosen"] = {"model": model, "why": why}
    with atomic(output.metrics) as path:
        path.write_text(json.dumps(content, indent=1, allow_nan=False), encoding="utf-8")
    with atomic(output.table) as path:
        metrics_table(metrics, warnings_table({}, metrics)).to_csv(path, index=False)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
