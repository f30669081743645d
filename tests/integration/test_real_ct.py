"""The whole pipeline on real chest CT, where CLOTLINE_REALCT names a folder with such data.

The folder holds data in the competition's layout, its labels file with a further column ``split``.
"""

import json
import os
import re
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401
import numpy as np
import pandas as pd
import pydicom
import pytest
import yaml
from test_artifacts import features_of_one_slice
from workflow_run import ON_TWO_CORES, PROJECT, Run

from clotline.labels import SERIES_UID, SOP_UID, STUDY_UID

FOLDER = os.environ.get("CLOTLINE_REALCT")

pytestmark = pytest.mark.skipif(
    not FOLDER,
    reason="CLOTLINE_REALCT is not set to a folder with data in the competition's layout",
)

BACKBONE = {
    "init": "random",
    "input_size": 64,
    "epochs": 1,
    "lr": 0.01,
    "schedule": "one_cycle",
    "batch_size": 8,
}
LSTMS = [f"{f}-{level}" for f in ("resnext50", "efficientnet_b0", "combined")
         for level in ("image", "study")]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("realct")
    config = {
        "data": {
            "labels": f"{FOLDER}/train.csv",
            "dicom": f"{FOLDER}/train",
            "slices_per_shard": 300,
            "split": {"column": "split"},
        },
        "cnn": {"resnext50": BACKBONE, "efficientnet_b0": BACKBONE},
        "lstm": {name: {"epochs": 2} for name in LSTMS},
        "evaluation": {"bootstraps": 200},
    }
    (folder / "config").mkdir()
    (folder / "config/config.yaml").write_text(yaml.safe_dump(config))
    run = Run(PROJECT, folder)
    run.build(*ON_TWO_CORES, "all")
    return run


@pytest.fixture(scope="module")
def slices(run):
    return pd.read_parquet(run.folder / "results/data/slices.parquet")


def test_every_artifact_exists(run):
    results = run.folder / "results"
    expected = ["data/plan.parquet", "data/positives.h5", "metrics.csv", "report.html"]
    expected += [
        f"data/shards/shard-{s:03}.{e}"
        for s in range(3)
        for e in ("h5", "rejects.csv", "notes.csv")
    ]
    for cnn in ("resnext50", "efficientnet_b0"):
        expected += [f"cnn/{cnn}.{end}" for end in ("pt", "last.pt", "csv", "svg")]
        expected.append(f"features/{cnn}.h5")
    for lstm in LSTMS:
        expected += [f"lstm/{lstm}.{end}" for end in ("pt", "csv", "svg")]
        expected += [f"predictions/{lstm}.parquet", f"metrics/{lstm}.json"]
    expected += [f"roc/{name}.{end}" for name in [*LSTMS, "all"] for end in ("svg", "png")]
    assert [path for path in expected if not (results / path).is_file()] == []


def test_the_split_column_decides(slices):
    labels = pd.read_csv(f"{FOLDER}/train.csv", dtype=str).drop_duplicates(STUDY_UID)
    expected = labels.set_index(STUDY_UID)["split"]
    found = slices.drop_duplicates(STUDY_UID).set_index(STUDY_UID)["split"]
    assert found.to_dict() == expected.to_dict()


def test_hounsfield_units_of_air_lung_and_bone(run, slices):
    """Each study holds air near -1000, lung between -950 and -600, and bone above 300 HU."""
    for _, study in slices.groupby(STUDY_UID):
        middle = study.iloc[len(study) // 2]
        with h5py.File(run.folder / f"results/data/shards/shard-{middle['shard']}.h5") as file:
            pixels = file["pixels"][middle["row"]]
        counts, edges = np.histogram(pixels, bins=np.arange(-1100, 1500, 25))
        corner = np.median(pixels[:10, :10])
        assert -1100 < corner < -900
        lung = counts[(edges[:-1] >= -950) & (edges[:-1] < -600)].sum()
        assert lung / pixels.size > 0.05
        assert (pixels > 300).sum() > 100
        assert pixels.max() < 4000


def test_slices_are_in_the_order_of_slice_location(slices):
    """SliceLocation rises or falls along the whole of each study, though file order does not."""
    for _, study in slices.groupby(STUDY_UID):
        locations = []
        for row in study.itertuples():
            path = Path(
                FOLDER, "train", *(getattr(row, n) for n in (STUDY_UID, SERIES_UID)),
                f"{getattr(row, SOP_UID)}.dcm",
            )  # fmt: skip
            header = pydicom.dcmread(path, stop_before_pixels=True)
            locations.append(float(header.SliceLocation))
        steps = np.diff(locations)
        assert (steps > 0).all() or (steps < 0).all()
        by_name = np.array(locations)[np.argsort(study[SOP_UID].to_numpy())]
        assert len(set(np.sign(np.diff(by_name)))) == 2


def test_features_are_aligned_with_slices(run, slices):
    for cnn, width in (("resnext50", 2048), ("efficientnet_b0", 1280)):
        with h5py.File(run.folder / f"results/features/{cnn}.h5") as file:
            features = file["features"][:].astype(np.float32)
        assert features.shape == (len(slices), width)
        for row in np.linspace(0, len(slices) - 1, 9).astype(int):
            again = features_of_one_slice(run.folder / "results", slices.iloc[row], cnn)
            norms = np.linalg.norm(features[row]) * np.linalg.norm(again)
            assert features[row] @ again / norms > 0.99


def test_figures_of_a_single_study_say_why_they_are_missing(run):
    metrics = json.loads((run.folder / "results/metrics/combined-study.json").read_text())
    auroc = metrics["targets"]["pe_present"]["auroc"]
    assert auroc["value"] is None
    assert "one class only" in auroc["reason"]
    image = json.loads((run.folder / "results/metrics/combined-image.json").read_text())
    auroc = image["targets"]["pe_present_on_image"]["auroc"]
    assert 0 <= auroc["value"] <= 1
    assert auroc["low"] is None
    assert "one study only" in auroc["reason"]


def test_no_identity_from_the_headers_is_in_any_log(run):
    headers = [pydicom.dcmread(p, stop_before_pixels=True) for p in
               list(Path(FOLDER, "train").rglob("*.dcm"))[:3]]  # fmt: skip
    secrets = {str(h.get(k)) for h in headers for k in ("PatientID", "PatientName") if h.get(k)}
    secrets = {s for s in secrets if len(s) > 3}
    texts = [p.read_text() for p in run.folder.rglob("logs/**/*.log")]
    texts.append((run.folder / "results/report.html").read_text())
    assert texts
    assert not [s for s in secrets for text in texts if re.search(re.escape(s), text)]
