"""The networks that a backbone can be, by library: names, and numbers of features per slice.

Written down here because the libraries that define them import torch, which takes seconds, and
every dry run and every job reads the configuration. timm has more than a thousand: they stand in a
file that ``python -m tools.list_timm`` makes, which is read where the configuration names timm.
"""

import json
from functools import cache
from pathlib import Path

from clotline.sections.cnn import CNNSection

#: Version of timm, and its networks.
TIMM_LIST = Path(__file__).with_name("timm.json")

#: torchvision and efficientnet-pytorch; squeezenet and s3d are missing, for they have no linear
#: layer that the slice's logit could replace, googlenet and inception_v3, which in training give
#: outputs of layers between as well, and mvit, which takes 16 frames of 224 pixels alone.
ARCHITECTURES = {
    "torchvision": {
        "alexnet": 4096,
        "convnext_base": 1024, "convnext_large": 1536, "convnext_small": 768, "convnext_tiny": 768,
        "densenet121": 1024, "densenet161": 2208, "densenet169": 1664, "densenet201": 1920,
        "efficientnet_b0": 1280, "efficientnet_b1": 1280, "efficientnet_b2": 1408,
        "efficientnet_b3": 1536, "efficientnet_b4": 1792, "efficientnet_b5": 2048,
        "efficientnet_b6": 2304, "efficientnet_b7": 2560,
        "efficientnet_v2_l": 1280, "efficientnet_v2_m": 1280, "efficientnet_v2_s": 1280,
        "maxvit_t": 512,
        "mnasnet0_5": 1280, "mnasnet0_75": 1280, "mnasnet1_0": 1280, "mnasnet1_3": 1280,
        "mobilenet_v2": 1280, "mobilenet_v3_large": 1280, "mobilenet_v3_small": 1024,
        "regnet_x_400mf": 400, "regnet_x_800mf": 672, "regnet_x_1_6gf": 912,
        "regnet_x_3_2gf": 1008, "regnet_x_8gf": 1920, "regnet_x_16gf": 2048,
        "regnet_x_32gf": 2520,
        "regnet_y_400mf": 440, "regnet_y_800mf": 784, "regnet_y_1_6gf": 888,
        "regnet_y_3_2gf": 1512, "regnet_y_8gf": 2016, "regnet_y_16gf": 3024,
        "regnet_y_32gf": 3712, "regnet_y_128gf": 7392,
        "resnet18": 512, "resnet34": 512, "resnet50": 2048, "resnet101": 2048, "resnet152": 2048,
        "resnext50_32x4d": 2048, "resnext101_32x8d": 2048, "resnext101_64x4d": 2048,
        "shufflenet_v2_x0_5": 1024, "shufflenet_v2_x1_0": 1024, "shufflenet_v2_x1_5": 1024,
        "shufflenet_v2_x2_0": 2048,
        "swin_b": 1024, "swin_s": 768, "swin_t": 768,
        "swin_v2_b": 1024, "swin_v2_s": 768, "swin_v2_t": 768,
        "vgg11": 4096, "vgg11_bn": 4096, "vgg13": 4096, "vgg13_bn": 4096,
        "vgg16": 4096, "vgg16_bn": 4096, "vgg19": 4096, "vgg19_bn": 4096,
        "vit_b_16": 768, "vit_b_32": 768, "vit_l_16": 1024, "vit_l_32": 1024, "vit_h_14": 1280,
        "wide_resnet50_2": 2048, "wide_resnet101_2": 2048,
    },
    "torchvision-video": {
        "mc3_18": 512, "r2plus1d_18": 512, "r3d_18": 512,
        "swin3d_b": 1024, "swin3d_s": 768, "swin3d_t": 768,
    },
    "efficientnet-pytorch": {
        "efficientnet-b0": 1280, "efficientnet-b1": 1280, "efficientnet-b2": 1408,
        "efficientnet-b3": 1536, "efficientnet-b4": 1792, "efficientnet-b5": 2048,
        "efficientnet-b6": 2304, "efficientnet-b7": 2560,
    },
}  # fmt: skip


#: Networks that take inputs of one size alone, by library: pixels a side.
_SIDES = {
    "torchvision": dict.fromkeys(
        ("maxvit_t", "vit_b_16", "vit_b_32", "vit_h_14", "vit_l_16", "vit_l_32"), 224
    ),
}


def architectures(library: str) -> dict[str, int]:
    """Networks of a library to their numbers of features per slice."""
    return _timm()["widths"] if library == "timm" else ARCHITECTURES[library]


def only_side(section: CNNSection) -> int | None:
    """Pixels a side of the only inputs that a backbone takes; None where it takes others, too."""
    sides = _timm()["sides"] if section.library == "timm" else _SIDES.get(section.library, {})
    return sides.get(section.architecture)


def width(section: CNNSection) -> int:
    """Number of features per slice of a ``cnn`` entry of the configuration."""
    return architectures(section.library)[section.architecture]


@cache
def _timm() -> dict[str, dict[str, int]]:
    return json.loads(TIMM_LIST.read_text(encoding="utf-8"))
