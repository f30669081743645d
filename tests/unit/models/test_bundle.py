import json
import re
import zipfile

import numpy as np
import pytest

from clotline.data.prepared import bundle_grid
from clotline.errors import ClotlineError
from clotline.feature_sets import feature_sets
from clotline.grid import LUNGS, PUBLISHED, SIZES, Grid
from clotline.models.bundle import (
    CARD,
    MANIFEST,
    PREPROCESSING,
    read_training,
    unpack_bundle,
    write_bundle,
)
from clotline.version import CLOTLINE_VERSION
from clotline.workflow.config import load_config

CONFIG = load_config({})
#: Digests of two studies and of three slices.
SEEN_DIGESTS = np.array([3, 2**64 - 1], np.uint64), np.array([5, 6, 7], np.uint64)


def figures(positive=30):
    auroc = {"value": 0.9, "low": 0.85, "high": 0.95, "n_positive": positive}
    return {"n_studies": 60, "targets": {"pe_present": {"auroc": auroc}}}


@pytest.fixture
def made(tmp_path):
    """A bundle of two CNNs and two LSTMs whose checkpoints are bytes."""
    files = {}
    for stage, ending, names in (
        ("cnn", "pt", ["resnext50", "efficientnet_b0"]),
        ("lstm", "pt", ["combined-image", "combined-study"]),
        ("metrics", "json", ["combined-image", "combined-study"]),
    ):
        files[stage] = [tmp_path / stage / f"{name}.{ending}" for name in names]
        for path in files[stage]:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(np.random.default_rng(len(str(path))).bytes(999))
    for path in files["metrics"]:
        path.write_text(json.dumps(figures()))
    path = tmp_path / "clotline.zip"
    write(path, files)
    return path, files


def write(path, files, config=CONFIG, **options):
    paths = files["cnn"], files["lstm"], files["metrics"]
    write_bundle(path, *paths, feature_sets(config), config, SEEN_DIGESTS, **options)


def unpack(path, tmp_path):
    folder = tmp_path / "unpacked"
    folder.mkdir()
    return unpack_bundle(path, folder)


def rewrite(source, target, change):
    """A copy of a bundle, its members changed by ``change(name, content)``; None drops one."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = change(name, old.read(name))
            if content is not None:
                new.writestr(name, content)
    return target


def changed_manifest(source, target, **keys):
    def change(name, content):
        return json.dumps(json.loads(content) | keys) if name == MANIFEST else content

    return rewrite(source, target, change)


def test_a_bundle_names_the_clotline_that_made_it(made, tmp_path):
    path, _ = made
    bundle = unpack(path, tmp_path)
    assert bundle.manifest["clotline"] == CLOTLINE_VERSION
    with zipfile.ZipFile(path) as archive:
        assert f"Made by Clotline {CLOTLINE_VERSION}." in archive.read("MODEL_CARD.md").decode()


@pytest.mark.parametrize(
    ("maker", "named"), [({"clotline": "7.8.9"}, "Clotline 7.8.9"), ({}, "Clotline before 0.9.0")]
)
@pytest.mark.parametrize("other", [{"version": 99}, {"preprocessing": {"unit": "g/L"}}])
def test_a_bundle_that_cannot_be_used_names_the_version_to_use(made, tmp_path, maker, named, other):
    def change(name, content):
        if name != MANIFEST:
            return content
        manifest = json.loads(content)
        del manifest["clotline"]
        return json.dumps(manifest | maker | other)

    path = rewrite(made[0], tmp_path / "other.zip", change)
    with pytest.raises(ClotlineError) as caught:
        unpack(path, tmp_path)
    assert f"use {named} (this is {CLOTLINE_VERSION}), which made" in str(caught.value)


def test_what_is_packed_is_unpacked(made, tmp_path):
    path, files = made
    bundle = unpack(path, tmp_path)
    assert bundle.backbones == ["resnext50", "efficientnet_b0"]
    assert bundle.lstms == ["combined-image", "combined-study"]
    assert bundle.features("combined-study") == ["efficientnet_b0", "resnext50"]
    assert bundle.metrics("combined-image") == figures()
    for stage in ("cnn", "lstm"):
        for file in files[stage]:
            assert (bundle.folder / stage / file.name).read_bytes() == file.read_bytes()


def test_what_is_not_needed_stays_packed(made, tmp_path):
    bundle = unpack_bundle(made[0], tmp_path / "unpacked", "metrics/")
    assert bundle.metrics("combined-image") == figures()
    assert [path.name for path in bundle.folder.iterdir()] == ["metrics"]


def test_a_bundle_says_what_it_was_trained_on_without_a_uid_or_a_pixel(made, tmp_path):
    bundle = unpack(made[0], tmp_path)
    for found, given in zip(bundle.seen, SEEN_DIGESTS, strict=True):
        np.testing.assert_array_equal(found, given)
        assert found.dtype == np.uint64
    assert bundle.lacking == ""


def test_an_older_bundle_is_read_and_says_what_it_lacks(made, tmp_path):
    def change(name, content):
        if name.startswith("seen/"):
            return None
        if name != MANIFEST:
            return content
        manifest = json.loads(content) | {"version": 1, "clotline": "0.8.0"}
        members = {n: d for n, d in manifest["members"].items() if not n.startswith("seen/")}
        return json.dumps(manifest | {"members": members})

    bundle = unpack(rewrite(made[0], tmp_path / "old.zip", change), tmp_path)
    assert bundle.lstms == ["combined-image", "combined-study"]
    assert bundle.seen is None
    assert bundle.lacking.startswith("the bundle, made by Clotline 0.8.0, has")
    assert "no digests of its training data" in bundle.lacking


def test_the_same_models_give_the_same_bytes(made, tmp_path):
    path, files = made
    write(tmp_path / "again.zip", files)
    assert (tmp_path / "again.zip").read_bytes() == path.read_bytes()


def test_the_preprocessing_is_that_of_the_models_that_there_are():
    """Another one is wrong for all bundles that were made before."""
    assert PREPROCESSING == {
        "unit": "HU",
        "slice": [256, 256],
        "dtype": "int16",
        "resampling": "area average",
        "outside_hu": -1000,
        "orientation": "LP",
        "order": "along the scan axis, from feet to head",
        "mean": 0.449,
        "std": 0.226,
    }


GRIDS = [Grid(size, crop) for size in SIZES for crop in ("none", LUNGS)]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_a_bundle_says_which_slices_its_models_want(made, tmp_path, grid):
    path = tmp_path / "grid.zip"
    write(path, made[1], grid=grid)
    bundle = unpack(path, tmp_path)
    assert bundle.grid == bundle_grid(path) == grid
    said = bundle.manifest["preprocessing"]
    assert said["slice"] == [grid.size, grid.size]
    # Older Clotlines know no crop, and refuse what has one.
    assert ("crop" in said) == (grid.crop == LUNGS)
    with zipfile.ZipFile(path) as archive:
        assert f"slope and intercept, {grid} by area averaging" in archive.read(CARD).decode()
    if grid == PUBLISHED:
        assert path.read_bytes() == made[0].read_bytes()


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"slice": [300, 300]}, "slice is [300, 300], here [256, 256]"),
        ({"slice": [384, 512]}, "slice is [384, 512], here [256, 256]"),
        ({"crop": "heart"}, "crop is heart, here None"),
        ({"crop": "none"}, "crop is none, here None"),
    ],
)
def test_slices_that_cannot_be_stored_here_are_refused(made, tmp_path, keys, said):
    other = changed_manifest(made[0], tmp_path / "o.zip", preprocessing=PREPROCESSING | keys)
    with pytest.raises(ClotlineError, match=re.escape(said)):
        unpack(other, tmp_path)


@pytest.mark.parametrize("content", [b"", b"PK", b"no ZIP file", None])
def test_of_a_bundle_that_cannot_be_read_the_published_grid_is_taken(tmp_path, content):
    """Whoever applies it tells what is wrong with it."""
    path = tmp_path / "bundle.zip"
    if content is not None:
        path.write_bytes(content)
    assert bundle_grid(path) == PUBLISHED


@pytest.mark.parametrize("manifest", ["", "[]", "{}", '{"preprocessing": 7}'])
def test_of_a_manifest_without_a_grid_the_published_one_is_taken(tmp_path, manifest):
    with zipfile.ZipFile(tmp_path / "bundle.zip", "w") as archive:
        archive.writestr(MANIFEST, manifest)
    assert bundle_grid(tmp_path / "bundle.zip") == PUBLISHED


@pytest.mark.parametrize("key", PREPROCESSING)
def test_other_preprocessing_is_refused_with_the_difference(made, tmp_path, key):
    other = PREPROCESSING | {key: "another"}
    path = changed_manifest(made[0], tmp_path / "other.zip", preprocessing=other)
    with pytest.raises(ClotlineError, match=f"prepared in another way: {key} is another, here"):
        unpack(path, tmp_path)


@pytest.mark.parametrize("key", PREPROCESSING)
def test_a_manifest_that_says_nothing_of_a_part_of_the_preprocessing_is_refused(
    made, tmp_path, key
):
    part = {name: value for name, value in PREPROCESSING.items() if name != key}
    path = changed_manifest(made[0], tmp_path / "other.zip", preprocessing=part)
    with pytest.raises(ClotlineError, match=f"prepared in another way: {key} is None, here"):
        unpack(path, tmp_path)


def test_a_manifest_with_a_preprocessing_that_is_not_known_here_is_refused(made, tmp_path):
    more = PREPROCESSING | {"denoising": "median"}
    path = changed_manifest(made[0], tmp_path / "other.zip", preprocessing=more)
    with pytest.raises(ClotlineError, match="denoising is median, here None"):
        unpack(path, tmp_path)


@pytest.mark.parametrize("keys", [{"version": 3}, {"format": "other"}])
def test_another_format_is_refused(made, tmp_path, keys):
    path = changed_manifest(made[0], tmp_path / "other.zip", **keys)
    with pytest.raises(ClotlineError, match="this Clotline takes clotline-bundle version 1 and 2"):
        unpack(path, tmp_path)


@pytest.mark.parametrize("name", ["../evil.pt", "/evil.pt", "cnn/../../evil.pt", "cnn/a.py", ""])
def test_a_member_that_could_leave_the_folder_is_refused(made, tmp_path, name):
    path = changed_manifest(made[0], tmp_path / "other.zip", members={name: "0"})
    with pytest.raises(ClotlineError, match="which no bundle has"):
        unpack(path, tmp_path)
    assert not list(tmp_path.parent.rglob("evil.pt"))


def test_a_changed_member_is_refused(made, tmp_path):
    def change(name, content):
        return content[::-1] if name == "cnn/resnext50.pt" else content

    path = rewrite(made[0], tmp_path / "other.zip", change)
    with pytest.raises(ClotlineError, match=r"cnn/resnext50\.pt in .* is damaged"):
        unpack(path, tmp_path)


def test_a_compressed_member_is_refused(made, tmp_path):
    path = tmp_path / "other.zip"
    with zipfile.ZipFile(made[0]) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            kind = zipfile.ZIP_DEFLATED if name.startswith("cnn") else zipfile.ZIP_STORED
            new.writestr(name, old.read(name), kind)
    with pytest.raises(ClotlineError, match="compressed member"):
        unpack(path, tmp_path)


@pytest.mark.parametrize("missing", [MANIFEST, "lstm/combined-study.pt"])
def test_a_missing_member_is_said(made, tmp_path, missing):
    def change(name, content):
        return None if name == missing else content

    path = rewrite(made[0], tmp_path / "other.zip", change)
    with pytest.raises(ClotlineError, match="cannot be read"):
        unpack(path, tmp_path)


@pytest.mark.parametrize("manifest", [{"members": []}, {"preprocessing": []}, {"members": None}])
def test_a_manifest_of_other_kinds_is_named(made, tmp_path, manifest):
    with zipfile.ZipFile(made[0]) as archive:
        whole = json.loads(archive.read(MANIFEST))
    path = tmp_path / "odd.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(MANIFEST, json.dumps(whole | manifest))
    with pytest.raises(ClotlineError, match=r"odd\.zip cannot be read"):
        unpack_bundle(path, tmp_path)


def test_a_damaged_compressed_bundle_is_named(made, tmp_path):
    path = tmp_path / "odd.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(MANIFEST, "a" * 1000)
    content = bytearray(path.read_bytes())
    content[45:48] = b"\xff" * 3
    path.write_bytes(content)
    with pytest.raises(ClotlineError, match=r"odd\.zip cannot be read"):
        unpack_bundle(path, tmp_path)


def test_a_missing_or_damaged_file_is_named(made, tmp_path):
    with pytest.raises(ClotlineError, match="there is no bundle of models"):
        unpack_bundle(tmp_path / "nowhere.zip", tmp_path)
    (tmp_path / "short.zip").write_bytes(made[0].read_bytes()[:-40])
    with pytest.raises(ClotlineError, match=r"short\.zip cannot be read"):
        unpack_bundle(tmp_path / "short.zip", tmp_path)


def test_the_card_says_what_the_models_are_and_are_not(made, tmp_path):
    with zipfile.ZipFile(made[0]) as archive:
        card = archive.read("MODEL_CARD.md").decode()
    assert "Research use, not for diagnosis" in card
    assert "| combined-study | 0.900 (0.850–0.950) | 60 | 30 studies |" in card
    assert "resnext50_32x4d of torchvision" in card
    assert "phantom" not in card
    write(tmp_path / "p.zip", made[1], load_config({"phantom": {}}))
    with zipfile.ZipFile(tmp_path / "p.zip") as archive:
        assert "no patients" in archive.read("MODEL_CARD.md").decode()


def test_how_the_training_studies_were_made_is_kept_and_older_bundles_do_not_say(made, tmp_path):
    path, files = made
    assert read_training(path) is None
    assert unpack(path, tmp_path).training is None
    training = {"studies": 9, "quantities": {}, "categories": {}}
    lists = files["cnn"], files["lstm"], files["metrics"]
    write_bundle(tmp_path / "new.zip", *lists, feature_sets(CONFIG), CONFIG, SEEN_DIGESTS, training)
    assert read_training(tmp_path / "new.zip") == training
    assert unpack_bundle(tmp_path / "new.zip", tmp_path / "unpacked").training == training
    with pytest.raises(ClotlineError, match="no bundle of models"):
        read_training(tmp_path / "none.zip")
    (tmp_path / "bad.zip").write_bytes(path.read_bytes()[:100])
    with pytest.raises(ClotlineError, match=r"bad\.zip cannot be read"):
        read_training(tmp_path / "bad.zip")


def test_a_joint_network_and_an_ensemble_are_models_of_the_bundle(made, tmp_path):
    _, files = made
    ensembles = {"all-study": ["combined-study", "combined-joint-study"]}
    config = load_config({"lstm": {"combined-joint": {}}, "ensembles": ensembles})
    joint = tmp_path / "lstm/combined-joint.pt"
    joint.write_bytes(b"joint")
    files["lstm"].append(joint)
    for name in ("combined-joint-image", "combined-joint-study"):
        files["metrics"].append(tmp_path / f"metrics/{name}.json")
        files["metrics"][-1].write_text(json.dumps(figures()))
    write(tmp_path / "lacking.zip", files, config)
    with pytest.raises(ClotlineError, match="an ensemble 'all-study' without its metrics"):
        unpack_bundle(tmp_path / "lacking.zip", tmp_path)
    files["metrics"].append(tmp_path / "metrics/all-study.json")
    files["metrics"][-1].write_text(json.dumps(figures()))
    write(tmp_path / "all.zip", files, config)
    bundle = unpack(tmp_path / "all.zip", tmp_path)
    assert bundle.lstms == ["combined-image", "combined-study", "combined-joint"]
    joints = ["combined-joint-image", "combined-joint-study"]
    assert bundle.models == ["combined-image", "combined-study", *joints, "all-study"]
    assert bundle.ensembles == ensembles
    assert all(bundle.metrics(name) == figures() for name in bundle.models)
    assert bundle.features("combined-joint") == ["efficientnet_b0", "resnext50"]
    with zipfile.ZipFile(tmp_path / "all.zip") as archive:
        card = archive.read("MODEL_CARD.md").decode()
    assert "all-study: the mean of the probabilities of combined-study, combined-joint" in card


def test_the_networks_of_folds_are_in_the_bundle_and_give_a_model(made, tmp_path):
    _, files = made
    folds = []
    for fold in range(3):
        for name in ("cnn/resnext50", "lstm/combined-study"):
            folds.append(tmp_path / f"results/folds/{fold}/{name}.pt")
            folds[-1].parent.mkdir(parents=True, exist_ok=True)
            folds[-1].write_bytes(f"{fold} {name}".encode())
    write(tmp_path / "folds.zip", files, folds=folds)
    bundle = unpack(tmp_path / "folds.zip", tmp_path)
    assert bundle.models == ["combined-image", "combined-study", "combined-folds-study"]
    assert bundle.backbones == ["resnext50", "efficientnet_b0"]
    assert len(bundle.folds) == 3
    for number, fold in enumerate(bundle.folds):
        assert (fold.backbones, fold.lstms) == (["resnext50"], ["combined-study"])
        content = fold.checkpoint("lstm", "combined-study").read_text()
        assert content == f"{number} lstm/combined-study"
    with zipfile.ZipFile(tmp_path / "folds.zip") as archive:
        card = archive.read("MODEL_CARD.md").decode()
    assert "- combined-folds-study: combined-study trained in 3 folds; the mean of" in card
    path = bundle.checkpoint("cnn", "resnext50")
    assert path == bundle.folder / "cnn/resnext50.pt"
    assert path.read_bytes() == files["cnn"][0].read_bytes()


def test_finetuned_networks_are_in_the_bundle_and_are_models(made, tmp_path):
    _, files = made
    finetuned = []
    for name in ("resnext50-finetuned-joint", "resnext50-finetuned-study"):
        for stage in ("cnn", "lstm"):
            finetuned.append(tmp_path / f"results/finetuned/{name}/{stage}.pt")
            finetuned[-1].parent.mkdir(parents=True, exist_ok=True)
            finetuned[-1].write_bytes(f"{stage} of {name}".encode())
    models = [
        "resnext50-finetuned-joint-image",
        "resnext50-finetuned-joint-study",
        "resnext50-finetuned-study",
    ]
    for name in models:
        files["metrics"].append(tmp_path / f"metrics/{name}.json")
        files["metrics"][-1].write_text(json.dumps(figures()))
    write(tmp_path / "finetuned.zip", files, finetuned=finetuned)
    bundle = unpack(tmp_path / "finetuned.zip", tmp_path)
    assert bundle.models == ["combined-image", "combined-study", *models]
    assert bundle.finetuned == ["resnext50-finetuned-joint", "resnext50-finetuned-study"]
    assert bundle.lstms == ["combined-image", "combined-study"]
    for name in bundle.finetuned:
        assert bundle.features(name) == ["resnext50"]
        for stage in ("cnn", "lstm"):
            content = bundle.finetuned_checkpoint(name, stage).read_text()
            assert content == f"{stage} of {name}"
    with zipfile.ZipFile(tmp_path / "finetuned.zip") as archive:
        card = archive.read("MODEL_CARD.md").decode()
    assert "- resnext50-finetuned-joint: resnext50-joint and its CNN, trained on together" in card
