from clotline.feature_sets import level_pairs, network_at, network_of
from clotline.finetuned import (
    finetuned_models,
    finetuned_network,
    finetuned_networks,
    made_models,
    origin_of,
)


def config_of(*networks):
    return {
        "lstm": {"a-study": {}, "a-joint": {}},
        "finetune": {network: {} for network in networks},
        "data": {"split": {"folds": None, "folds_of": None}},
        "ensembles": {"both-study": []},
    }


def test_a_finetuned_network_is_named_after_its_origin_and_leads_back_to_it():
    assert finetuned_network("a-joint") == "a-finetuned-joint"
    for name in ("a-image", "a_b-study", "a-joint"):
        assert origin_of(finetuned_network(name)) == name
        assert origin_of(name) == name


def test_a_finetuned_joint_network_is_two_models_and_another_is_one():
    config = config_of("a-study", "a-joint")
    assert finetuned_networks(config) == ["a-finetuned-study", "a-finetuned-joint"]
    models = finetuned_models(config)
    joint = ["a-finetuned-joint-image", "a-finetuned-joint-study"]
    assert models == ["a-finetuned-study", *joint]
    assert level_pairs(models) == ["a-finetuned-joint"]
    # What is said of their training, told by the name of its history, is said of the models.
    history = network_at("results/finetuned/a-finetuned-joint.csv")
    assert [network_of(model) for model in joint] == [history, history]
    assert network_of("a-finetuned-study") == network_at("results/finetuned/a-finetuned-study.csv")


def test_they_are_models_beside_all_others_and_without_an_entry_there_are_none():
    own = ["a-study", "a-joint-image", "a-joint-study", "both-study"]
    assert made_models(config_of()) == own
    assert made_models(config_of("a-study")) == [*own, "a-finetuned-study"]
