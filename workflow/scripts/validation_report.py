"""Writes the report of models on another cohort."""

import json
from datetime import date
from pathlib import Path

from clotline.data.rejects import read_lists
from clotline.data.tables import read_table
from clotline.job.files import atomic
from clotline.job.run import job
from clotline.reporting.plots import (
    EVALUATION_PLOTS,
    plot_calibration,
    plot_roc_comparison,
    save_figure,
)
from clotline.reporting.validation import flow_of, recalibrated_metrics, render_validation

#: Figures of one model, calibration aside.
_CAPTIONS = {
    "roc": "ROC",
    "precision_recall": "Precision-recall",
    "confusion": "Confusion",
    "decision": "Decision curve",
}


def main(snakemake):
    """Writes one self-contained HTML page, and its figures beside it."""
    inputs, params = snakemake.input, snakemake.params
    content = json.loads(Path(inputs.metrics).read_text(encoding="utf-8"))
    folder, dpi = Path(snakemake.output.figures), json.loads(params.plots)["dpi"]
    figures = _draw(content["models"], folder, dpi)
    flow = flow_of(
        content,
        read_table(inputs.truth),
        read_table(inputs.slice_truth),
        *(read_lists([path]) for path in (inputs.excluded, inputs.unpredicted, inputs.left_out)),
    )
    settings = json.loads(params.settings)
    page = render_validation(
        content,
        flow,
        read_lists([inputs.notes]),
        figures,
        settings["recalibration"],
        settings["bootstraps"],
        date.today().isoformat(),
    )
    with atomic(snakemake.output.page) as path:
        path.write_text(page, encoding="utf-8")


def _draw(metrics: dict, folder: Path, dpi: int) -> dict[str, dict[str, Path]]:
    """All figures, as SVG and PNG: name of the group to captions to paths."""
    drawn = {("roc", "ROC of all models", "all"): plot_roc_comparison(metrics)}
    for name, model in metrics.items():
        for kind, caption in _CAPTIONS.items():
            drawn[kind, f"{caption}: {name}", name] = EVALUATION_PLOTS[kind](model, name)
        for moment in ("before", "after"):
            changed = recalibrated_metrics(model, moment)
            if changed is not None:
                caption = f"Reliability {moment} recalibration: {name}"
                drawn["calibration", caption, f"{name}-{moment}"] = plot_calibration(changed, name)
    figures: dict[str, dict[str, Path]] = {}
    for (kind, caption, stem), figure in drawn.items():
        for ending in ("png", "svg"):
            path = folder / kind / f"{stem}.{ending}"
            save_figure(figure, path, dpi)
        figures.setdefault(kind, {})[caption] = path
    return figures


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
