import numpy as np
import pytest

from clotline.evaluation.delong import auroc_delong
from clotline.evaluation.intervals import Cases, wilson
from clotline.evaluation.sample_size import (
    HALF_WIDTH,
    auroc_half_width,
    proportion_half_width,
    sample_size,
    studies_for_auroc,
    studies_for_proportion,
)


def test_the_expected_half_width_is_what_simulated_studies_have():
    rng, half_widths = np.random.default_rng(0), []
    for _ in range(60):
        truth = np.arange(400) < 120
        # A binormal AUROC of 0.9: means 1.812 standard deviations apart.
        score = rng.normal(1.812 * truth, 1)
        estimate = auroc_delong(Cases.of(truth, 1 / (1 + np.exp(-score))))
        half_widths.append((estimate.high - estimate.low) / 2)
    assert auroc_half_width(0.9, 400, 0.3) == pytest.approx(np.mean(half_widths), rel=0.1)


def test_the_half_width_of_a_proportion_is_wilsons():
    low, high = wilson(45, 50)
    assert proportion_half_width(0.9, 50) == pytest.approx((high - low) / 2)


@pytest.mark.parametrize("auroc", [0.6, 0.85, 0.99])
@pytest.mark.parametrize("prevalence", [0.05, 0.3])
def test_the_number_of_studies_is_the_fewest_that_will_do(auroc, prevalence):
    needed = studies_for_auroc(auroc, prevalence)
    assert auroc_half_width(auroc, needed, prevalence) <= HALF_WIDTH
    assert needed == 2 or auroc_half_width(auroc, needed - 1, prevalence) > HALF_WIDTH


def test_a_sensitivity_needs_more_studies_where_positive_ones_are_rare():
    # The plain formula asks for 1.96² × 0.9 × 0.1 / 0.03² = 384 positive studies.
    assert studies_for_proportion(0.9, 1) == pytest.approx(384, abs=6)
    assert studies_for_proportion(0.9, 0.1) == 10 * studies_for_proportion(0.9, 1)
    assert studies_for_proportion(0.9, 1, 0.015) > 3.5 * studies_for_proportion(0.9, 1)


def estimate(value, low=None, high=None, reason=None):
    return {
        "value": value, "low": low, "high": high, "reason": reason,
        "n_studies": 100, "n_positive": 40,
    }  # fmt: skip


def test_found_and_expected_stand_side_by_side():
    point = {"sensitivity": estimate(0.9, 0.77, 0.96), "specificity": estimate(0.8, 0.69, 0.88)}
    auroc, sensitivity, specificity = sample_size(estimate(0.9, 0.82, 0.95), point)
    assert auroc["half_width"] == pytest.approx(0.065)
    assert auroc["expected"] == auroc_half_width(0.9, 100, 0.4)
    assert auroc["needed"] == studies_for_auroc(0.9, 0.4)
    assert (auroc["studies"], sensitivity["studies"], specificity["studies"]) == (100, 40, 60)
    assert sensitivity["needed"] == studies_for_proportion(0.9, 0.4)
    assert specificity["needed"] == studies_for_proportion(0.8, 0.6)


def test_rounding_asks_for_no_study_more():
    point = {"sensitivity": estimate(0.8, 0.6, 0.9), "specificity": estimate(0.8, 0.7, 0.9)}
    _, sensitivity, _ = sample_size(estimate(0.7) | {"n_studies": 60, "n_positive": 22}, point)
    assert studies_for_proportion(0.8, 1) == 682
    assert sensitivity["needed"] == 682 * 60 // 22


def test_what_cannot_be_planned_has_a_reason():
    none = estimate(None, reason="one class only")
    point = {"sensitivity": none, "specificity": estimate(1.0, 0.94, 1.0)}
    auroc, sensitivity, specificity = sample_size(estimate(1.0), point)
    assert auroc["needed"] is None
    assert auroc["reason"] == "an AUROC of 1 leaves nothing to plan with"
    assert (sensitivity["needed"], sensitivity["reason"]) == (None, "one class only")
    assert specificity["needed"] == studies_for_proportion(1.0, 0.6)
