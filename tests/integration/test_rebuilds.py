"""What is made anew after which change: the exact set of files."""

import json
import re
import shutil
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml
from builders import labels_of, write_cohort
from workflow_run import PROJECT, Run, digests, write_config

from clotline.job.files import remove
from clotline.labels import COLUMNS, SOP_UID, STUDY_UID

CNNS = ("efficientnet_b0", "resnext50")
FEATURES = (*CNNS, "combined")
LSTMS = tuple(f"{features}-{level}" for features in FEATURES for level in ("image", "study"))
SHARDS = ("000", "001", "002", "003")

REPORT = {"results/report.html"}
VIEWER_PAGE = {"results/viewer/index.html", "results/viewer/studies"}
SELECTION = {"results/viewer/selection.json", "results/viewer/slices.parquet"}
BUNDLE = {"results/models/clotline.zip"}
PLOTS = ("roc", "precision_recall", "calibration", "confusion", "decision")
COMPARISON = {
    *("results/metrics.csv", "results/warnings.csv", "results/comparisons.csv"),
    *("results/decision_curves.csv", "results/predictive_values.csv", "results/sample_size.csv"),
    "results/roc/all.svg",
    *("results/roc/all.png", *REPORT),
}


def plots_of(lstms=LSTMS):
    return {
        f"results/{plot}/{name}.{end}" for plot in PLOTS for name in lstms for end in ("svg", "png")
    }


ALL_PLOTS = plots_of() | {"results/roc/all.svg", "results/roc/all.png"}


def evaluation_of(lstms):
    made = {f"results/metrics/{name}.json" for name in lstms} | plots_of(lstms) | COMPARISON
    made |= {f"results/competition/{name.split('-')[0]}.json" for name in lstms}
    made |= {f"results/baselines/{name}.parquet" for name in lstms if name.endswith("-image")}
    if any(name.startswith("combined") for name in lstms):
        made |= {"results/submission.csv"} | SELECTION | VIEWER_PAGE
    return made | BUNDLE


def lstms_and_what_follows(lstms=LSTMS):
    made = {f"results/lstm/{name}.{end}" for name in lstms for end in ("pt", "csv", "svg")}
    return made | {f"results/predictions/{name}.parquet" for name in lstms} | evaluation_of(lstms)


def maps_of(cnns=CNNS):
    return {f"results/activation/{cnn}.h5" for cnn in cnns}


def cnns_and_what_follows(cnns=CNNS, shards=SHARDS):
    made = {f"results/cnn/{cnn}.{end}" for cnn in cnns for end in ("pt", "last.pt", "csv", "svg")}
    made |= {f"results/features/{cnn}.h5" for cnn in cnns} | maps_of(cnns)
    made |= {f"results/features/{cnn}/shard-{shard}.h5" for cnn in cnns for shard in shards}
    users = [name for name in LSTMS if name.startswith("combined") or name.split("-")[0] in cnns]
    return made | lstms_and_what_follows(users)


def shard_files(*shards):
    return {
        f"results/data/shards/shard-{shard}.{end}"
        for shard in shards
        for end in ("h5", "rejects.csv", "notes.csv")
    }


SLICES = {
    *("results/data/slices.parquet", "results/data/positives.h5"),
    *("results/baselines/position.parquet", "results/data/study_facts.parquet"),
}
PLAN = {"results/data/plan.parquet", "results/data/rows.parquet"}
PATIENTS = {"results/data/patients.json"}


def change_config(run, *keys, value):
    path = run.folder / "config/config.yaml"
    # Through JSON: entries that YAML aliases share would be changed together.
    config = json.loads(json.dumps(yaml.safe_load(path.read_text())))
    section = config
    for key in keys[:-1]:
        section = section.setdefault(key, {})
    section[keys[-1]] = value
    path.unlink()  # a link to the demo's own file
    path.write_text(yaml.safe_dump(config))


def change_code(run, module, old, new):
    path = run.project / "workflow/scripts/clotline" / module
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_nothing_is_made_anew_without_a_change(copy):
    assert copy.to_be_made() == set()


def test_a_comment_or_docstring_makes_nothing_anew(copy):
    for path in [*copy.project.rglob("*.py"), *copy.project.rglob("*.smk")]:
        path.write_text(path.read_text() + "\n# a comment\n")
    for path in copy.project.rglob("*.py"):
        path.write_text(re.sub(r'\A"""', '"""Changed. ', path.read_text()))
    assert copy.to_be_made() == set()


def test_the_lstms_learning_rate_makes_the_lstms_anew(copy):
    for name in LSTMS:
        change_config(copy, "lstm", name, "lr", value=0.123)
    assert copy.to_be_made() == lstms_and_what_follows()


def test_one_lstms_setting_makes_that_lstm_anew(copy):
    change_config(copy, "lstm", "combined-study", "hidden_size", value=32)
    assert copy.to_be_made() == lstms_and_what_follows(["combined-study"])


def test_another_order_of_features_makes_the_lstms_that_read_them_anew(copy):
    change_config(copy, "features", "combined", value=["resnext50", "efficientnet_b0"])
    made = lstms_and_what_follows(["combined-image", "combined-study"])
    assert copy.to_be_made() == made


def test_deleted_results_are_missed(copy):
    deleted = {"results/comparisons.csv", *maps_of(), "results/viewer/studies"}
    for path in deleted:
        remove(copy.folder / path)
    assert deleted <= copy.to_be_made()


def test_a_shard_that_there_is_not_is_no_target(copy):
    done = copy.snakemake("-n", "results/data/shards/shard-009.h5", check=False)
    assert done.returncode == 1
    assert "No rule to produce results/data/shards/shard-009.h5" in done.stderr + done.stdout


@pytest.mark.parametrize(("key", "value"), [("lr", 0.123), ("window_level", 50), ("epochs", 9)])
def test_a_setting_of_resnext_leaves_efficientnet_alone(copy, key, value):
    change_config(copy, "cnn", "resnext50", key, value=value)
    made = copy.to_be_made()
    assert made == cnns_and_what_follows(["resnext50"])
    assert not any("efficientnet" in path for path in made)


def test_the_lstms_code_makes_the_lstms_anew(copy):
    change_code(copy, "models/lstm.py", "states[self.last_slices(studies)]", "states[:1]")
    assert copy.to_be_made() == lstms_and_what_follows()


def test_the_plotting_code_makes_the_plots_anew(copy):
    change_code(copy, "reporting/plots.py", '"font.size": 9', '"font.size": 10')
    curves = {f"results/cnn/{name}.svg" for name in CNNS}
    curves |= {f"results/lstm/{name}.svg" for name in LSTMS}
    assert copy.to_be_made() == ALL_PLOTS | curves | REPORT


def test_a_plot_setting_makes_the_roc_plots_anew(copy):
    change_config(copy, "plots", "dpi", value=300)
    assert copy.to_be_made() == ALL_PLOTS | REPORT


def test_the_viewers_size_makes_the_viewer_anew(copy):
    change_config(copy, "viewer", "studies", value=5)
    assert copy.to_be_made() == SELECTION | VIEWER_PAGE | REPORT


def test_settings_of_evaluation_that_swap_their_values_are_seen(copy):
    target = "results/metrics/combined-study.json"
    change_config(copy, "evaluation", "thresholds", value=[0.1])
    change_config(copy, "evaluation", "prevalences", value=[0.5])
    copy.build(target)
    assert copy.to_be_made(target=target) == set()
    change_config(copy, "evaluation", "thresholds", value=[0.5])
    change_config(copy, "evaluation", "prevalences", value=[0.1])
    assert copy.to_be_made(target=target) == {target}


@pytest.mark.parametrize("name", ["index.html.j2", "viewer.css", "viewer.js"])
def test_the_viewers_looks_make_the_page_anew(copy, name):
    path = copy.project / "workflow/report/viewer" / name
    path.write_text(path.read_text() + "\n")
    assert copy.to_be_made() == VIEWER_PAGE


def test_the_maps_code_makes_the_maps_anew(copy):
    change_code(copy, "models/activation.py", "relu_attributions=True", "relu_attributions=False")
    assert copy.to_be_made() == maps_of() | VIEWER_PAGE


def test_an_appended_study_leaves_the_other_shards_alone(copy):
    path = copy.folder / "data/phantom/train.csv"
    labels = pd.read_csv(path, dtype=dict.fromkeys(COLUMNS[:3], str))
    plan = pd.read_parquet(copy.folder / "results/data/plan.parquet")
    smallest = plan.sort_values("slices")[STUDY_UID].iloc[0]
    added = labels[labels[STUDY_UID] == smallest].assign(**{STUDY_UID: "00000000abcd"})
    added[SOP_UID] = [f"{number:012x}" for number in range(len(added))]
    path.unlink()
    pd.concat([labels, added]).to_csv(path, index=False)
    room = plan.groupby("shard")["slices"].sum().iloc[-1] + len(added) <= 2000
    last = SHARDS[-1] if room else "004"
    shards = SHARDS if room else (*SHARDS, last)
    assert copy.to_be_made() == (
        PLAN | PATIENTS | shard_files(last) | SLICES | cnns_and_what_follows(shards=shards)
    )


def test_predictions_made_elsewhere_are_one_more_model(copy):
    (copy.folder / "elsewhere.csv").write_text("StudyInstanceUID,label,probability\n")
    change_config(copy, "evaluation", "external", value={"reader-study": "elsewhere.csv"})
    model = "reader-study"
    made = {f"results/predictions/{model}.parquet", f"results/metrics/{model}.json"}
    # The viewer shows what the best model says, and that may be this one.
    made |= plots_of([model]) | COMPARISON | SELECTION | VIEWER_PAGE
    assert copy.to_be_made() == made


def further(models, *paths):
    """What models that are made here are in, beside their own files."""
    made = {f"results/{kind}" for kind in paths} | plots_of(models) | COMPARISON | BUNDLE
    made |= {
        f"results/{of}/{m}.{end}"
        for of, end in (("predictions", "parquet"), ("metrics", "json"))
        for m in models
    }
    return made | SELECTION | VIEWER_PAGE


def test_an_ensemble_is_one_more_model(copy):
    change_config(copy, "ensembles", "all-study", value=["combined-study", "resnext50-study"])
    assert copy.to_be_made() == further(["all-study"])


JOINT = [f"lstm/combined-joint.{end}" for end in ("pt", "csv", "svg")]
JOINT += ["competition/combined-joint.json", "baselines/combined-joint-image.parquet"]


def test_a_joint_network_is_two_more_models(copy):
    change_config(copy, "lstm", "combined-joint", value={"epochs": 1})
    assert copy.to_be_made() == further(["combined-joint-image", "combined-joint-study"], *JOINT)


def finetuned_of(name, backbone):
    """A finetuned network and what it is made by."""
    made = {f"results/finetuned/{name}{end}" for end in (".csv", ".svg", "/cnn.pt", "/lstm.pt")}
    parts = ["", *(f"/shard-{shard}" for shard in SHARDS)]
    return made | {f"results/finetuned/{name}/features/{backbone}{part}.h5" for part in parts}


def test_a_finetuned_network_is_one_more_model(copy):
    change_config(copy, "finetune", "resnext50-study", value={"epochs": 1})
    name = "resnext50-finetuned-study"
    assert copy.to_be_made() == further([name]) | finetuned_of(name, "resnext50")


def test_a_finetuned_joint_network_is_two_more_models(copy):
    change_config(copy, "lstm", "resnext50-joint", value={"epochs": 1})
    joint = copy.to_be_made()
    change_config(copy, "finetune", "resnext50-joint", value={"epochs": 1})
    name = "resnext50-finetuned-joint"
    pair = [f"competition/{name}.json", f"baselines/{name}-image.parquet"]
    models = further([f"{name}-image", f"{name}-study"], *pair)
    assert copy.to_be_made() == joint | models | finetuned_of(name, "resnext50")


def test_folds_train_networks_of_their_own_and_are_one_more_model(copy):
    change_config(copy, "data", "split", "folds", value=3)
    change_config(copy, "data", "split", "folds_of", value=["resnext50-study"])
    made = copy.to_be_made()
    of_folds = {path for path in made if path.startswith("results/folds/")}
    assert made - of_folds == further(["resnext50-folds-study"])
    expected = {"data/plan.parquet", "data/slices.parquet", "data/positives.h5"}
    expected |= {f"cnn/resnext50{end}" for end in (".pt", ".last.pt", ".csv")}
    expected |= {f"features/resnext50/shard-{shard}.h5" for shard in SHARDS}
    expected |= {"features/resnext50.h5", "predictions/resnext50-study.parquet"}
    expected |= {f"lstm/resnext50-study.{end}" for end in ("pt", "csv")}
    assert of_folds == {f"results/folds/{fold}/{path}" for fold in range(3) for path in expected}


@pytest.mark.parametrize(("key", "value"), [("size", 384), ("crop", "lungs")])
def test_another_grid_makes_the_shards_and_what_follows_anew(copy, key, value):
    change_config(copy, "data", key, value=value)
    made = shard_files(*SHARDS) | SLICES | cnns_and_what_follows()
    assert copy.to_be_made() == made


def test_a_deleted_shard_is_made_anew_alone(copy):
    (copy.folder / "results/data/shards/shard-001.h5").unlink()
    made = copy.to_be_made()
    assert made == shard_files("001") | SLICES | cnns_and_what_follows()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--cores", "1"],
        ["--cores", "64", "--set-threads", "train_cnn=3"],
        ["--set-resources", "train_cnn:gpu=0", "train_lstm:mem_mb=1"],
        ["--set-resources", "shard:mem_mb=99000*attempt", "train_cnn:runtime=2*attempt"],
        ["--profile", "profiles/local"],
    ],
)
def test_threads_resources_and_profile_make_nothing_anew(copy, arguments):
    assert copy.to_be_made(*arguments) == set()


def test_a_touched_labels_file_makes_nothing_anew(copy):
    path = copy.folder / "data/phantom/train.csv"
    text = path.read_bytes()
    path.unlink()
    time.sleep(0.01)
    path.write_bytes(text)
    assert copy.to_be_made() == set()


def test_one_artifact_builds_just_what_it_needs(copy):
    for folder in ("lstm", "features", "cnn"):
        for path in (copy.folder / "results" / folder).iterdir():
            if path.is_file():
                path.unlink()
    target = "results/lstm/combined-study.pt"
    made = copy.to_be_made(target=target)
    expected = {p for p in cnns_and_what_follows() if p.startswith(("results/cnn", "results/feat"))}
    expected = {path for path in expected if not path.endswith(".svg")}
    assert made == expected | {target, "results/lstm/combined-study.csv"}


def test_a_dry_run_explains_why_each_job_runs(copy):
    change_config(copy, "lstm", "combined-study", "hidden_size", value=32)
    done = copy.snakemake("-n", "-p", "all")
    text = done.stdout + done.stderr
    jobs = len(re.findall(r"^Job \d+:", text, re.MULTILINE))
    assert jobs >= 9
    assert text.count("Reason: ") == jobs
    assert "Params have changed" in text
    assert Path(copy.folder / "results/lstm/combined-study.pt").exists()


OWN = "results/data/slices.parquet"


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Slices of data of one's own, and their labels; not to be changed."""
    run = Run(PROJECT, tmp_path_factory.mktemp("own"))
    labels = labels_of({f"s{number}": [0, 1, 0] for number in range(12)}).assign(fold="train")
    labels.loc[labels[STUDY_UID].isin(("s3", "s7")), "fold"] = "valid"
    write_cohort(labels, run.folder / "dicom")
    labels.to_csv(run.folder / "labels.csv", index=False)
    data = {"labels": "labels.csv", "dicom": "dicom", "slices_per_shard": 9}
    data["split"] = {"column": "fold"}
    write_config(run, yaml.safe_dump({"data": data}))
    run.build(OWN)
    return run, labels


@pytest.fixture
def own(stored, tmp_path):
    """A copy of them."""
    run, labels = stored
    shutil.copytree(run.folder, tmp_path, dirs_exist_ok=True)
    return Run(PROJECT, tmp_path), labels.copy()


def test_the_labels_files_name_place_time_and_order_make_nothing_anew(own):
    run, labels = own
    assert run.to_be_made(target=OWN) == set()
    (run.folder / "labels.csv").unlink()
    # Studies in their order, the slices of each in another.
    shuffled = pd.concat(part[::-1] for _, part in labels.groupby(STUDY_UID, sort=False))
    shuffled.assign(remark="seen").to_csv(run.folder / "mine.csv.gz", index=False)
    change_config(run, "data", "labels", value=str(run.folder / "mine.csv.gz"))
    change_config(run, "data", "slices_per_shard", value=10)
    assert run.to_be_made(target=OWN) == set()


def test_another_split_makes_no_shard_anew(own):
    run, labels = own
    labels.loc[labels[STUDY_UID] == "s5", "fold"] = "valid"
    labels.to_csv(run.folder / "labels.csv", index=False)
    assert run.to_be_made(target=OWN) == PLAN | {OWN}


def test_another_grid_makes_all_shards_anew_and_no_plan(own):
    run, _ = own
    change_config(run, "data", "size", value=256)
    change_config(run, "data", "crop", value="none")
    assert run.to_be_made(target=OWN) == set()
    change_config(run, "data", "crop", value="lungs")
    assert run.to_be_made(target=OWN) == shard_files(*SHARDS) | {OWN}


def test_another_label_makes_its_shard_anew(own):
    run, labels = own
    labels.loc[4, "pe_present_on_image"] = 0
    labels.to_csv(run.folder / "labels.csv", index=False)
    assert run.to_be_made(target=OWN) == PLAN | shard_files("000") | {OWN}


def test_a_list_of_studies_makes_the_shards_of_the_others_anew(own):
    run, _ = own
    listed = [f"s{number}" for number in range(12) if number != 4]
    (run.folder / "list.txt").write_text("\n".join(listed))
    change_config(run, "data", "studies", value="list.txt")
    assert run.to_be_made(target=OWN) == PLAN | shard_files("001", "002", "003") | {OWN}


def test_a_zip_file_of_the_slices_gives_the_same_shards(own):
    run, _ = own
    expected = digests(run.folder / "results/data/shards")
    shutil.make_archive(str(run.folder / "all"), "zip", run.folder, "dicom")
    change_config(run, "data", "dicom", value="all.zip")
    shutil.rmtree(run.folder / "dicom")
    assert run.to_be_made(target=OWN) == set()
    shutil.rmtree(run.folder / "results")
    run.build(OWN)
    assert digests(run.folder / "results/data/shards") == expected
