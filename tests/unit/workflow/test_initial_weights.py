"""Files of weights that fit, and those that do not: found without torch before anything runs."""

import pickle
import subprocess
import sys
from collections import OrderedDict

import pytest
import torch
from builders import lstm_section

from clotline.errors import ClotlineError
from clotline.models.checkpoint import save_checkpoint
from clotline.models.lstm import SliceLSTM, build_lstm
from clotline.workflow.config import load_config
from clotline.workflow.initial_weights import check_initial_weights
from clotline.workflow.weights_file import NoWeightsError, read_weights_file


def problems(section, name, path):
    config = load_config({})
    config[section][name]["init"] = str(path)
    return list(check_initial_weights(config))


def checkpoint(path, kind="cnn", **config):
    about = {"kind": kind, "config": config} if kind else {}
    save_checkpoint(path, about | {"weights": {"head.weight": torch.zeros(1, 2048)}})
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.pt"


@pytest.mark.parametrize("legacy", [False, True])
def test_an_lstm_that_fits_is_taken_bare_or_in_a_checkpoint(path, legacy):
    model = SliceLSTM(3328, 64, "study")
    torch.save(model.state_dict(), path, _use_new_zipfile_serialization=not legacy)
    assert problems("lstm", "combined-study", path) == []
    save_checkpoint(path, {"kind": "lstm", "config": {}, "weights": model.state_dict()})
    assert problems("lstm", "combined-study", path) == []


@pytest.mark.parametrize(
    ("width", "hidden", "level", "said"),
    [
        (1280, 64, "image", "an image-level LSTM on 1280 features with 64 hidden units"),
        (1280, 64, "study", "a study-level LSTM on 1280 features with 64 hidden units"),
        (3328, 32, "study", "a study-level LSTM on 3328 features with 32 hidden units"),
        (77, 64, "study", "a study-level LSTM on 77 features with 64 hidden units"),
    ],
)
def test_an_lstm_of_another_form_is_named_beside_what_is_wanted(path, width, hidden, level, said):
    torch.save(SliceLSTM(width, hidden, level).state_dict(), path)
    (problem,) = problems("lstm", "combined-study", path)
    whose = {1280: " (efficientnet_b0's alone)", 3328: " (combined's)", 77: ""}[width]
    assert problem == (
        f"lstm.combined-study.init is {path}, {said}{whose}; "
        "it must be a study-level LSTM on 3328 features with 64 hidden units"
    )


def test_an_lstm_that_is_no_such_lstm_says_why(path):
    weights = SliceLSTM(8, 4, "study").state_dict()
    torch.save({k: v for k, v in weights.items() if k != "linear.bias"}, path)
    assert "it lacks linear.bias" in problems("lstm", "combined-study", path)[0]
    torch.save(torch.nn.LSTM(8, 4, bidirectional=True).state_dict(), path)
    assert (
        "a state dict of 8 tensors, weight_ih_l0 the first"
        in problems("lstm", "combined-study", path)[0]
    )
    torch.save(weights | {"linear.weight": torch.zeros(5, 4), "linear.bias": torch.zeros(5)}, path)
    assert "an LSTM of 5 outputs" in problems("lstm", "combined-study", path)[0]


def test_a_cnn_of_the_same_architecture_is_taken_and_of_another_not(path):
    right = {"library": "torchvision", "architecture": "resnext50_32x4d"}
    assert problems("cnn", "resnext50", checkpoint(path, **right)) == []
    wrong = checkpoint(path, library="torchvision", architecture="resnet50")
    assert problems("cnn", "resnext50", wrong) == [
        f"cnn.resnext50.init is {path}, a Clotline checkpoint of torchvision's resnet50; it must "
        "be a Clotline checkpoint of torchvision's resnext50_32x4d"
    ]
    assert "unfinished Clotline training" in problems("cnn", "resnext50", checkpoint(path, None))[0]
    lstm = SliceLSTM(1280, 64, "image").state_dict()
    torch.save(lstm, path)
    assert "an image-level LSTM on 1280" in problems("cnn", "resnext50", path)[0]
    assert (
        "a Clotline checkpoint of torchvision's resnext50_32x4d ("
        not in (problems("lstm", "combined-study", checkpoint(path, **right))[0])
    )


def test_a_cnn_of_other_inputs_is_refused(path):
    """Its first layer has other channels, or sees something else in as many."""
    right = {"library": "torchvision", "architecture": "resnext50_32x4d"}
    checkpoint(path, **right, planes=3)
    (problem,) = problems("cnn", "resnext50", path)
    assert "resnext50_32x4d that sees 3 slices through 1 window; it must be" in problem
    config = load_config({"cnn": {"resnext50": {"planes": 3}}})
    config["cnn"]["resnext50"]["init"] = str(path)
    assert list(check_initial_weights(config)) == []
    checkpoint(path, **right, further_windows=[[40.0, 400.0], [-600.0, 1500.0]])
    (problem,) = check_initial_weights(config)
    assert "that sees 1 slice through 3 windows; it must be" in problem
    assert problem.endswith("that sees 3 slices through 1 window")


def test_a_video_network_is_taken_for_any_number_of_planes(path):
    entry = {"library": "torchvision-video", "architecture": "r3d_18"}
    checkpoint(path, **entry, planes=5)
    config = load_config({"cnn": {"film": {**entry, "planes": 9}}})
    config["cnn"]["film"]["init"] = str(path)
    assert list(check_initial_weights(config)) == []


def test_what_is_no_file_of_weights_says_what_it_is(path):
    class Odd:
        pass

    for content, said in (
        (b"", "an empty file"),
        (b"hello", "no file that torch.save wrote"),
        (b"PK\x03\x04 and no more", "a file that cannot be read"),
        (pickle.dumps({"a": 1}), "a pickle of Python objects"),
        (pickle.dumps(OrderedDict), "a pickle of Python objects"),
    ):
        path.write_bytes(content)
        with pytest.raises(NoWeightsError, match=said):
            read_weights_file(path)
    torch.save({"a": 1}, path)
    with pytest.raises(NoWeightsError, match="without a single tensor"):
        read_weights_file(path)
    torch.save(torch.nn.Linear(1, 1), path)
    with pytest.raises(NoWeightsError, match=r"torch\.nn\.modules\.linear\.Linear"):
        read_weights_file(path)
    with pytest.raises(NoWeightsError, match="cannot be read"):
        read_weights_file(path.parent)


def test_nothing_in_a_pickle_is_run(path, tmp_path):
    class Trap:
        def __reduce__(self):
            return print, ("sprung",)

    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(NoWeightsError, match=r"builtins\.print"):
        read_weights_file(path)


def test_the_configuration_is_refused_with_the_files_name_and_without_torch(path):
    torch.save(SliceLSTM(1280, 64, "image").state_dict(), path)
    with pytest.raises(ClotlineError, match=r"lstm\.combined-study\.init is .*efficientnet_b0's"):
        load_config({"lstm": {"combined-study": {"init": str(path)}}})
    code = (
        "import sys; from clotline.workflow.config import load_config\n"
        f"try: load_config({{'lstm': {{'combined-study': {{'init': {str(path)!r}}}}}}})\n"
        "except Exception as e: assert 'it must be' in str(e)\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd="workflow/scripts")


def test_a_checkpoint_of_another_form_is_taken_where_that_form_is_wanted(path):
    form = {"cell": "gru", "bidirectional": True, "pooling": ["mean", "max"]}
    section = lstm_section(**form)
    config = load_config({"lstm": {"combined-study": form | {"init": "random"}}})
    config["lstm"]["combined-study"]["init"] = str(path)
    about = {"kind": "lstm", "name": "combined-study", "width": 3328, "config": section.as_dict()}
    weights = build_lstm(3328, section, "study").state_dict()
    save_checkpoint(path, about | {"weights": weights})
    assert list(check_initial_weights(config)) == []
    wanted = "bidirectional GRU of 64 units, pooled by mean and max, on 3328 features"
    (problem,) = problems("lstm", "combined-study", path)
    assert f"{path}, a Clotline checkpoint of a study-level {wanted}" in problem
    save_checkpoint(path, about | {"width": 1280, "weights": weights})
    (problem,) = check_initial_weights(config)
    assert problem.endswith(f"it must be a Clotline checkpoint of a study-level {wanted}")
    save_checkpoint(path, about | {"name": "combined-joint", "weights": weights})
    (problem,) = check_initial_weights(config)
    assert f"{path}, a Clotline checkpoint of a joint {wanted}; it must be" in problem
    torch.save(SliceLSTM(3328, 64, "study").state_dict(), path)
    (problem,) = check_initial_weights(config)
    assert "a study-level LSTM on 3328 features with 64 hidden units" in problem
