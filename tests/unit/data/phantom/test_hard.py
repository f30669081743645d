"""The hard phantom keeps what it promises, and the plain one knows nothing of it."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from clotline.data.phantom import draw_cohort, labels_table, render
from clotline.data.phantom.emboli import clot_areas, clot_coverage
from clotline.data.phantom.hard import DIAMETERS, LEAST_SLICES
from clotline.evaluation.baselines import count_baseline, position_baseline
from clotline.evaluation.metrics import SIZES
from clotline.evaluation.predictions import PE_PRESENT, TRUE
from clotline.labels import (
    IMAGE_LABEL,
    NO_PE_LABELS,
    SERIES_UID,
    SOP_UID,
    STUDY_LABELS,
    STUDY_UID,
)

SETTINGS = {"studies": 300, "seed": 3, "slices_min": 60, "slices_max": 76, "difficulty": "hard"}


@pytest.fixture(scope="module")
def cohort():
    return draw_cohort(SETTINGS)


def test_plain_is_the_default_and_has_nothing_of_it():
    settings = {"studies": 3, "seed": 5, "slices_min": 20, "slices_max": 22}
    plain, named = draw_cohort(settings), draw_cohort(settings | {"difficulty": "plain"})
    for one, other in zip(plain, named, strict=True):
        assert not one.look_alikes and not one.acquisition.sharpening
        assert one.labels == other.labels
        np.testing.assert_array_equal(render(one), render(other))


def test_a_study_depends_on_the_seed_and_its_number_alone():
    few = SETTINGS | {"studies": 4, "slices_min": 20, "slices_max": 22}
    longer, shorter = draw_cohort(few | {"studies": 6}), draw_cohort(few)
    for one, other in zip(shorter, longer, strict=False):
        np.testing.assert_array_equal(one.shown, other.shown)
        np.testing.assert_array_equal(render(one), render(other))


def test_emboli_are_of_all_diameters_and_few_are_rarer_than_others(cohort):
    found = pd.Series([round(c.diameter, 6) for s in cohort for c in s.clots]).value_counts()
    assert set(found.index) == set(DIAMETERS)
    assert found.min() > 0.7 * found.max()


def test_emboli_show_in_slices_that_follow_each_other_and_fill_their_diameter(cohort):
    for study in cohort[:60]:
        for clot in study.clots:
            box, coverage = clot_coverage(study.grid, clot, study.chest.arteries)
            areas = clot_areas(study.grid, coverage)
            shown = np.flatnonzero(areas) + box[0].start
            assert len(shown) >= LEAST_SLICES
            assert len(shown) == np.ptp(shown) + 1
            assert areas[areas > 0].min() >= 0.35 * np.pi / 4 * clot.diameter**2
            assert study.shown[shown].all()


def test_all_bands_of_size_are_filled(cohort):
    counts = np.array([study.shown.sum() for study in cohort if study.positive])
    for name, (fewest, most) in SIZES.items():
        share = ((counts >= fewest) & (counts <= most)).mean()
        assert share > 0.15, name
    assert counts.min() >= LEAST_SLICES


def test_labels_follow_the_drawing(cohort):
    table = labels_table(cohort)
    assert set(np.unique(table[list(STUDY_LABELS)])) == {0, 1}
    for study in cohort:
        sorts = {clot.chronic for clot in study.clots}
        assert study.labels["chronic_pe"] == (sorts == {True})
        assert study.labels["acute_and_chronic_pe"] == (sorts == {True, False})
        assert study.shown.any() == study.positive
        assert study.positive == (study.pe_type in ("acute", "chronic", "both"))


def test_emboli_lie_at_any_height_of_the_scan(cohort):
    table = slices_of(cohort)
    share = table.groupby((table["relative"] * 5).clip(0, 4).astype(int))[IMAGE_LABEL].mean()
    assert share.min() > 0.4 * share.max()


def test_look_alikes_lie_in_one_slice_each_and_not_where_an_embolus_is(cohort):
    for study in cohort[:60]:
        clotted = {host for clot in study.clots for host in clot.hosts}
        by_slice = {}
        for alike in study.look_alikes:
            box, coverage = clot_coverage(study.grid, alike, study.chest.arteries)
            shown = np.flatnonzero(coverage.any(axis=(1, 2))) + box[0].start
            assert shown.tolist() == [alike.only]
            assert alike.hosts[0] not in clotted
            by_slice.setdefault(alike.only, set()).add(alike.hosts[0])
        for first, second in pairwise(sorted(by_slice)):
            if second == first + 1:
                assert not by_slice[first] & by_slice[second]


def test_studies_with_and_without_embolism_have_look_alikes(cohort):
    with_any = pd.DataFrame([(s.positive, bool(s.look_alikes)) for s in cohort])
    shares = with_any.groupby(0)[1].mean()
    assert shares.min() > 0.25
    assert shares.max() < 0.55
    assert abs(shares[True] - shares[False]) < 0.15


def test_one_slice_does_not_tell_a_look_alike_and_three_do(cohort):
    clear = [s for s in cohort if not (s.acquisition.motion or s.acquisition.mixing)]
    positive = [s for s in clear if s.positive][:5]
    here, beside, truth = [], [], []
    for study in [*positive, *[s for s in clear if not s.positive][:5]]:
        picture = render(study).astype(float)
        for clot in (*study.clots, *study.look_alikes):
            whole = gap(study, clot)
            middle = clot.only
            if middle is None:
                rows = np.flatnonzero(whole.any(axis=(1, 2)))
                middle = rows[len(rows) // 2]
            depth = [
                (study.chest.hu["pulmonary"] - picture[k][whole[k]].mean())
                / (study.chest.hu["pulmonary"] - clot.hu)
                for k in (middle - 1, middle, middle + 1)
                if 0 <= k < len(picture) and whole[k].any()
            ]
            if len(depth) == 3:
                here.append(depth[1])
                beside.append(max(depth[0], depth[2]))
                truth.append(clot.only is None)
    assert min(sum(truth), len(truth) - sum(truth)) >= 15
    assert 0.3 < roc_auc_score(truth, here) < 0.7
    assert roc_auc_score(truth, beside) > 0.8


def gap(study, clot):
    """(slices, rows, columns) bool: where a gap is and, of a look-alike, where it would go on."""
    box, coverage = clot_coverage(study.grid, replace(clot, only=None), study.chest.arteries)
    whole = np.zeros((study.grid.slices, study.grid.size, study.grid.size), bool)
    # The part that is least mixed with what lies around it.
    highest = coverage.max(axis=(1, 2), keepdims=True)
    whole[box] = (coverage > 0.3) & (coverage >= 0.9 * highest)
    return whole


def test_contrast_noise_and_kernel_vary(cohort):
    plain = draw_cohort(SETTINGS | {"difficulty": "plain"})
    for attribute in ("noise", "grain", "blur"):
        hard, other = (
            np.array([getattr(s.acquisition, attribute) for s in studies])
            for studies in (cohort, plain)
        )
        assert np.ptp(hard) > 1.5 * np.ptp(other), attribute
    sharpening = np.array([s.acquisition.sharpening for s in cohort])
    assert 0.4 < (sharpening > 0).mean() < 0.6
    clear = [[s for s in c if not s.labels["qa_contrast"]] for c in (cohort, plain)]
    hard, other = (np.ptp([s.chest.hu["pulmonary"] for s in c]) for c in clear)
    assert hard > 1.5 * other


def test_a_sharp_kernel_raises_edges(cohort):
    study = next(s for s in cohort if s.acquisition.sharpening > 0.4)
    study = replace(study, grid=replace(study.grid, slices=20), clots=(), look_alikes=())
    quiet = replace(study.acquisition, noise=0.0)
    sharp = render(replace(study, acquisition=quiet))
    soft = render(replace(study, acquisition=replace(quiet, sharpening=0.0)))
    steps = [np.abs(np.diff(v.astype(float), axis=2)).max() for v in (sharp, soft)]
    assert steps[0] > 1.05 * steps[1]


def slices_of(cohort):
    """As slices.parquet: a row a slice in the order of the scan, with its relative height."""
    rows = []
    for study in cohort:
        for k, sop_uid in enumerate(study.sop_uids):
            place = k / (study.grid.slices - 1)
            row = study.uid, study.series_uid, sop_uid, study.index % 3, int(study.shown[k]), place
            rows.append(row)
    columns = [STUDY_UID, SERIES_UID, SOP_UID, "part", IMAGE_LABEL, "relative"]
    return pd.DataFrame(rows, columns=columns)


def test_the_position_alone_does_not_tell_studies_apart(cohort):
    slices = slices_of(cohort)
    plan = pd.DataFrame([{STUDY_UID: s.uid} | s.labels for s in cohort])
    # Of one class, so that nothing is fitted to the other labels.
    plan = plan.assign(**dict.fromkeys(set(STUDY_LABELS) - set(NO_PE_LABELS), 0))
    present = pd.Series({s.uid: s.positive for s in cohort})
    found = []
    # Each study is tested once, so that chance has 300 to even out on.
    for first in range(3):
        split = (slices["part"] + first) % 3
        image = slices.assign(split=np.where(split == 0, "valid", "test"))[split != 1]
        position = position_baseline(slices.assign(split=np.where(split == 1, "train", "test")))
        image = image.assign(**{IMAGE_LABEL + TRUE: image[IMAGE_LABEL]}).reset_index(drop=True)
        image[IMAGE_LABEL] = position[IMAGE_LABEL]
        test = image[image["split"] == "test"]
        scores = count_baseline(image, plan).set_index(STUDY_UID)[PE_PRESENT]
        found.append(
            (
                roc_auc_score(present[scores.index], scores),
                roc_auc_score(test[IMAGE_LABEL + TRUE], test[IMAGE_LABEL]),
            )
        )
    of_studies, of_slices = np.mean(found, axis=0)
    print(f"by position alone: studies {of_studies:.3f}, slices {of_slices:.3f}")
    assert of_studies <= 0.60
    assert of_slices <= 0.70
