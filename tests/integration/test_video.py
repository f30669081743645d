"""A video network is a backbone like others, from its training to new studies."""

import re

import h5py
import numpy as np
import pandas as pd
from further_models import NEW, VIDEO

from clotline.data.activation_file import read_activations
from clotline.labels import STUDY_LABELS, STUDY_UID
from clotline.models.checkpoint import Checkpoint


def test_it_is_trained_on_some_slices_of_each_study_and_gives_features(further):
    checkpoint = Checkpoint.load(further.folder / "results/cnn/video.pt")
    assert {key: checkpoint.config[key] for key in VIDEO} == VIDEO
    slices = pd.read_parquet(further.folder / "results/data/slices.parquet")
    of_studies = slices[slices["split"] == "train"].groupby(STUDY_UID).size()
    trained = of_studies.clip(upper=VIDEO["study_slices"]).sum()
    log = (further.folder / "logs/train_cnn/video.log").read_text(encoding="utf-8")
    counts = re.search(r"(\d+) of \d+ positive slices and (\d+) of \d+ negative ones an epoch", log)
    assert sum(map(int, counts.groups())) == trained
    with h5py.File(further.folder / "results/features/video.h5") as file:
        features = file["features"][:].astype(np.float32)
    assert features.shape == (len(slices), 512)
    assert np.isfinite(features).all()
    assert features.std() > 0


def test_its_maps_are_made_and_its_model_is_applied_to_new_studies(further):
    maps = read_activations(sorted((further.folder / "results").rglob("activation/video*.h5")))
    assert all(found.maps.ndim == 3 and np.isfinite(found.maps).all() for found in maps.values())
    assert maps
    found = pd.read_csv(further.folder / "results/predict/predictions.csv")
    own = found[found["model"] == "video-study"]
    assert own[STUDY_UID].nunique() == NEW["studies"]
    assert own[list(STUDY_LABELS)].notna().all(axis=None)
