"""Figures: training curves and ROC plots, readable in print, in grey and by the colour-blind."""

import textwrap
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from clotline.evaluation.intervals import describe_estimate, wilson
from clotline.evaluation.metrics_files import describe_baseline
from clotline.job.files import atomic
from clotline.titles import TITLES, counted

#: Okabe and Ito's colours, which the colour-blind can tell apart ("Color universal design", 2008),
#: and three more; each with a line style of its own, also for print in grey.
STYLES = (
    {"color": "#0072B2", "linestyle": "-"},
    {"color": "#D55E00", "linestyle": "--"},
    {"color": "#009E73", "linestyle": "-."},
    {"color": "#CC79A7", "linestyle": ":"},
    {"color": "#E69F00", "linestyle": (0, (5, 1))},
    {"color": "#56B4E9", "linestyle": (0, (3, 1, 1, 1))},
    {"color": "#000000", "linestyle": (0, (1, 1))},
    {"color": "#7F7F7F", "linestyle": (0, (8, 2))},
    {"color": "#882255", "linestyle": (0, (3, 1, 1, 1, 1, 1))},
    {"color": "#332288", "linestyle": (0, (6, 1, 2, 1))},
)

#: Characters of a line of a legend.
LONGEST_LABEL = 80

matplotlib.use("agg")
matplotlib.rcParams.update(
    {
        # The same bytes every time
        "svg.hashsalt": "clotline",
        # Text stays text: it can be searched and read aloud
        "svg.fonttype": "none",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
    }
)


def save_figure(figure: Figure, path: str | Path, dpi: int = 150) -> None:
    """Writes a figure in the format of ``path``'s ending, without the time in it."""
    ending = Path(path).suffix.removeprefix(".")
    undated = {"Date": None} if ending == "svg" else {}
    with atomic(path) as temporary:
        figure.savefig(temporary, format=ending, dpi=dpi, metadata=undated, bbox_inches="tight")


def plot_history(history: pd.DataFrame, name: str) -> Figure:
    """Loss and AUROC by epoch.

    Args:
        history: of `clotline.models.training.Fitted`.
        name: the model's name, for the title.
    """
    figure = Figure(figsize=(7, 2.8), layout="constrained")
    losses, scores = figure.subplots(1, 2)
    for column, label, style in (
        ("train_loss", "train", STYLES[0]),
        ("valid_loss", "valid", STYLES[1]),
    ):
        losses.plot(history["epoch"], history[column], label=label, marker=".", **style)
    best = history["epoch"][history["kept"].idxmax()]
    losses.axvline(best, color="0.7", linewidth=0.8, zorder=0)
    losses.set(title=name, xlabel="epoch", ylabel="cross-entropy (nats)")
    losses.legend(title=f"kept: epoch {best}")
    if history["valid_auroc"].notna().any():
        scores.plot(history["epoch"], history["valid_auroc"], marker=".", **STYLES[1])
        scores.set(ylim=(min(0.45, history["valid_auroc"].min()), 1.0))
    else:
        _say(scores, "AUROC cannot be computed:\none class only in the valid split")
    scores.set(xlabel="epoch", ylabel="AUROC, valid split")
    return figure


def plot_roc(metrics: dict, name: str) -> Figure:
    """ROC curves of one model on the test studies, with the 95% band of the main target.

    Args:
        metrics: the model's metrics, of `clotline.evaluation.metrics.evaluate`.
        name: the model's name, for the title.
    """
    figure = _plot_curves(metrics, name, _draw_roc, _false_positive_rate_and_sensitivity, _finish)
    main = next(iter(metrics["targets"].values()))
    baseline, roc = main["baseline"], main["roc"]
    if "roc" in baseline:
        figure.axes[0].plot(
            baseline["roc"]["fpr"], baseline["roc"]["tpr"],
            color="0.5", lw=0.9, label=f"baseline: {describe_baseline(baseline)}",
        )  # fmt: skip
        _show_legend(figure.axes[0])
    if roc.get("low"):
        color = STYLES[0]["color"]
        figure.axes[0].fill_between(
            roc["grid"], roc["low"], roc["high"],
            color=color, alpha=0.15, lw=0, label="95% band, bootstrap of studies",
        )  # fmt: skip
        _show_legend(figure.axes[0])
    return figure


def plot_precision_recall(metrics: dict, name: str) -> Figure:
    """Precision-recall curves of one model on the test studies.

    Args:
        metrics: the model's metrics, of `clotline.evaluation.metrics.evaluate`.
        name: the model's name, for the title.
    """
    figure = _plot_curves(
        metrics, name, _draw_precision_recall, _recall_and_precision, _finish_precision_recall
    )
    prevalence = _prevalence(next(iter(metrics["targets"].values())))
    figure.axes[0].axhline(prevalence, color="0.8", linewidth=0.8, zorder=0)
    return figure


def _plot_curves(
    metrics: dict,
    name: str,
    draw: Callable[[Axes, dict, str, dict], None],
    point_of: Callable[[dict], tuple[float | None, float | None]],
    finish: Callable[[Axes, str], None],
) -> Figure:
    """The main target's curve with its operating points, and beside it those of the others.

    Args:
        metrics: the model's metrics.
        name: the model's name, for the title.
        draw: draws one target's curve with a label in a style.
        point_of: x and y of an operating point; None where it has none.
        finish: gives a panel its title, axes and legend.
    """
    targets = metrics["targets"]
    main, *others = targets
    figure = Figure(figsize=(9.5 if others else 5, 4.4), layout="constrained")
    figure.suptitle(f"{name}: {_cases(metrics)}")
    panels = [[main], others] if others else [[main]]
    for axis, drawn in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for target, style in zip(drawn, cycle(STYLES), strict=False):
            draw(axis, targets[target], TITLES.get(target, target), style)
        if drawn == [main]:
            _draw_operating_points(axis, targets[main], point_of)
        finish(axis, TITLES.get(drawn[0], drawn[0]) if len(drawn) == 1 else "Each of the labels")
    return figure


def _prevalence(target: dict) -> float:
    estimate = target["auroc"]
    cases = estimate["n_slices"] or estimate["n_studies"]
    return estimate["n_positive"] / cases if cases else 0.0


def _draw_precision_recall(axis: Axes, target: dict, label: str, style: dict) -> None:
    text = f"{label}: AP {_describe_with_count(target['average_precision'])}"
    roc, prevalence = target["roc"], _prevalence(target)
    if "fpr" not in roc:
        axis.plot([], [], label=text, **style)
        return
    # Between two points of a ROC curve the rates are linear and precision is not: Davis and
    # Goadrich, "The relationship between precision-recall and ROC curves", ICML 2006.
    index = np.arange(len(roc["fpr"]))
    dense = np.unique(np.r_[index, np.linspace(0, index[-1], 2001)])
    fpr, tpr = (np.interp(dense, index, roc[rate]) for rate in ("fpr", "tpr"))
    called = prevalence * tpr + (1 - prevalence) * fpr
    drawn = called > 0
    axis.plot(tpr[drawn], prevalence * tpr[drawn] / called[drawn], label=text, **style)


def plot_calibration(metrics: dict, name: str) -> Figure:
    """Reliability of one model's main target: observed against predicted, with the numbers.

    Args:
        metrics: the model's metrics, of `clotline.evaluation.metrics.evaluate`.
        name: the model's name, for the title.
    """
    main, target = next(iter(metrics["targets"].items()))
    calibration = target["calibration"]
    figure = Figure(figsize=(5, 6.4), layout="constrained")
    figure.suptitle(f"{name}: {_cases(metrics)}")
    counts, curve = figure.subplots(2, 1, height_ratios=(1, 5), sharex=True)
    groups = pd.DataFrame(calibration["reliability"])
    if groups.empty:
        _say(curve, "no cases")
    else:
        label, errors = "groups of similar size", None
        # Slices of one study are not independent, which Wilson's interval asks for.
        if not metrics["n_slices"]:
            ends = wilson(groups["n_positive"].to_numpy(), groups["n"].to_numpy())
            errors = np.abs(np.stack(ends) - groups["observed"].to_numpy())
            label += ", Wilson intervals"
        curve.errorbar(
            groups["predicted"], groups["observed"], errors, marker="o", capsize=2, label=label,
            clip_on=False, **STYLES[0],
        )  # fmt: skip
        # As wide as keeps groups of small probabilities apart, and can be seen.
        width = max(0.8 * np.diff(groups["predicted"]).min(initial=0.025), 0.007)
        bars = {"color": "0.6", "edgecolor": "white", "linewidth": 0.4}
        counts.bar(groups["predicted"], groups["n"], width=width, **bars)
    for key, text in (
        ("slope", "slope"),
        ("intercept", "intercept"),
        ("in_the_large", "calibration in the large"),
    ):
        curve.plot([], [], " ", label=f"{text}: {describe_estimate(calibration[key])}")
    _finish(curve, "", "predicted probability", "observed share of positives")
    # A square panel would no longer stand under its histogram: both have to be as wide.
    curve.set_aspect("auto")
    counts.set_title(TITLES.get(main, main), fontsize=9)
    counts.set(ylabel="slices" if metrics.get("n_slices") else "studies")
    return figure


def plot_confusion(metrics: dict, name: str) -> Figure:
    """Confusion matrices of one model's main target at its operating points.

    Args:
        metrics: the model's metrics, of `clotline.evaluation.metrics.evaluate`.
        name: the model's name, for the title.
    """
    main, target = next(iter(metrics["targets"].items()))
    points = target["operating_points"]
    figure = Figure(figsize=(3.1 * len(points), 3.4), layout="constrained")
    figure.suptitle(f"{name}, {TITLES.get(main, main)}: {_cases(metrics)}")
    for axis, point in zip(figure.subplots(1, len(points)), points, strict=True):
        axis.set_title(_describe_point(point), fontsize=9)
        if point["confusion"] is None:
            axis.set_axis_off()
            _say(axis, textwrap.fill(point["sensitivity"]["reason"], 28))
            continue
        cells = [
            [point["confusion"][f"{sign}_{called}"] for called, sign in row]
            for row in (
                (("positive", "true"), ("negative", "false")),
                (("positive", "false"), ("negative", "true")),
            )
        ]
        # Shares of each row, so that the shade means the same whatever the prevalence.
        shares = np.array(cells) / np.maximum(np.sum(cells, axis=1, keepdims=True), 1)
        axis.imshow(shares, cmap="Greys", vmin=0, vmax=1.6)
        for row, column in np.ndindex(2, 2):
            text = f"{cells[row][column]:,}\n{shares[row, column]:.0%}"
            axis.text(column, row, text, ha="center", va="center", fontsize=11)
        axis.set_xticks([0, 1], ["positive", "negative"])
        axis.set_yticks([0, 1], ["positive", "negative"], rotation=90, va="center")
        axis.set(xlabel=f"called (p ≥ {point['threshold']:.3f})", ylabel="truth")
        axis.spines[:].set_visible(False)
    return figure


def plot_decision(metrics: dict, name: str) -> Figure:
    """Decision curve of PE in the study, beside treating all and treating none.

    Args:
        metrics: the model's metrics, of `clotline.evaluation.metrics.evaluate`.
        name: the model's name, for the title.
    """
    curves = {
        target: measured["decision_curve"]
        for target, measured in metrics["targets"].items()
        if "decision_curve" in measured
    }
    figure = Figure(figsize=(5.6, 4.4), layout="constrained")
    axis = figure.subplots()
    # Of each model at most one target is PE in the study.
    target, curve = next(
        iter(curves.items()), ("", {"reason": "no predictions of PE in the study"})
    )
    studies = metrics["targets"][target]["auroc"]["n_studies"] if target else metrics["n_studies"]
    of_studies = metrics | {"n_studies": studies, "n_slices": None}
    figure.suptitle(f"{name}: {_cases(of_studies)}")
    axis.set_title(TITLES.get(target, target), fontsize=9)
    if "reason" in curve:
        axis.set_axis_off()
        _say(axis, f"no decision curve:\n{curve['reason']}")
        return figure
    thresholds, benefit = np.array(curve["thresholds"]), np.array(curve["net_benefit"])
    axis.plot(thresholds, benefit, label=name, **STYLES[0])
    if "net_benefit_low" in curve:
        axis.fill_between(
            thresholds, curve["net_benefit_low"], curve["net_benefit_high"],
            color=STYLES[0]["color"], alpha=0.15, lw=0, label="95% band, bootstrap of studies",
        )  # fmt: skip
    axis.plot(thresholds, curve["treat_all"], label="treat all", **STYLES[1])
    axis.axhline(0, color="black", linewidth=0.8, label="treat none")
    # Below that a curve only says how harmful it is, and the others would be flat.
    top = max(*curve.get("net_benefit_high", benefit), *curve["treat_all"], 0.01)
    axis.set(xlabel="threshold probability", ylabel="net benefit", xlim=(0, 1))
    axis.set_ylim(-0.25 * top, 1.05 * top)
    _show_legend(axis)
    return figure


def plot_roc_comparison(metrics: dict[str, dict]) -> Figure:
    """ROC curves of all models: study level (PE present) beside image level (slices).

    Args:
        metrics: model name to its metrics, of `clotline.evaluation.metrics.evaluate`.
    """
    # Both levels of a name have one style.
    names = dict.fromkeys(name.removesuffix(f"-{m['level']}") for name, m in metrics.items())
    styles = dict(zip(names, cycle(STYLES), strict=False))
    figure = Figure(figsize=(9.5, 4.4), layout="constrained")
    entries = []
    for axis, level in zip(figure.subplots(1, 2), ("study", "image"), strict=True):
        models = {name: m for name, m in metrics.items() if m["level"] == level}
        for name, model in models.items():
            label = name.removesuffix(f"-{level}")
            _draw_roc(axis, next(iter(model["targets"].values())), label, styles[label])
        baselines = (next(iter(model["targets"].values()))["baseline"] for model in models.values())
        # Models share the baseline of slices, and may share that of studies.
        for text in dict.fromkeys(describe_baseline(b) for b in baselines if "roc" in b):
            axis.plot([], [], " ", label=f"baseline: {text}")
        entries.append(len(axis.get_lines()))
        cases = f", {_cases(next(iter(models.values())))}" if models else ""
        _finish(axis, f"{level.capitalize()} level{cases}")
    # The curves keep their size below which the legend of many models would press them.
    figure.set_figheight(4.4 + 0.16 * max(0, *(count - 6 for count in entries)))
    return figure


def _cases(metrics: dict) -> str:
    slices = (
        f", {counted(metrics['n_slices'], 'slice', 'slices')}" if metrics.get("n_slices") else ""
    )
    words = ("test study", "test studies") if metrics["split"] == "test" else ("study", "studies")
    return counted(metrics["n_studies"], *words) + slices


def _describe_with_count(estimate: dict) -> str:
    # The reason for a missing metric says the count too.
    count = "" if estimate["value"] is None else f", {estimate['n_positive']:,} positive"
    return describe_estimate(estimate) + count


def _draw_roc(axis: Axes, target: dict, label: str, style: dict) -> None:
    auroc, roc = target["auroc"], target["roc"]
    text = f"{label}: AUROC {_describe_with_count(auroc)}"
    axis.plot(roc.get("fpr", []), roc.get("tpr", []), label=text, **style)


def _draw_operating_points(
    axis: Axes, target: dict, point_of: Callable[[dict], tuple[float | None, float | None]]
) -> None:
    for point, marker in zip(target["operating_points"], cycle("os^Dv<>"), strict=False):
        x, y = point_of(point)
        if x is not None and y is not None:
            label = _describe_point(point)
            # On the edge it would be cut in half.
            axis.plot(x, y, marker, color="black", fillstyle="none", label=label, clip_on=False)


def _describe_point(point: dict) -> str:
    # A threshold that was given was fixed on no split.
    return point["name"] if point["name"].startswith("p ≥") else f"{point['name']} on valid"


def _false_positive_rate_and_sensitivity(point: dict) -> tuple[float | None, float | None]:
    specificity = point["specificity"]["value"]
    return None if specificity is None else 1 - specificity, point["sensitivity"]["value"]


def _recall_and_precision(point: dict) -> tuple[float | None, float | None]:
    return point["sensitivity"]["value"], point["ppv"]["value"]


def _finish(
    axis: Axes, title: str, xlabel: str = "1 − specificity", ylabel: str = "sensitivity"
) -> None:
    axis.plot([0, 1], [0, 1], color="0.8", linewidth=0.8, zorder=0)
    _finish_unit_square(axis, title, xlabel, ylabel)


def _finish_precision_recall(axis: Axes, title: str) -> None:
    _finish_unit_square(
        axis, title, "recall (sensitivity)", "precision (positive predictive value)"
    )


def _finish_unit_square(axis: Axes, title: str, xlabel: str, ylabel: str) -> None:
    axis.set(
        title=title, xlabel=xlabel, ylabel=ylabel, xlim=(-0.01, 1), ylim=(0, 1.01), aspect="equal"
    )
    axis.title.set_fontsize(9)
    _show_legend(axis)


def _show_legend(axis: Axes) -> None:
    handles, labels = axis.get_legend_handles_labels()
    if handles:
        # A reason why there is no interval can be so long that no room is left for the axes.
        labels = [textwrap.fill(label, LONGEST_LABEL) for label in labels]
        # Points below the axis, not a share of its height: a small panel keeps its label free.
        below = ScaledTranslation(0, -34 / 72, axis.figure.dpi_scale_trans)
        axis.legend(
            handles,
            labels,
            loc="upper left",
            bbox_to_anchor=(0, 0),
            bbox_transform=axis.transAxes + below,
            fontsize=7.5,
        )


#: The figures of one model, by the folder that they lie in.
EVALUATION_PLOTS = {
    "roc": plot_roc,
    "precision_recall": plot_precision_recall,
    "calibration": plot_calibration,
    "confusion": plot_confusion,
    "decision": plot_decision,
}


def _say(axis: Axes, text: str) -> None:
    axis.text(0.5, 0.5, text, ha="center", va="center", transform=axis.transAxes, color="0.3")
