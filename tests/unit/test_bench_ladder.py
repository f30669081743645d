"""The ladder of recipes: what each rung adds, how long it trains and how two are compared."""

import json
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from bench import ladder
from clotline.data.tables import write_table
from clotline.evaluation.delong import paired_delong
from clotline.evaluation.intervals import Cases
from clotline.labels import IMAGE_LABEL, STUDY_UID
from clotline.sections.cnn import cnn_sections
from clotline.sections.lstm import lstm_sections
from clotline.workflow.config import load_config


def config_of(rung, size=ladder.WHOLE):
    return load_config(size.cohort.config() | ladder._networks(rung, size))


def test_the_first_rung_is_the_published_recipe_at_a_size_of_its_own():
    config, defaults = config_of(ladder.ladder()[0]), load_config({})
    sized = {*ladder._START, "input_size"}
    for name, section in config["cnn"].items():
        differ = {k for k, v in section.items() if v != defaults["cnn"][name][k]}
        assert differ <= sized
    for name, section in config["lstm"].items():
        differ = {k for k, v in section.items() if v != defaults["lstm"][name][k]}
        assert differ <= {"precision"}


def test_each_rung_is_a_configuration_and_differs_from_the_one_before():
    rungs = ladder.ladder()
    assert len({rung.name for rung in rungs}) == len(rungs)
    configs = [config_of(rung) for rung in rungs]
    made = [
        json.dumps(c, sort_keys=True) + str(list(r.lstm))
        for c, r in zip(configs, rungs, strict=True)
    ]
    assert len(set(made)) == len(rungs)
    for before, after in pairwise(configs[:5]):
        for name, section in after["cnn"].items():
            changed = {k for k, v in section.items() if v != before["cnn"][name][k]}
            assert changed
            assert changed <= {
                *(*ladder._OPTIMISER, *ladder._PLANES),
                *(*ladder._AUGMENT, *ladder._AVERAGE),
            }
    assert cnn_sections(configs[-1])["winner"].ema == cnn_sections(configs[4])["resnext50"].ema
    assert lstm_sections(configs[-1])["winner-joint"].loss == "competition"


def test_rungs_are_chosen_by_number_and_the_published_recipe_is_always_there():
    rungs = ladder.ladder()
    assert ladder.choose(None) == rungs
    assert ladder.choose(["2", "1"]) == rungs[:3]
    assert ladder.choose(["3"]) == [rungs[0], rungs[3]]
    with pytest.raises(SystemExit, match="no rung 99; there are\n  0: published recipe"):
        ladder.choose(["99"])


@pytest.fixture
def data(tmp_path):
    """slices.parquet of 10 train studies of 10 slices, of which half are positive."""
    uids = np.repeat([f"{n:012}" for n in range(10)], 10)
    slices = pd.DataFrame({STUDY_UID: uids, "split": "train"})
    slices[IMAGE_LABEL] = np.arange(100) % 2
    write_table(slices, tmp_path / "slices.parquet")
    return tmp_path


def test_a_rung_has_as_many_epochs_as_fit_into_its_share_of_the_time(data, monkeypatch):
    measured = []

    def measure(_, section):
        measured.append(section["architecture"])
        return 0.6  # an epoch of 100 slices then takes a minute

    monkeypatch.setattr(ladder.Costs, "_measure", measure)
    costs = ladder.Costs(data / "costs.json", data, ladder.WHOLE)
    first = config_of(ladder.ladder()[0])["cnn"]["resnext50"]
    assert costs.epochs(first, 1) == ladder.WHOLE.minutes
    assert costs.epochs(first, 0.5) == ladder.WHOLE.minutes / 2
    # Another rate costs no other time, another form does, and what is known is not measured again.
    assert costs.epochs(first | {"lr": 0.5, "ema": 0.9}, 0.001) == 1
    costs.epochs(first | {"planes": 3}, 1)
    ladder.Costs(data / "costs.json", data, ladder.WHOLE).epochs(first, 1)
    assert len(measured) == 2
    assert ladder.Costs(data / "none.json", data, ladder.TINY).epochs(first, 1) == 1


def cases(seed, strength, studies=60):
    rng = np.random.default_rng(0)
    truth = rng.random(studies) < 0.5
    noise = np.random.default_rng(seed).normal(size=studies)
    return Cases.of(truth, 1 / (1 + np.exp(-(strength * truth + noise))))


def test_of_one_seed_the_difference_is_delongs_with_an_interval_like_its():
    one, other = cases(1, 2.0), cases(2, 0.5)
    value, low, high = ladder.difference({1: one}, {1: other}, 1000)
    delong, _ = paired_delong(one, other)
    assert value == pytest.approx(delong.value)
    assert (low, high) == pytest.approx((delong.low, delong.high), abs=0.03)


def test_the_interval_is_wider_where_seeds_differ():
    other = {seed: cases(9, 0.5) for seed in (1, 2, 3)}
    alike = ladder.difference({seed: cases(1, 1.0) for seed in (1, 2, 3)}, other, 400)
    strengths = {1: 0.0, 2: 1.0, 3: 2.0}
    apart = ladder.difference({s: cases(1, v) for s, v in strengths.items()}, other, 400)
    assert apart[2] - apart[1] > 1.2 * (alike[2] - alike[1])
    # Only the seeds that both have count.
    assert ladder.difference({1: cases(1, 1.0), 7: cases(3, 1.0)}, other, 400) == pytest.approx(
        alike, abs=0.02
    )
