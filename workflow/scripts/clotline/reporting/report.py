"""The report: one self-contained HTML page that a reader can keep, print and pass on."""

import base64
import importlib.metadata
import platform
from pathlib import Path

import pandas as pd
import yaml

from clotline.data.patient_counts import describe_patients
from clotline.data.rejects import count_notes, count_reasons
from clotline.evaluation.decision_curves import useful_thresholds
from clotline.evaluation.decision_tables import with_decisions
from clotline.evaluation.predictions import PE_PRESENT
from clotline.evaluation.sample_size import HALF_WIDTH
from clotline.evaluation.shift import TAIL, shift_of_splits
from clotline.labels import IMAGE_LABEL, SPLITS, STUDY_UID
from clotline.reporting import claim
from clotline.reporting.pages import FOLDER, describe_data, templates
from clotline.reporting.selection import best_study_models, unranked_study_models
from clotline.titles import counted
from clotline.version import CLOTLINE_VERSION

#: Packages whose versions can change the metrics.
PACKAGES = (
    "torch", "torchvision", "efficientnet-pytorch", "lightning-fabric", "pydicom", "python-gdcm",
    "imagecodecs", "h5py", "numcodecs", "numpy", "pandas", "scikit-learn", "scipy",
    "statsmodels", "snakemake",
)  # fmt: skip

#: Rejected slices that the page lists one by one.
MOST_LISTED = 2000

#: The page's sections: anchor to title.
CONTENTS = {
    "summary": "All models",
    "labels": "Metrics of each label",
    "points": "Operating points",
    "calibration": "Calibration",
    "decisions": "Decision curves",
    "values": "Predictive values",
    "size": "Sample size",
    "roc": "Receiver operating characteristic",
    "precision_recall": "Precision and recall",
    "subgroups": "Subgroups",
    "sizes": "By size",
    "comparisons": "Paired comparison",
    "competition": "Competition score",
    "training": "Training",
    "data": "Data",
    "shift": "Beside the training data",
    "claim": "CLAIM",
    "times": "Run times",
    "made": "How it was made",
}

#: Thresholds of decision curves that the page tells; all are in decision_curves.csv.
TOLD_THRESHOLDS = (0.02, 0.05, 0.1, 0.2, 0.5)

#: The groups of figures that a page can have.
FIGURES = ("roc", "precision_recall", "calibration", "confusion", "decision", "training")


def render_report(
    metrics: dict[str, dict],
    plan: pd.DataFrame,
    slices: pd.DataFrame,
    rejects: pd.DataFrame,
    notes: pd.DataFrame,
    comparisons: pd.DataFrame,
    competition: dict[str, dict],
    warnings: pd.DataFrame,
    figures: dict[str, dict[str, str]],
    config: dict,
    digests: dict[str, str],
    run_times: pd.DataFrame,
    date: str,
    facts: pd.DataFrame,
    patients: dict,
) -> str:
    """The page as HTML text; everything from outside is escaped.

    Args:
        metrics: model name to its metrics, of `clotline.evaluation.metrics.evaluate`.
        plan: plan.parquet.
        slices: slices.parquet.
        rejects: all rejected slices.
        notes: notes on studies, of all shards.
        comparisons: of `clotline.evaluation.comparison.compare`.
        competition: feature set to the dict of
            `clotline.evaluation.competition.evaluate_competition`.
        warnings: of `clotline.evaluation.learning.warnings_table`.
        figures: of `FIGURES`, each to {caption: path of an SVG}.
        config: the complete configuration.
        digests: artifact's path to its SHA-256.
        run_times: of `read_run_times`.
        date: of the page, as a text.
        facts: study_facts.parquet.
        patients: of `clotline.data.patient_counts.count_patients`.
    """
    stored, rows = len(slices), int(plan["slices"].sum())
    overlap = studies_in_two_splits(slices)
    study_models = {name: m for name, m in metrics.items() if m["level"] == "study"}
    deciding = list(with_decisions(metrics))
    comparisons = comparisons[comparisons["target"].isin((PE_PRESENT, IMAGE_LABEL))]
    shift = shift_of_splits(facts, plan.set_index(STUDY_UID)["split"])
    there = {
        "shift": bool(shift),
        "roc": bool(figures.get("roc")),
        "precision_recall": bool(figures.get("precision_recall")),
        "training": bool(figures.get("training")),
        "decisions": bool(deciding),
        "values": bool(deciding),
        "size": bool(deciding),
        "subgroups": bool(study_models),
        "sizes": bool(study_models),
        "comparisons": len(comparisons) > 0,
        "competition": bool(competition),
    }
    first_model = next(iter(metrics.values()))
    first_point = next(iter(first_model["targets"].values()))["operating_points"][0]
    return (
        templates(FOLDER)
        .get_template("report.html.j2")
        .render(
            data=_about_data(config, slices),
            date=date,
            clotline=CLOTLINE_VERSION,
            warnings=warnings.to_dict("records"),
            contents={
                anchor: title for anchor, title in CONTENTS.items() if there.get(anchor, True)
            },
            best=best_study_models(metrics),
            unranked=unranked_study_models(metrics),
            first_point=first_point["name"],
            metrics=metrics,
            study_models=study_models,
            # Of each band any model's: one that lacks some studies may lack a band.
            sizes={
                band: auroc for m in study_models.values() for band, auroc in m["sizes"].items()
            },
            deciding=deciding,
            useful={name: useful_thresholds(m["decision_curve"]) for name, _, m in deciding},
            told_thresholds=TOLD_THRESHOLDS,
            all_thresholds="results/decision_curves.csv",
            half_width=HALF_WIDTH,
            comparisons=comparisons.to_dict("records"),
            competition=competition,
            splits=account_for_splits(plan, slices),
            overlap=overlap,
            shift=shift,
            tail=TAIL,
            reasons=count_reasons(rejects).to_dict(),
            rejects=rejects.head(MOST_LISTED).to_dict("records"),
            unlisted=max(len(rejects) - MOST_LISTED, 0),
            notes=count_notes(notes).to_dict(),
            noted=notes[STUDY_UID].nunique(),
            rows=rows,
            stored=stored,
            claim=claim.ITEMS,
            patients=describe_patients(patients),
            repeats=patients["split"],
            claimed=claim.fill_in(config, stored, rows - stored, overlap, patients),
            run_times=run_times.to_dict("records"),
            figures={
                name: {caption: svg_uri(path) for caption, path in group.items()}
                for name, group in figures.items()
            },
            config=yaml.safe_dump(config, sort_keys=False),
            versions=versions(),
            digests=digests,
        )
    )


def _about_data(config: dict, slices: pd.DataFrame) -> dict:
    """What the page says of the data before all else: of the studies that have stored slices."""
    splits = slices.drop_duplicates(STUDY_UID)["split"]
    studies, tested = len(splits), int((splits == "test").sum())
    text = (
        f"{counted(studies, 'study', 'studies')} with {counted(len(slices), 'slice', 'slices')}; "
        f"all metrics are of the {counted(tested, 'study', 'studies')} of the test split."
    )
    data = describe_data(config)
    if data["phantom"]:
        text = f"Nothing here is true of patients. {text}"
    return data | {"text": text}


def account_for_splits(plan: pd.DataFrame, slices: pd.DataFrame) -> list[dict]:
    """Studies and slices, planned and stored, of each split."""
    rows = []
    for split in SPLITS:
        planned = plan[plan["split"] == split]
        absent = planned["negative_exam_for_pe"] + planned["indeterminate"]
        rows.append(
            {
                "split": split,
                "studies": len(planned),
                "positive_studies": int((absent == 0).sum()),
                "slices": int(planned["slices"].sum()),
                "positive_slices": int(planned["positive_slices"].sum()),
                "stored": int((slices["split"] == split).sum()),
            }
        )
    return rows


def studies_in_two_splits(slices: pd.DataFrame) -> int:
    """Number of studies with slices in more than one split; anything but 0 is a leak."""
    return int((slices.groupby(STUDY_UID)["split"].nunique() > 1).sum())


def read_run_times(folder: str | Path) -> pd.DataFrame:
    """What the jobs of each rule took, the last time that they ran.

    Args:
        folder: of the files that Snakemake's ``benchmark`` wrote, one a job.

    Returns:
        One row a rule: ``rule``, ``jobs``, ``total_s`` and ``longest_s`` of wall time, and
        ``memory_mb``, the largest resident set of one job.
    """
    jobs = []
    for path in sorted(Path(folder).rglob("*.tsv")):
        rule = path.relative_to(folder).with_suffix("").parts[0]
        if not path.stat().st_size:
            continue  # left by a machine that went down
        # Jobs too short to be looked at have no memory.
        job = pd.read_csv(path, sep="\t", na_values="-").iloc[0]
        jobs.append((rule, float(job["s"]), float(job["max_rss"])))
    table = pd.DataFrame(jobs, columns=["rule", "s", "memory_mb"])
    return table.groupby("rule", as_index=False).agg(
        jobs=("s", "size"),
        total_s=("s", "sum"),
        longest_s=("s", "max"),
        memory_mb=("memory_mb", "max"),
    )


def svg_uri(path: str | Path) -> str:
    """An SVG file as a link that holds it."""
    return "data:image/svg+xml;base64," + base64.b64encode(Path(path).read_bytes()).decode()


def versions() -> dict[str, str]:
    """Versions of all that can change a metric."""
    packages = {name: _version(name) for name in PACKAGES}
    return {"clotline": CLOTLINE_VERSION} | packages | {"python": platform.python_version()}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        # Rules run in environments that hold only what they need.
        return "not in this environment"
