"""A joint network, folds and an ensemble beside the published networks, and in `predict`."""

import json
import zipfile

import highdicom
import numpy as np
import pandas as pd
import pytest
import yaml
from workflow_run import ON_TWO_CORES, PROJECT, Run, link_folder, write_config

from clotline.data import phantom
from clotline.labels import IMAGE_LABEL, STUDY_LABELS, STUDY_UID, UIDS
from clotline.workflow.config import load_config

JOINT = {"epochs": 2, "hidden_size": 8, "cell": "gru", "pooling": ["max", "attention"]}
JOINT |= {"loss": "competition", "calibrate_odds": True}
FOLDS = 3
LEVELS = ("image", "study")
MODELS = [
    f"{name}-{level}"
    for name in ("resnext50-joint", "resnext50-joint-folds", "every")
    for level in LEVELS
]
MEMBERS = ["combined", "resnext50-joint-folds"]
#: So few slices as `predict` takes of a study.
NEW = {"studies": 2, "seed": 99, "slices_min": 16, "slices_max": 16}


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory) -> Run:
    """The tiny run with all three, applied to new studies, and to the same with labels."""
    folder = tmp_path_factory.mktemp("folds")
    run = Run(PROJECT, link_folder(tiny.folder, folder / "work"))
    config = yaml.safe_load((tiny.folder / "config/config.yaml").read_text())
    config["lstm"]["resnext50-joint"] = JOINT
    config["data"]["split"] |= {"folds": FOLDS, "folds_of": ["resnext50-joint"]}
    config["ensembles"] = {
        f"every-{level}": [f"{member}-{level}" for member in MEMBERS] for level in LEVELS
    }
    config["evaluation"]["submission"] = "every"
    # Replaced, not written into: it is shared.
    (run.folder / "config/config.yaml").unlink()
    write_config(run, yaml.safe_dump(config))
    run.build(*ON_TWO_CORES, "all")
    settings = load_config({"phantom": NEW})["phantom"]
    phantom.write_cohort(settings, folder / "new", folder / "new.csv", workers=1)
    run.build("predict", "--config", f"predict={folder / 'new'}", "predict_dicom=True")
    labels = pd.read_csv(folder / "new.csv").drop_duplicates(STUDY_UID)
    labels = labels.assign(PE=1 - labels["negative_exam_for_pe"])
    labels[[STUDY_UID, "PE"]].to_csv(folder / "new/labels.csv", index=False)
    run.build("validate", "--config", f"validate={folder / 'new'}")
    return run


def predictions(run, model):
    return pd.read_parquet(run.folder / f"results/predictions/{model}.parquet")


def test_what_is_published_stays_as_it_is(run, tiny):
    kept = [
        path
        for name in ("data", "cnn", "features", "lstm", "predictions", "metrics", "roc")
        for path in (tiny.folder / "results" / name).rglob("*.*")
        if path.is_file() and path.stem != "all"
    ]
    assert len(kept) > 50
    # The two folders share their files: one that is made anew is another.
    remade = [
        path for path in kept if not path.samefile(run.folder / path.relative_to(tiny.folder))
    ]
    assert remade == []


@pytest.mark.parametrize("level", LEVELS)
def test_each_study_is_predicted_once_by_networks_that_never_saw_it(run, level):
    plan = pd.read_parquet(run.folder / "results/data/plan.parquet").set_index(STUDY_UID)
    folds = [f"results/folds/{fold}" for fold in range(FOLDS)]
    own = [
        pd.read_parquet(run.folder / fold / "data/plan.parquet").set_index(STUDY_UID)["split"]
        for fold in folds
    ]
    said = [
        pd.read_parquet(run.folder / fold / f"predictions/resnext50-joint-{level}.parquet")
        for fold in folds
    ]
    table = predictions(run, f"resnext50-joint-folds-{level}")
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
def test_an_ensemble_is_the_mean_of_its_members(run, level):
    ensemble = predictions(run, f"every-{level}")
    keys = list(UIDS) if level == "image" else [STUDY_UID]
    name = IMAGE_LABEL if level == "image" else "central_pe"
    members = [predictions(run, f"{member}-{level}").set_index(keys)[name] for member in MEMBERS]
    mean = sum(member.loc[ensemble.set_index(keys).index] for member in members) / len(members)
    assert np.allclose(ensemble[name], mean, atol=1e-12)
    assert set(ensemble["split"]) == {"valid", "test"}


def test_all_of_them_are_in_every_table_and_page(run):
    results = run.folder / "results"
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
    table = predictions(run, "every-image")
    table = table[table["split"] == "test"]
    assert (
        submitted.loc[table["SOPInstanceUID"]] - table[IMAGE_LABEL].to_numpy()
    ).abs().max() < 0.51


def test_the_bundle_predicts_with_the_whole_ensemble(run):
    with zipfile.ZipFile(run.folder / "results/models/clotline.zip") as bundle:
        names = bundle.namelist()
        training = json.loads(bundle.read("manifest.json"))["training"]
    # The networks of folds were trained on the valid split, too.
    facts = pd.read_parquet(run.folder / "results/data/study_facts.parquet")
    splits = pd.read_parquet(run.folder / "results/data/plan.parquet").set_index(STUDY_UID)["split"]
    assert training["studies"] == (facts[STUDY_UID].map(splits) != "test").sum()
    for fold in range(FOLDS):
        assert {f"folds/{fold}/cnn/resnext50.pt", f"folds/{fold}/lstm/resnext50-joint.pt"} < {
            *names
        }
    found = pd.read_csv(run.folder / "results/predict/predictions.csv")
    assert found[STUDY_UID].nunique() == NEW["studies"]
    assert {model for model in MODELS if model.endswith("study")} < set(found["model"])
    by_model = {model: rows.set_index(STUDY_UID) for model, rows in found.groupby("model")}
    parts = [by_model[f"{member}-study"]["central_pe"] for member in MEMBERS]
    every = by_model["every-study"]["central_pe"]
    assert np.allclose(every, (parts[0] + parts[1]) / 2, atol=1e-9)
    slices = pd.read_csv(run.folder / "results/predict/slices.csv")
    means = slices[[f"{member}-image" for member in MEMBERS]].mean(axis=1)
    assert np.allclose(slices["every-image"], means, atol=1e-9)
    # The folds' networks are others than the one that was trained on train.
    alone, folded = (by_model[f"resnext50-joint{end}-study"] for end in ("", "-folds"))
    assert (alone["central_pe"] - folded["central_pe"]).abs().min() > 1e-6


def test_the_dicom_results_are_of_the_model_that_the_viewer_shows(run):
    results = run.folder / "results/predict"
    shown = json.loads((results / "viewer/selection.json").read_text())["model"]
    found = pd.read_csv(results / "predictions.csv")
    found = found[found["model"] == shown].set_index(STUDY_UID)["central_pe"]
    for uid, probability in found.items():
        report = highdicom.sr.srread(results / f"dicom/{uid}/report.dcm")
        assert report.ManufacturerModelName == shown
        (group,) = report.content.get_image_measurement_groups()
        told = {m.name.value: float(m.value) for m in group.get_measurements()}
        assert told["central_pe"] == pytest.approx(probability, abs=1e-6)


def test_each_of_them_is_validated_beside_its_internal_test(run):
    content = json.loads((run.folder / "results/validate/metrics.json").read_text())
    assert set(MODELS) < set(content["models"])
    for model in MODELS:
        target = "pe_present" if model.endswith("-study") else "pe_present_by_max"
        internal = json.loads((run.folder / f"results/metrics/{model}.json").read_text())
        there = internal["targets"][target]["operating_points"]
        here = content["models"][model]["targets"][target]
        assert [p["threshold"] for p in here["operating_points"]] == [p["threshold"] for p in there]
        assert here["internal"]["auroc"]["internal"] == internal["targets"][target]["auroc"]
    page = (run.folder / "results/validate/report.html").read_text()
    assert all(model in page for model in MODELS)
