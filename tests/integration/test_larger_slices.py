"""A run on 384 pixels of the lungs alone: trained, bundled, and applied by someone else."""

import json
import shutil
import zipfile

import numpy as np
import pandas as pd
import pytest
import yaml
from test_artifacts import features_of_one_slice
from workflow_run import ON_TWO_CORES, PROJECT, Run, write_config

from clotline.data.features_file import open_features
from clotline.data.shards import CHECKSUM, StoredPixels, boxes_of, read_rows, shard_grid
from clotline.grid import LUNGS, PUBLISHED, Grid
from clotline.labels import STUDY_UID
from clotline.models.bundle import MANIFEST

GRID = Grid(384, LUNGS)
BACKBONE = {
    "architecture": "shufflenet_v2_x0_5",
    "init": "random",
    "crop": 384,
    "input_size": 96,
    "epochs": 1,
    "lr": 0.01,
    "schedule": "one_cycle",
    "precision": "32-true",
}
LSTMS = {
    f"{features}-{level}": {"epochs": 1} if features == "combined" else None
    for features in ("resnext50", "efficientnet_b0", "combined")
    for level in ("image", "study")
}
CONFIG = {
    # As few slices as predict takes.
    "phantom": {"studies": 14, "seed": 1, "slices_min": 16, "slices_max": 17},
    "data": {
        "size": GRID.size,
        "crop": GRID.crop,
        "slices_per_shard": 150,
        "split": {"train": 0.5, "valid": 0.25, "test": 0.25},
    },
    "cnn": {"resnext50": BACKBONE, "efficientnet_b0": None},
    "features": {"combined": ["resnext50"]},
    "lstm": LSTMS,
    "evaluation": {"bootstraps": 100},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = Run(PROJECT, tmp_path_factory.mktemp("larger"))
    write_config(run, yaml.safe_dump(CONFIG))
    run.build(*ON_TWO_CORES, "results/models/clotline.zip")
    return run


@pytest.fixture(scope="module")
def slices(run):
    return pd.read_parquet(run.folder / "results/data/slices.parquet")


@pytest.fixture(scope="module")
def applied(run, slices, tmp_path_factory):
    """The bundle applied to two of the studies, by someone whose configuration is empty."""
    there = Run(PROJECT, tmp_path_factory.mktemp("elsewhere"))
    write_config(there, "{}")
    shutil.copy(run.folder / "results/models/clotline.zip", there.folder / "models.zip")
    for uid in slices[STUDY_UID].unique()[:2]:
        source = run.folder / "data/phantom/train" / uid
        shutil.copytree(source, there.folder / "new" / uid)
    there.build("predict", "--config", "predict=new", "models=models.zip")
    return there


def shard_of(run, name):
    return run.folder / f"results/data/shards/shard-{name}.h5"


def test_all_slices_show_the_lungs_in_384_pixels(run, slices):
    for name, rows in slices.groupby("shard"):
        assert shard_grid(shard_of(run, name)) == GRID
        boxes = pd.Series(boxes_of(rows), rows.index)
        assert all(0.4 < box.side < 0.95 for box in boxes)
        assert (boxes.groupby(rows[STUDY_UID]).nunique() == 1).all()
    assert shard_grid(run.folder / "results/data/positives.h5") == GRID
    assert "box_side" in slices


def test_features_are_those_of_the_larger_slices(run, slices):
    with open_features(run.folder / "results/features/resnext50.h5") as file:
        features = file["features"][:].astype(np.float32)
    for row in np.linspace(0, len(slices) - 1, 5).astype(int):
        again = features_of_one_slice(run.folder / "results", slices.iloc[row], "resnext50")
        norms = np.linalg.norm(features[row]) * np.linalg.norm(again)
        assert features[row] @ again / norms > 0.99


def test_predict_stores_slices_as_the_training_did(slices, applied):
    path = applied.folder / "results/predict/shard-new.h5"
    assert shard_grid(path) == GRID
    new = read_rows(path)
    assert new[STUDY_UID].nunique() == 2
    # The UIDs in the files are others than those of the labels file; the pixels are the same.
    trained = slices.set_index(CHECKSUM).loc[new[CHECKSUM]]
    assert trained[STUDY_UID].nunique() == 2
    assert boxes_of(new) == boxes_of(trained)
    assert new["position_mm"].tolist() == trained["position_mm"].tolist()
    pixels = StoredPixels(path).read(3, new[CHECKSUM][3])
    assert pixels.shape == (384, 384)
    predictions = pd.read_csv(applied.folder / "results/predict/predictions.csv")
    assert predictions["pe_present"].between(0, 1).all()


def test_the_viewer_says_how_large_its_slices_are(applied):
    text = (applied.folder / "results/predict/viewer/studies/0.js").read_text()
    assert '"size":384' in text


def test_a_bundle_of_another_grid_stores_the_slices_anew(applied):
    path = applied.folder / "models.zip"
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(members[MANIFEST])
    assert manifest["preprocessing"]["crop"] == "lungs"
    del manifest["preprocessing"]["crop"]
    manifest["preprocessing"]["slice"] = [*PUBLISHED.shape]
    with zipfile.ZipFile(applied.folder / "other.zip", "w") as archive:
        for name, content in (members | {MANIFEST: json.dumps(manifest)}).items():
            archive.writestr(name, content)
    config = ("--config", "predict=new", "models={}")
    stored = "results/predict/shard-new.h5"
    for name, anew in (("models.zip", False), ("other.zip", True)):
        named = [part.format(name) for part in config]
        assert (stored in applied.to_be_made(*named, target="predict")) == anew
