import pytest
import torch
from builders import checkpoint_of, lstm_section
from torch import nn

from clotline.errors import ClotlineError
from clotline.loading.study_loader import StudyBatch
from clotline.models.checkpoint import save_checkpoint
from clotline.models.lstm import SliceLSTM, build_lstm, load_lstm

WIDTH = 6
LENGTHS = (4, 7, 1, 5)


def published(width=3328, outputs=9):
    """A state dict with the published names and shapes."""
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "lstm.weight_ih_l0": (256, width),
        "lstm.weight_hh_l0": (256, 64),
        "lstm.bias_ih_l0": (256,),
        "lstm.bias_hh_l0": (256,),
        "linear.weight": (outputs, 64),
        "linear.bias": (outputs,),
    }
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def network(level):
    torch.manual_seed(0)
    return SliceLSTM(WIDTH, 5, level).eval()


@pytest.fixture(scope="module")
def studies():
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(length, WIDTH, generator=generator) for length in LENGTHS]


def batch_of(studies):
    return StudyBatch(torch.cat(studies), [len(features) for features in studies])


@torch.inference_mode()
def call(model, studies):
    return model(batch_of(studies))


def by_hand(model, features):
    """All hidden states from the textbook formulas, from a hidden state of zero."""
    w = {name: tensor.detach() for name, tensor in model.lstm.named_parameters()}
    hidden = cell = torch.zeros(model.lstm.hidden_size)
    states = []
    for x in features:
        gates = w["weight_ih_l0"] @ x + w["bias_ih_l0"] + w["weight_hh_l0"] @ hidden
        i, f, g, o = (gates + w["bias_hh_l0"]).chunk(4)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        hidden = o.sigmoid() * cell.tanh()
        states.append(hidden)
    return torch.stack(states)


@pytest.mark.parametrize("level", ["image", "study"])
def test_the_hidden_state_starts_at_zero_and_the_head_reads_it(studies, level):
    model = network(level)
    for features in studies:
        with torch.inference_mode():
            states = by_hand(model, features)
            logits = model.linear(states)
        expected = logits.squeeze(-1) if level == "image" else logits[-1:]
        assert torch.allclose(call(model, [features]), expected, atol=1e-6)


def test_a_studys_logits_do_not_depend_on_the_others_in_its_batch(studies):
    model = network("study")
    together = call(model, studies)
    assert together.shape == (4, 9)
    for place, features in enumerate(studies):
        assert torch.allclose(together[place], call(model, [features])[0], atol=1e-6)


def test_the_study_level_reads_the_last_slice_and_no_padding(studies):
    model = network("study")
    before = call(model, studies)
    changed = [features.clone() for features in studies]
    for features in changed:
        features[-1] += 1
    after = call(model, changed)
    assert ((before - after).abs().amax(1) > 1e-3).all()
    long = torch.cat([studies[0], torch.zeros(3, WIDTH)])
    assert not torch.allclose(call(model, [long])[0], before[0], atol=1e-4)


def test_the_image_level_gives_one_logit_a_slice_in_their_order(studies):
    model = network("image")
    logits = call(model, studies)
    alone = [call(model, [features]) for features in studies]
    assert logits.shape == (sum(LENGTHS),)
    assert torch.allclose(logits, torch.cat(alone), atol=1e-6)


@pytest.mark.parametrize("level", ["image", "study"])
def test_gradients_are_those_of_torchs_layer(studies, level):
    model, own = network(level).train(), network(level).train()
    model(batch_of(studies)).square().sum().backward()
    for features in studies:
        states, _ = own.lstm(features)
        own.linear(states if level == "image" else states[-1]).square().sum().backward()
    for mine, theirs in zip(model.parameters(), own.parameters(), strict=True):
        assert mine.grad.abs().max() > 1e-3
        assert torch.allclose(mine.grad, theirs.grad, rtol=1e-4, atol=1e-5)


def test_in_mixed_precision_only_the_features_products_are_rounded(studies):
    model = network("image")
    exact = call(model, studies)
    with torch.autocast("cpu", torch.bfloat16):
        states = model.hidden_states(batch_of(studies)).detach()
    assert states.dtype == torch.float32
    assert torch.allclose(model.linear(states).squeeze(-1), exact, atol=0.02)


def test_the_order_of_slices_matters(studies):
    model = network("study")
    assert not torch.allclose(call(model, [studies[1]]), call(model, [studies[1].flip(0)]))


@pytest.mark.parametrize(("level", "outputs"), [("image", 1), ("study", 9)])
@pytest.mark.parametrize("inside", [True, False], ids=["checkpoint", "bare"])
def test_a_published_state_dict_loads_as_it_is(tmp_path, level, outputs, inside):
    path, weights = tmp_path / "published.pt", published(outputs=outputs)
    if inside:
        save_checkpoint(path, {"weights": weights})
    else:
        torch.save(weights, path)
    model = build_lstm(3328, lstm_section(init=str(path)), level)
    assert list(model.state_dict()) == list(weights)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, weights[name])


def test_a_state_dict_of_other_shapes_is_refused_with_its_file(tmp_path):
    path = tmp_path / "published.pt"
    torch.save(published(width=2048), path)
    with pytest.raises(ClotlineError) as caught:
        build_lstm(3328, lstm_section(init=str(path)), "study")
    for part in (str(path), "lstm.weight_ih_l0", "2048", "3328"):
        assert part in str(caught.value)


def test_random_weights_follow_from_torchs_seed():
    def weights(seed):
        torch.manual_seed(seed)
        model = build_lstm(WIDTH, lstm_section(hidden_size=5), "study")
        return nn.utils.parameters_to_vector(model.parameters())

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_the_forget_bias_is_added_to_the_forget_gates_alone_and_lengthens_the_memory():
    def weights(bias):
        torch.manual_seed(1)
        return build_lstm(WIDTH, lstm_section(hidden_size=5, forget_bias=bias), "study")

    plain, biased = weights(0), weights(3)
    changes = {
        name: (tensor - plain.state_dict()[name]) for name, tensor in biased.state_dict().items()
    }
    gates = changes.pop("lstm.bias_ih_l0").reshape(4, 5)
    assert torch.allclose(gates, torch.tensor([0.0, 3, 0, 0])[:, None], atol=1e-6)
    assert not any(change.any() for change in changes.values())

    def memory(model):
        """How far a study's first slice changes what is known after its thirtieth."""
        first = torch.ones(30, WIDTH)
        first[1:] = 0
        return (call(model, [first]) - call(model, [first * 0])).abs().max()

    assert memory(biased) > 100 * memory(plain)


def test_a_trained_network_is_rebuilt_from_its_checkpoint_alone():
    trained = network("study")
    section = lstm_section(hidden_size=5, init="gone.pt")
    checkpoint = checkpoint_of(section, trained.state_dict(), WIDTH)
    found = load_lstm(checkpoint, "study", "a.pt").state_dict()
    assert all(torch.equal(found[name], w) for name, w in trained.state_dict().items())


def test_a_checkpoint_of_the_other_level_is_refused():
    weights = network("image").state_dict()
    checkpoint = checkpoint_of(lstm_section(hidden_size=5), weights, WIDTH)
    with pytest.raises(ClotlineError, match=r"a\.pt does not fit this network"):
        load_lstm(checkpoint, "study", "a.pt")
