import numpy as np
import pytest

from clotline.evaluation.decision_curves import THRESHOLDS, decision_curve, useful_thresholds
from clotline.evaluation.intervals import Cases


@pytest.fixture(scope="module")
def cases():
    rng = np.random.default_rng(5)
    truth = rng.random(200) < 0.3
    # Some scores lie on a threshold, where a case counts as called.
    score = np.round(np.clip(0.3 + 0.3 * truth + rng.normal(0, 0.2, 200), 0, 1), 2)
    return Cases.of(truth, score)


def net_benefit(truth, called, threshold):
    """As Vickers and Elkin write it."""
    odds = threshold / (1 - threshold)
    return (called & truth).mean() - (called & ~truth).mean() * odds


def test_net_benefit_is_that_of_the_definition(cases):
    curve = decision_curve(cases, 0, 0)
    expected = [net_benefit(cases.truth, cases.score >= t, t) for t in THRESHOLDS]
    assert curve["net_benefit"] == pytest.approx(expected)
    everybody = np.ones(200, bool)
    expected = [net_benefit(cases.truth, everybody, t) for t in THRESHOLDS]
    assert curve["treat_all"] == pytest.approx(expected)
    better = np.maximum(expected, 0)
    assert curve["gain"] == pytest.approx(np.array(curve["net_benefit"]) - better)


def test_a_worked_example():
    # 100 studies, 20 with PE; at 10% the model finds 18 of them and calls 30 others.
    truth = np.arange(100) < 20
    score = np.where((np.arange(100) < 18) | (np.arange(100) >= 70), 0.6, 0.05)
    curve = decision_curve(Cases.of(truth, score), 0, 0)
    at = curve["thresholds"].index(0.1)
    assert curve["net_benefit"][at] == pytest.approx(0.18 - 0.30 / 9)
    assert curve["treat_all"][at] == pytest.approx(0.20 - 0.80 / 9)


def test_the_band_is_of_resampled_studies(cases):
    curve = decision_curve(cases, 300, 7)
    rng, drawn = np.random.default_rng(7), []
    for _ in range(300):
        rows = rng.integers(0, 200, 200)
        drawn.append(net_benefit(cases.truth[rows], cases.score[rows] >= 0.2, 0.2))
    at = curve["thresholds"].index(0.2)
    low, high = np.quantile(drawn, (0.025, 0.975))
    assert curve["net_benefit_low"][at] == pytest.approx(low)
    assert curve["net_benefit_high"][at] == pytest.approx(high)
    # The gain is paired: less wide than the net benefit, whose width is mostly the prevalence's.
    width = curve["gain_high"][at] - curve["gain_low"][at]
    assert 0 < width < high - low


def test_a_perfect_model_is_worth_the_prevalence_at_every_threshold():
    truth = np.arange(50) % 2 == 0
    curve = decision_curve(Cases.of(truth, truth), 50, 0)
    assert curve["net_benefit"] == pytest.approx([0.5] * 99)
    assert useful_thresholds(curve) == [(0.01, 0.99)]


def test_a_useless_model_is_useful_nowhere():
    rng = np.random.default_rng(1)
    curve = decision_curve(Cases.of(rng.random(200) < 0.3, rng.random(200)), 200, 0)
    assert useful_thresholds(curve) == []


def test_several_ranges_of_thresholds_are_told_apart():
    curve = {"thresholds": [0.1, 0.2, 0.3, 0.4, 0.5], "gain_low": [0.1, 0, 0.1, 0.2, -0.1]}
    assert useful_thresholds(curve) == [(0.1, 0.1), (0.3, 0.4)]


def test_without_both_classes_or_a_second_study_it_says_so():
    reason = decision_curve(Cases.of([1, 1], [0.2, 0.3]), 10, 0)
    assert reason == {"reason": "one class only: all 2 studies are positive"}
    assert useful_thresholds(reason) == []
    assert decision_curve(Cases.of([], []), 10, 0) == {"reason": "no studies"}
