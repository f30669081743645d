"""New studies: their series found, the demo's models applied, on this machine and on another."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
import yaml
from builders import write_dicom
from pydicom.encaps import encapsulate
from pydicom.uid import MPEG2MPML
from workflow_run import PROJECT, Run

from clotline.data import phantom
from clotline.data.labels_file import read_labels
from clotline.data.rejects import read_lists
from clotline.labels import SERIES_UID, SOP_UID, STUDY_LABELS, STUDY_UID
from clotline.workflow.config import load_config

STUDY_MODELS = ["resnext50-study", "efficientnet_b0-study", "combined-study"]


def predict(run, folder, *config, target="predict"):
    return run.snakemake(
        *("--profile", str(run.project / "profiles/local"), target),
        *("--config", f"predict={folder}", *config),
        check=False,
    )


def elsewhere(folder, **config):
    """A working directory on a machine that never trained anything."""
    (folder / "config").mkdir(parents=True)
    (folder / "config/config.yaml").write_text(yaml.safe_dump(config))
    return Run(PROJECT, folder)


@pytest.fixture(scope="module")
def studies():
    """Studies that the demo has never seen."""
    return phantom.draw_cohort(load_config({"phantom": {"studies": 3, "seed": 99}})["phantom"])


@pytest.fixture(scope="module")
def folder(studies, tmp_path_factory):
    """They lie in nested folders under names of no system, among other things."""
    folder = tmp_path_factory.mktemp("new studies")
    tidy = tmp_path_factory.mktemp("tidy")
    for number, study in enumerate(studies):
        phantom.write_study(study, tidy)
        target = folder / f"export {number}" / "DICOM"
        target.mkdir(parents=True)
        for place, path in enumerate(sorted(tidy.rglob(f"{study.series_uid}/*.dcm"))):
            shutil.move(path, target / f"IM{place:04}")
    (folder / "README.txt").write_text("from the archive\n")
    scout = pydicom.dcmread(folder / "export 0/DICOM/IM0000")
    scout.SeriesInstanceUID = "1.2.3"
    scout.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    scout.save_as(folder / "export 0/scout")
    return folder


@pytest.fixture(scope="module")
def made(demo, folder, tmp_path_factory):
    """The demo's bundle applied in a folder where there are no labels to train on."""
    run = elsewhere(tmp_path_factory.mktemp("elsewhere") / "work")
    shutil.copy(demo.folder / "results/models/clotline.zip", run.folder / "models.zip")
    done = predict(run, folder, "models=models.zip")
    assert done.returncode == 0, done.stderr
    return run


def test_the_series_are_found_and_the_rest_is_listed(made, studies):
    series = pd.read_csv(made.folder / "results/predict/series.csv", dtype={SERIES_UID: str})
    assert len(series) == 4
    assert series.groupby(STUDY_UID)["chosen"].sum().tolist() == [1, 1, 1]
    scout = series.set_index(SERIES_UID).loc["1.2.3"]
    assert not scout["chosen"]
    assert scout["reason"] == "a localizer, not a slice"
    left_out = pd.read_csv(made.folder / "results/predict/left_out.csv").set_index("path")["reason"]
    assert left_out.to_dict() == {
        "README.txt": "not a DICOM file",
        "export 0/scout": "a localizer, not a slice",
    }
    slices = pd.read_csv(made.folder / "results/predict/slices.csv")
    assert len(slices) == sum(study.grid.slices for study in studies)
    for _, rows in slices.groupby(STUDY_UID):
        assert rows["position_mm"].is_monotonic_increasing


def write_bad_study(folder, uid, count, **tags):
    """A study of ``count`` small slices; of a tag that is a function, its value by number."""
    for number in range(count):
        pixels = np.random.default_rng(number).integers(-1000, 500, (64, 64)).astype(np.int16)
        elements = {
            "StudyInstanceUID": uid,
            "SeriesInstanceUID": f"{uid}.1",
            "SOPInstanceUID": f"{uid}.1.{number}",
            "InstanceNumber": number,
            "ImagePositionPatient": [0, 0, 2.5 * number],
        }
        write_dicom(folder / uid / str(number), pixels, **(elements | tags))


def write_short_and_odd_studies(folder):
    """Two studies of few slices, one that is a film, one of another modality."""
    write_bad_study(folder, "9.1", 1)
    write_bad_study(folder, "9.2", 7)
    film = {"syntax": MPEG2MPML, "PixelData": encapsulate([b"\x00\x00\x01\xb3"])}
    write_bad_study(folder, "9.3", 3, **film)
    write_bad_study(folder, "9.4", 2, Modality="MR")


ODD = [
    ["9.1", "1", "too few slices: 1; at least 16 are needed"],
    ["9.2", "7", "too few slices: 7; at least 16 are needed"],
    ["9.3", "3", "no decoder for this encoding: MPEG2 Main Profile / Main Level"],
    ["9.4", "2", "Modality is not CT: MR"],
]
TOLD = "2 too few slices, 1 no decoder for this encoding, 1 Modality is not CT"


def test_each_study_has_a_prediction_or_is_listed_with_the_reason(made, folder, tmp_path):
    """In a working directory without a configuration file, as a user's own folder is."""
    studies = tmp_path / "any folder/new"
    shutil.copytree(folder / "export 1", studies / "good")
    write_short_and_odd_studies(studies)
    write_bad_study(studies, "9.5", 20, PixelData=bytes(100))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "snakemake", "--snakefile", PROJECT / "Snakefile"),
            *("--profile", PROJECT / "profiles/local", "predict"),
            *("--config", "predict=new", f"models={made.folder / 'models.zip'}"),
        ],
        cwd=studies.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    results = studies.parent / "results/predict"
    table = read_lists([results / "unpredicted.csv"])
    assert table.values[:4].tolist() == ODD
    assert table.values[4].tolist()[:2] == ["9.5", "20"]
    assert table["reason"][4].startswith("undecodable: ")
    told = pd.read_csv(results / "predictions.csv", dtype={STUDY_UID: str})
    listed = read_lists([results / "series.csv"])[STUDY_UID]
    assert {*told[STUDY_UID], *table[STUDY_UID]} == {*listed}
    assert told["trained_on_phantom"].all()
    account = f"1 predicted, 5 not: {TOLD}, 1 undecodable (listed in results/predict/"
    lines = [line for line in done.stderr.splitlines() if "[viewer_of_new_studies]" in line]
    assert account in lines[-1]
    assert account in (results / "viewer/index.html").read_text()
    # Models of drawings say so at the end, with how well they do on drawings.
    phantom_line = next(line for line in lines if "trained on an embedded phantom" in line)
    assert re.search(r"AUROC of \S+-study for PE present there [01]\.\d{3}", phantom_line)


def test_where_none_is_usable_the_studies_are_counted_and_listed_too(made, tmp_path):
    write_short_and_odd_studies(tmp_path / "new")
    run = elsewhere(tmp_path / "work")
    done = predict(run, tmp_path / "new", f"models={made.folder / 'models.zip'}")
    assert done.returncode == 1
    assert f"0 predicted, 4 not: {TOLD} (listed in results/predict/unpredicted.csv)" in done.stderr
    unpredicted = run.folder / "results/predict/unpredicted.csv"
    assert read_lists([unpredicted]).values.tolist() == ODD
    # Here a scan is chosen, and none of its slices can be decoded.
    write_bad_study(tmp_path / "new", "9.5", 20, PixelData=bytes(100))
    done = predict(run, tmp_path / "new", f"models={made.folder / 'models.zip'}")
    assert done.returncode == 1
    assert f"0 predicted, 5 not: {TOLD}, 1 undecodable (listed in" in done.stderr
    assert read_lists([unpredicted])[STUDY_UID].tolist() == ["9.1", "9.2", "9.3", "9.4", "9.5"]


def test_each_study_stands_beside_the_training_data(made):
    shift = read_lists([made.folder / "results/predict/shift.csv"])
    assert shift.groupby(STUDY_UID).size().tolist() == [7, 7, 7]
    outside = shift[shift["outside"] == "True"]
    notes = read_lists([made.folder / "results/predict/notes.csv"])["note"]
    assert notes.str.startswith("unlike the training data in").sum() == len(outside)
    assert shift.loc[shift["fact"] == "noise_hu", "told"].str.contains("training studies").all()


def test_every_model_says_a_probability_of_everything(made):
    table = pd.read_csv(made.folder / "results/predict/predictions.csv")
    assert table.groupby("model")[STUDY_UID].nunique().to_dict() == dict.fromkeys(STUDY_MODELS, 3)
    assert table[["pe_present", *STUDY_LABELS]].stack().between(0, 1).all()
    slices = pd.read_csv(made.folder / "results/predict/slices.csv")
    images = [name.replace("study", "image") for name in STUDY_MODELS]
    assert slices[images].stack().between(0, 1).all()


def test_the_page_shows_the_new_studies_without_a_truth(made, browser):
    page = browser.new_page()
    page.goto((made.folder / "results/predict/viewer/index.html").as_uri())
    page.wait_for_selector("#image[data-drawn]")
    assert "3 of 3 new studies" in page.text_content("header")
    assert page.locator("#studies button").count() == 3
    assert page.locator("#labels tr").first.locator("td").last.text_content() == "–"
    assert page.locator("#curve .truth").count() == 0
    # What models these are stands first, and how each series was made and chosen.
    source = page.text_content("#source")
    assert source.startswith("Models trained on an embedded phantom (drawings of the chest, no pat")
    assert re.search(r"AUROC of \S+-study for PE present there [01]\.\d{3}", source)
    names = page.locator("#facts dt").all_text_contents()
    facts = dict(zip(names, page.locator("#facts dd").all_text_contents(), strict=True))
    assert facts["Chosen"].startswith("the only axial CT scan, with")
    assert re.fullmatch(r"[\d.]+ mm; field of view \d+ mm", facts["Pixel size"])
    assert re.search(r"blood of about \d+ HU", facts["Contrast"])
    page.evaluate("view.ruler = [{x: 10, y: 10}, {x: 110, y: 10}]")
    length, unit = page.evaluate("rulerText()").split()
    assert unit == "mm"
    field = float(facts["Pixel size"].split()[-2])
    assert float(length) == pytest.approx(field * 100 / 256, rel=0.01)
    page.select_option("#map", "resnext50")
    assert page.evaluate("Array.from(mapOf('resnext50', view.slice)).every(Number.isFinite)")
    page.close()


def test_the_bundle_gives_what_the_evaluation_gave(demo, made, tmp_path):
    """Test studies of the demo, given as new ones, get the probabilities that they had."""
    known = pd.read_parquet(demo.folder / "results/predictions/combined-study.parquet")
    uids = known.loc[known["split"] == "test", STUDY_UID].head(2)
    labels = read_labels(demo.folder / "data/phantom/train.csv")
    folder = tmp_path / "known"
    header = {}
    for uid in uids:
        shutil.copytree(demo.folder / "data/phantom/train" / uid, folder / uid)
        first = pydicom.dcmread(next(folder.rglob(f"{uid}/*/*.dcm")), stop_before_pixels=True)
        header[uid] = first.StudyInstanceUID
    run = elsewhere(tmp_path / "work")
    bundle = made.folder / "models.zip"
    done = predict(run, folder, f"models={bundle}", target="results/predict/predictions.csv")
    assert done.returncode == 0, done.stderr
    found = pd.read_csv(run.folder / "results/predict/predictions.csv")
    found = found[found["model"] == "combined-study"].set_index(STUDY_UID)
    for uid in uids:
        row = found.loc[header[uid]]
        assert row["slices"] == (labels[STUDY_UID] == uid).sum()
        expected = known.set_index(STUDY_UID).loc[uid, list(STUDY_LABELS)]
        # Batches of other slices beside them change the features' last bit.
        assert row[list(STUDY_LABELS)].to_numpy(float) == pytest.approx(
            expected.to_numpy(float), abs=0.002
        )


def test_a_configuration_file_tells_what_else_the_command_line_does(made, folder, tmp_path):
    bundle = str(made.folder / "models.zip")
    settings = {"predict": str(folder / "export 1"), "models": bundle, "predict_dicom": True}
    run = elsewhere(tmp_path / "work", **settings)
    done = run.build("predict")
    assert done.returncode == 0
    # DICOM results are there for who asks for them alone.
    assert not (made.folder / "results/predict/dicom").exists()
    results = read_lists([run.folder / "results/predict/dicom.csv"])
    assert results["kind"].tolist() == ["structured report", "parametric map", "parametric map"]
    assert (results["reason"] == "").all()
    for file in results["file"]:
        dataset = pydicom.dcmread(run.folder / "results/predict/dicom" / file)
        assert dataset.PatientID == "PHANTOM"
        assert dataset.StudyInstanceUID == results[STUDY_UID][0]
    assert "hold the patient's name, number, birth date and sex" in done.stderr
    assert len(pd.read_csv(run.folder / "results/predict/predictions.csv")) == len(STUDY_MODELS)


def test_nothing_is_trained(copy, folder):
    # The models' code has changed: whoever asks for predictions wants those of the models there.
    lstm = copy.project / "workflow/scripts/clotline/models/lstm.py"
    lstm.write_text(lstm.read_text().replace("batch_first=True", "batch_first=bool(1)"))
    plan = predict(copy, folder, "--dry-run").stdout
    for rule in ("find_series", "decode_series", "apply_models", "viewer_of_new_studies"):
        assert re.search(rf"^{rule} +1 ", plan, re.MULTILINE)
    assert not re.search(r"^(train_\w+|bundle) ", plan, re.MULTILINE)


def test_a_second_run_has_nothing_to_do(made, folder):
    done = predict(made, folder, "models=models.zip")
    assert "Nothing to be done" in done.stderr + done.stdout


def test_neither_a_renamed_working_directory_nor_a_renamed_bundle_makes_anything_anew(
    made, folder, tmp_path
):
    run = Run(PROJECT, tmp_path / "renamed")
    shutil.copytree(made.folder, run.folder, symlinks=True)
    (run.folder / "models.zip").rename(run.folder / "other name.zip")
    for models in ("other name.zip", run.folder / "other name.zip"):
        done = predict(run, folder, f"models={models}")
        assert "Nothing to be done" in done.stderr + done.stdout


def test_a_file_replaced_by_one_of_the_same_size_and_time_is_noticed(made, folder, tmp_path):
    path = folder / "export 1/DICOM/IM0003"
    content, status = path.read_bytes(), path.stat()
    path.write_bytes(content[:-2] + b"\0\0")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    try:
        plan = predict(made, folder, "models=models.zip", "--dry-run").stdout
        assert re.search(r"^find_series +1\b", plan, re.MULTILINE)
    finally:
        path.write_bytes(content)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_further_study_is_noticed(made, folder):
    extra = folder / "late"
    shutil.copytree(folder / "export 2", extra)
    try:
        plan = predict(made, folder, "models=models.zip", "--dry-run")
        assert re.search(r"^find_series +1 ", plan.stdout, re.MULTILINE)
    finally:
        shutil.rmtree(extra)


def test_replaced_files_are_decoded_again_though_the_series_were_looked_at_in_between(
    made, folder, tmp_path
):
    run = Run(PROJECT, tmp_path / "work")
    shutil.copytree(made.folder, run.folder, symlinks=True)
    path = folder / "export 1/DICOM/IM0003"
    status = path.stat()
    os.utime(path)
    try:
        done = predict(run, folder, "models=models.zip", target="results/predict/series.csv")
        assert done.returncode == 0, done.stderr
        # Of the former files, and nothing says so.
        for name in ("predictions.csv", "slices.csv", "viewer/index.html"):
            assert not (run.folder / "results/predict" / name).exists()
        plan = predict(run, folder, "models=models.zip", "--dry-run").stdout
        for rule in ("decode_series", "apply_models", "viewer_of_new_studies"):
            assert re.search(rf"^{rule} +1 ", plan, re.MULTILINE)
    finally:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_other_models_in_the_place_of_the_first_are_noticed_whatever_their_time(made, folder):
    path = made.folder / "models.zip"
    content, status = path.read_bytes(), path.stat()
    path.write_bytes(content + b"more")
    os.utime(path, (0, 0))
    try:
        plan = predict(made, folder, "models=models.zip", "--dry-run").stdout
        assert re.search(r"^apply_models +1 ", plan, re.MULTILINE)
    finally:
        path.write_bytes(content)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_missing_models_are_named_with_what_to_do(folder, tmp_path):
    done = predict(elsewhere(tmp_path / "work"), folder)
    assert done.returncode == 1
    assert "no trained models" in done.stderr
    assert "--config models=clotline.zip" in done.stderr


def test_a_missing_folder_is_named(tmp_path):
    run = elsewhere(tmp_path / "work")
    done = predict(run, tmp_path / "nowhere")
    assert f"predict is {tmp_path / 'nowhere'}, and no such folder exists" in done.stderr


def test_without_a_folder_the_target_says_how_to_name_one(copy):
    done = copy.snakemake("predict", "--dry-run", check=False)
    assert done.returncode == 1
    assert "--config predict=FOLDER" in done.stdout


def test_models_trained_on_other_slices_are_refused(made, folder, tmp_path):
    run = elsewhere(tmp_path / "work")
    other = tmp_path / "other.zip"
    with (
        zipfile.ZipFile(made.folder / "models.zip") as source,
        zipfile.ZipFile(other, "w") as target,
    ):
        for member in source.namelist():
            content = source.read(member)
            if member == "manifest.json":
                manifest = json.loads(content)
                manifest["preprocessing"]["slice"] = [300, 300]
                content = json.dumps(manifest).encode()
            target.writestr(member, content)
    done = predict(run, folder, f"models={other}")
    assert done.returncode == 1
    assert "slice is [300, 300], here [256, 256]" in done.stderr
    assert not (run.folder / "results/predict/predictions.csv").exists()


@pytest.mark.skipif(
    not os.environ.get("CLOTLINE_REALCT"),
    reason="CLOTLINE_REALCT is not set to a folder with data in the competition's layout",
)
def test_real_ct_is_predicted(made, tmp_path):
    folder = Path(os.environ["CLOTLINE_REALCT"], "train")
    run = elsewhere(tmp_path / "work")
    done = predict(run, folder, f"models={made.folder / 'models.zip'}")
    assert done.returncode == 0, done.stderr
    series = pd.read_csv(run.folder / "results/predict/series.csv")
    table = pd.read_csv(run.folder / "results/predict/predictions.csv")
    assert set(table[STUDY_UID]) == set(series.loc[series["chosen"], STUDY_UID])
    assert np.isfinite(table["pe_present"]).all()
    slices = pd.read_csv(run.folder / "results/predict/slices.csv")
    assert slices[SOP_UID].is_unique
    assert (run.folder / "results/predict/viewer/index.html").is_file()
