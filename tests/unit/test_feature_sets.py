from clotline.feature_sets import (
    feature_sets,
    finetuned_models,
    finetuned_network,
    finetuned_networks,
    folded_networks,
    folds_model,
    level_pairs,
    models_of,
    network_at,
    network_of,
    origin_of,
    own_models,
    split_lstm_name,
)


def test_an_lstms_name_splits_at_its_last_dash():
    assert split_lstm_name("efficientnet_b0-image") == ("efficientnet_b0", "image")


def test_each_backbone_is_a_feature_set_beside_the_joined_ones():
    config = {"cnn": {"a": {}, "b": {}}, "features": {"both": ["b", "a"]}}
    assert feature_sets(config) == {"a": ["a"], "b": ["b"], "both": ["b", "a"]}


def test_two_levels_of_one_name_are_a_pair():
    assert level_pairs(["a-image", "a-study", "b-study", "c-image", "readers"]) == ["a"]


def test_a_joint_network_is_a_pair_of_models_and_another_is_one():
    assert models_of("a-joint") == ["a-joint-image", "a-joint-study"]
    assert models_of("a-image") == ["a-image"]
    assert [network_of(model) for model in models_of("a-joint")] == ["a-joint", "a-joint"]
    assert network_of("a-study") == "a-study"
    assert level_pairs(["a-image", *models_of("a-joint")]) == ["a-joint"]


def test_folds_make_a_further_model_of_each_network_or_of_some():
    config = {
        "data": {"split": {"folds": 3, "folds_of": None}},
        "lstm": {"a-image": {}, "a-joint": {}},
    }
    assert folded_networks(config) == ["a-image", "a-joint"]
    config["data"]["split"]["folds_of"] = ["a-joint"]
    assert folded_networks(config) == ["a-joint"]
    config["data"]["split"]["folds"] = None
    assert folded_networks(config) == []
    models = [folds_model(model) for model in models_of("a-joint")]
    assert models == ["a-joint-folds-image", "a-joint-folds-study"]
    assert level_pairs(models) == ["a-joint-folds"]


def test_a_history_is_named_with_its_fold():
    assert network_at("results/lstm/a-image.csv") == "a-image"
    assert network_at("results/folds/2/lstm/a-image.csv") == "a-image, fold 2"


def finetuning(*networks):
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
    config = finetuning("a-study", "a-joint")
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
    assert own_models(finetuning()) == own
    assert own_models(finetuning("a-study")) == [*own, "a-finetuned-study"]
