import re

import numpy as np
import pandas as pd
import pytest

from clotline import claim
from clotline.config import load_config
from clotline.labels import STUDY_LABELS, STUDY_UID
from clotline.metrics import evaluate
from clotline.report import read_run_times, render_report

SPLITS = ["train"] * 4 + ["valid"] * 8 + ["test"] * 12


def predictions():
    """Probabilities of 20 studies, every second of which has PE."""
    rng = np.random.default_rng(0)
    present = np.arange(len(SPLITS)) % 2
    table = pd.DataFrame({STUDY_UID: [f"s{i}" for i in range(len(SPLITS))], "split": SPLITS})
    for name in STUDY_LABELS:
        truth = 1 - present if name == "negative_exam_for_pe" else 0 * present
        table[f"{name}_true"] = truth
        table[name] = np.clip(0.3 + 0.3 * truth + rng.normal(0, 0.1, len(table)), 0.01, 0.99)
    return table[table["split"] != "train"]


@pytest.fixture(scope="module")
def plan():
    table = pd.DataFrame({STUDY_UID: [f"s{i}" for i in range(len(SPLITS))], "split": SPLITS})
    table["slices"], table["positive_slices"] = 3, 1
    return table.assign(negative_exam_for_pe=0, indeterminate=0)


@pytest.fixture(scope="module")
def slices(plan):
    return plan.loc[plan.index.repeat(3), [STUDY_UID, "split"]].iloc[:-1]


def render(plan, slices, reason="no PixelData", config=None, run_times=None):
    return render_report(
        {"combined-study": evaluate(predictions(), "study", 20, 0)},
        plan,
        slices,
        pd.DataFrame({"reason": [reason]}),
        pd.DataFrame(columns=["target"]),
        {},
        {},
        load_config(config or {}),
        {"results/lstm/combined-study.pt": "0123abcd"},
        read_run_times("nowhere") if run_times is None else run_times,
    )


def cells(page, subject):
    """The cells of the row whose heading is ``subject``."""
    row = re.search(rf"<tr>(?:(?!</tr>).)*>{re.escape(subject)}</th>.*?</tr>", page, re.DOTALL)
    return re.findall(r"<td[^>]*>(.*?)</td>", row.group(0), re.DOTALL)


def test_the_best_model_and_what_it_was_tested_on_come_first(plan, slices):
    page = render(plan, slices)
    summary = page[page.index('class="summary"') : page.index("<h2>")]
    assert "<strong>combined-study</strong>" in summary
    assert re.search(r"on 12\s+test studies, 6 of them positive", summary)


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
    assert "1 of 72 slices could not be taken" in cells(page, "Missing data")[1]
    assert cells(page, "Funding") == ["42", "<strong>open</strong>"]
    assert cells(page, "Data sources") == ["7", "<strong>open</strong>"]
    assert "no patients" in cells(render(plan, slices, config={"phantom": {}}), "Data sources")[1]


def test_claim_says_how_studies_were_divided():
    config = load_config({"data": {"split": {"column": "fold"}}})
    assert claim.fill_in(config, 1, 0, 0)[20] == "By the column fold of the labels file."
    assert "0.725 train" in claim.fill_in(load_config({}), 1, 0, 0)[20]


def test_run_times_are_summed_by_rule(tmp_path, plan, slices):
    for name, seconds, memory in (
        ("plan", "2.0", "-"),
        ("shard/000", "60.0", "100.5"),
        ("shard/001", "4000.0", "80.0"),
    ):
        path = tmp_path / f"{name}.tsv"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"s\th:m:s\tmax_rss\n{seconds}\t0:00:01\t{memory}\n")
    times = read_run_times(tmp_path)
    assert times["rule"].tolist() == ["plan", "shard"]
    page = render(plan, slices, run_times=times)
    assert cells(page, "shard") == ["2", "1:07:40", "1:06:40", "100 MB"]
    assert cells(page, "plan") == ["1", "0:02", "0:02", ""]
    assert "None are on record" in render(plan, slices)


def test_text_from_outside_is_escaped(plan, slices):
    page = render(plan, slices, reason="<script>alert(1)</script>")
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page
