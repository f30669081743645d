import json
from dataclasses import replace

import efficientnet_pytorch
import pytest
import timm
import torch
import torchvision
from builders import cnn_section

from clotline.errors import ClotlineError
from clotline.models.backbones import build_classifier
from clotline.workflow.architectures import (
    ARCHITECTURES,
    TIMM_LIST,
    architectures,
    only_side,
    width,
)
from tools.list_timm import Listed, timm_network, write_list


def test_all_networks_of_the_libraries_are_listed_that_can_be_used():
    known = set(torchvision.models.list_models(module=torchvision.models))
    unusable = {"squeezenet1_0", "squeezenet1_1", "googlenet", "inception_v3"}
    assert set(ARCHITECTURES["torchvision"]) == known - unusable
    of_video = set(torchvision.models.list_models(module=torchvision.models.video))
    assert set(ARCHITECTURES["torchvision-video"]) == of_video - {"s3d", "mvit_v1_b", "mvit_v2_s"}
    assert list(ARCHITECTURES["efficientnet-pytorch"]) == [
        *efficientnet_pytorch.utils.url_map,
    ]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("library", "architecture"),
    [
        (library, name)
        for library, known in ARCHITECTURES.items()
        for name in known
        # Those of regnet can only be built in earnest: the large ones take gigabytes.
        if not name.startswith("regnet") or name.endswith("mf")
    ],
)
def test_the_width_is_that_of_the_network(library, architecture):
    # regnet computes with its tensors while it is built.
    if architecture.startswith("regnet"):
        network = build_classifier(cnn_section(library=library, architecture=architecture))
    else:
        with torch.device("meta"):
            network = build_classifier(cnn_section(library=library, architecture=architecture))
    assert network.width == ARCHITECTURES[library][architecture]


def test_a_network_without_a_linear_layer_cannot_be_used():
    with pytest.raises(ClotlineError, match="no Linear layer"):
        build_classifier(cnn_section(architecture="squeezenet1_0"))


def test_the_list_of_timms_networks_is_of_the_timm_that_is_installed():
    assert json.loads(TIMM_LIST.read_text())["timm"] == timm.__version__
    assert list(architectures("timm")) == [
        n for n in timm.list_models() if n in architectures("timm")
    ]
    assert len(architectures("timm")) > 1300


#: Every ninetieth, those that docs name, two that take no colour image, one with two first layers
#: and one of a fixed size.
TIMM_SAMPLE = [
    *timm.list_models()[::90], "seresnext50_32x4d", "tf_efficientnetv2_s", "convnext_tiny",
    "csatv2", "naflexvit_base_patch16_gap", "crossvit_tiny_240", "vit_tiny_patch16_384",
]  # fmt: skip


@pytest.mark.parametrize("name", TIMM_SAMPLE)
def test_the_list_of_timms_networks_is_true(name):
    network = timm_network(name)
    assert (network and network.width) == architectures("timm").get(name)
    if network:
        section = cnn_section(library="timm", architecture=name)
        assert network.side == only_side(section)


def test_the_list_is_written_as_it_is_read(monkeypatch, tmp_path):
    monkeypatch.setattr("tools.list_timm.TIMM_LIST", tmp_path / "timm.json")
    networks = {
        name: Listed(width, only_side(cnn_section(library="timm", architecture=name)))
        for name, width in architectures("timm").items()
    }
    write_list(networks | {"csatv2": None})
    assert (tmp_path / "timm.json").read_text() == TIMM_LIST.read_text()


def test_a_network_of_timm_has_the_width_in_the_list():
    section = replace(cnn_section(), library="timm", architecture="resnet10t")
    assert build_classifier(section).width == width(section) == 512


@pytest.mark.parametrize(
    ("library", "architecture", "fixed"),
    [
        ("torchvision", "vit_b_32", True), ("torchvision", "maxvit_t", True),
        ("torchvision", "swin_t", False), ("timm", "vit_tiny_patch16_224", True),
        ("timm", "swin_tiny_patch4_window7_224", True), ("timm", "convnext_atto", False),
    ],
)  # fmt: skip
def test_a_network_of_one_size_of_inputs_takes_no_other(library, architecture, fixed):
    section = cnn_section(library=library, architecture=architecture)
    assert only_side(section) == (224 if fixed else None)
    network = build_classifier(section).eval()
    with torch.inference_mode():
        assert network(torch.zeros(1, 1, 224, 224)).shape == (1,)
        if not fixed:
            assert network(torch.zeros(1, 1, 192, 192)).shape == (1,)
            return
        with pytest.raises((AssertionError, RuntimeError, ValueError)):
            network(torch.zeros(1, 1, 192, 192))
