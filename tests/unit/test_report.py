import pandas as pd
import pytest
from builders import labels_of
from test_metrics import study_table

from clotline.metrics import evaluate
from clotline.plan import make_plan
from clotline.rejects import NOTE_COLUMNS, REJECT_COLUMNS
from clotline.report import MOST_LISTED, render_report

LABELS = labels_of({"aa": [0, 1, 0], "bb": [0, 0], "cc": [1]})
SPLIT = {"column": None, "train": 1, "valid": 0, "test": 0}


@pytest.fixture(scope="module")
def metrics():
    return {"combined-study": evaluate(study_table(), "study", 20, 0)}


def page(metrics, rejects=(), notes=()):
    plan = make_plan(LABELS, {"slices_per_shard": 10, "split": SPLIT})
    return render_report(
        metrics,
        plan,
        LABELS.assign(split="train").iloc[len(rejects) :],
        pd.DataFrame(rejects, columns=list(REJECT_COLUMNS), dtype=str),
        pd.DataFrame(notes, columns=list(NOTE_COLUMNS), dtype=str),
        pd.DataFrame({"target": []}),
        {},
        {},
        {},
        {},
    )


def rejected(number, reason):
    return ("aa", "aa.1", f"aa.1.{number}", f"aa/aa.1/aa.1.{number}.dcm", reason)


def test_rejected_slices_are_counted_by_reason_and_listed_one_by_one(metrics):
    rows = [
        rejected(0, "no such file"),
        rejected(1, "unreadable: one"),
        rejected(2, "unreadable: two"),
    ]
    text = page(metrics, rows)
    assert "6 rows of the labels file = 3 slices stored + 3 rejected" in text
    assert '<td>unreadable</td><td class="n">2</td>' in text
    assert '<td>no such file</td><td class="n">1</td>' in text
    for *_, path, reason in rows:
        assert f"<td><code>{path}</code></td><td>{reason}</td>" in text


def test_a_long_list_of_rejects_is_cut_and_says_where_the_whole_is(metrics):
    text = page(metrics, [rejected(n, "no such file") for n in range(MOST_LISTED + 7)])
    assert text.count("<td><code>aa/aa.1/") == MOST_LISTED
    assert "7 more are in results/data/shards/*.rejects.csv" in text


def test_notes_are_counted(metrics):
    text = page(
        metrics, notes=[("aa", "several series"), ("bb", "several series"), ("cc", "other")]
    )
    assert '<td>several series</td><td class="n">2</td>' in text
    assert "results/data/shards/*.notes.csv" in text


def test_without_rejects_and_notes_nothing_is_said_of_them(metrics):
    text = page(metrics)
    assert "Rejected slices" not in text
    assert "Notes on studies" not in text


def test_a_reason_cannot_bring_markup_into_the_page(metrics):
    text = page(metrics, [rejected(0, "Modality is not CT: <script>alert(1)</script>")])
    assert "<script>alert" not in text
    assert "&lt;script&gt;" in text
