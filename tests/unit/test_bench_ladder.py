"""The ladder of recipes: what each rung adds, how long it trains and how two are compared."""

import itertools
import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from bench import ladder
from bench.kept import DIGITS, Kept, KeptCohort, KeptRung, Ranked, difference
from clotline.evaluation.delong import paired_delong
from clotline.evaluation.intervals import Cases
from clotline.evaluation.metrics import SIZES
from clotline.sections.cnn import cnn_sections
from clotline.sections.lstm import lstm_sections
from clotline.workflow.config import load_config


def config_of(rung, size=ladder.WHOLE):
    return load_config(size.cohort.config() | ladder._networks(rung, size))


def test_the_first_rung_is_the_published_recipe_at_a_size_of_its_own():
    config, defaults = config_of(ladder.ladder(ladder.WHOLE)[0]), load_config({})
    sized = {*ladder._START, *ladder.WHOLE.view}
    for name, section in config["cnn"].items():
        differ = {k for k, v in section.items() if v != defaults["cnn"][name][k]}
        assert differ <= sized
    for name, section in config["lstm"].items():
        differ = {k for k, v in section.items() if v != defaults["lstm"][name][k]}
        assert differ <= {"precision"}


def test_each_rung_is_a_configuration_and_differs_from_the_one_before():
    rungs = ladder.ladder(ladder.WHOLE)
    assert len({rung.name for rung in rungs}) == len(rungs)
    configs = [config_of(rung) for rung in rungs]
    made = [
        json.dumps(c, sort_keys=True) + str(list(r.lstm))
        for c, r in zip(configs, rungs, strict=True)
    ]
    assert len(set(made)) == len(rungs)
    for before, after in pairwise(configs[:7]):
        for name, section in after["cnn"].items():
            earlier = before["cnn"].get(name)
            if earlier is None:
                continue
            changed = {k for k, v in section.items() if v != earlier[k]}
            assert changed
            assert changed <= {
                *(*ladder._OPTIMISER, *ladder.WHOLE.pixels, *ladder._PLANES),
                *(*ladder._AUGMENT, *ladder._AVERAGE),
            }
    last = cnn_sections(configs[-1])
    assert (
        last["efficientnet_b0"].ema == last["winner"].ema == cnn_sections(configs[6])["winner"].ema
    )
    assert lstm_sections(configs[-1])["winner-joint"].loss == "competition"


def test_rungs_are_chosen_by_number_and_the_published_recipe_is_always_there():
    rungs = ladder.ladder(ladder.WHOLE)
    assert ladder.choose(None, ladder.WHOLE) == rungs
    assert ladder.choose(["2", "1"], ladder.WHOLE) == rungs[:3]
    assert ladder.choose(["3"], ladder.WHOLE) == [rungs[0], rungs[3]]
    with pytest.raises(SystemExit, match="no rung 99; there are\n  0: published recipe"):
        ladder.choose(["99"], ladder.WHOLE)


def test_a_rungs_epochs_have_as_many_slices_as_fit_into_its_share_of_the_time(
    tmp_path, monkeypatch
):
    measured = []

    def measure(_, section):
        measured.append(section["architecture"])
        return 0.6

    monkeypatch.setattr(ladder.Costs, "_measure", measure)
    costs = ladder.Costs(tmp_path / "costs.json", tmp_path, ladder.WHOLE)
    first = config_of(ladder.ladder(ladder.WHOLE)[0])["cnn"]["resnext50"]
    # 100 slices a minute.
    epochs, whole = ladder.EPOCHS, 100 * ladder.WHOLE.minutes
    for share in (1, 0.5):
        found = costs.budget(first, share)
        assert found == {
            "epochs": epochs,
            "epoch_slices": pytest.approx(share * whole / epochs, abs=1),
        }
        assert found["epoch_slices"] % 2 == 0
        load_config({"cnn": {"resnext50": found}})
    # Another rate costs no other time, another form does, and what is known is not measured again.
    assert costs.budget(first | {"lr": 0.5, "ema": 0.9}, 1e-6) == {
        "epochs": epochs,
        "epoch_slices": 2,
    }
    costs.budget(first | {"planes": 3}, 1)
    ladder.Costs(tmp_path / "costs.json", tmp_path, ladder.WHOLE).budget(first, 1)
    assert len(measured) == 2
    tiny = ladder.Costs(tmp_path / "none.json", tmp_path, ladder.TINY)
    assert tiny.budget(first, 1) == {"epochs": 1}


def cases(seed, strength, studies=60):
    rng = np.random.default_rng(0)
    truth = rng.random(studies) < 0.5
    noise = np.random.default_rng(seed).normal(size=studies)
    return Cases.of(truth, 1 / (1 + np.exp(-(strength * truth + noise))))


def ranked(seed, strength, resamples=400):
    return Ranked.of(cases(seed, strength), resamples)


def test_of_one_seed_the_difference_is_delongs_with_an_interval_like_its():
    one, other = cases(1, 2.0), cases(2, 0.5)
    value, low, high = difference({1: Ranked.of(one, 1000)}, {1: Ranked.of(other, 1000)})
    delong, _ = paired_delong(one, other)
    assert value == pytest.approx(delong.value, abs=2 * 10**-DIGITS)
    assert (low, high) == pytest.approx((delong.low, delong.high), abs=0.03)


def test_the_interval_is_wider_where_seeds_differ():
    other = {seed: ranked(9, 0.5) for seed in (1, 2, 3)}
    alike = difference({seed: ranked(1, 1.0) for seed in (1, 2, 3)}, other)
    strengths = {1: 0.0, 2: 1.0, 3: 2.0}
    apart = difference({s: ranked(1, v) for s, v in strengths.items()}, other)
    assert apart[2] - apart[1] > 1.2 * (alike[2] - alike[1])
    # Only the seeds that both have count.
    assert difference({1: ranked(1, 1.0), 7: ranked(3, 1.0)}, other) == pytest.approx(
        alike, abs=0.02
    )


def kept_rung(seed, key="a", **other):
    ranked_ = {"study AUROC": ranked(seed, 1.0, 5)}
    whole = {"part": "phantom", "key": key, "seed": seed, "name": "a rung", "machine": "mine"}
    whole |= {"date": "2026-01-02", "views": {"resnext50": 300}, "stage1_s": 1.5}
    whole |= {"stage2_s": 0.5, "ranked": ranked_, "bands": {"1-5": (0.5, 3), "6-20": (None, 0)}}
    return KeptRung(**whole | other)


def test_what_a_rung_gave_is_read_as_it_was_kept(tmp_path):
    path = tmp_path / "kept.jsonl"
    first, second, another = kept_rung(1), kept_rung(2), kept_rung(1, key="b")
    about = KeptCohort("phantom", "c", {"train": 5, "valid": 1, "test": 3}, (0.5, 0.6))
    kept, beside = Kept(path), Kept(path)
    kept.add(second)
    # Another process has kept something in the meantime.
    beside.add(another)
    kept.add(first)
    kept.add(about)
    for found in (kept, Kept(path)):
        assert found.rung("phantom", "a") == {1: first, 2: second}
        assert list(found.rung("phantom", "a")) == [1, 2]
        assert found.rung("phantom", "b") == {1: another}
        assert found.rung("semisynthetic", "a") == {}
        assert found.cohort("phantom", "c") == about
        assert found.cohort("phantom", "d") is None


def test_what_was_run_on_studies_of_other_code_does_not_count(monkeypatch):
    size, rung = ladder.WHOLE, ladder.ladder(ladder.WHOLE)[0]
    before = ladder.key_of(rung, size), ladder.cohort_key(size)
    assert before == (ladder.key_of(rung, size), ladder.cohort_key(size))
    monkeypatch.setattr(ladder, "code_digest", lambda script: f"another {script}")
    after = ladder.key_of(rung, size), ladder.cohort_key(size)
    assert all(one != other for one, other in zip(before, after, strict=True))


def test_what_started_from_other_weights_does_not_count():
    size, rung = ladder.WHOLE, ladder.ladder(ladder.WHOLE)[0]
    longer = replace(size, pretraining=replace(size.pretraining, epochs=99))
    other = replace(
        size.pretraining.cohort, settings=size.pretraining.cohort.settings | {"seed": 9}
    )
    others = replace(size, pretraining=replace(size.pretraining, cohort=other))
    keys = {ladder.key_of(rung, s) for s in (size, longer, others)}
    assert len(keys) == 3
    # The studies of the ladder are the same.
    assert len({ladder.cohort_key(s) for s in (size, longer, others)}) == 1


def test_a_resample_that_lacks_a_class_counts_in_no_interval(tmp_path):
    few = {seed: Ranked(0.5, (0.4, np.nan, 0.6)) for seed in (1, 2)}
    kept = Kept(tmp_path / "kept.jsonl")
    kept.add(kept_rung(1, ranked={"slice AUROC": few[1]}))
    assert "NaN" not in (tmp_path / "kept.jsonl").read_text()
    (again,) = Kept(tmp_path / "kept.jsonl").rungs
    np.testing.assert_array_equal(again.ranked["slice AUROC"].drawn, few[1].drawn)
    other = {seed: Ranked(0.4, (0.4, 0.4, 0.4)) for seed in (1, 2)}
    assert difference(few, other) == pytest.approx((0.1, 0.005, 0.195))


def test_a_rung_stands_beside_the_one_that_it_was_built_on(tmp_path):
    """A rung that was set aside is none, and one that was not run leaves the cell empty."""
    size, rungs = ladder.WHOLE, ladder.ladder(ladder.WHOLE)
    kept = Kept(tmp_path / "kept.jsonl")
    counts = {"train": 16, "valid": 12, "test": 12}
    kept.add(KeptCohort("phantom", ladder.cohort_key(size), counts, (0.51, 0.62)))
    for number, auroc in {0: 0.5, 4: 0.6, 5: 0.55, 6: 0.7}.items():
        alike = Ranked(auroc, (auroc, auroc))
        both = {"study AUROC": alike, "slice AUROC": alike}
        bands = dict.fromkeys(SIZES, (0.7, 4))
        kept.add(kept_rung(1, ladder.key_of(rungs[number], size), ranked=both, bands=bands))
    text = ladder.describe(kept, size)
    lines = [line for line in text.splitlines() if line.startswith("| ") and "[" in line]
    found = {cells[1]: cells[4:6] for cells in ([c.strip() for c in x.split("|")] for x in lines)}
    assert found == {
        "+ neighbours as channels": ["", "+0.100 [+0.100, +0.100]"],
        "(+ augmentation)": ["-0.050 [-0.050, -0.050]", "+0.050 [+0.050, +0.050]"],
        "+ averaged weights": ["+0.100 [+0.100, +0.100]", "+0.200 [+0.200, +0.200]"],
    }


def test_what_is_kept_is_trained_on_no_machine_again(tmp_path):
    """Nor are the studies made for the table."""
    size = ladder.TINY
    rungs = ladder.choose(["1"], size)
    kept = Kept(tmp_path / "kept.jsonl")
    counts = {"train": 16, "valid": 12, "test": 12}
    kept.add(KeptCohort("phantom", ladder.cohort_key(size), counts, (0.51, 0.62)))
    bands = dict.fromkeys(SIZES, (0.7, 4))
    for seed, rung in itertools.product((1, 2), rungs):
        both = {"study AUROC": ranked(seed, 1.0), "slice AUROC": ranked(seed, 2.0)}
        key = ladder.key_of(rung, size)
        kept.add(kept_rung(seed, key, ranked=both, bands=bands, name=rung.name))
    (text,) = ladder.run(tmp_path / "runs", [1, 2], rungs, size, kept)
    assert not (tmp_path / "runs").exists()
    assert "4 of the trainings on 2026-01-02: mine." in text
    assert "40 studies of 24 to 24 slices; 16 train, 12 validate, 12 test." in text
    assert "study AUROC 0.510, slice AUROC 0.620" in text
    assert "+0.000 [+0.000, +0.000]" in text
    assert text.count("0.700 (n 4)") == 2 * len(SIZES)
