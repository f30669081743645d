"""The demo's models on another cohort: NIfTI with one column of labels, and what goes wrong."""

import json
import shutil

import pandas as pd
import pydicom
import pytest
from workflow_run import PROJECT, Run, write_config

from clotline.data.rejects import read_lists
from clotline.labels import STUDY_UID
from tools.make_cohort import write_cohort

STUDIES = 14


def copy_with_other_uids(source, target):
    """A study as another anonymiser leaves it."""
    target.mkdir()
    for number, path in enumerate(sorted(source.rglob("*.dcm"))):
        dataset = pydicom.dcmread(path)
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3", "1.2.3.4"
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.4.{number}"
        dataset.save_as(target / path.name)


@pytest.fixture(scope="module")
def made(demo, tmp_path_factory):
    """A working directory without data to train on, in which the demo's bundle is validated."""
    folder = tmp_path_factory.mktemp("cohort")
    lines = write_cohort(folder, STUDIES, 4711, slices_min=16, slices_max=16)
    plan = pd.read_parquet(demo.folder / "results/data/plan.parquet")
    trained = plan.loc[plan["split"] == "train", STUDY_UID].iloc[0]
    copy_with_other_uids(demo.folder / "data/phantom/train" / trained, folder / "seen before")
    shutil.copy(folder / "case00.nii.gz", folder / "unlabelled.nii.gz")
    lines += ["seen before,1,F,40", "nowhere,0,M,50"]
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    run = Run(PROJECT, tmp_path_factory.mktemp("validation"))
    shutil.copy(demo.folder / "results/models/clotline.zip", run.folder / "models.zip")
    write_config(run, "evaluation: {bootstraps: 100}\n")
    config = f"validate={folder}", "models=models.zip"
    run.snakemake("--profile", str(PROJECT / "profiles/local"), "validate", "--config", *config)
    return run


def test_each_study_counts_or_is_listed(made):
    results = made.folder / "results/validate"
    truth = pd.read_parquet(results / "truth.parquet")
    assert len(truth) == STUDIES
    excluded = read_lists([results / "excluded.csv"]).set_index("labels")["reason"].to_dict()
    assert excluded.pop(f"labels.csv, line {STUDIES + 3}") == "no scan of it is in the folder"
    (reason,) = excluded.values()
    assert reason.startswith("trained on: ") and "under another UID" in reason
    unpredicted = read_lists([results / "unpredicted.csv"])
    assert unpredicted["reason"].tolist() == [
        "not labelled: the labels name neither its UID nor its files"
    ]


def test_models_of_drawings_do_on_other_drawings_what_the_report_says(made):
    content = json.loads((made.folder / "results/validate/metrics.json").read_text())
    assert set(content["about"]["digests"]) == {
        "slices of the cohort", "labels of the cohort", "bundle", "code of the truth",
        "code of the metrics",
    }  # fmt: skip
    assert content["about"]["notes"] == []
    model = content["models"]["combined-study"]
    assert list(model["targets"]) == ["pe_present"]
    auroc = model["targets"]["pe_present"]["auroc"]
    assert auroc["n_studies"] == STUDIES
    assert auroc["value"] > 0.7
    assert {group["group"] for group in model["groups"]["Sex"]} == {"male", "female"}
    page = (made.folder / "results/validate/report.html").read_text()
    assert f"{auroc['value']:.3f}" in page
    assert "Models trained on an embedded phantom" in page


def test_sex_and_age_stand_beside_no_uid(made):
    """The table's words for them are in no file but the report's table of groups."""
    results = made.folder / "results/validate"
    for path in results.rglob("*"):
        if path.suffix in (".parquet", ".csv"):
            read = pd.read_parquet if path.suffix == ".parquet" else pd.read_csv
            columns = {name.casefold() for name in read(path).columns}
            assert not columns & {"sex", "age", "patient", "file", "name"}, path


def test_the_viewer_shows_the_truth_of_the_cohort(made, browser):
    page = browser.new_page()
    page.goto((made.folder / "results/validate/viewer/index.html").as_uri())
    page.wait_for_selector("#image[data-drawn]")
    assert f"{STUDIES} of {STUDIES} studies of the cohort" in page.text_content("header")
    truths = page.locator("#labels tr").evaluate_all(
        "rows => rows.map(r => r.cells[4]?.textContent)"
    )
    # PE alone is known; the other labels are not said to be false.
    assert truths[0] in ("yes", "no") and set(truths[1:10]) == {"–"}
    page.close()


def test_the_report_holds_its_place_on_a_phone(made, browser):
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.goto((made.folder / "results/validate/report.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    anchors = page.locator("nav a").evaluate_all("links => links.map(a => a.hash)")
    assert all(page.locator(anchor).count() == 1 for anchor in anchors)
    page.close()
