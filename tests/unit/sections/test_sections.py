"""The sections of networks: their fields are the schema's keys, and checkpoints keep their form."""

import json
from dataclasses import FrozenInstanceError, fields

import pytest
from builders import cnn_section, lstm_section

from clotline.errors import ClotlineError
from clotline.sections.cnn import CNNSection, cnn_sections
from clotline.sections.finetune import FinetuneSection, finetune_sections
from clotline.sections.lstm import LSTMSection, lstm_sections
from clotline.sections.recipe import Recipe
from clotline.workflow.config import canonical, load_config, load_schema

KEYS = {
    CNNSection: load_schema()["$defs"]["backbone"]["properties"],
    LSTMSection: load_schema()["$defs"]["lstm"]["properties"],
}
MADE = {CNNSection: cnn_section(), LSTMSection: lstm_section()}
BOTH = pytest.mark.parametrize("section", KEYS, ids=lambda section: section.__name__)

TYPES = {"integer": int, "number": float, "string": str, "boolean": bool, "null": None}


def type_of(key):
    """The Python type of a key of the schema."""
    if "enum" in key:
        return type(key["enum"][0])
    if key["type"] == "array":
        return list[type_of(key["items"])]
    if isinstance(key["type"], list):
        one, null = (TYPES[name] for name in key["type"])
        return one | null
    return TYPES[key["type"]]


@BOTH
def test_the_fields_are_the_schemas_keys_with_their_types(section):
    assert {f.name: f.type for f in fields(section)} == {
        k: type_of(v) for k, v in KEYS[section].items()
    }


def test_the_recipe_is_what_both_schemas_share_and_nothing_a_network_is_made_of():
    shared = KEYS[CNNSection].keys() & KEYS[LSTMSection].keys()
    assert {f.name for f in fields(Recipe)} == shared - {"init", "dropout", "batch_size"}


def test_every_entry_of_the_configuration_becomes_its_section():
    config = load_config({"cnn": {"resnext50": {"lr": 0.05}}, "lstm": {"combined-image": {}}})
    cnns, lstms = cnn_sections(config), lstm_sections(config)
    assert list(cnns) == list(config["cnn"]) and list(lstms) == list(config["lstm"])
    assert (cnns["resnext50"].lr, cnns["resnext50"].architecture) == (0.05, "resnext50_32x4d")
    assert cnns["efficientnet_b0"].lr == 0.1
    assert lstms["combined-image"].clip_norm == 1.0


@BOTH
def test_a_checkpoint_has_the_entry_as_the_rules_params_have_it(section):
    of_params = json.loads(canonical(vars(MADE[section])))
    found = section(**of_params).as_dict()
    assert json.dumps(found) == json.dumps(of_params)
    assert type(found["milestones"]) is list


@BOTH
def test_a_wrong_name_is_an_error_wherever_it_stands(section):
    entry = MADE[section].as_dict()
    with pytest.raises(TypeError, match="epoch"):
        section(**entry, epoch=3)
    del entry["epochs"]
    with pytest.raises(TypeError, match="epochs"):
        section(**entry)
    with pytest.raises(AttributeError, match="epoch"):
        MADE[section].epoch  # noqa: B018
    with pytest.raises(FrozenInstanceError):
        MADE[section].epochs = 3


@BOTH
def test_a_checkpoint_of_another_version_is_read(section):
    config = MADE[section].as_dict() | {"of_a_later_version": 1}
    older = {key: value for key, value in config.items() if key not in section.BEFORE}
    assert section.of_checkpoint(config, "a.pt") == MADE[section]
    found = vars(section.of_checkpoint(older, "a.pt"))
    assert found == vars(MADE[section]) | section.BEFORE
    assert len(found) == len(older) - 1 + len(section.BEFORE)


@BOTH
def test_a_checkpoint_that_lacks_a_key_is_named(section):
    config = MADE[section].as_dict()
    del config["precision"], config["lr"]
    with pytest.raises(ClotlineError, match=r"a\.pt is a checkpoint without lr, precision in its"):
        section.of_checkpoint(config, "a.pt")


def test_an_entry_of_finetune_has_the_schemas_keys_and_is_trained_by_the_shared_ones():
    keys = load_schema()["$defs"]["finetune"]["properties"]
    assert {f.name: f.type for f in fields(FinetuneSection)} == {
        name: type_of(key) for name, key in keys.items()
    }
    entry = {"slices": 5, "batch_size": 3, "lr": 0.25, "milestones": [4]}
    config = load_config({"lstm": {"resnext50-joint": {}}, "finetune": {"resnext50-joint": entry}})
    (section,) = finetune_sections(config).values()
    assert section.slices_together == 15
    assert (section.lr, section.milestones, section.optimizer) == (0.25, [4], "adamw")
    # Averaged weights would need batch normalisation's statistics anew, which is frozen.
    assert section.ema == 0
    assert section.as_dict() == json.loads(canonical(config["finetune"]["resnext50-joint"]))
