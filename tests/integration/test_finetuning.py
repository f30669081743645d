"""Networks trained on with their backbone, beside the published ones and in `predict`."""

import json
import zipfile

import numpy as np
import pandas as pd
import pytest
import torch
from further_models import FINETUNE, TUNED

from clotline.data.features_file import StoredFeatures, open_features
from clotline.data.hdf5 import read_attributes
from clotline.job.files import sha256
from clotline.labels import STUDY_LABELS, STUDY_UID

#: Finetuned network to the one that it was, its backbone, and its models.
NETWORKS = {
    "resnext50-finetuned-joint": (
        "resnext50-joint",
        "resnext50",
        ["resnext50-finetuned-joint-image", "resnext50-finetuned-joint-study"],
    ),
    "efficientnet_b0-finetuned-study": (
        "efficientnet_b0-study",
        "efficientnet_b0",
        ["efficientnet_b0-finetuned-study"],
    ),
}
MODELS = [model for _, _, models in NETWORKS.values() for model in models]


@pytest.mark.parametrize("network", NETWORKS)
def test_both_parts_were_trained_on(further, network):
    origin, backbone, _ = NETWORKS[network]
    results = further.folder / "results"
    for part, before in (("cnn", f"cnn/{backbone}.pt"), ("lstm", f"lstm/{origin}.pt")):
        trained = torch.load(results / before, weights_only=True)
        found = torch.load(results / f"finetuned/{network}/{part}.pt", weights_only=True)
        assert found["config"]["finetune"]["slices"] == FINETUNE["slices"]
        before, after = trained["weights"], found["weights"]
        assert before.keys() == after.keys()
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        assert changed
        assert not [name for name in changed if "running" in name or name.startswith("head")]
    history = pd.read_csv(results / f"finetuned/{network}.csv")
    assert list(history["epoch"]) == [1, 2]
    assert np.isfinite(history[["train_loss", "valid_loss"]]).all(axis=None)
    assert (results / f"finetuned/{network}.svg").stat().st_size > 1000


@pytest.mark.parametrize("network", NETWORKS)
def test_all_features_are_those_of_the_finetuned_backbone(further, network):
    backbone = NETWORKS[network][1]
    folder = further.folder / "results"
    before, after = (
        StoredFeatures(folder / of / f"features/{backbone}.h5")
        for of in ("", f"finetuned/{network}")
    )
    rows = slice(0, len(pd.read_parquet(folder / "data/slices.parquet")))
    stored, anew = before.read(rows), after.read(rows)
    assert stored.shape == anew.shape
    assert (stored != anew).any(axis=1).all()
    path = folder / f"finetuned/{network}/features/{backbone}.h5"
    with open_features(path) as file:
        about = read_attributes(file)
    checkpoint = sha256(folder / f"finetuned/{network}/cnn.pt")
    assert (about["backbone"], about["checkpoint"]) == (backbone, checkpoint)


def test_all_of_them_are_in_every_table_and_page(further):
    results = further.folder / "results"
    for table in ("metrics", "comparisons", "decision_curves"):
        there = set(pd.read_csv(results / f"{table}.csv")["model"])
        expected = {m for m in MODELS if table != "decision_curves" or m.endswith("study")}
        assert expected <= there
    report = (results / "report.html").read_text()
    for model in MODELS:
        assert f'id="model-{model}"' in report
        table = pd.read_parquet(results / f"predictions/{model}.parquet")
        assert set(table["split"]) == {"valid", "test"}
        for plot in ("roc", "precision_recall", "calibration", "confusion", "decision"):
            assert (results / plot / f"{model}.svg").stat().st_size > 1000
    assert "the trained resnext50-joint and its CNN" in report
    score = json.loads((results / "competition/resnext50-finetuned-joint.json").read_text())
    assert score["after"]["log_loss"]["value"] > 0
    # What is said of a training stands beside its models.
    warnings = pd.read_csv(results / "warnings.csv")
    of_training = warnings[warnings["from"] == "training"].groupby("model")["warning"].first()
    said = pd.read_csv(results / "metrics.csv").set_index("model")["warnings"]
    for network, (_, _, models) in NETWORKS.items():
        for model in models if network in of_training else []:
            assert said[[model]].str.contains(of_training[network], regex=False).all()


def test_the_bundle_predicts_with_them(further):
    with zipfile.ZipFile(further.folder / "results/models/clotline.zip") as bundle:
        names, card = set(bundle.namelist()), bundle.read("MODEL_CARD.md").decode()
        config = json.loads(bundle.read("manifest.json"))["config"]
    for network, (origin, _, _) in NETWORKS.items():
        assert {f"finetuned/{network}/{part}.pt" for part in ("cnn", "lstm")} < names
        assert f"- {network}: {origin} and its CNN" in card
        assert config["finetune"][origin]["slices"] == FINETUNE["slices"]
    found = pd.read_csv(further.folder / "results/predict/predictions.csv")
    by_model = {model: rows.set_index(STUDY_UID) for model, rows in found.groupby("model")}
    assert {model for model in MODELS if model.endswith("study")} < set(by_model)
    slices = pd.read_csv(further.folder / "results/predict/slices.csv")
    assert slices["resnext50-finetuned-joint-image"].between(0, 1).all()
    # Others than the networks that they were.
    for finetuned, origin in (
        ("resnext50-finetuned-joint-study", "resnext50-joint-study"),
        ("efficientnet_b0-finetuned-study", "efficientnet_b0-study"),
    ):
        labels = list(STUDY_LABELS)
        differences = (by_model[finetuned][labels] - by_model[origin][labels]).abs()
        assert differences.max(axis=None) > 1e-6
    mean = sum(by_model[member]["central_pe"] for member in TUNED) / len(TUNED)
    assert np.allclose(by_model["tuned-study"]["central_pe"], mean, atol=1e-9)
