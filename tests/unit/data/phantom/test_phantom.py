import hashlib
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from clotline.data.dicom.ct_slice import read_slice
from clotline.data.phantom import (
    artery_mask,
    clot_mask,
    draw_cohort,
    labels_table,
    render,
    write_cohort,
    write_study,
)
from clotline.data.phantom.cohort import ENCODINGS
from clotline.data.phantom.emboli import VISIBLE_MM2
from clotline.labels import COLUMNS, IMAGE_LABEL, SOP_UID, STUDY_UID

sys.path.insert(0, str(Path(__file__).parents[3]))
from histogram_baseline import histogram_features

SETTINGS = {"studies": 300, "seed": 5, "slices_min": 20, "slices_max": 40}


@pytest.fixture(scope="module")
def cohort():
    return draw_cohort(SETTINGS)


@pytest.fixture(scope="module")
def table(cohort):
    return labels_table(cohort)


def small(studies=3, seed=5):
    """Few slices: quick to render."""
    return {"studies": studies, "seed": seed, "slices_min": 20, "slices_max": 22}


def digests(folder):
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_same_bytes_twice_and_with_any_number_of_workers(tmp_path):
    seen = []
    write_cohort(small(), tmp_path / "a" / "train", tmp_path / "a" / "train.csv", 1, None)
    write_cohort(
        small(),
        tmp_path / "b" / "train",
        tmp_path / "b" / "train.csv",
        2,
        lambda done, total: seen.append((done, total)),
    )
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_written_files_are_the_rows_of_the_labels_file(tmp_path):
    write_cohort(small(2), tmp_path / "train", tmp_path / "train.csv", 1, None)
    rows = labels_table(draw_cohort(small(2)))
    expected = {
        f"{r.StudyInstanceUID}/{r.SeriesInstanceUID}/{r.SOPInstanceUID}.dcm"
        for r in rows.itertuples()
    }
    assert set(digests(tmp_path / "train")) == expected
    assert (tmp_path / "train.csv").read_text().splitlines()[0] == ",".join(COLUMNS)


def test_longer_cohort_begins_with_the_shorter_one(table):
    shorter = labels_table(draw_cohort({**SETTINGS, "studies": 299}))
    longer = table[table[STUDY_UID].isin(shorter[STUDY_UID])].reset_index(drop=True)
    assert longer.equals(shorter)
    assert table[STUDY_UID].nunique() == 300


def test_seed_changes_the_cohort():
    assert draw_cohort(small(1, 5))[0].uid != draw_cohort(small(1, 6))[0].uid


def test_columns_uids_and_order(cohort, table):
    assert tuple(table.columns) == COLUMNS
    assert table[SOP_UID].is_unique
    assert table[list(COLUMNS[:3])].stack().str.fullmatch("[0-9a-f]{12}").all()
    assert table.groupby(STUDY_UID).size().between(20, 40).all()
    appearance = list(table[STUDY_UID].unique())
    assert appearance != [study.uid for study in cohort]


def test_labels_are_consistent(table):
    label = IMAGE_LABEL
    studies = (
        table.drop(columns=[SOP_UID])
        .groupby(STUDY_UID)
        .agg({c: ["min", "max"] for c in COLUMNS[3:]})
    )
    for column in COLUMNS[4:]:
        assert (studies[column]["min"] == studies[column]["max"]).all(), column
    exam = studies.xs("max", axis=1, level=1)
    assert set(np.unique(exam)) == {0, 1}
    assert (exam.max() == 1).all(), "a label that never occurs"
    positive = (exam.negative_exam_for_pe == 0) & (exam.indeterminate == 0)
    assert 0.38 <= positive.mean() <= 0.48
    assert (exam[label] == positive).all()
    shown = table.groupby(STUDY_UID)[label].sum()
    assert (shown[positive] >= 2).all()
    assert 0.2 <= table[table[STUDY_UID].isin(exam.index[positive])][label].mean() <= 0.6
    assert (exam.rv_lv_ratio_gte_1 + exam.rv_lv_ratio_lt_1 == positive).all()
    about_clots = ["leftsided_pe", "rightsided_pe", "central_pe", "chronic_pe"]
    about_clots.append("acute_and_chronic_pe")
    assert (exam.loc[~positive, about_clots] == 0).all(axis=None)
    assert (exam.loc[positive, about_clots[:3]].sum(axis=1) >= 1).all()
    assert (exam.chronic_pe + exam.acute_and_chronic_pe <= 1).all()
    assert (exam.negative_exam_for_pe + exam.indeterminate <= 1).all()
    blamed = exam.loc[exam.indeterminate == 1, ["qa_motion", "qa_contrast"]]
    assert (blamed.sum(axis=1) >= 1).all()


def test_labels_follow_the_drawing(cohort):
    for study in cohort:
        sorts = {clot.chronic for clot in study.clots}
        assert study.labels["chronic_pe"] == (sorts == {True})
        assert study.labels["acute_and_chronic_pe"] == (sorts == {True, False})
        if study.clots:
            strained = study.chest.ventricle_ratio >= 1
            assert study.labels["rv_lv_ratio_gte_1"] == strained
        assert study.labels["flow_artifact"] == (study.acquisition.mixing > 0)
        assert study.labels["qa_motion"] == (study.acquisition.motion > 0)
        assert study.labels["true_filling_defect_not_pe"] == bool(study.defect)


def test_look_alikes_are_as_common_without_an_embolism(cohort):
    positive = np.array([study.positive for study in cohort])
    for measure in (
        lambda study: len(study.chest.nodes),
        lambda study: study.acquisition.mixing > 0,
        lambda study: study.chest.ventricle_ratio >= 1,
        lambda study: study.chest.hu["aorta"] > 250,
    ):
        values = np.array([float(measure(study)) for study in cohort])
        with_, without = values[positive], values[~positive]
        error = np.sqrt(with_.var() / len(with_) + without.var() / len(without))
        assert abs(with_.mean() - without.mean()) < 3.5 * error


def test_image_labels_agree_with_the_pixels(cohort):
    chosen = {}
    for study in cohort:  # one of each kind; still, so that motion does not blend pixels
        if study.grid.size == 256 and study.acquisition.motion == 0 and study.grid.slices < 30:
            chosen.setdefault(study.pe_type, study)
    assert set(chosen) == {"acute", "chronic", "both", "negative", "indeterminate"}
    for study in chosen.values():
        quiet = replace(study, acquisition=replace(study.acquisition, noise=0, mixing=0, blur=0.2))
        pixels, vessel, clot = render(quiet), artery_mask(study), clot_mask(study)
        inside = vessel & (pixels >= 20) & (pixels <= 85)
        if study.labels["indeterminate"] or study.labels["qa_contrast"]:
            inside &= clot  # weak contrast itself may be as dark as a clot
        # Edges that blend into fat or air are few; a clot is an area.
        area = inside.sum(axis=(1, 2)) * study.grid.pixel**2
        assert (area[study.shown] >= 0.4 * VISIBLE_MM2).all()
        assert (clot.any(axis=(1, 2)) == study.shown).all()
        assert not clot[~vessel].any()
        # Without a clot no dark voxel lies where an artery fills the voxel.
        deep = artery_mask(study, 0.99) & (pixels < 0.5 * study.chest.hu["pulmonary"])
        assert not deep[~study.shown].any()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_files_decode_to_the_rendered_values(tmp_path, cohort, encoding):
    rescales = [(1, -1024, False), (1, -1000, False), (1, 0, True), (2, -1024, False)]
    study = next(s for s in cohort if s.grid.size == 256)
    study = replace(study, grid=replace(study.grid, slices=2), shown=study.shown[:2])
    for slope, intercept, signed in rescales:
        scan = replace(
            study.acquisition,
            encoding=encoding,
            slope=slope,
            intercept=intercept,
            signed=signed,
            round_field=signed,
        )
        own = replace(study, acquisition=scan)
        write_study(own, tmp_path)
        for uid, expected in zip(own.sop_uids, render(own), strict=True):
            found = read_slice(tmp_path / own.uid / own.series_uid / f"{uid}.dcm")
            np.testing.assert_array_equal(found.pixels, expected)


def test_every_encoding_size_and_direction_occurs(cohort):
    assert {s.acquisition.encoding for s in cohort} == set(ENCODINGS)
    assert {s.grid.size for s in cohort} == {256, 512}
    scans = [s.acquisition for s in cohort]
    assert {s.downwards for s in scans} == {s.feet_first for s in scans} == {True, False}
    assert {s.upside_down for s in scans} == {True, False}
    assert {s.round_field for s in scans} == {s.signed for s in scans} == {True, False}
    assert {(s.slope, s.intercept) for s in scans} == {(1, -1024), (1, -1000), (1, 0), (2, -1024)}


def test_header_is_a_ct_image(tmp_path, cohort):
    study = next(s for s in cohort if s.grid.size == 256 and s.acquisition.downwards)
    study = replace(study, grid=replace(study.grid, slices=3), shown=study.shown[:3])
    write_study(study, tmp_path)
    folder = tmp_path / study.uid / study.series_uid
    headers = [dcmread(folder / f"{uid}.dcm") for uid in study.sop_uids]
    positions = [float(h.ImagePositionPatient[2]) for h in headers]
    assert np.allclose(np.diff(positions), study.grid.spacing, atol=0.002)
    assert [h.InstanceNumber for h in headers] == [3, 2, 1]
    assert all(h.SOPInstanceUID.is_valid and h.StudyInstanceUID.is_valid for h in headers)
    assert len({h.SOPInstanceUID for h in headers}) == 3
    assert all(h.file_meta.MediaStorageSOPInstanceUID == h.SOPInstanceUID for h in headers)


@pytest.mark.parametrize("size", [256, 512])
def test_a_scan_upside_down_shows_the_same_patient(tmp_path, cohort, size):
    study = next(s for s in cohort if s.grid.size == size and s.acquisition.round_field)
    study = replace(study, grid=replace(study.grid, slices=2), shown=study.shown[:2])
    found, headers = [], []
    for upside_down in (False, True):
        scan = replace(study.acquisition, upside_down=upside_down)
        folder = tmp_path / str(upside_down)
        write_study(replace(study, acquisition=scan), folder)
        path = folder / study.uid / study.series_uid / f"{study.sop_uids[1]}.dcm"
        found.append(read_slice(path))
        headers.append(dcmread(path))
    assert [s.orientation for s in found] == ["LP", "RA"]
    assert (headers[0].pixel_array == headers[1].pixel_array[::-1, ::-1]).all()
    assert (found[0].pixels == found[1].pixels).all()
    # The first pixel is the other's last one.
    x, y, z = headers[0].ImagePositionPatient
    far = (size - 1) * study.grid.pixel
    assert np.allclose(headers[1].ImagePositionPatient, (x + far, y + far, z), atol=0.01)


def test_picture_has_the_range_of_a_chest(cohort):
    study = next(s for s in cohort if s.pe_type == "negative" and s.grid.size == 256)
    pixels = render(study)
    assert pixels.dtype == np.int16
    assert pixels.shape == (study.grid.slices, 256, 256)
    assert np.percentile(pixels, 5) < -950  # air
    assert pixels.max() > 350  # bone and contrast
    lumen = pixels[artery_mask(study)]
    assert abs(np.median(lumen) - study.chest.hu["pulmonary"]) < 60
    assert histogram_features(pixels).shape == (192,)
