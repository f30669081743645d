"""What the learning grid keeps of its runs, and that its table is of these."""

import json

import pytest

from bench import PROJECT, learning


@pytest.fixture
def kept(tmp_path, monkeypatch):
    path = tmp_path / "learning.json"
    monkeypatch.setattr(learning, "KEPT", path)
    return path


def finish(folder, arithmetic, seed, **more):
    """Writes the result of a run as `learning.run` does."""
    run = {
        "arithmetic": arithmetic, "seed": seed, "emulated": False, "date": "2026-11-30",
        "machine": "a machine", "seconds": 300.0 + seed,
        "auroc": dict.fromkeys(("combined-study", "combined-image"), 0.9 + seed / 100),
        "forms": {form: [[0.9, 0.1, 0.0]] for form in learning.FORMS},
    }  # fmt: skip
    path = folder / f"{arithmetic}-{seed}.json"
    path.write_text(json.dumps(run | more), encoding="utf-8")
    return path


def test_finished_runs_are_kept_in_the_grids_order_and_not_run_again(kept, tmp_path):
    assert learning.kept_runs() == []
    for arithmetic, seed in (("bf16-mixed", 1), ("32-true", 2), ("32-true", 1)):
        learning._keep(finish(tmp_path, arithmetic, seed))
    found = [(run["arithmetic"], run["seed"]) for run in learning.kept_runs()]
    assert found == [("32-true", 1), ("32-true", 2), ("bf16-mixed", 1)]
    assert learning._is_kept("32-true", 2)
    assert not learning._is_kept("32-true AVX2", 2)
    text = learning.describe(learning.kept_runs())
    assert "- 3 of the 15 runs on 2026-11-30: a machine." in text
    assert "| combined-study | 32-true | 2 | 0.910 | 0.915 | 0.920 | 0.910, 0.920 |" in text
    assert "| 32-true | 302 (301 to 302, of 2) |" in text


def test_runs_of_another_recipe_do_not_count(kept, tmp_path):
    learning._keep(finish(tmp_path, "32-true", 1))
    runs = json.loads(kept.read_text(encoding="utf-8"))
    kept.write_text(json.dumps([run | {"recipe": "another"} for run in runs]), encoding="utf-8")
    assert not learning._is_kept("32-true", 1)
    learning._keep(finish(tmp_path, "32-true", 2))
    assert [run["seed"] for run in json.loads(kept.read_text(encoding="utf-8"))] == [2]


def test_seconds_of_runs_that_others_disturbed_are_not_told(kept, tmp_path):
    learning._keep(finish(tmp_path, "32-true", 1, seconds=None))
    assert "their seconds say nothing" in learning.describe(learning.kept_runs())


def test_the_table_is_of_the_runs_that_are_kept():
    runs = json.loads(learning.KEPT.read_text(encoding="utf-8"))
    text = (PROJECT / "bench/learning.md").read_text(encoding="utf-8")
    assert text == learning.describe(runs)
