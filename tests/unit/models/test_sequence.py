"""Networks of stage 2 beyond the published form: what no output may depend on, and what it must."""

from dataclasses import replace

import pytest
import torch
from builders import checkpoint_of, lstm_section
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from clotline.errors import ClotlineError
from clotline.loading.study_loader import Moments, StudyBatch
from clotline.models.lstm import SliceLSTM, build_lstm, load_lstm
from clotline.models.sequence import SliceSequence, build_sequence
from clotline.models.supervision import build_trained_lstm, half_reversed, kept_weights
from clotline.sections.lstm import PUBLISHED_FORM, LSTMSection

WIDTH = 6
LEVELS = pytest.mark.parametrize("level", ["image", "study", "joint"])
SHAPES = {"image": (10,), "study": (2, 9), "joint": (10, 10)}

#: A value of each key that gives another form.
OTHER = {
    "cell": "gru",
    "bidirectional": True,
    "layers": 2,
    "pooling": ["max", "attention"],
    "neighbour_differences": True,
    "layer_norm": True,
    "projection": 3,
    "max_steps": 4,
}
#: What place 1 of the competition had, and the like.
ALL = lstm_section(hidden_size=5, **OTHER)


def network(section, level):
    torch.manual_seed(0)
    return build_lstm(WIDTH, section, level).eval()


def draw_studies(lengths, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(length, WIDTH, generator=generator) for length in lengths]


@torch.inference_mode()
def call(model, studies):
    return model(StudyBatch(torch.cat(studies), [len(features) for features in studies]))


def by_study(model, outputs, studies):
    return outputs.split(1 if model.level == "study" else [len(s) for s in studies])


def test_the_published_form_is_what_the_configuration_leaves_as_it_is():
    assert type(network(lstm_section(), "study")) is SliceLSTM
    assert type(network(lstm_section(), "joint")) is SliceSequence
    assert OTHER.keys() == PUBLISHED_FORM.keys()


@pytest.mark.parametrize("key", OTHER)
@LEVELS
def test_each_key_alone_gives_another_network_that_trains(key, level):
    model = network(lstm_section(hidden_size=5, **{key: OTHER[key]}), level)
    assert isinstance(model, SliceSequence)
    studies = draw_studies((3, 7))
    outputs = model(StudyBatch(torch.cat(studies), [3, 7]))
    assert outputs.shape == SHAPES[level]
    outputs.square().sum().backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


forms = st.fixed_dictionaries(
    {
        "cell": st.sampled_from(["lstm", "gru"]),
        "bidirectional": st.booleans(),
        "layers": st.integers(1, 2),
        "pooling": st.lists(
            st.sampled_from(["last", "mean", "max", "attention"]), min_size=1, unique=True
        ),
        "neighbour_differences": st.booleans(),
        "layer_norm": st.booleans(),
        "projection": st.sampled_from([None, 3]),
        "max_steps": st.sampled_from([None, 2, 5]),
    }
)


@settings(max_examples=30, deadline=None)
@given(forms, st.lists(st.integers(1, 9), min_size=2, max_size=5), st.randoms())
@LEVELS
def test_neither_padding_nor_neighbours_nor_the_order_of_studies_change_an_output(
    level, form, lengths, random
):
    model = network(lstm_section(hidden_size=4, **form), level)
    studies = draw_studies(lengths)
    alone = [call(model, [study]) for study in studies]
    # The longest pads all others.
    order = list(range(len(studies)))
    random.shuffle(order)
    mixed = [studies[index] for index in order]
    together = by_study(model, call(model, mixed), mixed)
    for output, index in zip(together, order, strict=True):
        assert torch.allclose(output, alone[index], atol=1e-5)


@LEVELS
def test_one_layer_is_torchs_own_on_each_study(level):
    model = network(lstm_section(hidden_size=5, cell="gru", bidirectional=True), level)
    for study in draw_studies((4, 1, 7)):
        with torch.inference_mode():
            states, final = model.layers(study[None])
            ends = torch.cat([final[0], final[1]], 1)
            if level == "image":
                expected = model.linear(states[0]).squeeze(-1)
            elif level == "study":
                expected = model.linear(ends)
            else:
                labels = model.linear(ends).expand(len(study), -1)
                expected = torch.cat([labels, model.image_linear(states[0])], 1)
        assert torch.allclose(call(model, [study]), expected, atol=1e-6)


def test_pools_are_joined_in_their_order_over_a_studys_own_steps():
    pooling = ["mean", "max", "last", "attention"]
    model = network(lstm_section(hidden_size=5, cell="gru", pooling=pooling), "study")
    studies = draw_studies((3, 8))
    with torch.inference_mode():
        for study, actual in zip(studies, call(model, studies), strict=True):
            states = model.layers(study[None])[0][0]
            shares = model.attention(states).softmax(0)
            pools = [states.mean(0), states.amax(0), states[-1], (shares * states).sum(0)]
            assert torch.allclose(actual, model.linear(torch.cat(pools)), atol=1e-6)


def test_both_directions_see_both_neighbours_and_one_sees_those_before():
    studies = draw_studies((6,))
    changed = [studies[0].clone()]
    changed[0][-1] += 5
    for bidirectional in (False, True):
        section = lstm_section(hidden_size=5, cell="gru", bidirectional=bidirectional)
        model = network(section, "image")
        differs = (call(model, studies) - call(model, changed)).abs() > 1e-6
        assert differs[:-1].any() == bidirectional
        assert differs[-1]


def test_neighbours_differences_are_zero_beyond_the_ends_and_shorten_nothing():
    section = lstm_section(hidden_size=5, neighbour_differences=True)
    model = network(section, "image")
    slices = torch.tensor([[1.0], [4.0], [9.0]]).expand(3, WIDTH)
    steps = model._steps(slices)
    assert steps[:, 0].tolist() == [1, 4, 9]
    assert steps[:, WIDTH].tolist() == [0, 3, 5]
    assert steps[:, 2 * WIDTH].tolist() == [-3, -5, 0]


def test_a_long_study_is_interpolated_to_so_many_steps_and_back_to_its_slices():
    model = network(lstm_section(hidden_size=5, max_steps=4), "image")
    slices = torch.linspace(0, 6, 7)[:, None].expand(7, WIDTH)
    assert torch.allclose(model._steps(slices)[:, 0], torch.tensor([0.0, 2, 4, 6]))
    assert torch.equal(model._steps(slices[:4]), slices[:4])
    logits = call(model, [slices])
    assert logits.shape == (7,)
    # Those at the steps themselves are the network's, those between lie between.
    assert torch.allclose(logits[1], (logits[0] + logits[2]) / 2, atol=1e-6)


def test_layer_norm_takes_away_a_slices_own_scale():
    model = network(lstm_section(hidden_size=5, layer_norm=True), "image")
    studies = draw_studies((5,))
    assert torch.allclose(call(model, studies), call(model, [studies[0] * 100]), atol=1e-4)


@pytest.mark.parametrize(("cell", "gates", "kept"), [("lstm", 4, 1), ("gru", 3, 1)])
def test_the_forget_bias_is_that_of_the_gates_that_keep_the_state(cell, gates, kept):
    def biases(value):
        torch.manual_seed(0)
        section = lstm_section(hidden_size=5, cell=cell, layers=2, forget_bias=value)
        model = build_sequence(WIDTH, section, "study")
        return {n: p.detach() for n, p in model.named_parameters()}

    for name, changed in biases(3.0).items():
        change = changed - biases(0.0)[name]
        if "bias_ih" in name:
            assert torch.allclose(change.chunk(gates)[kept], torch.full((5,), 3.0), atol=1e-6)
            change.chunk(gates)[kept].zero_()
        assert not change.any()

    memory = {}
    for value in (0.0, 4.0):
        torch.manual_seed(0)
        section = lstm_section(hidden_size=5, cell=cell, layers=2, forget_bias=value)
        model = build_sequence(WIDTH, section, "study").eval()
        first = torch.zeros(30, WIDTH)
        first[0] = 3
        memory[value] = (call(model, [first]) - call(model, [first * 0])).abs().max()
    assert memory[4.0] > 10 * memory[0.0]


@LEVELS
def test_the_trained_network_reads_features_as_stored_and_comes_back_from_its_checkpoint(
    tmp_path, level
):
    features = torch.cat(draw_studies((3, 8))) * torch.logspace(-2, 2, WIDTH) + 50
    features[:, 3] = 4.25
    studies = StudyBatch(features, [3, 8])
    moments = Moments(features.mean(0), features.std(0, correction=0))
    section = replace(ALL, standardize=True, dropout=0.5, reversal=True)
    torch.manual_seed(0)
    trained = build_trained_lstm(WIDTH, section, level, moments).eval()
    checkpoint = checkpoint_of(section, kept_weights(trained.state_dict(), moments), WIDTH)
    checkpoint.save(tmp_path / "a.pt")
    loaded = load_lstm(checkpoint, level, "a.pt").eval()
    with torch.no_grad():
        expected, actual = trained(studies), loaded(studies)
    assert expected.std() > 0.001
    assert torch.allclose(actual, expected, atol=1e-5)
    other = {"image": "study", "study": "joint", "joint": "study"}[level]
    with pytest.raises(ClotlineError, match=r"a\.pt does not fit this network"):
        load_lstm(checkpoint, other, "a.pt")
    again = build_lstm(WIDTH, replace(section, init=str(tmp_path / "a.pt")), level)
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in checkpoint.weights.items())


def test_random_weights_follow_from_torchs_seed_and_suit_the_width():
    one, two = (nn.utils.parameters_to_vector(network(ALL, "study").parameters()) for _ in "ab")
    assert torch.equal(one, two)
    section = lstm_section(cell="gru")
    wide = build_sequence(3328, section, "study")
    features = torch.randn(50, 3328, generator=torch.Generator().manual_seed(9))
    assert 0.4 < (features @ wide.layers.weight_ih_l0.T).std() < 0.8


@pytest.mark.parametrize("form", [{}, {"cell": "gru", "bidirectional": True}])
@LEVELS
def test_reversal_turns_half_of_the_studies_in_training_alone(form, level):
    counts = [3, 1, 5, 4] * 50
    torch.manual_seed(0)
    rows = half_reversed(counts).split(counts)
    starts = [0, *torch.tensor(counts).cumsum(0).tolist()]
    turned = 0
    for part, start, count in zip(rows, starts, counts, strict=False):
        forward = list(range(start, start + count))
        assert part.tolist() in (forward, forward[::-1])
        turned += count > 1 and part.tolist() != forward
    assert 50 < turned < 100

    section = lstm_section(hidden_size=5, reversal=True, **form)
    model = build_trained_lstm(WIDTH, section, level, None)
    (study,) = draw_studies((6,))
    batch = StudyBatch(torch.cat([study] * 40), [6] * 40)
    with torch.no_grad():
        straight = call(model.eval(), [study])
        back = call(model, [study.flip(0)])
        if level != "study":
            # A slice keeps its own logit, whichever way its study was read.
            back = back.flip(0)
        outputs = model.train()(batch)
    outputs = getattr(outputs, "study", outputs).reshape(40, -1)
    ways = [(outputs - way.reshape(1, -1)).abs().amax(1) < 1e-5 for way in (straight, back)]
    assert (ways[0] ^ ways[1]).all()
    assert ways[0].any() and ways[1].any()


def test_a_checkpoint_of_before_these_keys_is_of_the_published_form():
    model = SliceLSTM(WIDTH, 5, "study")
    config = {k: v for k, v in lstm_section(hidden_size=5).as_dict().items() if k not in OTHER}
    checkpoint = replace(checkpoint_of(ALL, model.state_dict(), WIDTH), config=config)
    assert type(load_lstm(checkpoint, "study", "a.pt")) is SliceLSTM


def test_the_form_is_told_in_words():
    assert lstm_section().describe_form() == "LSTM of 64 units"
    assert isinstance(ALL, LSTMSection)
    assert ALL.describe_form() == (
        "bidirectional GRU of 2 layers of 5 units, pooled by max and attention, with neighbours' "
        "differences, with LayerNorm, on a projection to 3 features, in at most 4 steps"
    )
