"""The demo's artifacts: they exist, have the stated shapes, fit each other, and have learned."""

import html
import json
import os
import re
import subprocess
import sys

import h5py
import hdf5plugin  # noqa: F401
import numpy as np
import pandas as pd
import pytest
import torch
from histogram_baseline import histogram_baseline_auroc
from workflow_run import PROJECT

from bench import AVX2
from clotline.data.activation_file import read_activation
from clotline.data.hdf5 import read_attributes
from clotline.data.tables import uid_triples
from clotline.evaluation.intervals import describe_estimate
from clotline.evaluation.predictions import pe_present
from clotline.job.files import sha256
from clotline.labels import IMAGE_LABEL, STUDY_LABELS, STUDY_UID
from clotline.models.checkpoint import Checkpoint, load_checkpoint
from tools.show_results import results_text

WIDTHS = {"efficientnet_b0": 1280, "resnext50": 2048}
LSTM_WIDTHS = WIDTHS | {"combined": 3328}
LSTMS = [f"{name}-{level}" for name in LSTM_WIDTHS for level in ("image", "study")]


@pytest.fixture(scope="module")
def results(demo):
    return demo.folder / "results"


@pytest.fixture(scope="module")
def slices(results):
    return pd.read_parquet(results / "data/slices.parquet")


@pytest.fixture(scope="module")
def plan(results):
    return pd.read_parquet(results / "data/plan.parquet")


def shards(results):
    return sorted((results / "data/shards").glob("shard-*.h5"))


def test_every_row_of_the_labels_file_is_stored_or_rejected(demo, results, slices):
    rows = len(pd.read_csv(demo.folder / "data/phantom/train.csv"))
    rejected = sum(len(pd.read_csv(p)) for p in (results / "data/shards").glob("*.rejects.csv"))
    assert len(slices) + rejected == rows
    assert (
        f"{len(slices):,} stored + {rejected:,} rejected = {rows:,} rows"
        in (demo.folder / "logs/slices.log").read_text()
    )


def test_shards_hold_whole_studies_of_hounsfield_units_in_scan_order(results, slices):
    assert len(shards(results)) == 4
    for path in shards(results):
        part = slices[slices["shard"] == path.stem.removeprefix("shard-")]
        with h5py.File(path) as file:
            pixels = file["pixels"]
            assert pixels.shape == (len(part), 256, 256)
            assert pixels.dtype == np.int16
            assert pixels.chunks == (1, 256, 256)
            assert len(part) <= 2000
            assert file["studies/count"][:].sum() == len(part)
            assert pixels[:50].min() >= -1100
            assert 150 < pixels[:200].max() < 3000
        ascending = part.groupby(STUDY_UID)["position_mm"].is_monotonic_increasing
        assert ascending.all()
    assert slices.groupby(STUDY_UID)["shard"].nunique().max() == 1


def test_no_study_is_in_two_splits(slices, plan):
    assert slices.groupby(STUDY_UID)["split"].nunique().max() == 1
    assert set(plan["split"]) == {"train", "valid", "test"}


def test_positives_hold_the_same_bytes_as_the_shards(results, slices):
    wanted = slices[(slices[IMAGE_LABEL] == 1) & (slices["split"] != "test")]
    with h5py.File(results / "data/positives.h5") as file:
        assert len(file["pixels"]) == len(wanted)
        assert (file[IMAGE_LABEL][:] == 1).all()
        for place in (0, len(wanted) // 2, len(wanted) - 1):
            row = wanted.iloc[place]
            with h5py.File(results / f"data/shards/shard-{row['shard']}.h5") as shard:
                expected = shard["pixels"].id.read_direct_chunk((row["row"], 0, 0))
            assert file["pixels"].id.read_direct_chunk((place, 0, 0)) == expected


@pytest.mark.parametrize("name", WIDTHS)
def test_cnn_checkpoints_load_without_running_code(results, name):
    for path in (f"cnn/{name}.pt", f"cnn/{name}.last.pt"):
        checkpoint = load_checkpoint(results / path)
        assert checkpoint["width"] == WIDTHS[name]
        assert checkpoint["weights"]["head.weight"].shape == (1, WIDTHS[name])
    history = pd.read_csv(results / f"cnn/{name}.csv")
    assert len(history) == load_checkpoint(results / f"cnn/{name}.last.pt")["epoch"]
    (kept,) = history["epoch"][history["kept"] == 1]
    assert kept == load_checkpoint(results / f"cnn/{name}.pt")["epoch"]


@pytest.mark.parametrize("name", WIDTHS)
def test_features_are_aligned_with_the_slices(results, slices, name):
    with h5py.File(results / f"features/{name}.h5") as file:
        assert file["features"].shape == (len(slices), WIDTHS[name])
        assert read_attributes(file)["checkpoint"] == sha256(results / f"cnn/{name}.pt")
        rows = np.linspace(0, len(slices) - 1, 12).astype(int)
        stored = file["features"][rows].astype(np.float64)
    assert np.isfinite(stored).all()
    for row, features in zip(rows, stored, strict=True):
        again = features_of_one_slice(results, slices.iloc[row], name)
        cosine = features @ again / np.linalg.norm(features) / np.linalg.norm(again)
        assert cosine > 0.999


def features_of_one_slice(results, row, name):
    from clotline.loading.preprocessing import View
    from clotline.models.backbones import load_classifier
    from clotline.sections.cnn import CNNSection

    path = results / f"cnn/{name}.pt"
    checkpoint = Checkpoint.load(path)
    model = load_classifier(checkpoint, path).eval()
    with h5py.File(results / f"data/shards/shard-{row['shard']}.h5") as file:
        pixels = file["pixels"][row["row"]]
    view = View.of(CNNSection.of_checkpoint(checkpoint.config, path))
    part = view.cut(pixels, view.cuts(1, None, len(pixels))[0])
    with torch.inference_mode():
        return model.features(view.inputs(torch.from_numpy(part)[None, None]))[0].double().numpy()


@pytest.mark.parametrize("name", LSTMS)
def test_lstm_checkpoints_have_the_published_names_and_shapes(results, name):
    features, level = name.split("-")
    weights = load_checkpoint(results / f"lstm/{name}.pt")["weights"]
    assert {k: tuple(v.shape) for k, v in weights.items()} == {
        "lstm.weight_ih_l0": (256, LSTM_WIDTHS[features]),
        "lstm.weight_hh_l0": (256, 64),
        "lstm.bias_ih_l0": (256,),
        "lstm.bias_hh_l0": (256,),
        "linear.weight": (1 if level == "image" else 9, 64),
        "linear.bias": (1 if level == "image" else 9,),
    }


@pytest.mark.parametrize("name", LSTMS)
def test_predictions_cover_valid_and_test_once(results, slices, plan, name):
    table = pd.read_parquet(results / f"predictions/{name}.parquet")
    if name.endswith("image"):
        assert len(table) == (slices["split"] != "train").sum()
        assert not table.duplicated("SOPInstanceUID").any()
        columns = [IMAGE_LABEL]
    else:
        assert len(table) == (plan["split"] != "train").sum()
        columns = list(STUDY_LABELS)
    assert set(table["split"]) == {"valid", "test"}
    for column in columns:
        assert table[column].between(0, 1).all()
        assert set(table[f"{column}_true"]) <= {0, 1}


@pytest.mark.parametrize("name", LSTMS)
def test_every_figure_has_its_interval_or_a_reason(results, name):
    metrics = json.loads((results / f"metrics/{name}.json").read_text())
    assert metrics["n_studies"] >= 60
    for target, figures in metrics["targets"].items():
        for figure in ("auroc", "average_precision", "brier", "log_loss"):
            found = figures[figure]
            if found["value"] is None:
                assert found["reason"], (target, figure)
            else:
                assert found["low"] <= found["value"] <= found["high"], (target, figure)
    name_of_baseline = "position only" if name.endswith("-image") else f"counts of {name}"
    (main, *_) = metrics["targets"].values()
    assert main["baseline"]["name"] == name_of_baseline.replace("-study", "-image")
    assert 0.5 < main["baseline"]["auroc"]["value"] < 1


@pytest.mark.parametrize("name", [*LSTMS, "all"])
def test_roc_plots_say_their_auroc(results, name):
    svg = (results / f"roc/{name}.svg").read_text()
    for model in LSTMS if name == "all" else [name]:
        figures = json.loads((results / f"metrics/{model}.json").read_text())["targets"]
        auroc = next(iter(figures.values()))["auroc"]
        assert f"AUROC {describe_estimate(auroc)}, {auroc['n_positive']} positive" in svg
    assert (results / f"roc/{name}.png").read_bytes().startswith(b"\x89PNG")


def test_the_report_stands_alone(results):
    page = (results / "report.html").read_text()
    # But for the link to the viewer beside it.
    assert page.count('href="viewer/index.html"') == 1
    alone = page.replace('href="viewer/index.html"', "")
    assert not re.search(r"""(?:src|href)=["'](?!data:|\#)""", alone)
    assert "The best study-level model is" in page
    assert "Studies in more than one split: 0" in page


def test_the_viewer_shows_test_studies_with_maps_of_all_their_slices(results, slices):
    chosen = json.loads((results / "viewer/selection.json").read_text())["studies"]
    assert len(chosen) == 20
    probabilities = [study["targets"]["pe_present"]["probability"] for study in chosen]
    assert probabilities == sorted(probabilities, reverse=True)
    rows = slices[slices[STUDY_UID].isin([study["uid"] for study in chosen])]
    assert set(rows["split"]) == {"test"}
    test = slices[slices["split"] == "test"]
    for name in WIDTHS:
        activation = read_activation(results / f"activation/{name}.h5")
        assert activation.uids == uid_triples(test)
        assert (activation.maps >= 0).all()
        assert activation.maps.shape == (len(test), 2, 2)
    scripts = {path.name for path in (results / "viewer/studies").glob("*.js")}
    assert scripts == {f"{number}.js" for number in range(20)}


def first_auroc(results, name):
    metrics = json.loads((results / f"metrics/{name}.json").read_text())
    return next(iter(metrics["targets"].values()))["auroc"]


@pytest.mark.parametrize("name", LSTMS)
def test_every_model_finds_embolism(results, name):
    """What every run of `make bench-learning` reaches, over seeds and arithmetics."""
    auroc = first_auroc(results, name)
    assert auroc["n_studies"] >= 60
    assert auroc["value"] >= (0.85 if auroc["n_slices"] else 0.70)
    assert name != "combined-study" or auroc["value"] >= 0.80


def test_what_speaks_against_the_networks_is_told_wherever_a_user_looks(demo, results):
    warnings = pd.read_csv(results / "warnings.csv")
    table = pd.read_csv(results / "metrics.csv", keep_default_na=False)
    page, screen = (results / "report.html").read_text(), results_text(demo.folder)
    for row in warnings.itertuples():
        assert f"warning: {row.model}: {row.warning}" in screen
        assert html.escape(row.warning, quote=False) in page
        of_model = table[table["model"] == row.model]
        assert row.model in WIDTHS or row.warning in of_model["warnings"].iloc[0]
    assert screen.count("warning: ") == len(warnings)


def test_the_recipe_learns_in_the_arithmetic_of_older_processors(demo, tmp_path):
    """Which on such a processor is that of the demo itself."""
    if torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2"):
        auroc = {name: first_auroc(demo.folder / "results", name)["value"] for name in LSTMS}
    else:
        run = ["--run", "32-true AVX2", "1", "--folder", str(tmp_path)]
        command = [sys.executable, "-m", "bench.learning", *run]
        subprocess.run(command, cwd=PROJECT, env=os.environ | AVX2, check=True)
        (result,) = tmp_path.glob("*/result.json")
        auroc = json.loads(result.read_text())["auroc"]
    assert set(auroc) == set(LSTMS)
    assert all(value >= (0.85 if "image" in name else 0.70) for name, value in auroc.items())
    assert auroc["combined-study"] >= 0.80


def test_the_cohort_cannot_be_read_from_histograms(results, plan):
    """The networks must look: how much of which attenuation there is does not give it away."""
    pixels = {}
    for path in shards(results):
        with h5py.File(path) as file:
            uids = file["studies/StudyInstanceUID"].asstr()[:]
            spans = zip(file["studies/first_row"][:], file["studies/count"][:], strict=True)
            for uid, (first, count) in zip(uids, spans, strict=True):
                pixels[uid] = file["pixels"][first : first + count]
    train, test = (plan[plan["split"].isin(s)] for s in (("train", "valid"), ("test",)))
    baseline = histogram_baseline_auroc(
        *([pixels[uid] for uid in train[STUDY_UID]], pe_present(train)),
        *([pixels[uid] for uid in test[STUDY_UID]], pe_present(test)),
    )
    metrics = json.loads((results / "metrics/combined-study.json").read_text())
    combined = metrics["targets"]["pe_present"]["auroc"]["value"]
    assert baseline <= 0.70
    assert baseline <= combined - 0.10
