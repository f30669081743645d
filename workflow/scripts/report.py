"""Writes the report."""

import json
from datetime import date
from pathlib import Path

import pandas as pd

from clotline.data.rejects import read_lists
from clotline.data.tables import read_table
from clotline.evaluation.metrics_files import read_metrics
from clotline.job.files import atomic, sha256
from clotline.job.run import job
from clotline.reporting.report import read_run_times, render_report


def main(snakemake):
    """Writes one self-contained HTML page."""
    figures = {
        name: {f"{caption}: {Path(path).stem}": path for path in paths if path.endswith(".svg")}
        for name, caption, paths in (
            ("roc", "ROC", snakemake.input.roc),
            ("precision_recall", "Precision-recall", snakemake.input.precision_recall),
            ("calibration", "Reliability", snakemake.input.calibration),
            ("confusion", "Confusion", snakemake.input.confusion),
            ("decision", "Decision curve", snakemake.input.decision),
            ("training", "Training", snakemake.input.curves),
        )
    }
    page = render_report(
        read_metrics(snakemake.input.metrics),
        read_table(snakemake.input.plan),
        read_table(snakemake.input.slices),
        read_lists(snakemake.input.rejects),
        read_lists(snakemake.input.notes),
        pd.read_csv(snakemake.input.comparisons),
        read_metrics(snakemake.input.competition),
        pd.read_csv(snakemake.input.warnings),
        figures,
        snakemake.config,
        {path: sha256(path) for path in [*snakemake.input.models, *snakemake.input.metrics]},
        # Not an input: how long something took causes no rerun.
        read_run_times("benchmarks"),
        date.today().isoformat(),
        read_table(snakemake.input.facts),
        json.loads(Path(snakemake.input.patients).read_text(encoding="utf-8")),
    )
    with atomic(snakemake.output[0]) as path:
        path.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
