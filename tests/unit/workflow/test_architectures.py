import efficientnet_pytorch
import pytest
import torch
import torchvision
from builders import cnn_section

from clotline.errors import ClotlineError
from clotline.models.backbones import build_classifier
from clotline.workflow.architectures import ARCHITECTURES


def test_all_networks_of_the_libraries_are_listed_that_can_be_used():
    known = set(torchvision.models.list_models(module=torchvision.models))
    assert set(ARCHITECTURES["torchvision"]) == known - {"squeezenet1_0", "squeezenet1_1"}
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
