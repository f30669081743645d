from clotline.feature_sets import (
    feature_sets,
    folded_networks,
    folds_model,
    level_pairs,
    models_of,
    network_at,
    network_of,
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
