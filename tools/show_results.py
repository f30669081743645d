"""Prints the metrics table of a finished run: ``python -m tools.show_results [folder]``."""

import sys
from pathlib import Path

import pandas as pd


def results_text(folder: Path) -> str:
    """The main target of each model, one line each, and where the pictures are."""
    table = pd.read_csv(folder / "results/metrics.csv")
    lines = [
        f"{'model':24} {'AUROC on test (95% interval)':34} {'studies':>8} {'positive':>9} "
        f"{'':16} baseline"
    ]
    for _, rows in table.groupby("model", sort=False):
        row = rows.iloc[0]
        auroc = f"not computable: {row['note']}"
        if pd.notna(row["auroc"]):
            auroc = f"{row['auroc']:.3f}"
            if pd.notna(row["auroc_low"]):
                auroc += f" ({row['auroc_low']:.3f}–{row['auroc_high']:.3f})"
        one, many = ("slice", "slices") if row["level"] == "image" else ("study", "studies")
        unit = f"{one if row['n_positive'] == 1 else many} positive"
        lines.append(
            f"{row['model']:24} {auroc:34} {row['n_studies']:8,} {row['n_positive']:9,} "
            f"{unit:16} {_beside(row)}".rstrip()
        )
    results = folder / "results"
    warnings = pd.read_csv(results / "warnings.csv")
    lines += ["", *(f"warning: {row.model}: {row.warning}" for row in warnings.itertuples())]
    return "\n".join(
        [
            *lines,
            *([""] if len(warnings) else []),
            f"ROC plot  {results / 'roc/all.png'}",
            f"report    {results / 'report.html'}",
            f"studies   {results / 'viewer/index.html'}",
        ]
    )


def _beside(row: pd.Series) -> str:
    """The baseline's AUROC and whether the model beats it; empty where there is none."""
    if pd.isna(row["baseline_auroc"]):
        return ""
    beats = "beats" if row["above_baseline_low"] > 0 else "not shown to beat"
    return f"{beats} {row['baseline']} {row['baseline_auroc']:.3f}"


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")
    print(results_text(Path(sys.argv[1] if len(sys.argv) > 1 else ".")))
