import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from builders import NO_PATIENTS, facts_of

from clotline.data.rejects import count_notes
from clotline.evaluation.baselines import Baseline
from clotline.evaluation.intervals import describe_estimate
from clotline.evaluation.metrics import Yardstick, evaluate
from clotline.evaluation.metrics_files import describe_verdict
from clotline.evaluation.predictions import pe_present
from clotline.labels import IMAGE_LABEL, STUDY_LABELS, STUDY_UID
from clotline.reporting import claim
from clotline.reporting.report import MOST_LISTED, read_run_times, render_report
from clotline.version import CLOTLINE_VERSION
from clotline.workflow.config import load_config

SCHEMA = Path(__file__).resolve().parents[3] / "workflow/schemas/config.schema.yaml"
LSTM = "combined-study"
SPLITS = ["train"] * 4 + ["valid"] * 8 + ["test"] * 12


def predictions(noise=0.1):
    """Probabilities of 20 studies, every second of which has PE."""
    rng = np.random.default_rng(0)
    present = np.arange(len(SPLITS)) % 2
    table = pd.DataFrame({STUDY_UID: [f"s{i}" for i in range(len(SPLITS))], "split": SPLITS})
    for name in STUDY_LABELS:
        truth = 1 - present if name == "negative_exam_for_pe" else 0 * present
        table[f"{name}_true"] = truth
        table[name] = np.clip(0.3 + 0.3 * truth + rng.normal(0, noise, len(table)), 0.01, 0.99)
    return table[table["split"] != "train"]


@pytest.fixture(scope="module")
def plan():
    table = pd.DataFrame({STUDY_UID: [f"s{i}" for i in range(len(SPLITS))], "split": SPLITS})
    table["slices"], table["positive_slices"] = 3, 1
    return table.assign(negative_exam_for_pe=0, indeterminate=0)


@pytest.fixture(scope="module")
def slices(plan):
    return plan.loc[plan.index.repeat(3), [STUDY_UID, "split"]].iloc[:-1]


def render(
    plan,
    slices,
    reasons=("no PixelData",),
    notes=(),
    config=None,
    run_times=None,
    comparisons=None,
    metrics=None,
    competition=None,
    warnings=(),
    facts=None,
    patients=NO_PATIENTS,
):
    return render_report(
        metrics or {"combined-study": evaluate(predictions(), "study", 20, 0)},
        plan,
        slices,
        pd.DataFrame(
            {"path": [f"a/{i}.dcm" for i in range(len(reasons))], "reason": reasons}, dtype=str
        ),
        pd.DataFrame({STUDY_UID: [f"s{i}" for i in range(len(notes))], "note": notes}, dtype=str),
        pd.DataFrame(columns=["target"]) if comparisons is None else comparisons,
        competition or {},
        pd.DataFrame(warnings, columns=["model", "from", "warning"]),
        {},
        load_config(config or {}),
        {"results/lstm/combined-study.pt": "0123abcd"},
        read_run_times("nowhere") if run_times is None else run_times,
        "2026-11-29",
        facts_of(plan[STUDY_UID]) if facts is None else facts,
        patients,
    )


def cells(page, subject):
    """The cells of the row whose heading is ``subject``."""
    row = re.search(rf"<tr>(?:(?!</tr>).)*>{re.escape(subject)}</th>.*?</tr>", page, re.DOTALL)
    texts = re.findall(r"<td[^>]*>(.*?)</td>", row.group(0), re.DOTALL)
    return [re.sub(r"</?span[^>]*>", "", cell) for cell in texts]


def test_what_speaks_against_a_network_stands_before_all_tables(plan, slices):
    said = [("resnext50", "training", "its best epoch is the <first> of 5")]
    page = render(plan, slices, warnings=said)
    assert "its best epoch is the &lt;first&gt; of 5" in page[: page.index("<table")]
    assert "1 warning<" in page
    assert 'class="warnings"' not in render(plan, slices)


def test_the_best_model_and_what_it_was_tested_on_come_first(plan, slices):
    page = render(plan, slices)
    summary = page[page.index('class="summary"') : page.index("<h2")]
    assert "<strong>combined-study</strong>" in summary
    assert re.search(r"\(95% [^)]*\)\s+on 12 test studies,\s+6 of them positive", summary)
    assert re.search(r"very studies, and\s+the interval does not account for that choice", summary)


def test_an_auroc_without_an_interval_is_told_with_none(plan, slices):
    table = predictions()
    positive = (table["split"] == "test") & (table["negative_exam_for_pe_true"] == 0)
    table.loc[positive & (table[STUDY_UID] != "s23"), "negative_exam_for_pe_true"] = 1
    few = evaluate(table, "study", 20, 0)
    for metrics in ({"combined-study": few}, {"a-study": few, "b-study": few}):
        page = render(plan, slices, metrics=metrics)
        summary = page[page.index('class="summary"') : page.index("<h2")]
        assert "(no interval: fewer than 2 studies in one class)" in summary
        assert re.search(r"\s+on 12 test studies,\s+1 of them positive", summary)
        assert "95%" not in summary and "the interval does not" not in summary


def test_what_the_data_are_stands_first(plan, slices):
    for config, title in (
        ({"phantom": {}}, "An embedded phantom: drawings of the chest, no patients."),
        ({}, "The studies of data/rsna/train.csv."),
    ):
        page = render(plan, slices, config=config)
        first = page[page.index("</h1>") : page.index('class="summary"')]
        assert f"<strong>{title}</strong>" in first
        assert "24 studies with 71 slices; all metrics are of the 12 studies of the test" in first
        assert ("true of patients" in first) == ("phantom" in config)
        assert f"2026-11-29</span> by Clotline {CLOTLINE_VERSION}" in first
        assert '<a href="viewer/index.html">' in first


def test_a_study_of_which_nothing_is_stored_is_not_said_to_be_evaluated(plan, slices):
    page = render(plan, slices[slices[STUDY_UID] != "s23"])
    assert "23 studies with 69 slices; all metrics are of the 11 studies of the test" in page


def test_the_contents_name_every_section_once(plan, slices):
    page = render(plan, slices)
    anchors = re.findall(r'<li><a href="#(\w+)">(.*?)</a></li>', page)
    sections = re.findall(r'<h2 id="(\w+)">(.*?)</h2>', page)
    assert anchors == sections
    titles = [title for _, title in sections]
    assert len(set(titles)) == len(titles)
    assert "Calibration" in titles
    # Without any, there is nothing to go to.
    assert "Training" not in titles


def test_ties_for_the_best_are_said_and_a_reader_of_some_studies_is_not_ranked(plan, slices):
    best, worse = (evaluate(predictions(noise), "study", 20, 0) for noise in (0.1, 1))
    few = predictions()
    few = evaluate(few[few[STUDY_UID] != "s23"], "study", 20, 0)
    metrics = {"a-study": best, "b-study": worse, "c-study": best, "reader-study": few}
    page = render(plan, slices, metrics=metrics)
    summary = page[page.index('class="summary"') : page.index("<h2")]
    assert "are tied: <strong>a-study</strong> and <strong>c-study</strong>" in summary
    assert "reader-study was evaluated on 11 of these studies and is not ranked" in summary


def test_one_of_something_is_not_called_several(plan, slices):
    page = render(plan, slices.head(1))
    assert "1 slice stored" in page


def test_the_best_model_is_the_study_level_model_with_the_highest_auroc(plan, slices):
    slice_table = predictions()[[STUDY_UID, "split"]]
    slice_table[f"{IMAGE_LABEL}_true"] = np.arange(len(slice_table)) % 2
    slice_table[IMAGE_LABEL] = slice_table[f"{IMAGE_LABEL}_true"].astype(float)
    metrics = {
        "a-image": evaluate(slice_table, "image", 20, 0),
        "a-study": evaluate(predictions(noise=1), "study", 20, 0),
        "b-study": evaluate(predictions(), "study", 20, 0),
        "c-study": evaluate(predictions(noise=0.5), "study", 20, 0),
    }
    page = render(plan, slices, metrics=metrics)
    assert "The best study-level model is <strong>b-study</strong>" in page
    subgroups = page[page.index('<th scope="col">Subgroup</th>') :]
    headings = re.findall("<th[^>]*>(.*?)</th>", subgroups[: subgroups.index("</thead>")])
    assert headings == ["Subgroup", "Studies", "Positive", "a-study", "b-study", "c-study"]


def test_each_auroc_stands_beside_its_baseline_and_one_that_is_not_beaten_is_told(plan, slices):
    table = predictions()
    rng = np.random.default_rng(1)
    studies = table[[STUDY_UID]].reset_index(drop=True)
    poor = studies.assign(pe_present=rng.random(len(studies)))
    good = studies.assign(pe_present=pe_present(table, "_true") * 0.8 + 0.1)
    metrics = {
        name: evaluate(
            predictions(noise),
            "study",
            20,
            0,
            yardstick=Yardstick(studies=Baseline(f"counts of {name}", baseline)),
        )
        for name, noise, baseline in (("a-study", 0.01, poor), ("b-study", 2, good))
    }
    page = render(plan, slices, metrics=metrics)
    for name, word in (("a-study", "beats"), ("b-study", "is not shown to beat")):
        baseline = metrics[name]["targets"]["pe_present"]["baseline"]
        part = page[page.index(f'<h3 id="model-{name}">') :]
        row = cells(part, "PE present")
        assert row[3:5] == [describe_estimate(baseline[key]) for key in ("auroc", "difference")]
        told = part[: part.index("</p>")]
        assert f"{word} counts of {name}: difference" in told
        assert f"<strong>{describe_verdict(baseline)}" in told or word == "beats"
    assert "none: there is no image-level model" in render(plan, slices)


def test_aurocs_are_told_by_size(plan, slices):
    table = predictions()
    counts = pd.Series(np.arange(len(table)) * 4, table[STUDY_UID].to_numpy())
    yardstick = Yardstick(positive_slices=counts)
    metrics = {
        "a-study": evaluate(table, "study", 20, 0, yardstick=yardstick),
        "b-study": evaluate(predictions(noise=2), "study", 20, 0, yardstick=yardstick),
    }
    page = render(plan, slices, metrics=metrics)
    part = page[page.index('<h2 id="sizes">') :]
    for band, estimate in metrics["a-study"]["sizes"].items():
        studies, positive, first, second = cells(part, band)
        assert (int(studies), int(positive)) == (estimate["n_studies"], estimate["n_positive"])
        assert first == describe_estimate(estimate)
        assert second == describe_estimate(metrics["b-study"]["sizes"][band])


def test_calibration_is_told_of_each_model(plan, slices):
    metrics = {"a-study": evaluate(predictions(noise=1), "study", 20, 0)}
    page = render(plan, slices, metrics=metrics)
    part = page[page.index('<h2 id="calibration">') : page.index('<h2 id="subgroups">')]
    calibration = metrics["a-study"]["targets"]["pe_present"]["calibration"]
    names = ("slope", "intercept", "in_the_large")
    assert cells(part, "a-study") == [describe_estimate(calibration[name]) for name in names]


def test_the_competitions_score_is_told_with_its_cost_or_why_there_is_none(plan, slices):
    moment = {"log_loss": {"value": 0.43, "low": 0.4, "high": 0.5, "reason": None}}
    before, after = moment | {"consistent": 0.5}, moment | {"consistent": 1.0}
    scores = {
        "combined": {"before": before, "after": after, "cost": 0.00125},
        "reader": {"reason": "no studies"},
    }
    page = render(plan, slices, competition=scores)
    part = page[page.index('<h2 id="competition">') :]
    loss = "0.430 (0.400–0.500)"
    assert cells(part, "combined") == [loss, "50%", loss, "100%", "+0.0013"]
    assert cells(part, "reader") == ["not computable: no studies"]


def test_the_models_are_compared_on_slices_and_pe_present_alone(plan, slices):
    comparisons = pd.DataFrame(
        [
            ("study", "central_pe", 0.25),
            ("study", "pe_present", 0.05),
            ("image", IMAGE_LABEL, 0.06),
            ("image", "pe_present_by_max", 0.75),
        ],
        columns=["level", "target", "value"],
    ).assign(low=0.01, high=0.09, p_value=0.02, reason="", n_studies=12)
    for side, name in (("reference", "b-"), ("model", "a-")):
        comparisons[side] = name + comparisons["level"]
    page = render(plan, slices, comparisons=comparisons)
    assert cells(page, "b-image − a-image") == ["12", "+0.060 (+0.010 to +0.090)", "0.020"]
    assert page.count(">b-study − a-study</th>") == 1
    assert cells(page, "b-study − a-study") == ["12", "+0.050 (+0.010 to +0.090)", "0.020"]


def test_a_difference_without_an_interval_says_why_and_no_p_value_is_zero(plan, slices):
    comparisons = pd.DataFrame(
        [
            ("a-study", 0.05, 0.03, 0.07, 2e-7, ""),
            ("b-study", 0.01, -0.01, 0.03, 0.25, ""),
            (
                "c-study",
                0.0,
                np.nan,
                np.nan,
                np.nan,
                "no interval: every study has the same difference",
            ),
            ("d-study", np.nan, np.nan, np.nan, np.nan, "one class only"),
        ],
        columns=["model", "value", "low", "high", "p_value", "reason"],
    ).assign(target="pe_present", reference="combined-study", n_studies=12)
    page = render(plan, slices, comparisons=comparisons)
    assert cells(page, "combined-study − a-study") == [
        "12",
        "+0.050 (+0.030 to +0.070)",
        "&lt;0.001",
    ]
    assert cells(page, "combined-study − b-study") == ["12", "+0.010 (−0.010 to +0.030)", "0.250"]
    assert cells(page, "combined-study − c-study") == [
        "12",
        "+0.000, no interval: every study has the same difference",
        "",
    ]
    assert cells(page, "combined-study − d-study") == [
        "12",
        "not computable: one class only",
        "",
    ]


def test_a_study_with_two_notes_of_a_sort_is_counted_once():
    notes = pd.DataFrame(
        [("s1", "thick slices: 5 mm"), ("s1", "thick slices: 8 mm"), ("s2", "thick slices: 5 mm"),
         ("s2", "several series")],
        columns=[STUDY_UID, "note"],
    )  # fmt: skip
    assert count_notes(notes).to_dict() == {"thick slices": 2, "several series": 1}


def test_all_slices_are_accounted_for(plan, slices):
    page = render(plan, slices)
    assert "72 rows of the labels file = 71 slices stored + 1 rejected" in page
    assert cells(page, "test") == ["12", "12", "36", "12", "35"]
    assert "Studies in more than one split: 0" in page
    leak = slices.assign(split=["test", *slices["split"].iloc[1:]])
    assert "Studies in more than one split: 1" in render(plan, leak)


def test_claims_items_are_filled_in_or_open(plan, slices):
    page = render(plan, slices)
    assert len(claim.ITEMS) == 42
    assert cells(page, "Preprocessing")[0] == "9"
    assert "256 × 256 pixels by area averaging" in cells(page, "Preprocessing")[1]
    assert "padding that a file declares (PixelPaddingValue) set to −1000 HU" in page
    assert "1 of 72 slices could not be taken" in cells(page, "Missing data")[1]
    assert cells(page, "Funding") == ["42", "<strong>open</strong>"]
    assert cells(page, "Data sources") == ["7", "<strong>open</strong>"]
    assert "no patients" in cells(render(plan, slices, config={"phantom": {}}), "Data sources")[1]


def test_claim_says_how_each_network_was_trained():
    published = claim.fill_in(load_config({}), 1, 0, 0, NO_PATIENTS)
    assert f"{LSTM}: stochastic gradient descent of momentum 0.9, binary cross" in published[25]
    assert f"{LSTM}: the epoch of lowest loss on the valid split." in published[26]
    schema = yaml.safe_load(SCHEMA.read_text(encoding="utf-8"))
    entry = schema["$defs"]["lstm"]["properties"]
    for key in ("optimizer", "schedule", "loss", "keep"):
        said = {
            f"{answers[25]} {answers[26]}"
            for value in entry[key]["enum"]
            for config in [load_config({"lstm": {LSTM: {key: value}}})]
            for answers in [claim.fill_in(config, 1, 0, 0, NO_PATIENTS)]
        }
        assert len(said) == len(entry[key]["enum"])
    other = {"optimizer": "adamw", "accumulate": 4, "ema": 0.99, "keep": "last", "dropout": 0.5}
    answers = claim.fill_in(load_config({"lstm": {LSTM: other}}), 1, 0, 0, NO_PATIENTS)
    assert f"{LSTM}: AdamW, " in answers[25]
    assert ", gradients of 4 batches averaged" in answers[25]
    assert ", dropout of 0.5." in answers[25]
    assert f"{LSTM}: the last epoch, averaged over steps (0.99 of the past)." in answers[26]


@pytest.mark.parametrize(
    ("milestones", "said"),
    [
        ([10, 15, 20], "learning rate 0.01 (divided by 10 after the epochs 10, 15), "),
        ([20, 30], "learning rate 0.01 (constant), "),
        ([], "learning rate 0.01 (constant), "),
    ],
)
def test_claim_says_what_became_of_the_learning_rate_within_the_training(milestones, said):
    entry = {"lr": 0.01, "epochs": 20, "milestones": milestones}
    answers = claim.fill_in(load_config({"lstm": {LSTM: entry}}), 1, 0, 0, NO_PATIENTS)
    assert f"{LSTM}: stochastic" in answers[25]
    assert said in answers[25].partition(f"{LSTM}: ")[2].partition(". ")[0]


def test_claim_says_which_slices_epochs_have():
    def said(**keys):
        return claim.fill_in(load_config({"cnn": keys}), 1, 0, 0, NO_PATIENTS)[10]

    assert said().startswith("CNNs: balanced epochs of all positive slices and as many negative")
    share = {"positive_share": 0.3}
    by_study = said(resnext50={"study_slices": 30}, efficientnet_b0=share)
    assert "resnext50, epochs of 30 slices of each study" in by_study
    assert "efficientnet_b0, epochs of all positive slices and negative ones, 30% pos" in by_study
    drawn = said(resnext50={"epoch_slices": 5000} | share)
    assert "resnext50, epochs of 5,000 slices, 30% of them positive" in drawn
    assert "efficientnet_b0, balanced epochs" in drawn


def test_claim_says_how_slices_were_changed_in_training():
    assert (
        claim.fill_in(load_config({}), 1, 0, 0, NO_PATIENTS)[25].count("flipped upside down.") == 2
    )
    keys = {"horizontal_flip": True, "scale": 0.2, "rotate": 20, "contrast": 0.1, "cutout": 0.4}
    answer = claim.fill_in(load_config({"cnn": {"resnext50": keys}}), 1, 0, 0, NO_PATIENTS)[25]
    assert (
        "upside down, half of them mirrored, size changed by up to 20%, turned by up to "
        "20 degrees, contrast changed by up to 10%, two squares of 40% of the side set to air."
        in answer
    )


def test_claim_says_what_a_backbone_sees():
    published = claim.fill_in(load_config({}), 1, 0, 0, NO_PATIENTS)[9]
    assert "resnext50: window level 100 HU, width 700 HU, crop 224, input 224 pixels." in published
    keys = {"planes": 3, "plane_distance_mm": 2.5, "further_windows": [[40, 400]]}
    assert (
        "resnext50: window level 100 HU, width 700 HU, level 40 HU, width 400 HU, of 3 slices "
        "(2.5 mm apart), crop 224"
    ) in claim.fill_in(load_config({"cnn": {"resnext50": keys}}), 1, 0, 0, NO_PATIENTS)[9]
    adjacent = claim.fill_in(
        load_config({"cnn": {"resnext50": {"planes": 3}}}), 1, 0, 0, NO_PATIENTS
    )[9]
    assert "width 700 HU, of 3 slices (adjacent), crop 224" in adjacent


def test_claim_says_which_slices_are_stored():
    published = claim.fill_in(load_config({}), 1, 0, 0, NO_PATIENTS)
    assert "around them; 256 × 256 pixels by area averaging, " in published[9]
    larger = {"crop": 384, "input_size": 384}
    config = load_config(
        {
            "data": {"size": 384, "crop": "lungs"},
            "cnn": {
                "resnext50": larger,
                "efficientnet_b0": larger | {"crop": 383, "input_size": 64},
            },
        }
    )
    answers = claim.fill_in(config, 1, 0, 0, NO_PATIENTS)
    assert "384 × 384 pixels around the lungs by area averaging, " in answers[9]
    assert answers[25].count("whole slices") == answers[25].count("random crops") == 1


def test_claim_says_how_studies_were_divided():
    by_column = load_config({"data": {"split": {"column": "fold"}}})
    answers = claim.fill_in(by_column, 1, 0, 0, NO_PATIENTS)
    assert answers[20] == "By the column fold of the labels file."
    by_patient = load_config({"data": {"split": {"group": "patient"}}})
    assert claim.fill_in(by_patient, 1, 0, 0, NO_PATIENTS)[20].endswith(
        "0.13 test, of studies. All studies of a patient (patient) are in one."
    )
    assert "0.725 train" in claim.fill_in(load_config({}), 1, 0, 0, NO_PATIENTS)[20]


def test_run_times_are_summed_by_rule(tmp_path, plan, slices):
    for name, seconds, memory in (
        ("plan", "2.0", "-"),
        ("shard/000", "60.0", "100.5"),
        ("shard/001", "4000.0", "80.0"),
    ):
        path = tmp_path / f"{name}.tsv"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"s\th:m:s\tmax_rss\n{seconds}\t0:00:01\t{memory}\n")
    (tmp_path / "slices.tsv").touch()
    times = read_run_times(tmp_path)
    assert times["rule"].tolist() == ["plan", "shard"]
    page = render(plan, slices, run_times=times)
    assert cells(page, "shard") == ["2", "1:07:40", "1:06:40", "100 MB"]
    assert cells(page, "plan") == ["1", "0:02", "0:02", ""]
    assert "None are on record" in render(plan, slices)


def test_rejected_slices_are_counted_by_reason_and_listed_one_by_one(plan, slices):
    page = render(plan, slices, ("no such file", "unreadable: one", "unreadable: two"))
    assert '<td>unreadable</td><td class="n">2</td>' in page
    assert '<td>no such file</td><td class="n">1</td>' in page
    assert "<td><code>a/2.dcm</code></td><td>unreadable: two</td>" in page


def test_a_long_list_of_rejects_is_cut_and_says_where_the_whole_is(plan, slices):
    page = render(plan, slices, ["no such file"] * (MOST_LISTED + 7))
    assert page.count("<td><code>a/") == MOST_LISTED
    assert "7 more are in results/data/shards/*.rejects.csv" in page


def test_notes_are_counted_by_their_sort_and_have_the_pages_minus_sign(plan, slices):
    short = "missing slices: about 1 in 1 gap; the largest is of 5 mm above -12.5 mm"
    page = render(plan, slices, notes=["thick slices: 5 mm", "thick slices: 7 mm", short])
    table = page[page.index("<h3>Notes on studies</h3>") : page.index('<h2 id="claim">')]
    rows = re.findall(r'<tr><td>(.*?)</td><td class="n">(.*?)</td></tr>', table)
    assert rows == [("thick slices", "2"), (short.replace("-", "−"), "1")]
    assert "3 studies have a note" in table
    assert "results/data/shards/*.notes.csv" in table


def test_without_rejects_and_notes_nothing_is_said_of_them(plan, slices):
    page = render(plan, slices, ())
    assert "Rejected slices" not in page
    assert "Notes on studies" not in page


def test_text_from_outside_is_escaped(plan, slices):
    page = render(plan, slices, ["<script>alert(1)</script>"])
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page


def test_decision_curves_predictive_values_and_sample_sizes_have_sections(plan, slices):
    metrics = {LSTM: evaluate(predictions(), "study", 50, 0, prevalences=(0.07,))}
    page = render(plan, slices, metrics=metrics)
    curve = metrics[LSTM]["targets"]["pe_present"]["decision_curve"]
    section = page[page.index('<h2 id="decisions">') : page.index('<h2 id="values">')]
    told = re.findall(r'<td class="n">(\d+)%</td>', section)
    assert told == ["2", "5", "10", "20", "50"]
    at = curve["thresholds"].index(0.2)
    assert f"{curve['gain'][at]:+.3f}".replace("-", "−") in section
    values = page[page.index('<h2 id="values">') : page.index('<h2 id="size">')]
    assert '<td class="n">7%</td>' in values
    size = page[page.index('<h2 id="size">') :]
    auroc = metrics[LSTM]["targets"]["pe_present"]["sample_size"][0]
    assert f'<td class="n">{auroc["needed"]:,}</td>' in size
    assert "Studies for ±0.03" in size


def test_metrics_of_an_older_clotline_have_no_such_sections(plan, slices):
    metrics = {LSTM: evaluate(predictions(), "study", 20, 0)}
    for name in ("decision_curve", "predictive_values", "sample_size"):
        del metrics[LSTM]["targets"]["pe_present"][name]
    page = render(plan, slices, metrics=metrics)
    assert 'id="decisions"' not in page and "#values" not in page


def test_splits_stand_beside_the_training_data(plan, slices):
    facts = facts_of(plan[STUDY_UID], thickness_mm=[1.25] * 12 + [5.0] * 12)
    page = render(plan, slices, facts=facts)
    assert cells(page, "Slice thickness, mm") == [
        "1.25 (1.25 to 1.25)", "1.25 (1.25 to 1.25)", "0 of 8 studies", "5 (5 to 5)",
        "12 of 12 studies",
    ]  # fmt: skip


def test_patients_in_several_splits_are_warned_of_first(plan, slices):
    repeats = NO_PATIENTS | {"studies": 24, "known": 24, "patients": 20, "split": 3, "of_split": 7}
    page = render(plan, slices, patients=repeats)
    assert "<strong>Patients repeat.</strong>" in page[: page.index('class="summary"')]
    assert page.count("3 patients are in more than one split, with 7 studies") == 3
    assert "Patients repeat" not in render(plan, slices)
    assert "Patients are not known" in render(plan, slices)


def test_claim_says_how_networks_were_trained_on_with_their_backbone():
    lstm = {"resnext50-joint": {"loss": "competition", "calibrate_odds": True}}
    finetune = {"resnext50-joint": {"slices": 24, "keep": "last"}}
    config = load_config({"lstm": lstm, "finetune": finetune})
    answers = claim.fill_in(config, 1, 0, 0, NO_PATIENTS)
    assert "resnext50-finetuned-joint: the trained resnext50-joint and its CNN." in answers[24]
    assert (
        "resnext50-finetuned-joint: AdamW, the competition's metric as loss, 3 epochs, batches of "
        "2, learning rate 1e-05 (to 0 along a cosine)"
    ) in answers[25]
    assert (
        "both networks on the 24 slices of each study that the CNN found most suspicious, changed "
        "as in the CNN's training, all batch normalisation frozen."
    ) in answers[25]
    assert (
        "resnext50-finetuned-joint: the last epoch; all odds times one factor, fitted on the valid"
    ) in answers[26]
    assert "finetuned" not in str(claim.fill_in(load_config({"lstm": lstm}), 1, 0, 0, NO_PATIENTS))


def test_claim_names_ensembles_and_their_members():
    assert claim.fill_in(load_config({}), 1, 0, 0, NO_PATIENTS)[27].startswith("None; ")
    members = ["combined-study", "resnext50-study"]
    answer = claim.fill_in(
        load_config({"ensembles": {"all-study": members}}), 1, 0, 0, NO_PATIENTS
    )[27]
    assert "of several models: all-study: combined-study, resnext50-study. Besides" in answer
    split = {"folds": 5, "folds_of": ["combined-study"]}
    answers = claim.fill_in(load_config({"data": {"split": split}}), 1, 0, 0, NO_PATIENTS)
    assert "For combined-study the studies beside test were also divided into 5" in answers[20]
    assert "folds: on test studies, all folds' networks of each of combined-study" in answers[27]
    assert "weights from a file" not in answers[20]
    # Those of the file may have seen the fold's studies.
    config = load_config({"data": {"split": split}})
    config["cnn"]["resnext50"]["init"] = config["lstm"]["resnext50-study"]["init"] = "a.pt"
    answer = claim.fill_in(config, 1, 0, 0, NO_PATIENTS)[20]
    assert " resnext50 began with weights from a file: studies that those were trained on" in answer


def test_claim_says_what_video_networks_start_from():
    video = {"library": "torchvision-video", "architecture": "r3d_18", "planes": 3}
    config = load_config({"cnn": {"video": video}})
    answer = claim.fill_in(config, 1, 0, 0, NO_PATIENTS)[24]
    assert "video: Kinetics-400." in answer and "resnext50: imagenet." in answer


def test_what_was_predicted_out_of_fold_stands_below_a_models_table(plan, slices):
    folded = evaluate(predictions(), "study", 20, 0, in_folds=True)
    assert "Out of fold" not in render(plan, slices)
    page = render(plan, slices, metrics={"combined-folds-study": folded})
    found = page[page.index("<p>Out of fold") :]
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", found[: found.index("</p>")]))
    auroc = folded["out_of_fold"]["targets"]["pe_present"]["auroc"]
    assert f"({auroc['n_studies']} studies): AUROC of PE present {auroc['value']:.3f}" in text
    assert "By positive slices: 1–5: " in text
