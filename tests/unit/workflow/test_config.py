import json
import math
import re
from datetime import date

import pytest
import torch

from clotline.errors import ClotlineError
from clotline.feature_sets import feature_sets, own_models
from clotline.models.checkpoint import save_checkpoint
from clotline.models.lstm import SliceLSTM
from clotline.workflow.config import (
    PHANTOM_DATA,
    as_written,
    canonical,
    check_data_paths,
    check_keys_stand_once,
    load_config,
    load_schema,
)


def message_of(user):
    with pytest.raises(ClotlineError) as caught:
        load_config(user)
    return str(caught.value)


def test_an_empty_configuration_is_the_published_recipe():
    config = load_config({})
    assert config["seed"] == 2020
    assert config["data"]["slices_per_shard"] == 100_000
    assert config["data"]["split"] == {
        **{"column": None, "group": None, "train": 0.725, "valid": 0.145, "test": 0.13},
        **{"folds": None, "folds_of": None},
    }
    assert config["phantom"] is None
    assert list(config["cnn"]) == ["resnext50", "efficientnet_b0"]
    resnext = config["cnn"]["resnext50"]
    assert (resnext["library"], resnext["architecture"]) == ("torchvision", "resnext50_32x4d")
    assert (resnext["lr"], resnext["epochs"], resnext["batch_size"]) == (0.1, 40, 16)
    assert resnext["milestones"] == [10, 20, 30]
    assert config["features"] == {"combined": ["efficientnet_b0", "resnext50"]}
    assert len(config["lstm"]) == 6
    assert config["lstm"]["combined-study"]["hidden_size"] == 64
    assert config["lstm"]["combined-study"]["epochs"] == 20


def test_every_property_of_the_schema_has_a_value_in_the_filled_configuration():
    root = load_schema()
    config = load_config({})
    for section in ("data", "evaluation", "plots"):
        assert set(config[section]) == set(root["properties"][section]["properties"])
    assert set(config["cnn"]["efficientnet_b0"]) == set(root["$defs"]["backbone"]["properties"])
    assert set(config["lstm"]["resnext50-image"]) == set(root["$defs"]["lstm"]["properties"])


def test_one_key_of_a_section_leaves_its_other_defaults_in_place():
    config = load_config({"cnn": {"resnext50": {"lr": 0.05}}, "data": {"split": {"column": "s"}}})
    assert config["cnn"]["resnext50"]["lr"] == 0.05
    assert config["cnn"]["resnext50"]["architecture"] == "resnext50_32x4d"
    assert config["cnn"]["resnext50"]["momentum"] == 0.9
    assert config["cnn"]["efficientnet_b0"]["lr"] == 0.1
    assert config["data"]["split"]["train"] == 0.725
    assert config["data"]["labels"] == "data/rsna/train.csv"


def test_the_phantom_section_is_filled_and_names_its_own_data():
    config = load_config({"phantom": {"studies": 5}})
    assert config["phantom"]["studies"] == 5
    assert config["phantom"]["seed"] == 1
    assert (config["data"]["labels"], config["data"]["dicom"]) == tuple(PHANTOM_DATA.values())


def test_a_further_backbone_gets_the_defaults_and_a_feature_set_of_its_own():
    entry = {"library": "torchvision", "architecture": "densenet121"}
    config = load_config({"cnn": {"densenet": entry}, "lstm": {"densenet-study": {}}})
    assert config["cnn"]["densenet"]["crop"] == 224
    assert feature_sets(config)["densenet"] == ["densenet"]
    assert feature_sets(config)["combined"] == ["efficientnet_b0", "resnext50"]
    assert config["lstm"]["densenet-study"]["lr"] == config["lstm"]["combined-study"]["lr"]


def test_filling_in_defaults_leaves_the_users_configuration_and_the_next_one_alone():
    user = {"cnn": {"resnext50": {"lr": 0.05}}}
    before = json.dumps(user)
    load_config(user)["cnn"]["resnext50"]["milestones"].append(99)
    assert json.dumps(user) == before
    assert load_config({})["cnn"]["resnext50"]["milestones"] == [10, 20, 30]


def test_a_number_that_yaml_reads_as_text_is_named_with_the_remedy():
    message = message_of({"cnn": {"resnext50": {"lr": "1e-3"}}})
    assert "cnn.resnext50.lr is the text '1e-3'" in message
    assert "must be a finite number" in message
    assert "write 0.001" in message


@pytest.mark.parametrize(
    ("user", "parts"),
    [
        ({"sead": 1}, ["sead is no known key", "did you mean seed?"]),
        ({"data": {"label": "x"}}, ["data.label is no known key", "did you mean data.labels?"]),
        ({"data": {"split": {"tran": 0.5}}}, ["data.split.tran", "data.split.train?"]),
        ({"cnn": {"resnext50": {"moment": 0.9}}}, ["cnn.resnext50.moment", "momentum?"]),
        ({"cnn": {"resnext50": {"qqq": 0.9}}}, ["cnn.resnext50.qqq", "Allowed: library,"]),
        ({"lstm": {"combined-stdy": {}}}, ["lstm.combined-stdy", "lstm.combined-study?"]),
        ({"phantom": {"study": 3}}, ["phantom.study", "phantom.studies?"]),
    ],
)
def test_a_misspelt_key_is_named_with_what_was_meant(user, parts):
    message = message_of(user)
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("user", "key", "allowed"),
    [
        ({"seed": "x"}, "seed is the text 'x'", "a whole number"),
        ({"seed": 1.5}, "seed is 1.5", "a whole number"),
        ({"seed": -1}, "seed is -1", "at least 0"),
        ({"data": "x"}, "data is the text 'x'", "a section with keys of its own"),
        ({"data": None}, "data is null", "a section with keys of its own"),
        ({"data": {"max_rejects": 2}}, "data.max_rejects is 2", "at most 1"),
        ({"data": {"split": {"train": 0}}}, "data.split.train is 0", "more than 0"),
        ({"data": {"split": {"test": 1}}}, "data.split.test is 1", "less than 1"),
        ({"data": {"labels": ""}}, "data.labels", "non-empty"),
        ({"data": {"split": {"column": 3}}}, "data.split.column is 3", "text or null"),
        ({"cnn": {"resnext50": 5}}, "cnn.resnext50 is 5", "a section"),
        ({"cnn": {"resnext50": {"lr": math.nan}}}, "cnn.resnext50.lr is NaN", "a finite number"),
        ({"cnn": {"resnext50": {"lr": math.inf}}}, "cnn.resnext50.lr is Inf", "a finite number"),
        ({"cnn": {"resnext50": {"epochs": 9.0}}}, "cnn.resnext50.epochs is 9.0", "a whole number"),
        ({"cnn": {"resnext50": {"lr": True}}}, "cnn.resnext50.lr is true", "a finite number"),
        ({"cnn": {"resnext50": {"lr": -0.1}}}, "cnn.resnext50.lr is -0.1", "more than 0"),
        ({"cnn": {"resnext50": {"momentum": 1}}}, "cnn.resnext50.momentum is 1", "less than 1"),
        ({"cnn": {"resnext50": {"crop": 300}}}, "cnn.resnext50.crop is 300", "data.size, 256"),
        ({"cnn": {"resnext50": {"crop": 513}}}, "cnn.resnext50.crop is 513", "at most 512"),
        ({"data": {"size": 320}}, "data.size is 320", "256, 384, 512"),
        ({"data": {"crop": "heart"}}, "data.crop is the text 'heart'", "none, lungs"),
        ({"cnn": {"resnext50": {"batch_size": 1}}}, "cnn.resnext50.batch_size is 1", "at least 2"),
        ({"cnn": {"resnext50": {"milestones": 3}}}, "cnn.resnext50.milestones is 3", "a list"),
        ({"cnn": {"resnext50": {"milestones": [0]}}}, "cnn.resnext50.milestones.0", "at least 1"),
        ({"cnn": {"resnext50": {"vertical_flip": 1}}}, "vertical_flip is 1", "true or false"),
        (
            {"cnn": {"resnext50": {"schedule": "one-cycle"}}},
            "cnn.resnext50.schedule is the text 'one-cycle'",
            "one of step, one_cycle, cosine, linear, constant; did you mean one_cycle?",
        ),
        ({"cnn": {"third": {"library": "torchvision"}}}, "cnn.third lacks", "architecture"),
        ({"features": {"combined": []}}, "features.combined", "non-empty"),
        ({"lstm": {"combined-image": {"clip_norm": 0}}}, "combined-image.clip_norm", "more than 0"),
        ({"plots": {"dpi": 10}}, "plots.dpi is 10", "at least 50"),
        ({"evaluation": {"bootstraps": 3}}, "evaluation.bootstraps is 3", "at least 100"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(user, key, allowed):
    message = message_of(user)
    assert key in message
    assert allowed in message


def test_a_whole_number_that_yaml_reads_as_text_is_named_with_the_remedy():
    message = message_of({"cnn": {"resnext50": {"epochs": "1e2"}}})
    assert "cnn.resnext50.epochs is the text '1e2'; it must be a whole number" in message
    assert "write 100)" in message


def test_a_folder_whose_name_is_a_number_is_refused_with_the_remedy():
    message = message_of({"predict": 2024})
    assert "predict is 2024; it must be text or null" in message
    assert "write ./2024)" in message


@pytest.mark.parametrize(
    ("text", "value"),
    [("2020_01_15", 20200115), ("1e3", 1000.0), ("0x10", 16), ("2020-01-15", date(2020, 1, 15))],
)
def test_what_a_user_wrote_is_named_not_what_it_was_read_as(tmp_path, text, value):
    path = tmp_path / "config.yaml"
    path.write_text(f"predict: {text}\ndata: {{labels: {text}}}\n")
    for written in (as_written([], ["snakemake", f"predict={text}"]), as_written([path], [])):
        with pytest.raises(ClotlineError) as caught:
            load_config({"predict": value}, written)
        assert f"{text} is read as a " in str(caught.value)
        assert f"write ./{text})" in str(caught.value)
    with pytest.raises(ClotlineError) as caught:
        load_config({"data": {"labels": value}}, as_written([path], []))
    assert f"write ./{text})" in str(caught.value)


def test_a_number_that_the_command_line_made_text_is_not_said_to_be_misspelt():
    message = message_of({"cnn": {"resnext50": {"lr": "0.05"}}})
    assert "cnn.resnext50.lr is the text '0.05'; it must be a finite number" in message
    assert "nested in --config" in message
    assert "YAML" not in message


@pytest.mark.parametrize("key", ["predict", "models", "phantom"])
def test_null_of_the_command_line_is_said_to_be_text(key):
    assert re.search(r"Snakemake turns null .* into text", message_of({key: "null"}))


def test_a_boolean_of_the_command_line_is_said_to_be_text():
    message = message_of({"cnn": {"resnext50": {"vertical_flip": "false"}}})
    assert "Snakemake turns false on the command line into text" in message


@pytest.mark.parametrize("name", ["combined-image", "combined-study"])
def test_the_lstms_that_others_are_measured_against_cannot_be_left_out(name):
    message = message_of({"lstm": {name: None}})
    assert f"lstm.{name} is left out, and the comparisons" in message


def test_no_backbone_at_all_is_an_error():
    message = message_of({"cnn": {"resnext50": None, "efficientnet_b0": None}})
    assert "cnn leaves out every backbone" in message


@pytest.mark.parametrize(
    "user", [{50: 1}, {"cnn": {50: {}}}, {"lstm": {True: {}}}, {"data": {"split": {None: 1}}}]
)
def test_a_key_that_is_no_text_is_named(user):
    message = message_of(user)
    assert "the key " in message
    assert "put it in quotes" in message


def test_all_wrong_keys_are_named_at_once_and_each_once():
    message = message_of({"seed": -1, "cnn": {"resnext50": {"lr": "x", "epochs": -1}}})
    for key in ("seed", "cnn.resnext50.lr", "cnn.resnext50.epochs"):
        assert message.count(f"{key} is ") == 1


def test_fractions_must_sum_to_one():
    message = message_of({"data": {"split": {"train": 0.8}}})
    assert "data.split.train, valid and test sum to 1.075" in message
    assert 0.7 + 0.2 + 0.1 != 1
    load_config({"data": {"split": {"train": 0.7, "valid": 0.2, "test": 0.1}}})


def test_an_lstm_of_an_unknown_feature_set_is_refused():
    message = message_of({"lstm": {"densenet-study": {}}})
    assert "lstm.densenet-study uses the feature set densenet" in message
    assert "resnext50, efficientnet_b0, combined" in message


def test_a_feature_set_of_an_unknown_backbone_is_refused():
    message = message_of({"features": {"combined": ["resnext50", "vgg"]}})
    assert "features.combined names vgg, which is no backbone" in message
    assert "efficientnet_b0" in message


def test_a_feature_set_cannot_have_the_name_of_a_backbone():
    assert "features.resnext50 has the name" in message_of({"features": {"resnext50": ["x"]}})


@pytest.mark.parametrize("key", ["labels", "dicom"])
def test_the_phantom_and_a_data_set_of_ones_own_exclude_each_other(key):
    message = message_of({"phantom": {}, "data": {key: "mine"}})
    assert f"data.{key} is set although phantom is" in message


def test_the_phantoms_slice_numbers_must_be_in_order():
    message = message_of({"phantom": {"slices_min": 30, "slices_max": 20}})
    assert "phantom.slices_min is larger than phantom.slices_max" in message


def test_a_hard_phantom_needs_slices_that_are_near_each_other():
    message = message_of({"phantom": {"difficulty": "hard", "slices_min": 19}})
    assert "phantom.slices_min is 19 slices" in message
    assert load_config({"phantom": {"difficulty": "hard"}})["phantom"]["slices_min"] == 20


def test_larger_slices_want_a_crop_of_each_backbone():
    larger = {"crop": 448, "input_size": 448}
    both = {"resnext50": larger, "efficientnet_b0": larger}
    assert load_config({"data": {"size": 512}, "cnn": both})["cnn"]["resnext50"]["crop"] == 448
    message = message_of({"data": {"size": 512}, "cnn": {"resnext50": larger}})
    assert "cnn.efficientnet_b0.crop is not set and data.size is 512 pixels" in message
    assert "448 pixels are the same part of a slice" in message
    assert "resnext50" not in message
    message = message_of({"data": {"size": 384}, "cnn": both})
    assert "cnn.resnext50.crop is 448 pixels; it must be at most data.size, 384 pixels" in message
    # What is left out needs none; a crop to the lungs leaves the size as it is.
    other = {"resnext50": larger, "efficientnet_b0": None}
    lone = {"features": {"combined": ["resnext50"]}, "lstm": {"efficientnet_b0-image": None,
            "efficientnet_b0-study": None}}  # fmt: skip
    load_config({"data": {"size": 512}, "cnn": other} | lone)
    load_config({"data": {"crop": "lungs"}})


def test_a_video_network_wants_several_planes():
    entry = {"library": "torchvision-video", "architecture": "r3d_18"}
    message = message_of({"cnn": {"video": entry}})
    assert "cnn.video.planes is 1: set it to 3 or more" in message
    load_config({"cnn": {"video": entry | {"planes": 3}}})


@pytest.mark.parametrize(
    ("library", "architecture"), [("torchvision", "vit_b_32"), ("timm", "vit_tiny_patch16_224")]
)
def test_a_network_of_one_size_of_inputs_wants_that(library, architecture):
    entry = {"library": library, "architecture": architecture}
    message = message_of({"cnn": {"other": entry | {"input_size": 192}}})
    assert "cnn.other.input_size is 192 pixels" in message
    assert f"{architecture} of {library} takes 224 alone" in message
    load_config({"cnn": {"other": entry}})


def test_a_distance_of_planes_wants_several():
    message = message_of({"cnn": {"resnext50": {"plane_distance_mm": 3}}})
    assert "cnn.resnext50.plane_distance_mm is 3 mm, and cnn.resnext50.planes is 1" in message
    load_config({"cnn": {"resnext50": {"plane_distance_mm": 3, "planes": 3}}})


@pytest.mark.parametrize("other", [{"epoch_slices": 1000}, {"positive_share": 0.3}])
def test_an_epoch_goes_by_labels_or_by_studies(other):
    message = message_of({"cnn": {"resnext50": {"study_slices": 30} | other}})
    (key,) = other
    assert "cnn.resnext50.study_slices is 30 slices of each study" in message
    assert f"cnn.resnext50.{key} draws them by label" in message
    load_config({"cnn": {"resnext50": {"study_slices": 30}}})


def test_the_networks_input_cannot_be_larger_than_the_crop():
    for size in (129, 160):
        message = message_of({"cnn": {"resnext50": {"crop": 128, "input_size": size}}})
        assert f"cnn.resnext50.input_size is {size}" in message
        assert "cnn.resnext50.crop, 128" in message
    load_config({"cnn": {"resnext50": {"crop": 128, "input_size": 128}}})


@pytest.mark.parametrize(
    ("section", "name"), [("cnn", "resnext50"), ("lstm", "combined-study")], ids=["cnn", "lstm"]
)
def test_a_missing_file_of_initial_weights_is_named(section, name, tmp_path):
    path = tmp_path / "weights.pt"
    user = {section: {name: {"init": str(path)}}}
    message = message_of(user)
    assert f"{section}.{name}.init is {path}" in message
    assert "random" in message
    write_weights(path, section)
    load_config(user)


def write_weights(path, section):
    """Weights that fit the published networks, as far as the configuration can tell."""
    if section == "lstm":
        torch.save(SliceLSTM(3328, 64, "study").state_dict(), path)
    else:
        about = {"library": "torchvision", "architecture": "resnext50_32x4d"}
        weights = {"head.weight": torch.zeros(1, 2048)}
        save_checkpoint(path, {"kind": "cnn", "config": about, "weights": weights})


@pytest.mark.parametrize(
    "keys", [{"planes": 2}, {"further_windows": [[40]]}, {"further_windows": [[40, 0]]},
             {"plane_distance_mm": 0}, {"weights_sha256": "ABCDEF01"}, {"cutout": 1}],
    ids=str,
)  # fmt: skip
def test_what_an_input_cannot_have_is_refused(keys):
    (name,) = keys
    assert f"cnn.resnext50.{name}" in message_of({"cnn": {"resnext50": keys}})


@pytest.mark.parametrize(
    ("library", "given", "guess"),
    [
        ("torchvision", "resnext_50_32x4d", "resnext50_32x4d"),
        ("torchvision", "efficientnet-b0", "efficientnet_b0"),
        ("efficientnet-pytorch", "efficientnet_b0", "efficientnet-b0"),
        ("timm", "seresnext50-32x4d", "seresnext50_32x4d"),
    ],
)
def test_a_misspelt_architecture_is_named_with_the_nearest(library, given, guess):
    message = message_of({"cnn": {"other": {"library": library, "architecture": given}}})
    assert f"cnn.other.architecture is {given}, and {library} has no such network" in message
    assert f"did you mean {guess}? There are " in message


@pytest.mark.parametrize(("stage", "name"), [("cnn", "resnext50"), ("lstm", "combined-study")])
def test_random_weights_are_not_evaluated_as_they_are(stage, name, tmp_path):
    message = message_of({stage: {name: {"init": "random", "epochs": 0}}})
    assert f"{stage}.{name}.epochs is 0 and {stage}.{name}.init is random" in message
    write_weights(tmp_path / "a.pt", stage)
    load_config({stage: {name: {"init": str(tmp_path / "a.pt"), "epochs": 0}}})


def test_missing_data_is_named_with_the_folder_looked_in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = load_config({"data": {"labels": "a.csv", "dicom": "files"}})
    with pytest.raises(ClotlineError) as caught:
        check_data_paths(config)
    message = str(caught.value)
    assert "data.labels is a.csv" in message
    assert "data.dicom is files" in message
    assert str(tmp_path) in message
    (tmp_path / "a.csv").touch()
    with pytest.raises(ClotlineError, match=r"data\.dicom") as caught:
        check_data_paths(config)
    assert "data.labels" not in str(caught.value)
    (tmp_path / "files").mkdir()
    check_data_paths(config)


def test_a_file_is_no_dicom_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.csv", "files"):
        (tmp_path / name).touch()
    with pytest.raises(ClotlineError, match=r"data\.dicom"):
        check_data_paths(load_config({"data": {"labels": "a.csv", "dicom": "files"}}))


def test_the_phantom_needs_no_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_data_paths(load_config({"phantom": {}}))


def test_canonical_text_ignores_the_order_of_keys_and_nothing_else():
    assert canonical({"a": 1, "b": 2}) == canonical({"b": 2, "a": 1})
    assert canonical({"a": 1, "b": 2}) != canonical({"a": 2, "b": 1})
    assert canonical([1, 2]) != canonical([2, 1])


@pytest.mark.parametrize(("key", "kind"), [("predict", "folder"), ("models", "file")])
def test_what_predict_needs_must_exist(key, kind):
    with pytest.raises(ClotlineError, match=f"{key} is nowhere, and no such {kind} exists"):
        load_config({key: "nowhere"})


def test_what_is_there_by_default_can_be_left_out():
    config = load_config(
        {
            "cnn": {"resnext50": None},
            "features": {"combined": ["efficientnet_b0"]},
            "lstm": {"resnext50-image": None, "resnext50-study": None},
        }
    )
    assert list(config["cnn"]) == ["efficientnet_b0"]
    assert len(config["lstm"]) == 4
    message = message_of({"cnn": {"resnext50": None}})
    assert "features.combined names resnext50, which is no backbone" in message
    assert "To leave out this LSTM, set it to null" in message


@pytest.mark.parametrize(
    ("stage", "name", "init"),
    [
        ("cnn", "resnext50", "results/cnn/resnext50.pt"),
        ("cnn", "resnext50", "./results/../results/cnn/resnext50.last.pt"),
        ("lstm", "combined-study", "results/lstm/combined-study.pt"),
    ],
)
def test_a_training_cannot_start_from_what_it_would_replace(
    tmp_path, monkeypatch, stage, name, init
):
    monkeypatch.chdir(tmp_path)
    for path in (f"results/{stage}/{name}.pt", f"results/{stage}/{name}.last.pt", "copy.pt"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    message = message_of({stage: {name: {"init": init}}})
    assert f"{stage}.{name}.init is {init}, which this training would replace: copy it" in message
    write_weights("copy.pt", stage)
    load_config({stage: {name: {"init": "copy.pt"}}})


def test_a_group_is_a_further_column_and_the_phantom_has_no_patients():
    def message(phantom=None, **split):
        return message_of({"phantom": phantom, "data": {"split": split}})

    assert "the phantom's studies are of no patients" in message({}, group="PatientID")
    assert "data.split.group is StudyInstanceUID, one of the competition's columns" in message(
        group="StudyInstanceUID"
    )
    assert "are both fold: name two columns" in message(group="fold", column="fold")


def test_the_phantom_has_no_column_of_splits():
    message = message_of({"phantom": {}, "data": {"split": {"column": "fold"}}})
    assert "data.split.column is fold, and the phantom's labels have no such column" in message


def test_a_seed_that_no_generator_takes_is_refused():
    assert "seed is 9223372036854775808; it must be" in message_of({"seed": 2**63})


def test_a_key_that_stands_twice_is_named_with_its_line(tmp_path):
    path = tmp_path / "config.yaml"
    merged = "cnn:\n  a: &a {<<: *b}\n  b: {<<: *a, lr: 2}\n"
    path.write_text(f"base: &b {{lr: 1}}\nplots: {{dpi: 70}}\n{merged}")
    check_keys_stand_once([path, tmp_path / "none.yaml"])
    path.write_text(path.read_text() + "plots:\n  dpi: 80\n")
    with pytest.raises(ClotlineError, match=r"config\.yaml, line 6: the key plots stands twice"):
        check_keys_stand_once([path])
    path.write_text("cnn:\n  a: {lr: 1, lr: 2}\n")
    with pytest.raises(ClotlineError, match="line 2: the key lr stands twice"):
        check_keys_stand_once([path])


def test_replicated_targets_are_for_the_published_network_alone():
    entry = {"target_replication": 0.5, "pooling": ["mean"]}
    message = message_of({"lstm": {"combined-study": entry}})
    assert "lstm.combined-study.target_replication is 0.5" in message
    assert "lstm.combined-study.pooling gives it another form: set target_replication" in message
    load_config({"lstm": {"combined-study": {"target_replication": 0.5}}})
    message = message_of({"lstm": {"combined-joint": {"target_replication": 0.5}}})
    assert "published network, and its level gives it another form" in message
    message = message_of({"lstm": {"combined-study": {"pooling": []}}})
    assert "lstm.combined-study.pooling" in message
    message = message_of({"lstm": {"combined-study": {"pooling": ["median"]}}})
    assert "it must be one of last, mean, max, attention" in message


def test_another_forms_weights_from_a_file_are_not_trained_on_standardised_features(tmp_path):
    path = tmp_path / "a.pt"
    path.write_bytes(b"")
    entry = {"cell": "gru", "init": str(path), "standardize": True}
    message = message_of({"lstm": {"combined-study": entry}})
    assert "lstm.combined-study.cell gives the network another form" in message
    assert "set standardize to false" in message


def test_an_ensemble_is_of_models_of_its_level_that_are_made_here():
    pair = {
        f"all-{level}": [f"combined-{level}", f"combined-joint-{level}"]
        for level in ("image", "study")
    }
    user = {"lstm": {"combined-joint": {}}, "ensembles": pair}
    models = own_models(load_config(user))
    assert {"combined-joint-image", "combined-joint-study"} < set(models)
    assert models[-2:] == ["all-image", "all-study"]
    load_config(user | {"evaluation": {"submission": "all"}})
    message = message_of({"ensembles": pair})
    assert "ensembles.all-study names combined-joint-study, which is no model of the" in message
    message = message_of({"ensembles": {"all-study": ["combined-study", "resnext50-image"]}})
    assert "names resnext50-image, which is no model of the study level" in message
    message = message_of({"ensembles": {"combined-study": ["combined-study", "resnext50-study"]}})
    assert "ensembles.combined-study has the name of another model" in message
    message = message_of({"ensembles": {"all-study": ["combined-study"]}})
    assert "ensembles.all-study" in message
    message = message_of({"evaluation": {"submission": "all"}})
    assert "evaluation.submission is all, which has no image level and study level" in message


def test_finetuning_is_of_entries_with_one_backbone():
    lstm = {"resnext50-joint": {}}
    config = load_config({"lstm": lstm, "finetune": {"resnext50-joint": {"slices": 8}}})
    assert config["finetune"]["resnext50-joint"]["slices"] == 8
    assert config["finetune"]["resnext50-joint"]["batch_size"] == 2
    assert load_config({"finetune": {"resnext50-study": None}})["finetune"] == {}
    message = message_of({"finetune": {"resnext50-joint": {}}})
    assert "finetune.resnext50-joint is of no entry of lstm; there are resnext50-image" in message
    message = message_of({"finetune": {"combined-study": {}}})
    assert (
        "finetune.combined-study is of a network that reads the features of several backbones, "
        "efficientnet_b0, resnext50, and one is trained"
    ) in message
    message = message_of({"finetune": {"resnext50-study": {"slices": 0, "ema": 0.9}}})
    assert "finetune.resnext50-study.slices is 0; it must be at least 1" in message
    assert "finetune.resnext50-study.ema is no known key" in message


def test_finetuned_models_can_be_members_of_ensembles_and_be_handed_in():
    config = {
        "lstm": {"resnext50-joint": {}},
        "finetune": {"resnext50-joint": {}},
        "ensembles": {"a-study": ["combined-study", "resnext50-finetuned-joint-study"]},
        "evaluation": {"submission": "resnext50-finetuned-joint"},
    }
    assert load_config(config)["evaluation"]["submission"] == "resnext50-finetuned-joint"
    message = message_of(config | {"finetune": {}})
    assert "a-study names resnext50-finetuned-joint-study, which is no model" in message


def test_folds_are_of_entries_that_there_are():
    split = {"folds": 3, "folds_of": ["combined-study"]}
    models = own_models(load_config({"data": {"split": split}}))
    assert [name for name in models if "folds" in name] == ["combined-folds-study"]
    message = message_of({"data": {"split": split | {"folds_of": ["winner-joint"]}}})
    assert "data.split.folds_of names winner-joint, which is no entry of lstm" in message
    message = message_of({"data": {"split": split | {"folds": None}}})
    assert "data.split.folds_of is set and data.split.folds is null" in message
    assert "data.split.folds is 2" in message_of({"data": {"split": {"folds": 2}}})
    user = {
        "data": {"split": split},
        "ensembles": {"a-study": ["combined-study", "combined-folds-study"]},
    }
    load_config(user)
