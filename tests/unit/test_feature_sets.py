from clotline.feature_sets import feature_sets, split_lstm_name


def test_an_lstms_name_splits_at_its_last_dash():
    assert split_lstm_name("efficientnet_b0-image") == ("efficientnet_b0", "image")


def test_each_backbone_is_a_feature_set_beside_the_joined_ones():
    config = {"cnn": {"a": {}, "b": {}}, "features": {"both": ["b", "a"]}}
    assert feature_sets(config) == {"a": ["a"], "b": ["b"], "both": ["b", "a"]}
