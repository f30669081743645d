"""What the Snakefile knows before any job runs."""

import json
import os
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from builders import dicom_path, labels_of, write_dicom
from snakemake.path_modifier import PathModifier

from clotline.data import labels_file
from clotline.errors import ClotlineError
from clotline.job.files import PHANTOM_SOURCE, STATE_FOLDER
from clotline.labels import IMAGE_LABEL
from clotline.workflow import snakefile
from clotline.workflow.code_digest import code_digest
from clotline.workflow.config import load_config
from clotline.workflow.snakefile import Pipeline, asks_for_zip, check_paths_stay, contents

STUDIES = {f"s{number}": [0, 1, 0] for number in range(40)}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with labels of 40 studies of three slices and a DICOM folder."""
    monkeypatch.chdir(tmp_path)
    labels_of(STUDIES).to_csv("labels.csv", index=False)
    (tmp_path / "dicom").mkdir()
    return tmp_path


def user_config(**data):
    return {"data": {"labels": "labels.csv", "dicom": "dicom", "slices_per_shard": 30} | data}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("snakemake all --report report.zip", True),
        ("snakemake --report=a/report.zip all", True),
        ("snakemake all --report-html-path x.zip", True),
        ("snakemake all --report report.html", False),
        ("snakemake all --report", False),
        ("snakemake --config models=bundle.zip", False),
        ("snakemake models.zip", False),
    ],
)
def test_a_report_in_a_zip_file_is_told_from_others(arguments, expected):
    assert asks_for_zip(arguments.split()) == expected


def test_shards_follow_from_the_labels(folder):
    shards = Pipeline(user_config()).shards
    assert list(shards) == ["000", "001", "002", "003"]
    assert {shard["slices"] for shard in shards.values()} == {30}
    assert {shard["studies"] for shard in shards.values()} == {10}


def test_a_section_is_one_canonical_text(folder):
    workflow = Pipeline(user_config())
    assert workflow.section("seed") == "2020"
    assert json.loads(workflow.section()) == load_config(user_config())
    assert workflow.section("data", "split") == (
        '{"column":null,"folds":null,"folds_of":null,'
        '"group":null,"test":0.13,"train":0.725,"valid":0.145}'
    )


def test_unchanged_labels_are_read_once(folder, monkeypatch):
    before = Pipeline(user_config()).shards
    monkeypatch.setattr(labels_file, "read_labels", None)
    assert Pipeline(user_config()).shards == before


def test_another_plan_reads_the_labels_anew(folder):
    Pipeline(user_config())
    assert len(Pipeline(user_config(slices_per_shard=60)).shards) == 2


def test_an_appended_study_changes_the_last_shard_or_opens_a_new_one(folder):
    before = Pipeline(user_config()).shards
    labels_of(STUDIES | {"t": [0]}).to_csv("labels.csv", index=False)
    after = Pipeline(user_config()).shards
    assert list(after) == [*before, "004"]
    assert {name: after[name] for name in before} == before


def test_a_changed_label_changes_the_digest_of_its_shard_alone(folder):
    before = Pipeline(user_config()).shards
    labels_of(STUDIES | {"s15": [1, 1, 0]}).to_csv("labels.csv", index=False)
    after = Pipeline(user_config()).shards
    assert {name for name in before if after[name] != before[name]} == {"001"}


def test_another_grid_changes_the_digest_of_every_shard_and_of_no_plan(folder):
    shard = SimpleNamespace(shard="002")
    published = Pipeline(user_config())
    # So that no shard is made anew that was made before there were other grids.
    assert published.shard_digest(shard) == published.shards["002"]["digest"]
    assert Pipeline(user_config(size=256, crop="none")).shard_digest(
        shard
    ) == published.shard_digest(shard)
    found = {published.shard_digest(shard)}
    larger = {"cnn": {key: {"crop": 256} for key in ("resnext50", "efficientnet_b0")}}
    for grid in ({"size": 384}, {"size": 512}, {"crop": "lungs"}, {"size": 384, "crop": "lungs"}):
        other = Pipeline(user_config(**grid) | larger)
        found.add(other.shard_digest(shard))
        assert other.plan_digest(None) == published.plan_digest(None)
    assert len(found) == 5


def test_new_studies_are_stored_as_the_bundle_wants_them(folder):
    with zipfile.ZipFile("models.zip", "w") as archive:
        said = {"slice": [384, 384], "crop": "lungs"}
        archive.writestr("manifest.json", json.dumps({"preprocessing": said}))
    assert json.loads(Pipeline(user_config() | {"models": "models.zip"}).bundle_grid(None)) == [
        384,
        "lungs",
    ]
    with pytest.raises(ClotlineError, match="no trained models"):
        Pipeline(user_config()).bundle_grid(None)


def test_a_touched_file_changes_no_digest(folder):
    before = Pipeline(user_config()).shards
    os.utime("labels.csv", (1, 1))
    assert Pipeline(user_config()).shards == before


def replace_keeping_time(path, content):
    """As rsync -t and tar do; with or without a new file in its place."""
    before = path.stat()
    assert len(content) == before.st_size
    for in_place in (True, False):
        target = path if in_place else path.with_name("new")
        target.write_bytes(content)
        os.utime(target, ns=(before.st_atime_ns, before.st_mtime_ns))
        target.replace(path)
        after = path.stat()
        assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
        yield


def test_labels_replaced_by_some_of_the_same_size_and_time_are_read(folder):
    path = folder / "labels.csv"
    before = Pipeline(user_config()).shards
    first = path.read_bytes()
    labels_of(STUDIES | {"s15": [1, 1, 0]}).to_csv("other.csv", index=False)
    other = (folder / "other.csv").read_bytes()
    for content in (other, first):
        for _ in replace_keeping_time(path, content):
            after = Pipeline(user_config()).shards
            assert (after != before) == (content == other)


def test_new_files_replaced_by_some_of_the_same_size_and_time_are_noticed(folder):
    (folder / "new").mkdir()
    path = folder / "new" / "IM0001"
    path.write_bytes(b"one")

    def digest():
        return Pipeline({"predict": "new"}).new_files(None)

    before = digest()
    assert digest() == before
    for _ in replace_keeping_time(path, b"two"):
        after = digest()
        assert after != before
        before = after


def test_new_files_are_the_same_under_another_name_of_their_folder(folder):
    (folder / "new" / "deep").mkdir(parents=True)
    (folder / "new" / "deep" / "IM0001").write_bytes(b"one")
    before = Pipeline({"predict": "new"}).new_files(None)
    (folder / "new").rename(folder / "elsewhere")
    assert Pipeline({"predict": "elsewhere"}).new_files(None) == before


def test_a_bundle_counts_by_its_contents_alone(folder):
    (folder / "a.zip").write_bytes(b"models")
    pipeline = Pipeline(user_config() | {"models": "a.zip", "predict": "dicom"})
    before = contents(pipeline.bundle_to_apply)(None)
    (folder / "a.zip").rename(folder / "b.zip")
    with pytest.raises(ClotlineError, match="no such file exists"):
        Pipeline(user_config() | {"models": "a.zip", "predict": "dicom"})
    renamed = Pipeline(user_config() | {"models": str(folder / "b.zip"), "predict": "dicom"})
    assert contents(renamed.bundle_to_apply)(None) == before
    assert renamed.no_bundle_as_input(None) == []


@pytest.mark.parametrize("option", [{"prefix": "ct"}, {"replace_prefix": {"results/": "ct/"}}])
def test_a_module_with_other_paths_is_refused_in_a_sentence(option):
    options = {"prefix": None, "replace_prefix": None} | option
    plain = PathModifier(None, None, None)
    check_paths_stay(SimpleNamespace(path_modifier=plain))
    outer = PathModifier(options["replace_prefix"], options["prefix"], None)
    for paths in (outer, PathModifier(None, None, None, outer)):
        with pytest.raises(ClotlineError, match="takes no prefix"):
            check_paths_stay(SimpleNamespace(path_modifier=paths))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"key": 1}', "null"])
def test_a_damaged_cache_is_made_anew(folder, text):
    before = Pipeline(user_config()).shards
    (STATE_FOLDER / "plan.json").write_text(text)
    assert Pipeline(user_config()).shards == before


def test_a_changed_planner_does_not_take_the_cached_plan(folder, monkeypatch):
    before, cache = Pipeline(user_config()).shards, STATE_FOLDER / "plan.json"
    cache.write_text(json.dumps(json.loads(cache.read_text()) | {"shards": []}))
    assert Pipeline(user_config()).shards == {}
    monkeypatch.setattr(snakefile, "code_digest", lambda name, without: f"another {name}")
    assert Pipeline(user_config()).shards == before


def test_splits_by_patient_are_made_anew_when_files_come_that_were_not_there(folder):
    """As of a data set that is still being fetched."""
    labels = labels_of(STUDIES)
    for number, (_, row) in enumerate(labels[labels[IMAGE_LABEL] == 1].iterrows()):
        tags = {"PatientID": str(number // 4)}
        write_dicom(dicom_path(folder / "all", row), np.zeros((8, 8), np.int16), **tags)
    names = [f"s{number}" for number in range(0, 40, 2)]
    for name in names:
        (folder / "all" / name).rename(folder / "dicom" / name)
    config = user_config(split={"group": "PatientID", "train": 0.4, "valid": 0.3, "test": 0.3})
    half = Pipeline(config).plan_digest(None)
    assert Pipeline(config).plan_digest(None) == half
    for path in (folder / "all").iterdir():
        path.rename(folder / "dicom" / path.name)
    whole = Pipeline(config).plan_digest(None)
    assert whole != half
    for cache in STATE_FOLDER.glob("*.json"):
        cache.unlink()
    assert Pipeline(config).plan_digest(None) == whole


def test_a_phantom_to_be_made_has_the_shards_that_it_will_have(folder):
    config = {"phantom": {"studies": 30}, "data": {"slices_per_shard": 300}}
    shards = Pipeline(config).shards
    assert sum(shard["studies"] for shard in shards.values()) == 30
    assert not (folder / "data").exists()


def test_a_split_without_positive_slices_is_an_error_before_any_job(folder):
    labels_of({name: [0, 0] for name in STUDIES}).to_csv("labels.csv", index=False)
    with pytest.raises(ClotlineError, match=r"the train split has .* 0 positive"):
        Pipeline(user_config())


@pytest.mark.parametrize(("key", "gone"), [("labels", "labels.csv"), ("dicom", "dicom")])
def test_models_can_be_applied_where_there_is_nothing_to_train_on(folder, key, gone):
    (folder / gone).rename(folder / "elsewhere")
    (folder / "new").mkdir()
    applied = Pipeline(user_config() | {"predict": "new"})
    assert applied.shards == {}
    for train in (applied.shard_names, lambda: Pipeline(user_config())):
        with pytest.raises(ClotlineError, match=rf"data\.{key} is {gone}"):
            train()


def test_new_files_have_a_digest_of_names_sizes_and_times(folder):
    def digest():
        return Pipeline(user_config() | {"predict": "new"}).new_files(None)

    path = folder / "new/nested/a"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"1")
    seen = {digest()}
    assert digest() in seen
    os.utime(path, (0, 0))
    seen.add(digest())
    path.rename(path.with_name("b"))
    seen.add(digest())
    (folder / "new/c").write_bytes(b"")
    seen.add(digest())
    assert len(seen) == 4
    with pytest.raises(ClotlineError, match="--config predict=FOLDER"):
        Pipeline(user_config()).new_files(None)


def test_the_bundle_to_apply_is_the_named_one_or_this_folders_own(folder):
    missing = r"no trained models: .*/results/models/clotline\.zip.*and the studies, as in predict="
    with pytest.raises(ClotlineError, match=missing):
        Pipeline(user_config()).bundle_to_apply(None)
    own = folder / "results/models/clotline.zip"
    own.parent.mkdir(parents=True)
    own.touch()
    assert Pipeline(user_config()).bundle_to_apply(None) == str(own)
    (folder / "theirs.zip").touch()
    found = Pipeline(user_config() | {"models": "theirs.zip"}).bundle_to_apply(None)
    assert found == str(folder / "theirs.zip")


def test_a_file_that_a_user_gives_is_known_by_its_contents(tmp_path):
    path = tmp_path / "a"
    path.write_text("1")
    known = contents(lambda wildcards: path)
    before = known(None)
    os.utime(path, (0, 0))
    assert known(None) == before
    path.write_text("2")
    os.utime(path, (0, 0))
    assert known(None) != before
    assert contents(lambda wildcards: [])(None) is None


def test_the_phantoms_shards_are_those_of_the_configuration_until_its_labels_are_there(folder):
    def studies(number):
        config = {"phantom": {"studies": number}, "data": {"slices_per_shard": 300}}
        workflow = Pipeline(config)
        return workflow, sum(shard["studies"] for shard in workflow.shards.values())

    labels = folder / "data/phantom/train.csv"
    labels.parent.mkdir(parents=True)
    (folder / "data/phantom/train").mkdir()
    # Of another phantom, which will be replaced.
    (folder / "labels.csv").rename(labels)
    workflow, found = studies(30)
    assert found == 30
    # Once this phantom is written its labels file counts, as after a change by hand.
    PHANTOM_SOURCE.write_text(f"{workflow.section('phantom')}\n{code_digest('phantom.py')}")
    assert studies(30)[1] == len(STUDIES)
    assert studies(40)[1] == 40


def test_the_order_of_features_is_part_of_an_lstm(folder):
    lstm = SimpleNamespace(lstm="combined-study")
    orders = [["efficientnet_b0", "resnext50"], ["resnext50", "efficientnet_b0"]]
    seen = {
        Pipeline(user_config() | {"features": {"combined": order}}).features_of(lstm)
        for order in orders
    }
    assert len(seen) == 2


def test_a_model_is_set_beside_baselines_of_its_own_slice_scores_or_of_all_features_together(
    folder,
):
    for name in ("r.csv", "o.csv"):
        Path(name).touch()
    pipeline = Pipeline(
        user_config()
        | {
            "lstm": {"resnext50-image": None},
            "evaluation": {"external": {"reader-study": "r.csv", "other-image": "o.csv"}},
        }
    )

    def baselines(model):
        wildcards = SimpleNamespace(model=model)
        return pipeline.slice_baseline(wildcards), pipeline.study_baseline(wildcards)

    counts = "results/baselines/combined-image.parquet"
    position = "results/baselines/position.parquet"
    assert baselines("combined-study") == ([], counts)
    assert baselines("combined-image") == (position, counts)
    own = "results/baselines/efficientnet_b0-image.parquet"
    assert baselines("efficientnet_b0-study") == ([], own)
    # Without slice scores of their own.
    assert baselines("resnext50-study") == baselines("reader-study") == ([], counts)
    assert baselines("other-image") == (position, "results/baselines/other-image.parquet")
