"""Semi-synthetic studies: pairs that differ in the emboli alone, and labels that the masks say."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from scipy import ndimage
from tree_masks import tree_masks, write_cases, write_masks

from bench import accuracy
from bench.semisynthetic import TINY, WHOLE, SemiSynthetic, coverage, draw_pair, render
from bench.trees import LEAST_MM2, find_trees, read_tree, split_trees
from clotline.data.consistency import inconsistent_studies
from clotline.data.labels_file import read_labels
from clotline.errors import ClotlineError
from clotline.labels import IMAGE_LABEL, STUDY_UID

REAL = os.environ.get("CLOTLINE_REAL")

SETTINGS = TINY | {"size": 128}

#: Pixels that the blur of a slice, and the edges that it sharpens, reach.
REACH = 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("masks")
    write_cases(path)
    return path


@pytest.fixture(scope="module")
def tree(folder):
    return read_tree(folder, "002")


def test_a_pair_differs_in_the_emboli_alone(tree):
    for pair in range(3):
        positive, negative = draw_pair(tree, SETTINGS, pair)
        assert not negative.shown.any() and negative.uid != positive.uid
        same = replace(positive, visible=negative.visible, labels=negative.labels)
        assert all(getattr(same, k) is v for k, v in vars(negative).items() if k in vars(same))
        with_emboli, without = render(tree, positive), render(tree, negative)
        emboli = coverage(tree, positive)[3]
        for k, shown in enumerate(positive.shown):
            near = ndimage.binary_dilation(emboli[k] > 0, iterations=REACH)
            differs = with_emboli[k] != without[k]
            assert differs.any() == shown
            assert not differs[~near].any()
        inside = emboli > 0.95
        assert with_emboli[inside].mean() < without[inside].mean() - 60


def test_slices_are_positive_where_they_show_enough_of_an_embolus(tree):
    for pair in range(4):
        positive, _ = draw_pair(tree, SETTINGS, pair)
        drawn = coverage(tree, positive)[3].sum((1, 2)) * positive.grid.pixel**2
        assert (drawn[~positive.shown] == 0).all()
        # Up to what the grid of pixels makes of an area.
        assert (drawn[positive.shown] > 0.9 * LEAST_MM2).all()
        everything = replace(positive, visible=np.ones_like(positive.visible))
        all_emboli = coverage(tree, everything)[3].sum((1, 2)) * positive.grid.pixel**2
        assert drawn.sum() <= all_emboli.sum() * 1.001


def test_labels_say_where_the_emboli_that_are_drawn_lie(tree):
    # As `tree_masks.EMBOLI`; found in the order of their lowest slices.
    assert list(zip(tree.left, tree.right, tree.central, strict=True)) == [
        (False, True, False),
        (False, True, True),
        (True, False, False),
    ]
    sides = set()
    for pair in range(24):
        positive, negative = draw_pair(tree, SETTINGS, pair)
        drawn = positive.visible.any(axis=1)
        labels = positive.labels
        assert labels["leftsided_pe"] == drawn[2]
        assert labels["rightsided_pe"] == drawn[:2].any()
        assert labels["central_pe"] == drawn[1]
        assert (labels["negative_exam_for_pe"], labels["rv_lv_ratio_lt_1"]) == (0, 1)
        # Of the negative one nothing is said but how it was scanned.
        said = {name for name, value in negative.labels.items() if value}
        assert said - {"flow_artifact"} == {"negative_exam_for_pe"}
        assert labels["flow_artifact"] == negative.labels["flow_artifact"]
        sides.add((labels["leftsided_pe"], labels["rightsided_pe"]))
    assert sides == {(0, 1), (1, 0), (1, 1)}


def test_the_bands_of_positive_slices_are_filled(tree):
    settings = SETTINGS | {"slices_min": 60, "slices_max": 64}
    counts = [draw_pair(tree, settings, pair)[0].shown.sum() for pair in range(16)]
    bands = np.searchsorted((5, 20, 50), counts)
    # All emboli together take less than half of the scan.
    assert (np.bincount(bands, minlength=4)[:3] >= 4).all()


def test_the_same_seed_gives_the_same_bits(folder, tree):
    again = read_tree(folder, "002")
    studies = [draw_pair(t, SETTINGS | {"seed": s}, 1)[0] for t, s in ((tree, 1), (again, 1))]
    assert studies[0].uid == studies[1].uid
    assert np.array_equal(render(tree, studies[0]), render(again, studies[1]))
    other = draw_pair(tree, SETTINGS | {"seed": 2}, 1)[0]
    assert other.uid != studies[0].uid and other.hu != studies[0].hu


def test_the_files_hold_each_tree_in_one_split(folder, tmp_path):
    splits = split_trees(folder)
    assert sorted(splits.values()) == ["test", "train", "valid"]
    cohort = SemiSynthetic.of(folder, SETTINGS | {"pairs": 1, "size": 32})
    assert cohort.with_studies(13).settings["pairs"] == 2
    cohort.write(tmp_path)
    config = cohort.config()["data"]
    labels = read_labels(tmp_path / config["labels"], config["split"]["column"])
    assert inconsistent_studies(labels) == []
    assert len(list((tmp_path / config["dicom"]).rglob("*.dcm"))) == len(labels) == 3 * 2 * 24
    expected = {}
    for name, split in splits.items():
        for study in draw_pair(read_tree(folder, name), cohort.settings, 0):
            expected[study.uid] = (split, int(study.shown.sum()))
    found = labels.groupby(STUDY_UID, observed=True)
    assert found["split"].nunique().eq(1).all()
    found = pd.DataFrame({"split": found["split"].first(), "shown": found[IMAGE_LABEL].sum()})
    assert {uid: (row["split"], row["shown"]) for uid, row in found.iterrows()} == expected


def test_masks_that_are_stored_the_other_way_round_are_the_same_tree(tree, tmp_path):
    masks = {file: mask[::-1, :, ::-1] for file, mask in tree_masks(1.5).items()}
    write_masks(tmp_path, "002", masks)
    for path in tmp_path.iterdir():
        image = nibabel.load(path)
        affine = image.affine @ np.diag([-1, 1, -1, 1])
        nibabel.save(nibabel.Nifti1Image(np.asanyarray(image.dataobj), affine), path)
    turned = read_tree(tmp_path, "002")
    assert np.array_equal(turned.labels, tree.labels)
    assert np.array_equal(turned.left, tree.left)


def test_masks_that_cannot_be_used_are_named(folder, tmp_path):
    with pytest.raises(ClotlineError, match="has the masks of 0 cases"):
        find_trees(tmp_path)
    with pytest.raises(ClotlineError, match=r"000_lungmask\.nii\.gz cannot be read"):
        read_tree(tmp_path, "000")
    masks = tree_masks()
    write_masks(tmp_path, "000", masks | {"aanet_pe": masks["aanet_pe"][:, :, :-1]})
    with pytest.raises(ClotlineError, match=r"000: the masks in .* lie on different grids"):
        read_tree(tmp_path, "000")
    write_masks(tmp_path, "001", masks | {"aanet_pe": 0 * masks["aanet_pe"]})
    with pytest.raises(ClotlineError, match=r"001: the masks in .* have no emboli"):
        read_tree(tmp_path, "001")
    path = tmp_path / "000_vessel.nii.gz"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ClotlineError, match=r"000_vessel\.nii\.gz cannot be read"):
        read_tree(tmp_path, "000")
    write_cases(tmp_path)
    (tmp_path / "001_lungmask.nii.gz").unlink()
    with pytest.raises(ClotlineError, match=r"lacks 001_lungmask\.nii\.gz"):
        SemiSynthetic.of(tmp_path, SETTINGS)


def test_without_the_real_masks_it_says_what_is_needed(monkeypatch):
    monkeypatch.delenv("CLOTLINE_REAL", raising=False)
    monkeypatch.setattr(sys, "argv", ["accuracy", "semisynthetic"])
    with pytest.raises(SystemExit, match="set CLOTLINE_REAL to a folder with cadpe_masks"):
        accuracy.main()


@pytest.mark.skipif(not REAL, reason="CLOTLINE_REAL is not set to a folder with real masks")
def test_emboli_of_a_real_tree_are_darker_than_the_artery_about_them():
    tree = read_tree(Path(REAL) / "cadpe_masks", "035")
    assert tree.left.any() and tree.right.any()
    positive, negative = draw_pair(tree, WHOLE, 2)  # of 21 to 50 positive slices
    _, arteries, _, emboli = coverage(tree, positive)
    assert (emboli <= arteries + 1e-5).all()
    inside = emboli > 0.95
    around = ndimage.binary_dilation(inside, iterations=6) & (arteries > 0.95) & (emboli < 0.05)
    hu, twin = render(tree, positive), render(tree, negative)
    assert inside.sum() > 50 and around.sum() > 50
    assert hu[inside].mean() < hu[around].mean() - 60
    assert hu[inside].mean() == pytest.approx(positive.hu["embolus"], abs=40)
    assert (twin - hu)[inside].mean() > 60
