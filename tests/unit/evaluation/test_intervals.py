import json
import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import norm
from scipy.stats import t as student
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score, roc_curve
from statsmodels.discrete.discrete_model import Logit
from statsmodels.stats.proportion import proportion_confint

from clotline.errors import ClotlineError
from clotline.evaluation.calibration import calibration, reliability
from clotline.evaluation.delong import auroc_delong, paired_delong, structural_components
from clotline.evaluation.intervals import (
    Cases,
    cross_entropy,
    describe_estimate,
    percentile_estimate,
    proportions,
    ratios,
    resample,
    wilson,
)
from clotline.evaluation.ranking import ROC_GRID, ROC_POINTS, Ranking, paired_bootstrap, roc_points


def draw(n, seed=0, decimals=2, studies=None, effect=1.0):
    """Cases with ties; slices of ``studies`` studies where given."""
    rng = np.random.default_rng(seed)
    truth = rng.random(n) < 0.4
    score = 1 / (1 + np.exp(-(rng.normal(size=n) + effect * truth)))
    study = None if studies is None else rng.integers(0, studies, n)
    return Cases.of(truth, score.round(decimals), study)


def many_ties(draw_from):
    truth, score = zip(*draw_from, strict=True)
    return np.array(truth), np.array(score) / 8


both_classes = st.lists(
    st.tuples(st.booleans(), st.integers(0, 8)), min_size=4, max_size=40
).filter(lambda rows: 2 <= sum(t for t, _ in rows) <= len(rows) - 2)


def brute_force_delong(truth, *scores):
    """AUROC and covariance by DeLong's definition, one pair at a time."""
    parts = []
    for score in scores:
        wins = [[(p > q) + (p == q) / 2 for q in score[~truth]] for p in score[truth]]
        parts.append((np.mean(wins, axis=1), np.mean(wins, axis=0)))
    v10, v01 = (np.array([part[k] for part in parts]) for k in (0, 1))
    covariance = np.cov(v10) / v10.shape[1] + np.cov(v01) / v01.shape[1]
    return v10.mean(1), np.atleast_2d(covariance)


Z = 1.959963984540054


def modelled(auroc, sizes):
    """Hanley and McNeil's variances, Q - AUROC², the larger one of the smaller class."""
    variances = auroc / (2 - auroc) - auroc**2, 2 * auroc**2 / (1 + auroc) - auroc**2
    if sizes[0] == sizes[1]:
        return [sum(variances) / 2] * 2
    large, small = max(variances), min(variances)
    return [large, small] if sizes[0] < sizes[1] else [small, large]


@given(both_classes)
def test_an_aurocs_ends_are_as_far_away_as_their_own_variance_allows(rows):
    truth, score = many_ties(rows)
    estimate = auroc_delong(Cases.of(truth, score))
    (auc,), _ = brute_force_delong(truth, score)
    assert estimate.value == pytest.approx(auc)
    assert estimate.value == pytest.approx(roc_auc_score(truth, score))
    if estimate.low is None:
        assert np.ptp(score) == 0
        return
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
    wins = [[(p > q) + (p == q) / 2 for q in score[~truth]] for p in score[truth]]
    observed = [np.mean(wins, axis=k).var(ddof=1) for k in (1, 0)]
    sizes = truth.sum(), (~truth).sum()
    factors = []
    for variance, model, n in zip(observed, modelled(auc, sizes), sizes, strict=True):
        worth = (n - 1) * min(1, 4 * auc * (1 - auc))
        ratio = variance / model if 0 < auc < 1 else 0.9
        factors.append((worth * ratio + 6 * 0.9) / (worth + 6))
    for end in (estimate.low, estimate.high):
        if 0 < end < 1:
            parts = zip(factors, modelled(end, sizes), sizes, strict=True)
            variance = sum(f * model / n for f, model, n in parts)
            assert abs(end - auc) == pytest.approx(Z * np.sqrt(variance), rel=1e-5)
    assert (estimate.high == 1) == (auc == 1)
    assert (estimate.low == 0) == (auc == 0)


def test_of_many_studies_the_interval_is_delongs():
    cases = draw(4000, decimals=6)
    estimate = auroc_delong(cases)
    parts = structural_components(cases.truth, cases.score)
    half = Z * np.sqrt(sum(part.var(ddof=1) / len(part) for part in parts))
    assert estimate.high - estimate.value == pytest.approx(half, rel=0.03)
    assert estimate.value - estimate.low == pytest.approx(half, rel=0.03)


def test_an_interval_does_not_hang_on_what_is_called_positive():
    truth, score = np.array([1, 1, 1, 0, 0, 0, 0]), np.array([0.9, 0.8, 0.4, 0.5, 0.2, 0.1, 0.3])
    first = auroc_delong(Cases.of(truth, score))
    turned = auroc_delong(Cases.of(truth, 1 - score))
    swapped = auroc_delong(Cases.of(1 - truth, score))
    assert 0 < first.low < first.value < first.high < 1
    for other in (turned, swapped):
        assert (1 - other.high, 1 - other.low) == pytest.approx((first.low, first.high))
    both = auroc_delong(Cases.of(1 - truth, 1 - score))
    assert (both.low, both.high) == pytest.approx((first.low, first.high))


def test_paired_delong_of_many_studies_is_by_its_definition():
    first, other = draw(900, 1, 6), draw(900, 2, 6)
    second = Cases.of(first.truth, np.clip(first.score * 0.6 + other.score * 0.4, 0, 1))
    difference, p_value = paired_delong(first, second)
    aucs, covariance = brute_force_delong(first.truth, first.score, second.score)
    deviation = np.sqrt(np.array([1, -1]) @ covariance @ np.array([1, -1]))
    assert difference.value == pytest.approx(aucs[0] - aucs[1])
    assert difference.high - difference.value == pytest.approx(Z * deviation, rel=0.02)
    reverse, same_p = paired_delong(second, first)
    assert reverse.value == pytest.approx(-difference.value)
    assert same_p == pytest.approx(p_value)
    two_sided = math.erfc(abs(difference.value) / deviation / math.sqrt(2))
    assert math.log(p_value) == pytest.approx(math.log(two_sided), rel=0.05)


def test_paired_delong_of_six_studies_worked_out_by_hand():
    truth = [1, 1, 1, 0, 0, 0]
    first = Cases.of(truth, [0.9, 0.8, 0.4, 0.5, 0.2, 0.1])
    second = Cases.of(truth, [0.3, 0.2, 0.6, 0.5, 0.7, 0.1])
    # The share of negatives below each positive, and of positives above each negative.
    of_positive = np.array([[1, 1, 2 / 3], [1 / 3, 1 / 3, 2 / 3]])
    of_negative = np.array([[2 / 3, 1, 1], [1 / 3, 0, 1]])
    difference, p_value = paired_delong(first, second)
    for part in (of_positive, of_negative):
        assert part.mean(1) == pytest.approx([8 / 9, 4 / 9])
    assert difference.value == pytest.approx(4 / 9)
    observed = [np.var(part[0] - part[1], ddof=1) for part in (of_positive, of_negative)]
    assert observed == pytest.approx([4 / 27, 7 / 27])
    # Not quite 8/9 and 4/9 of three studies: (8/3 + 1/2) / 4 and (4/3 + 1/2) / 4.
    inside = [19 / 24, 11 / 24]
    model = [0.9 * 0.3 * sum(v) for v in zip(*(modelled(a, (3, 3)) for a in inside), strict=True)]
    # 4 · 19/24 · 5/24 = 0.6597 and 4 · 11/24 · 13/24 = 0.9931: two further cases count so much.
    worth = 2 * (0.6597222 + 0.9930556) / 2
    parts = [(worth * o + 2 * m) / (worth + 2) / 3 for o, m in zip(observed, model, strict=True)]
    freedom = sum(parts) ** 2 / sum(part**2 / (worth + 2) for part in parts)
    deviation = math.sqrt(sum(parts))
    low = 4 / 9 - student.ppf(0.975, freedom) * deviation
    assert (difference.low, difference.high) == (pytest.approx(low, abs=1e-6), 1)
    assert p_value == pytest.approx(2 * student.sf(4 / 9 / deviation, freedom), abs=1e-6)
    reverse, same_p = paired_delong(second, first)
    assert (reverse.low, reverse.high) == (-1, pytest.approx(-low, abs=1e-6))
    assert same_p == pytest.approx(p_value)


@pytest.mark.parametrize("seed", range(8))
def test_a_difference_is_significant_where_its_interval_leaves_out_0(seed):
    first, second = draw(60, seed, effect=1.5), draw(60, seed, effect=0.2 * seed)
    difference, p_value = paired_delong(first, Cases.of(first.truth, second.score))
    assert (p_value < 0.05) == (difference.low > 0 or difference.high < 0)


def test_paired_delong_without_a_difference_or_on_other_studies():
    cases = draw(40)
    difference, p_value = paired_delong(cases, cases)
    assert (difference.value, difference.low, p_value) == (0, None, None)
    assert "no interval" in difference.reason
    with pytest.raises(ClotlineError, match="same studies"):
        paired_delong(cases, draw(40, 3))


def test_perfect_separation_has_a_bounded_interval():
    truth = np.repeat([0, 1], [30, 10])
    right = auroc_delong(Cases.of(truth, truth))
    assert (right.value, right.high) == (1, 1)
    of_positive, of_negative = modelled(right.low, (10, 30))
    deviation = np.sqrt(0.9 * (of_positive / 10 + of_negative / 30))
    assert 1 - right.low == pytest.approx(Z * deviation, rel=1e-6)
    assert right.low < 0.9
    wrong = auroc_delong(Cases.of(truth, 1 - truth))
    assert (wrong.value, wrong.low) == (0, 0)
    assert wrong.high == pytest.approx(1 - right.low)


@pytest.mark.parametrize(("positives", "auroc"), [(5, 0.9), (8, 0.95), (20, 0.95), (50, 0.95)])
def test_intervals_hold_the_truth_as_often_as_they_say(positives, auroc):
    # DeLong's own holds it in 62, 74, 85 and 91% of such samples.
    rng, samples = np.random.default_rng(positives), 300
    shift, truth = np.sqrt(2) * norm.ppf(auroc), np.repeat([1, 0], [positives, 200])
    held = 0
    for _ in range(samples):
        score = norm.cdf(rng.normal(size=positives + 200) + shift * truth)
        estimate = auroc_delong(Cases.of(truth, score))
        held += estimate.low <= auroc <= estimate.high
    # Three standard errors below 95%.
    assert held / samples > 0.912


@pytest.mark.parametrize(
    ("truth", "score", "value", "reason"),
    [
        ([], [], None, "no studies"),
        ([1, 1], [0.1, 0.2], None, "all 2 studies are positive"),
        ([0], [0.1], None, "all 1 studies are negative"),
        ([0, 1, 0], [0.4, 0.3, 0.2], 0.5, "fewer than 2 studies"),
        ([0, 1, 0, 1], [0.4] * 4, 0.5, "all scores are equal"),
    ],
)
def test_what_cannot_be_computed_says_why(truth, score, value, reason):
    estimate = auroc_delong(Cases.of(truth, score))
    assert (estimate.value, estimate.low, estimate.high) == (value, None, None)
    assert reason in estimate.reason
    json.dumps(estimate.as_dict(), allow_nan=False)
    assert ("not computable" in describe_estimate(estimate.as_dict())) == (value is None)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -0.1, 1.1])
def test_scores_that_are_no_probabilities_are_refused(bad):
    with pytest.raises(ClotlineError, match="central_pe holds"):
        Cases.of([0, 1], [0.5, bad], name="central_pe")
    with pytest.raises(ClotlineError, match="truth of central_pe"):
        Cases.of([0, 0.5], [0.5, 0.5], name="central_pe")


@settings(max_examples=60)
@given(both_classes, st.integers(0, 1000))
def test_weighted_metrics_match_scikit_learn(rows, seed):
    truth, score = many_ties(rows)
    study = np.random.default_rng(seed).integers(0, 5, len(truth))
    cases = Cases.of(truth, score, study)
    draws = np.random.default_rng(seed).integers(0, 3, cases.studies)
    metrics = Ranking(cases).metrics(draws)
    weights = draws[cases.study]
    if not (weights @ truth and weights @ ~truth):
        assert np.isnan(metrics).all()
        return
    kept = np.repeat(np.arange(len(truth)), weights)
    assert metrics[0] == pytest.approx(roc_auc_score(truth[kept], score[kept]))
    assert metrics[1] == pytest.approx(average_precision_score(truth[kept], score[kept]))
    fpr, tpr, _ = roc_curve(truth[kept], score[kept], drop_intermediate=False)
    assert metrics[2:] == pytest.approx(np.interp(ROC_GRID, fpr, tpr))


def test_bootstrap_matches_a_naive_loop_over_studies():
    cases = draw(120, studies=15)
    resampled = resample(Ranking(cases).metrics, cases.studies, 200, seed=4)[:, 0]
    rng = np.random.default_rng(4)
    naive = []
    for _ in range(200):
        rows = np.concatenate(
            [
                np.flatnonzero(cases.study == s)
                for s in rng.integers(0, cases.studies, cases.studies)
            ]
        )
        naive.append(roc_auc_score(cases.truth[rows], cases.score[rows]))
    assert resampled == pytest.approx(naive)
    estimate = percentile_estimate(cases, 0.5, resampled)
    assert (estimate.low, estimate.high) == pytest.approx(np.quantile(naive, [0.025, 0.975]))
    assert (estimate.n_studies, estimate.n_slices) == (15, 120)


def test_resamples_follow_the_seed():
    cases = draw(60, studies=10)
    first, again, other = (
        resample(Ranking(cases).metrics, cases.studies, 20, seed) for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_resamples_of_one_class_are_dropped():
    # One positive study of four: it is missing from about (3/4)^4 = 32% of the resamples.
    cases = Cases.of([1, 0, 0, 0], [0.6, 0.7, 0.2, 0.1])
    resampled = resample(Ranking(cases).metrics, 4, 1000, seed=0)[:, 0]
    assert 0.25 < np.isnan(resampled).mean() < 0.4
    estimate = percentile_estimate(cases, 0.5, resampled)
    assert np.isfinite([estimate.low, estimate.high]).all()
    assert f"{np.isfinite(resampled).sum()} resamples" in estimate.method
    resampled[10:] = np.nan
    assert "one class" in percentile_estimate(cases, 0.5, resampled).reason


def test_an_interval_takes_half_of_the_resamples():
    cases = draw(20)
    for usable, has_interval in ((40, False), (49, False), (50, True)):
        resampled = np.r_[np.linspace(0.4, 0.6, usable), np.full(100 - usable, np.nan)]
        estimate = percentile_estimate(cases, 0.5, resampled)
        assert (estimate.low is not None) == has_interval
        assert (estimate.reason is None) == has_interval


def test_one_study_has_values_without_intervals():
    cases = Cases.of([0, 1, 1], [0.2, 0.6, 0.1], ["a"] * 3)
    estimate = percentile_estimate(cases, 0.5, resample(Ranking(cases).metrics, 1, 50, 0)[:, 0])
    assert (estimate.value, estimate.low) == (0.5, None)
    assert estimate.reason == "no interval: one study only"


def test_ratios_are_means_over_the_cases_of_drawn_studies():
    cases = draw(50, studies=6)
    losses = cross_entropy(cases.truth, cases.score)
    assert losses.mean() == pytest.approx(log_loss(cases.truth, cases.score))
    above, below = cases.by_study(losses)[:, None], cases.by_study(np.ones(50))[:, None]
    draws = np.array([2, 0, 1, 0, 3, 0])
    expected = np.repeat(losses, draws[cases.study]).mean()
    assert ratios(above, below)(draws)[0] == pytest.approx(expected)
    assert np.isnan(ratios(above, below)(np.zeros(6))[0])


def test_cross_entropy_stays_finite():
    assert np.isfinite(cross_entropy(np.array([0, 1]), np.array([1.0, 0.0]))).all()


def test_proportions_of_studies_have_wilsons_interval():
    cases = Cases.of([1] * 10, np.linspace(0, 1, 10))
    tried = np.ones(10, bool)
    trials = {"some": (tried, np.arange(10) < 8, "studies"), "none": (~tried, tried, "nothing")}
    found = proportions(cases, trials, 0, 0)
    # Wilson's interval of 8 of 10, worked out by hand.
    assert found["some"].value == 0.8
    assert (found["some"].low, found["some"].high) == pytest.approx((0.4901625, 0.9433178))
    assert (found["none"].value, found["none"].reason) == (None, "no nothing")


def test_wilsons_interval_is_statsmodels():
    trials = np.arange(1, 60)[:, None].repeat(60, 1)
    successes = np.minimum(np.arange(60)[None].repeat(59, 0), trials)
    expected = proportion_confint(successes, trials, 0.05, "wilson")
    for ours, theirs in zip(wilson(successes, trials), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-12)
    low, high = wilson(successes, trials)
    assert ((low <= successes / trials) & (successes / trials <= high)).all()


def test_proportions_of_slices_respect_the_studies():
    # Ten studies, each all hit or all missed: as if there were ten trials, not 1,000.
    study = np.repeat(np.arange(10), 100)
    cases = Cases.of(np.ones(1000), np.ones(1000), study)
    tried = np.ones(1000, bool)
    trials = {"rate": (tried, study < 8, "slices"), "all": (tried, tried, "slices")}
    found = proportions(cases, trials, 500, 0)
    assert found["rate"].high - found["rate"].low > 0.3
    assert found["all"].low == pytest.approx(10 / (10 + 1.959963984540054**2))


def test_only_studies_with_a_trial_count_as_trials():
    study = np.repeat(np.arange(10), 20)
    cases = Cases.of(np.ones(200), np.ones(200), study)
    tried = study < 3
    found = proportions(cases, {"all": (tried, tried, "slices")}, 10, 0)["all"]
    assert (found.value, found.high) == (1, 1)
    assert found.low == pytest.approx(3 / (3 + 1.959963984540054**2))


def test_roc_points_run_from_corner_to_corner_and_stay_few():
    cases = draw(20_000, decimals=9)
    fpr, tpr = roc_points(cases.truth, cases.score)
    assert len(fpr) <= ROC_POINTS
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
    assert (np.diff(fpr) >= 0).all() and (np.diff(tpr) >= 0).all()
    auc = roc_auc_score(cases.truth, cases.score)
    assert np.trapezoid(tpr, fpr) == pytest.approx(auc, abs=1e-4)


def test_bootstrap_of_many_slices_needs_little_memory():
    cases = draw(250_000, decimals=6, studies=1000)
    ranking = Ranking(cases)
    tracemalloc.start()
    resample(ranking.metrics, cases.studies, 20, 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6


def slices_with_noise(noise, seed=0):
    """Slices of 40 studies, which share much of their score, by a model with so much noise."""
    rng = np.random.default_rng(3)
    study = np.repeat(np.arange(40), 10)
    truth = rng.random(400) < 0.3
    logits = truth + rng.normal(size=40)[study]
    logits = logits + noise * np.random.default_rng(seed).normal(size=400)
    return Cases.of(truth, 1 / (1 + np.exp(-logits)), study)


def test_a_paired_bootstrap_is_that_of_the_differences_of_the_same_resamples():
    first, second = slices_with_noise(0.2), slices_with_noise(2)
    found, p_value = paired_bootstrap(first, second, 300, 5)
    rng, differences = np.random.default_rng(5), []
    for _ in range(300):
        weight = np.bincount(rng.integers(0, 40, 40), minlength=40)[first.study]
        aurocs = [roc_auc_score(c.truth, c.score, sample_weight=weight) for c in (first, second)]
        differences.append(aurocs[0] - aurocs[1])
    assert found.value == pytest.approx(
        roc_auc_score(first.truth, first.score) - roc_auc_score(second.truth, second.score)
    )
    ends = np.quantile(differences, (0.025, 0.975))
    assert (found.low, found.high) == pytest.approx(tuple(ends))
    beyond = np.count_nonzero(np.array(differences) <= 0)
    assert p_value == pytest.approx(2 * (beyond + 1) / 301)


def test_the_p_value_of_a_paired_bootstrap_is_as_large_as_the_models_are_alike():
    sure = paired_bootstrap(slices_with_noise(0), slices_with_noise(5), 400, 0)[1]
    unsure = paired_bootstrap(slices_with_noise(1), slices_with_noise(1, seed=1), 400, 0)[1]
    assert sure == pytest.approx(2 / 401)
    assert unsure > 0.1


def test_a_paired_bootstrap_says_why_it_has_no_interval():
    cases = slices_with_noise(1)
    found, p_value = paired_bootstrap(cases, cases, 50, 0)
    assert (found.value, found.low, p_value) == (0, None, None)
    assert found.reason == "no interval: every resample gives the same figure"
    one = Cases.of([1, 1], [0.1, 0.2], [0, 1])
    assert paired_bootstrap(one, one, 50, 0)[0].reason.startswith("one class only")
    with pytest.raises(ClotlineError, match="not evaluated on the same slices"):
        paired_bootstrap(cases, Cases.of(~cases.truth, cases.score, cases.study), 50, 0)


def test_calibration_matches_logistic_regression():
    cases = draw(400, decimals=6)
    x = np.log(cases.score / (1 - cases.score))
    model = LogisticRegression(C=np.inf, tol=1e-10).fit(x[:, None], cases.truth)
    found = calibration(cases)
    assert found["slope"]["value"] == pytest.approx(model.coef_[0, 0], rel=1e-4)
    assert found["intercept"]["value"] == pytest.approx(model.intercept_[0], rel=1e-4)
    # Wald's interval from the information matrix.
    p = model.predict_proba(x[:, None])[:, 1]
    design = np.column_stack([np.ones(400), x])
    variance = np.linalg.inv(design.T @ (design * (p * (1 - p))[:, None]))
    half = 1.959964 * np.sqrt(variance[1, 1])
    assert found["slope"]["high"] - found["slope"]["value"] == pytest.approx(half, rel=1e-3)


def test_calibration_in_the_large_undoes_a_shift_of_the_logits():
    cases = draw(400, decimals=6)
    x = np.log(cases.score / (1 - cases.score))

    def loss(shift, x):
        return np.logaddexp(0, np.where(cases.truth, -1, 1) * (x + shift)).sum()

    found = calibration(cases)["in_the_large"]
    least = minimize_scalar(loss, args=(x,), tol=1e-12).x
    assert found["value"] == pytest.approx(least, abs=1e-6)
    p = 1 / (1 + np.exp(-x - least))
    half = 1.959964 / np.sqrt((p * (1 - p)).sum())
    assert found["high"] - found["value"] == pytest.approx(half, rel=1e-5)
    assert found["value"] - found["low"] == pytest.approx(half, rel=1e-5)
    shifted = Cases.of(cases.truth, 1 / (1 + np.exp(-x - 0.7)))
    assert calibration(shifted)["in_the_large"]["value"] == pytest.approx(least - 0.7, abs=1e-6)


def test_calibration_of_slices_has_the_sandwich_variance_of_whole_studies():
    # All slices of a study share its truth, so that a study tells much less than its slices.
    rng = np.random.default_rng(5)
    study = np.repeat(np.arange(30), 8)
    truth = (rng.random(30) < 0.5)[study]
    x = rng.normal(size=240) + 0.5 * truth
    cases = Cases.of(truth, 1 / (1 + np.exp(-x)), study)
    found = calibration(cases)
    slope, intercept = (found[name]["value"] for name in ("slope", "intercept"))
    p = 1 / (1 + np.exp(-intercept - slope * x))
    design = np.column_stack([np.ones(240), x])
    bread = np.linalg.inv(design.T @ (design * (p * (1 - p))[:, None]))
    scores = design * (truth - p)[:, None]
    of_studies = np.array([scores[study == s].sum(0) for s in range(30)])
    # For few studies: Cameron and Miller, Journal of Human Resources 50(2), 2015.
    correction = 30 / 29 * 239 / 238
    variance = correction * bread @ (of_studies.T @ of_studies) @ bread
    for place, name in enumerate(("intercept", "slope")):
        half = 1.959964 * np.sqrt(variance[place, place])
        assert found[name]["high"] - found[name]["value"] == pytest.approx(half, rel=1e-4)
        assert found[name]["value"] - found[name]["low"] == pytest.approx(half, rel=1e-4)


@pytest.mark.parametrize("logits", [8, 10, 20])
def test_calibration_in_the_large_of_sure_networks_is_where_the_surplus_is_nought(logits):
    # Right in 85 of 100 and sure of it: the steps of a usual logistic regression leap away.
    rng = np.random.default_rng(0)
    truth = rng.random(400) < 0.4
    told = np.where(rng.random(400) < 0.85, truth, ~truth)
    x = np.where(told, logits, -logits) + rng.normal(size=400)
    score = np.clip(1 / (1 + np.exp(-x)), 1e-7, 1 - 1e-7)
    found = calibration(Cases.of(truth, score))["in_the_large"]
    shifted = 1 / (1 + (1 - score) / score * np.exp(-found["value"]))
    assert shifted.sum() == pytest.approx(truth.sum(), abs=1e-6)
    half = 1.959964 / np.sqrt((shifted * (1 - shifted)).sum())
    assert found["high"] - found["value"] == pytest.approx(half, rel=1e-4)


def test_the_slopes_interval_keeps_its_digits_where_probabilities_are_nought():
    rng = np.random.default_rng(2)
    study = np.repeat(np.arange(60), 13)
    logits = rng.normal(size=780)
    truth = rng.random(780) < 1 / (1 + np.exp(-5 * logits))
    x = np.where((logits < -0.9) & ~truth, -30, logits)
    found = calibration(Cases.of(truth, 1 / (1 + np.exp(-x)), study))["slope"]
    design = np.column_stack([np.ones(780), np.clip(x, np.log(1e-7 / (1 - 1e-7)), None)])
    fit = Logit(truth.astype(float), design).fit(
        disp=0, cov_type="cluster", cov_kwds={"groups": study}
    )
    assert found["value"] == pytest.approx(fit.params[1], rel=1e-4)
    assert found["value"] > 3.5  # at which a linear predictor lies below the digits of 1
    assert found["high"] - found["low"] == pytest.approx(2 * 1.959964 * fit.bse[1], rel=1e-3)


def test_resamples_that_differ_in_their_last_digits_are_the_same():
    cases = draw(50)
    found = percentile_estimate(cases, 1.0, 1 + 2e-16 * np.arange(-50, 50))
    assert (found.low, found.high) == (None, None)
    assert found.reason == "no interval: every resample gives the same figure"


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        ((0.9125, 0.85, 0.96, None), "0.912 (0.850–0.960)"),
        ((-0.5, -1.25, 0.1, None), "−0.500 (−1.250 to 0.100)"),
        ((0.19, None, None, "no interval: one study only"), "0.190 (no interval: one study only)"),
        ((None, None, None, "no studies"), "not computable: no studies"),
    ],
)
def test_an_estimate_is_said_with_its_interval_or_the_reason_why_there_is_none(estimate, text):
    names = ("value", "low", "high", "reason")
    assert describe_estimate(dict(zip(names, estimate, strict=True))) == text


def test_calibration_of_true_probabilities_is_perfect():
    rng = np.random.default_rng(0)
    score = rng.uniform(0.05, 0.95, 20_000)
    truth = rng.random(20_000) < score
    found = calibration(Cases.of(truth, score, np.arange(20_000) // 20))
    assert found["slope"]["low"] < 1 < found["slope"]["high"]
    for name in ("intercept", "in_the_large"):
        assert found[name]["low"] < 0 < found[name]["high"]
    assert "clustered" in found["slope"]["method"]
    for point in found["reliability"]:
        assert point["observed"] == pytest.approx(point["predicted"], abs=0.04)
    # Overconfident by a factor of two on the logit scale.
    odds = (score / (1 - score)) ** 2
    assert calibration(Cases.of(truth, odds / (1 + odds)))["slope"]["value"] == pytest.approx(
        0.5, abs=0.03
    )


@pytest.mark.parametrize(
    ("truth", "score", "reason"),
    [
        ([], [], "no studies"),
        ([1, 1], [0.2, 0.4], "one class only"),
        ([0, 0, 1, 1], [0.1, 0.2, 0.2, 0.9], "separate"),
        ([0, 1, 0, 1], [0.3] * 4, "are equal"),
        # Beyond what the logarithm is taken of.
        ([0, 0, 1, 0, 1], [1e-9, 5e-8, 1e-8, 3e-8, 6e-8], "are equal"),
        ([1, 1, 0, 0], [0, 0, 1, 1], "separate"),
    ],
)
def test_degenerate_calibration_says_why(truth, score, reason):
    found = calibration(Cases.of(truth, score))
    assert found["slope"]["value"] is None
    assert reason in found["slope"]["reason"]
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("studies", [1, 2])
def test_calibration_of_slices_of_few_studies(studies):
    cases = draw(60, studies=studies)
    found = calibration(cases)
    assert found["slope"]["value"] is not None
    assert (found["slope"]["low"] is None) == (found["slope"]["reason"] is not None)
    if studies == 1:
        assert found["slope"]["reason"] == "no interval: one study only"


def test_reliability_counts_every_case_once():
    cases = draw(1000, decimals=1)
    points = reliability(cases)
    assert sum(point["n"] for point in points) == 1000
    assert sum(point["n_positive"] for point in points) == cases.truth.sum()
    assert [p["predicted"] for p in points] == sorted(p["predicted"] for p in points)


def test_a_hundred_probabilities_make_ten_groups_of_ten():
    score = (np.arange(100) + 0.5) / 100
    points = reliability(Cases.of(np.arange(100) % 10 < 3, score))
    assert [(point["n"], point["n_positive"]) for point in points] == [(10, 3)] * 10
    assert [p["predicted"] for p in points] == pytest.approx(np.arange(0.05, 1, 0.1))
    assert [p["observed"] for p in points] == pytest.approx([0.3] * 10)


def test_equal_probabilities_at_an_edge_go_to_the_group_below():
    # The tenth, twentieth and thirtieth of these hundred are all 0.25: one edge, not three.
    score = np.r_[np.full(5, 0.1), np.full(35, 0.25), np.linspace(0.3, 0.9, 60)]
    points = reliability(Cases.of(np.arange(100) % 2, score))
    assert [point["n"] for point in points] == [40] + [10] * 6
