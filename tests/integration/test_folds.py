"""A joint network, folds and an ensemble beside the published networks, and in `predict`."""

import json
import zipfile

import highdicom
import numpy as np
import pandas as pd
import pytest
from further_models import EVERY, FOLDS, LEVELS, NEW

from clotline.labels import IMAGE_LABEL, STUDY_LABELS, STUDY_UID, UIDS

MODELS = [
    f"{name}-{level}"
    for name in ("resnext50-joint", "resnext50-joint-folds", "every")
    for level in LEVELS
]


def predictions(further, model):
    return pd.read_parquet(further.folder / f"results/predictions/{model}.parquet")


def test_what_is_published_stays_as_it_is(further, tiny):
    kept = [
        path
        for name in ("data", "cnn", "features", "lstm", "predictions", "metrics", "roc")
        for path in (tiny.folder / "results" / name).rglob("*.*")
        if path.is_file() and path.stem != "all"
    ]
    assert len(kept) > 50
    # The two folders share their files: one that is made anew is another.
    remade = [
        path for path in kept if not path.samefile(further.folder / path.relative_to(tiny.folder))
    ]
    assert remade == []


@pytest.mark.parametrize("level", LEVELS)
def test_each_study_is_predicted_once_by_networks_that_never_saw_it(further, level):
    plan = pd.read_parquet(further.folder / "results/data/plan.parquet").set_index(STUDY_UID)
    folds = [f"results/folds/{fold}" for fold in range(FOLDS)]
    own = [
        pd.read_parquet(further.folder / fold / "data/plan.parquet").set_index(STUDY_UID)["split"]
        for fold in folds
    ]
    said = [
        pd.read_parquet(further.folder / fold / f"predictions/resnext50-joint-{level}.parquet")
        for fold in folds
    ]
    table = predictions(further, f"resnext50-joint-folds-{level}")
    assert set(table[STUDY_UID]) == set(plan.index)
    assert not table.duplicated(list(UIDS) if level == "image" else STUDY_UID).any()
    outputs = [IMAGE_LABEL] if level == "image" else list(STUDY_LABELS)
    for uid, rows in table.groupby(STUDY_UID):
        held_out = [fold for fold in range(FOLDS) if own[fold][uid] == "test"]
        parts = [said[fold].loc[said[fold][STUDY_UID] == uid, outputs] for fold in held_out]
        assert np.allclose(rows[outputs], np.mean(parts, axis=0), atol=1e-12)
        tested = plan["split"][uid] == "test"
        assert len(held_out) == (FOLDS if tested else 1)
        assert (rows["split"] == ("test" if tested else "valid")).all()


@pytest.mark.parametrize("level", LEVELS)
def test_an_ensemble_is_the_mean_of_its_members(further, level):
    ensemble = predictions(further, f"every-{level}")
    keys = list(UIDS) if level == "image" else [STUDY_UID]
    name = IMAGE_LABEL if level == "image" else "central_pe"
    members = [predictions(further, f"{member}-{level}").set_index(keys)[name] for member in EVERY]
    mean = sum(member.loc[ensemble.set_index(keys).index] for member in members) / len(members)
    assert np.allclose(ensemble[name], mean, atol=1e-12)
    assert set(ensemble["split"]) == {"valid", "test"}


def test_all_of_them_are_in_every_table_and_page(further):
    results = further.folder / "results"
    assert set(MODELS) < set(pd.read_csv(results / "metrics.csv")["model"])
    assert set(MODELS) < set(pd.read_csv(results / "comparisons.csv")["model"])
    report = (results / "report.html").read_text()
    for model in MODELS:
        assert f'id="model-{model}"' in report
        for plot in ("roc", "precision_recall", "calibration", "confusion", "decision"):
            assert (results / plot / f"{model}.svg").stat().st_size > 1000
    for table in ("decision_curves", "predictive_values", "sample_size"):
        assert set(MODELS) <= set(pd.read_csv(results / f"{table}.csv")["model"])
    for pair in ("resnext50-joint", "resnext50-joint-folds", "every"):
        score = json.loads((results / f"competition/{pair}.json").read_text())
        assert score["after"]["log_loss"]["value"] > 0
    trained = set(pd.read_csv(results / "warnings.csv")["model"])
    assert "resnext50-joint, fold 2" in trained
    submitted = pd.read_csv(results / "submission.csv").set_index("id")["label"]
    table = predictions(further, "every-image")
    table = table[table["split"] == "test"]
    assert (
        submitted.loc[table["SOPInstanceUID"]] - table[IMAGE_LABEL].to_numpy()
    ).abs().max() < 0.51


def test_the_bundle_predicts_with_the_whole_ensemble(further):
    with zipfile.ZipFile(further.folder / "results/models/clotline.zip") as bundle:
        names = bundle.namelist()
        training = json.loads(bundle.read("manifest.json"))["training"]
    # The networks of folds were trained on the valid split, too.
    facts = pd.read_parquet(further.folder / "results/data/study_facts.parquet")
    splits = pd.read_parquet(further.folder / "results/data/plan.parquet").set_index(STUDY_UID)[
        "split"
    ]
    assert training["studies"] == (facts[STUDY_UID].map(splits) != "test").sum()
    for fold in range(FOLDS):
        assert {f"folds/{fold}/cnn/resnext50.pt", f"folds/{fold}/lstm/resnext50-joint.pt"} < {
            *names
        }
    found = pd.read_csv(further.folder / "results/predict/predictions.csv")
    assert found[STUDY_UID].nunique() == NEW["studies"]
    assert {model for model in MODELS if model.endswith("study")} < set(found["model"])
    by_model = {model: rows.set_index(STUDY_UID) for model, rows in found.groupby("model")}
    parts = [by_model[f"{member}-study"]["central_pe"] for member in EVERY]
    every = by_model["every-study"]["central_pe"]
    assert np.allclose(every, (parts[0] + parts[1]) / 2, atol=1e-9)
    slices = pd.read_csv(further.folder / "results/predict/slices.csv")
    means = slices[[f"{member}-image" for member in EVERY]].mean(axis=1)
    assert np.allclose(slices["every-image"], means, atol=1e-9)
    # The folds' networks are others than the one that was trained on train.
    alone, folded = (by_model[f"resnext50-joint{end}-study"] for end in ("", "-folds"))
    assert (alone["central_pe"] - folded["central_pe"]).abs().min() > 1e-6


def test_the_dicom_results_are_of_the_model_that_the_viewer_shows(further):
    results = further.folder / "results/predict"
    shown = json.loads((results / "viewer/selection.json").read_text())["model"]
    found = pd.read_csv(results / "predictions.csv")
    found = found[found["model"] == shown].set_index(STUDY_UID)["central_pe"]
    for uid, probability in found.items():
        report = highdicom.sr.srread(results / f"dicom/{uid}/report.dcm")
        assert report.ManufacturerModelName == shown
        (group,) = report.content.get_image_measurement_groups()
        told = {m.name.value: float(m.value) for m in group.get_measurements()}
        assert told["central_pe"] == pytest.approx(probability, abs=1e-6)


def test_each_of_them_is_validated_beside_its_internal_test(further):
    content = json.loads((further.folder / "results/validate/metrics.json").read_text())
    assert set(MODELS) < set(content["models"])
    for model in MODELS:
        target = "pe_present" if model.endswith("-study") else "pe_present_by_max"
        internal = json.loads((further.folder / f"results/metrics/{model}.json").read_text())
        there = internal["targets"][target]["operating_points"]
        here = content["models"][model]["targets"][target]
        assert [p["threshold"] for p in here["operating_points"]] == [p["threshold"] for p in there]
        assert here["internal"]["auroc"]["internal"] == internal["targets"][target]["auroc"]
    page = (further.folder / "results/validate/report.html").read_text()
    assert all(model in page for model in MODELS)
