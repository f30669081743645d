import math

import numpy as np
import pytest
from chests import chest_picture

from clotline.data import phantom
from clotline.data.attenuation import Chest, look_at, summarize, wrong_scale
from clotline.data.dicom.ct_slice import read_slice
from clotline.workflow.config import load_config


def chest(**picture):
    return summarize([look_at(chest_picture(**picture), 360) for _ in range(3)])


@pytest.mark.parametrize("blood", [45, 120, 150, 300, 1100])
def test_the_blood_pool_is_what_the_heart_has(blood):
    assert chest(blood=blood).blood == pytest.approx(blood, abs=3)


@pytest.mark.parametrize("noise", [15, 60])
def test_noise_does_not_enhance_the_blood(noise):
    assert chest(blood=45, noise=noise).blood == pytest.approx(45, abs=20)
    assert chest(blood=300, noise=noise).blood == pytest.approx(300, abs=25)


def test_spine_breastbone_and_ribs_are_no_blood():
    assert chest(blood=45, bone=600).blood == pytest.approx(45, abs=3)
    assert chest(blood=45, bone=180).blood == pytest.approx(45, abs=3)


def test_the_phantoms_studies_are_enhanced(tmp_path):
    cohort = phantom.draw_cohort(load_config({"phantom": {"studies": 2, "seed": 7}})["phantom"])
    for study in cohort:
        phantom.write_study(study, tmp_path)
        slices = [read_slice(p) for p in sorted(tmp_path.rglob(f"{study.series_uid}/*.dcm"))[::3]]
        shown = summarize([look_at(s.pixels, s.traits.field_mm) for s in slices])
        assert shown.blood > 150
        assert wrong_scale(shown) == ""


def test_a_picture_without_lungs_has_no_blood_pool():
    shown = chest(lungs=False)
    assert math.isnan(shown.blood)
    assert shown.lungs == 0
    assert wrong_scale(shown) == ""


def test_nothing_is_made_of_nothing():
    assert summarize([]) is None
    for value in (-1000, 0, 3000):
        shown = summarize([look_at(np.full((256, 256), value, np.int16), 360)])
        assert math.isnan(shown.blood)


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"air": 1.0}, "100% of the picture is air"),
        ({"air": 0.0}, "only 0.0% of the picture is air"),
        ({"soft": 900.0}, "soft tissue has 900 HU"),
        ({"soft": math.nan}, "nothing has the attenuation of soft tissue"),
    ],
)
def test_hounsfield_units_that_cannot_be_are_told_with_numbers(values, why):
    usual = Chest(blood=300.0, lungs=0.8, air=0.5, body=0.6, soft=30.0)
    assert wrong_scale(usual) == ""
    assert wrong_scale(usual._replace(**values)) == why


def test_a_scale_without_its_intercept_cannot_be():
    wrong = summarize([look_at(chest_picture() + np.int16(1024), 360)])
    assert wrong_scale(wrong)
