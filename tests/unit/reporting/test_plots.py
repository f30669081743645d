"""Figures show what they should, in the same bytes every time."""

import copy
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from sklearn.metrics import precision_recall_curve

from clotline.evaluation.metrics import evaluate
from clotline.labels import IMAGE_LABEL, STUDY_LABELS, STUDY_UID
from clotline.reporting.plots import (
    EVALUATION_PLOTS,
    plot_calibration,
    plot_confusion,
    plot_decision,
    plot_history,
    plot_precision_recall,
    plot_roc,
    plot_roc_comparison,
    save_figure,
)


def study_predictions(studies=60, present=0.5):
    rng = np.random.default_rng(3)
    truth = rng.random(studies) < present
    table = pd.DataFrame({STUDY_UID: [f"s{i}" for i in range(studies)]})
    table["split"] = np.where(np.arange(studies) % 2, "valid", "test")
    for name in STUDY_LABELS:
        table[name] = np.clip(rng.normal(0.2, 0.05, studies), 0, 1)
        table[f"{name}_true"] = 0
    table["negative_exam_for_pe"] = np.clip(0.5 - 0.3 * truth + rng.normal(0, 0.2, studies), 0, 1)
    table["negative_exam_for_pe_true"] = (~truth).astype(int)
    return table


def image_predictions():
    studies = study_predictions()
    table = studies.loc[studies.index.repeat(4), [STUDY_UID, "split"]].reset_index(drop=True)
    rng = np.random.default_rng(4)
    table[f"{IMAGE_LABEL}_true"] = (rng.random(len(table)) < 0.3).astype(int)
    table[IMAGE_LABEL] = np.clip(
        0.4 * table[f"{IMAGE_LABEL}_true"] + rng.normal(0.3, 0.2, len(table)), 0, 1
    )
    return table


@pytest.fixture(scope="module")
def study():
    return evaluate(study_predictions(), "study", 100, 0)


@pytest.fixture(scope="module")
def image():
    return evaluate(image_predictions(), "image", 100, 0)


def svg(figure, tmp_path, name="figure.svg"):
    save_figure(figure, tmp_path / name)
    return (tmp_path / name).read_text()


def test_a_roc_plot_says_auroc_interval_and_counts(study, tmp_path):
    text = svg(plot_roc(study, "combined-study"), tmp_path)
    auroc = study["targets"]["pe_present"]["auroc"]
    stated = f"PE present: AUROC {auroc['value']:.3f} ({auroc['low']:.3f}–{auroc['high']:.3f})"
    assert stated in text
    assert "30 test studies" in text
    assert f"{auroc['n_positive']} positive" in text
    # One class only: said, not drawn
    assert "Central PE: AUROC not computable: one class only" in text
    assert "95% band" in text


def test_the_operating_points_lie_at_the_rates_of_their_counts(study):
    markers = [line for line in plot_roc(study, "m").axes[0].lines if len(line.get_xdata()) == 1]
    points = study["targets"]["pe_present"]["operating_points"]
    for line, counts in zip(markers, (point["confusion"] for point in points), strict=True):
        negative = counts["false_positive"] + counts["true_negative"]
        positive = counts["true_positive"] + counts["false_negative"]
        assert line.get_xdata()[0] == pytest.approx(counts["false_positive"] / negative)
        assert line.get_ydata()[0] == pytest.approx(counts["true_positive"] / positive)


def test_the_image_level_counts_slices(image, tmp_path):
    text = svg(plot_roc(image, "combined-image"), tmp_path)
    assert "30 test studies, 120 slices" in text


def test_the_comparison_shows_every_model(study, image, tmp_path):
    models = {"a-study": study, "b-study": study, "a-image": image}
    text = svg(plot_roc_comparison(models), tmp_path)
    assert "Study level" in text
    assert "Image level" in text
    assert text.count("b: ") == 1


def test_no_model_of_many_is_left_out(study, tmp_path):
    models = {f"reader{number:02}-study": study for number in range(12)}
    text = svg(plot_roc_comparison(models), tmp_path)
    assert all(text.count(f"reader{number:02}: ") == 1 for number in range(12))


def test_the_curves_keep_their_size_beside_the_legend_of_many_models(study, image):
    def height(count):
        models = {f"reader{number:02}-study": study for number in range(count)}
        figure = plot_roc_comparison(models | {"a-image": image})
        figure.draw_without_rendering()
        return figure.axes[0].get_window_extent().height

    assert height(6) > 100
    assert height(18) > 0.9 * height(6)


def test_both_levels_of_a_name_have_one_style(study, image):
    models = {"b-study": study, "a-study": study, "a-image": image, "b-image": image}
    styles = [
        {line.get_label()[0]: line.get_color() for line in axis.get_lines()[:2]}
        for axis in plot_roc_comparison(models).axes
    ]
    assert styles[0] == styles[1]
    assert len(set(styles[0].values())) == 2


def test_a_model_without_figures_still_gives_a_plot(tmp_path):
    metrics = evaluate(study_predictions(present=0.0), "study", 100, 0)
    text = svg(plot_roc(metrics, "combined-study"), tmp_path)
    assert "PE present: AUROC not computable: one class only" in text


def test_figures_have_the_same_bytes_every_time(study, tmp_path):
    for ending in ("svg", "png"):
        first, second = tmp_path / f"1.{ending}", tmp_path / f"2.{ending}"
        for path in (first, second):
            save_figure(plot_roc(study, "x"), path)
        assert first.read_bytes() == second.read_bytes()


def test_the_history_marks_the_kept_epoch(tmp_path):
    history = pd.DataFrame(
        {
            "epoch": [1, 2, 3],
            "lr": [0.1] * 3,
            "train_loss": [0.7, 0.5, 0.4],
            "valid_loss": [0.7, 0.5, 0.6],
            "valid_auroc": [0.5, 0.8, 0.7],
            "kept": [0, 1, 0],
        }
    )
    assert "kept: epoch 2" in svg(plot_history(history, "resnext50"), tmp_path)
    history["valid_auroc"] = np.nan
    assert "AUROC cannot be computed" in svg(plot_history(history, "resnext50"), tmp_path)


def test_a_precision_recall_curve_passes_through_the_steps_of_the_cases(study):
    test = study_predictions()
    test = test[test["split"] == "test"]
    truth = 1 - test["negative_exam_for_pe_true"]
    score = (1 - test["negative_exam_for_pe"]) * (1 - test["indeterminate"])
    precision, recall, _ = precision_recall_curve(truth, score)
    line = plot_precision_recall(study, "m").axes[0].lines[0]
    corners = np.column_stack([line.get_xdata(), line.get_ydata()])
    # What is drawn is the line between them.
    shares = np.linspace(0, 1, 20)[:, None, None]
    drawn = (corners[:-1] + shares * np.diff(corners, axis=0)).reshape(-1, 2)
    for point in np.column_stack([recall, precision])[:-1]:
        # Points on a straight part of the ROC curve are left out, but passed nearby.
        assert np.abs(drawn - point).max(1).min() < 2e-3


def test_a_precision_recall_curve_ends_at_the_share_of_positives(image):
    table = image_predictions()
    share = table.loc[table["split"] == "test", f"{IMAGE_LABEL}_true"].mean()
    assert share != 0.5
    curve, *_, level = plot_precision_recall(image, "m").axes[0].lines
    assert (curve.get_xdata()[-1], curve.get_ydata()[-1]) == (1, pytest.approx(share))
    assert level.get_ydata() == pytest.approx([share, share])


def test_a_precision_recall_plot_says_average_precision_and_what_cannot_be_computed(
    study, tmp_path
):
    text = svg(plot_precision_recall(study, "combined-study"), tmp_path)
    precision = study["targets"]["pe_present"]["average_precision"]
    assert f"PE present: AP {precision['value']:.3f} ({precision['low']:.3f}" in text
    assert f", {precision['n_positive']} positive" in text
    assert "Central PE: AP not computable: one class only" in text


def test_a_calibration_plot_draws_every_group_and_says_slope(image, tmp_path):
    figure = plot_calibration(image, "m")
    calibration = next(iter(image["targets"].values()))["calibration"]
    points = figure.axes[1].containers[0].lines[0]
    assert points.get_ydata().tolist() == [
        group["observed"] for group in calibration["reliability"]
    ]
    text = svg(figure, tmp_path)
    for name in ("slope", "intercept", "in_the_large"):
        value = f"{calibration[name]['value']:.3f}".replace("-", "−")
        assert f"{name.replace('in_the', 'calibration in the').replace('_', ' ')}: {value}" in text


def test_counts_of_small_probabilities_stand_apart(image):
    target = next(iter(image["targets"]))
    groups = [
        {"predicted": 0.001 + 0.009 * k, "observed": 0.0, "n": 9, "n_positive": 0} for k in range(9)
    ]
    image = copy.deepcopy(image)
    image["targets"][target]["calibration"]["reliability"] = groups
    bars = plot_calibration(image, "m").axes[0].patches
    ends = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in bars]
    assert all(end < start for (_, end), (start, _) in pairwise(ends))


def test_what_lies_on_the_edge_of_a_plot_is_drawn_whole(study):
    markers = [line for line in plot_roc(study, "m").axes[0].lines if len(line.get_xdata()) == 1]
    assert markers
    assert not any(line.get_clip_on() for line in markers)


def test_a_calibration_plot_has_intervals_of_studies_and_none_of_dependent_slices(study, image):
    for metrics, intervals in ((study, True), (image, False)):
        (bars,) = plot_calibration(metrics, "m").axes[1].containers
        assert bars.has_yerr == intervals


def test_a_confusion_plot_shows_the_four_numbers_at_each_threshold(study, tmp_path):
    text = svg(plot_confusion(study, "m"), tmp_path)
    for point in study["targets"]["pe_present"]["operating_points"]:
        assert f"called (p ≥ {point['threshold']:.3f})" in text
        for count in point["confusion"].values():
            assert f">{count}<" in text


@pytest.mark.parametrize("plot", EVALUATION_PLOTS)
def test_one_class_alone_is_said_and_not_drawn(plot, tmp_path):
    measured = evaluate(study_predictions(present=0), "study", 100, 0)
    text = svg(EVALUATION_PLOTS[plot](measured, "m"), tmp_path)
    assert "one class only" in text


@pytest.mark.parametrize("plot", EVALUATION_PLOTS)
def test_no_test_study_at_all_is_drawn_without_an_error(plot, tmp_path):
    table = study_predictions()
    measured = evaluate(table[table["split"] == "valid"], "study", 100, 0)
    assert "0 test studies" in svg(EVALUATION_PLOTS[plot](measured, "m"), tmp_path)


def test_the_groups_of_a_calibration_plot_stand_under_their_counts(study):
    figure = plot_calibration(study, "m")
    FigureCanvasAgg(figure).draw()
    counts, curve = figure.axes
    for level in (0.1, 0.5, 0.9):
        columns = [axis.transData.transform((level, 0))[0] for axis in (counts, curve)]
        assert columns[0] == pytest.approx(columns[1], abs=0.5)


@pytest.mark.parametrize("plot", ["roc", "precision_recall", "calibration"])
def test_no_legend_covers_the_label_of_its_axis(study, plot):
    figure = EVALUATION_PLOTS[plot](study, "m")
    FigureCanvasAgg(figure).draw()
    for axis in figure.axes:
        if legend := axis.get_legend():
            label = axis.xaxis.label.get_window_extent()
            assert not label.overlaps(legend.get_window_extent())


def beside(metrics, name, beaten=True):
    """The same metrics with a baseline of the main target."""
    metrics = copy.deepcopy(metrics)
    main = next(iter(metrics["targets"].values()))
    estimate = main["auroc"] | {"value": 0.801, "low": 0.79, "high": 0.812}
    main["baseline"] = {
        "name": name,
        "auroc": estimate,
        "difference": estimate,
        "p_value": 0.01,
        "beaten": beaten,
        "roc": {"fpr": [0, 0.4, 1], "tpr": [0, 0.7, 1]},
    }
    return metrics


def test_a_baseline_is_drawn_and_named_beside_the_models_curve(image, tmp_path):
    without = plot_roc(image, "m-image").axes[0].lines
    figure = plot_roc(beside(image, "position only"), "m-image")
    added = [line for line in figure.axes[0].lines if "baseline" in line.get_label()]
    assert len(figure.axes[0].lines) == len(without) + 1
    (line,) = added
    assert line.get_xydata().tolist() == [[0, 0], [0.4, 0.7], [1, 1]]
    assert "baseline: position only: AUROC 0.801 (0.790–0.812)" in svg(figure, tmp_path)


def test_a_baseline_that_models_share_is_named_once_beside_all_curves(study, image, tmp_path):
    models = {
        "a-image": beside(image, "position only"),
        "b-image": beside(image, "position only"),
        "a-study": beside(study, "counts of a-image"),
        "b-study": study,
    }
    text = svg(plot_roc_comparison(models), tmp_path)
    assert text.count("position only: AUROC 0.801") == 1
    assert text.count("counts of a-image: AUROC 0.801") == 1


def test_a_decision_curve_stands_beside_treating_all_and_none(study, image, tmp_path):
    figure = plot_decision(study, "combined-study")
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    curve = study["targets"]["pe_present"]["decision_curve"]
    assert lines["combined-study"].get_ydata().tolist() == curve["net_benefit"]
    assert lines["treat all"].get_ydata() == pytest.approx(curve["treat_all"])
    assert set(lines["treat none"].get_ydata()) == {0}
    text = svg(figure, tmp_path)
    assert "95% band" in text and "threshold probability" in text
    assert "by its highest slice" in svg(plot_decision(image, "combined-image"), tmp_path)


def test_a_missing_decision_curve_says_why(tmp_path):
    metrics = evaluate(study_predictions(present=0), "study", 20, 0)
    assert "no decision curve" in svg(plot_decision(metrics, "m"), tmp_path)
    del metrics["targets"]["pe_present"]
    assert "no predictions of PE in the study" in svg(plot_decision(metrics, "m"), tmp_path)


def test_a_long_reason_leaves_the_axes_their_room(image, tmp_path, recwarn):
    metrics = copy.deepcopy(image)
    (target, main), *_ = metrics["targets"].items()
    main["average_precision"] |= {
        "low": None,
        "high": None,
        "reason": "no interval: " + 9 * "so long ",
    }
    metrics["targets"] = {target: main}
    svg(plot_precision_recall(metrics, "combined-image"), tmp_path)
    assert [str(w.message) for w in recwarn if "constrained_layout" in str(w.message)] == []


@pytest.mark.parametrize("plot", EVALUATION_PLOTS)
def test_a_plot_of_another_cohort_does_not_speak_of_test_studies(study, plot, tmp_path):
    external = study | {"split": "external"}
    text = svg(EVALUATION_PLOTS[plot](external, "combined-study"), tmp_path)
    assert "30 studies" in text and "test studies" not in text


def test_a_decision_curve_of_slices_counts_the_studies_that_it_is_of(image, tmp_path):
    # Slices of some studies of a cohort have labels, and all studies have.
    known = image | {"split": "external", "n_studies": 12, "n_slices": 48}
    text = svg(plot_decision(known, "combined-image"), tmp_path)
    assert "combined-image: 30 studies" in text and "slices" not in text
