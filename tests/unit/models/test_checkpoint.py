import dataclasses
import io
import pickle
import random
from pathlib import Path

import pytest
import torch
from hostile import TORTURE, Cases, Touch, flip_bit
from torch import nn

from clotline.errors import ClotlineError
from clotline.models.checkpoint import (
    Checkpoint,
    load_checkpoint,
    load_tensors,
    load_weights,
    save_checkpoint,
)
from clotline.version import CLOTLINE_VERSION

CONTENT = {
    "weights": {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(7)},
    "config": {"lr": 0.1, "milestones": [1, 2], "clip_norm": None, "name": "x"},
    "epoch": 3,
}


def message_of(load, *arguments):
    with pytest.raises(ClotlineError) as caught:
        load(*arguments)
    return str(caught.value)


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    path = tmp_path / "a.pt"
    save_checkpoint(path, CONTENT)
    content = load_checkpoint(path)
    assert content["config"] == CONTENT["config"]
    assert content["epoch"] == 3
    for name, tensor in CONTENT["weights"].items():
        assert torch.equal(content["weights"][name], tensor)
        assert content["weights"][name].dtype == tensor.dtype


def test_the_same_content_has_the_same_bytes_under_any_name(tmp_path):
    for name in ("a.pt", "folder/another name.pt"):
        save_checkpoint(tmp_path / name, CONTENT)
    one, other = (tmp_path / name for name in ("a.pt", "folder/another name.pt"))
    assert one.read_bytes() == other.read_bytes()


def test_other_content_has_other_bytes(tmp_path):
    save_checkpoint(tmp_path / "a.pt", CONTENT)
    save_checkpoint(tmp_path / "b.pt", CONTENT | {"epoch": 4})
    assert (tmp_path / "a.pt").read_bytes() != (tmp_path / "b.pt").read_bytes()


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "a.pt"
    save_checkpoint(path, CONTENT)

    def fill_the_disk(self, data):
        self.touch()
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_bytes", fill_the_disk)
    with pytest.raises(OSError, match="no space"):
        save_checkpoint(path, CONTENT | {"epoch": 4})
    assert load_checkpoint(path)["epoch"] == 3
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("as_zip", [True, False], ids=["zip", "legacy"])
def test_a_checkpoint_that_carries_code_is_refused_and_the_code_never_runs(tmp_path, as_zip):
    path, touched = tmp_path / "a.pt", tmp_path / "touched"
    content = {"format": "clotline-checkpoint", "version": 1, "weights": Touch(touched)}
    torch.save(content, path, _use_new_zipfile_serialization=as_zip)
    for load in (load_checkpoint, load_tensors):
        assert f"{path} cannot be used" in message_of(load, path)
    path.write_bytes(pickle.dumps(content))
    for load in (load_checkpoint, load_tensors):
        assert f"{path} cannot be used" in message_of(load, path)
    assert not touched.exists()


def test_a_missing_checkpoint_is_named(tmp_path):
    path = tmp_path / "a.pt"
    assert message_of(load_checkpoint, path) == f"there is no checkpoint {path}"


@pytest.mark.parametrize("part", [0.1, 0.5, 0.99])
def test_a_damaged_checkpoint_is_named(tmp_path, part):
    path = tmp_path / "a.pt"
    save_checkpoint(path, CONTENT)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    assert f"{path} cannot be used" in message_of(load_checkpoint, path)


@pytest.mark.parametrize(
    "content",
    [b"", b"\x80\x02.", b"q\xff", b"cos\nsystem\n.", b"(lp0\n.", bytes(64), b"PK\x03\x04"],
)
def test_garbage_is_refused_whatever_the_reader_makes_of_it(tmp_path, content):
    path = tmp_path / "a.pt"
    path.write_bytes(content)
    message = message_of(load_tensors, path)
    assert str(path) in message


def test_a_checkpoint_with_a_flipped_bit_is_refused_or_read_as_it_was(tmp_path):
    path = tmp_path / "a.pt"
    save_checkpoint(path, CONTENT)
    content, cases = path.read_bytes(), Cases()
    rng = random.Random(1)
    for _ in range(TORTURE * 300):
        path.write_bytes(flip_bit(content, rng))
        with cases.one(path):
            assert same_content(load_checkpoint(path), CONTENT)
    assert cases.refused > TORTURE * 100


def same_content(found, expected):
    weights = expected["weights"]
    return (
        {k: found[k] for k in ("config", "epoch")} == {k: expected[k] for k in ("config", "epoch")}
        and found["weights"].keys() == weights.keys()
        and all(torch.equal(found["weights"][name], weights[name]) for name in weights)
    )


@pytest.mark.parametrize(
    "header", [{}, {"format": "clotline-checkpoint", "version": 0}, {"format": "x", "version": 1}]
)
def test_another_format_or_version_is_refused(tmp_path, header):
    path = tmp_path / "a.pt"
    torch.save(header | CONTENT, path)
    message = message_of(load_checkpoint, path)
    assert message == f"{path} is no clotline-checkpoint of version 1"


def test_a_bare_tensor_is_no_state_dict(tmp_path):
    torch.save(torch.zeros(3), tmp_path / "a.pt")
    assert "holds no dictionary of tensors" in message_of(load_tensors, tmp_path / "a.pt")


def test_any_state_dict_can_be_read(tmp_path):
    weights = nn.Linear(3, 2).state_dict()
    torch.save(weights, tmp_path / "a.pt")
    assert torch.equal(load_tensors(tmp_path / "a.pt")["weight"], weights["weight"])


@pytest.mark.parametrize(
    ("weights", "parts"),
    [
        (nn.Linear(4, 2).state_dict(), ["size mismatch for weight", "[2, 4]", "[2, 3]"]),
        (nn.Linear(3, 2, bias=False).state_dict(), ['Missing key(s) in state_dict: "bias"']),
        ({"x": torch.zeros(1)} | nn.Linear(3, 2).state_dict(), ["Unexpected key(s)", '"x"']),
    ],
)
def test_weights_that_do_not_fit_are_named_with_their_file(weights, parts):
    message = message_of(load_weights, nn.Linear(3, 2), weights, "w.pt")
    assert "w.pt does not fit this network" in message
    for part in parts:
        assert part in message


def test_a_checkpoint_holds_a_copy_on_the_cpu(tmp_path):
    buffer = io.BytesIO()
    save_checkpoint(tmp_path / "a.pt", CONTENT)
    torch.save(load_checkpoint(tmp_path / "a.pt"), buffer)
    assert buffer.getvalue() == (tmp_path / "a.pt").read_bytes()


def test_a_trained_networks_file_has_its_fields_and_the_version(tmp_path):
    weights = {"a": torch.arange(3.0)}
    network = Checkpoint(
        kind="cnn", name="net", config={"lr": 0.1}, seed=1, width=8, epoch=2, weights=weights
    )
    network.save(tmp_path / "net.pt")
    content = load_checkpoint(tmp_path / "net.pt")
    fields = [field.name for field in dataclasses.fields(Checkpoint)]
    assert list(content) == ["format", "version", *fields]
    assert content["clotline"] == CLOTLINE_VERSION
    assert torch.equal(content.pop("weights")["a"], weights["a"])
    assert (content["config"], content["epoch"]) == ({"lr": 0.1}, 2)


def test_a_trained_network_comes_back_as_it_was(tmp_path):
    path = tmp_path / "net.pt"
    about = {"kind": "lstm", "name": "net", "config": {"lr": 0.1}, "seed": 1, "width": 8}
    network = Checkpoint(**about, epoch=2, weights={"a": torch.arange(3.0)})
    network.save(path)
    found = Checkpoint.load(path)
    assert same_content(vars(found), vars(network))
    # Of a Clotline that did not write which it was, with a field of another one.
    older = {name: value for name, value in vars(network).items() if name != "clotline"}
    save_checkpoint(path, older | {"of_a_later_version": 1})
    assert Checkpoint.load(path).clotline == "before 0.9.0"


def test_the_state_of_a_training_is_no_trained_network(tmp_path):
    path = tmp_path / "state.pt"
    save_checkpoint(path, {"epoch": 1, "weights": {"a": torch.arange(3.0)}, "history": []})
    message = message_of(Checkpoint.load, path)
    assert f"{path} is no trained network: it lacks kind, name, config, seed, width." in message


def test_a_checkpoint_of_another_version_names_the_clotline_that_made_it(tmp_path):
    path = tmp_path / "a.pt"
    header = {"format": "clotline-checkpoint", "version": 0, "clotline": "7.8.9"}
    torch.save(header, path)
    with pytest.raises(ClotlineError, match=r"of version 1: Clotline 7\.8\.9 made it"):
        load_checkpoint(path)
