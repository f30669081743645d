"""Stage 1 networks: any classifier of the libraries, for slices."""

import logging
import re
from dataclasses import replace
from pathlib import Path

import efficientnet_pytorch
import torch
import torchvision
from efficientnet_pytorch.model import MBConvBlock
from efficientnet_pytorch.utils import url_map as efficientnet_urls
from torch import Tensor, nn
from torchvision.models import mnasnet, mobilenetv2, mobilenetv3
from torchvision.models.efficientnet import FusedMBConv, MBConv
from torchvision.models.regnet import ResBottleneckBlock
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.models.video import resnet as video
from torchvision.ops import StochasticDepth

from clotline.errors import ClotlineError
from clotline.job.files import sha256
from clotline.models.checkpoint import Checkpoint, load_tensors, load_weights
from clotline.models.compiling import compile_network
from clotline.models.imagenet import imagenet_url, url_checksum
from clotline.sections.cnn import CNNSection

log = logging.getLogger("clotline")

#: Layers of two dimensions, and of three in video networks.
CONVOLUTIONS, NORMS = nn.Conv2d | nn.Conv3d, nn.BatchNorm2d | nn.BatchNorm3d

#: Channels of a colour image.
RGB = 3

#: Libraries of the configuration that are rooms of torchvision.
TORCHVISION = {"torchvision": torchvision.models, "torchvision-video": torchvision.models.video}


class Classifier(nn.Module):
    """A backbone and a linear layer that gives one logit per slice.

    Attributes:
        width: number of features that the backbone gives for a slice.
    """

    def __init__(self, backbone: nn.Module):
        super().__init__()
        if hasattr(backbone, "reset_classifier"):  # timm's
            backbone.reset_classifier(0)
            self.width = backbone.head_hidden_size
        else:
            name, last = _last(backbone, nn.Linear)
            self.width = last.in_features
            replace_module(backbone, name, nn.Identity())
        self.backbone = backbone
        self.head = nn.Linear(self.width, 1)

    def features(self, slices: Tensor) -> Tensor:
        """(n, channels, s, s) float slices to (n, width) float features."""
        return self.backbone(slices)

    def forward(self, slices: Tensor) -> Tensor:
        """(n, channels, s, s) float slices to (n,) logits of the image label."""
        return self.head(self.backbone(slices)).squeeze(-1)


class OverPlanes(nn.Module):
    """A video network that has a slice's planes as its frames.

    Attributes:
        network: of (n, w, p, s, s) inputs, p planes through w windows.
    """

    def __init__(self, network: nn.Module, planes: int):
        super().__init__()
        self.network = network
        self._planes = planes

    def forward(self, slices: Tensor) -> Tensor:
        """(n, w p, s, s) inputs, as of `clotline.loading.preprocessing.View`."""
        return self.network(slices.unflatten(1, (-1, self._planes)))


def build_classifier(section: CNNSection, imagenet: str | Path | None = None) -> Classifier:
    """The network of one ``cnn`` entry of the configuration, with its initial weights.

    The three input channels of the convolutions that see the image stay where the slices have
    three. Else they become one by summing their weights, and several by dividing that: the response
    to a grey image stays that of the library's network. Of a video network windows are the channels
    and planes the frames. Random weights are drawn from torch's global generator.

    Args:
        section: the entry.
        imagenet: the file of `clotline.models.imagenet.fetch_imagenet_weights`, where ``init`` is
            imagenet.

    Raises:
        ClotlineError: the library has no such network, the weights do not fit it, or
            ``zero_init_residual`` does not.
    """
    init = section.init
    if init == "imagenet":
        backbone = _build_with_weights(section, imagenet)
    else:
        backbone = _build(section.library, section.architecture)
    if init == "random" and section.zero_init_residual:
        _start_residuals_at_zero(backbone)
    if not section.dropout:
        _without_dropout(backbone)
    if section.is_video:
        take_channels(backbone, section.windows)
        backbone = OverPlanes(backbone, section.planes)
    else:
        take_channels(backbone, section.channels)
    if (momentum := section.batch_norm_momentum) is not None:
        for module in backbone.modules():
            if isinstance(module, NORMS):
                module.momentum = momentum
    classifier = Classifier(backbone)
    if init not in ("imagenet", "random"):
        load_weights(classifier, Checkpoint.load(init).weights, init)
    return classifier


def for_training(section: CNNSection, imagenet: str | Path | None = None) -> nn.Module:
    """The network of `build_classifier`, same arguments, laid out for speed.

    It is compiled where the entry's ``compile`` says so.
    """
    model = in_fast_layout(build_classifier(section, imagenet))
    return compile_network(model) if section.compile else model


def in_fast_layout(model: nn.Module) -> nn.Module:
    """The network itself, the channels of a pixel side by side: convolutions are fastest so.

    Those of video networks are not, on CPUs, and stay as they are.
    """
    return model if has_volumes(model) else model.to(memory_format=torch.channels_last)


def has_volumes(model: nn.Module) -> bool:
    """Whether it is a video network, whose feature maps have planes."""
    return any(isinstance(module, nn.Conv3d) for module in model.modules())


def load_classifier(checkpoint: Checkpoint, path: str | Path) -> Classifier:
    """The trained network in a checkpoint.

    Args:
        checkpoint: the trained network.
        path: its file, for messages.

    Raises:
        ClotlineError: the weights do not fit the network.
    """
    section = CNNSection.of_checkpoint(checkpoint.config, path)
    classifier = build_classifier(replace(section, init="random"))
    load_weights(classifier, checkpoint.weights, path)
    return classifier


def _build(library: str, architecture: str) -> nn.Module:
    if library == "timm":
        from clotline.models.timm_networks import build_timm

        return build_timm(architecture)
    if library in TORCHVISION:
        known = torchvision.models.list_models(module=TORCHVISION[library])
        build = torchvision.models.get_model
    else:
        known = list(efficientnet_urls)
        build = _build_efficientnet
    if architecture not in known:
        raise ClotlineError(
            f"{library} has no network {architecture}; there are {', '.join(known)}"
        )
    return build(architecture)


def _build_efficientnet(architecture: str) -> nn.Module:
    network = efficientnet_pytorch.EfficientNet.from_name(architecture)
    # The default recomputes every activation in the backward pass: less memory, 1.8 times slower.
    network.set_swish(memory_efficient=False)
    return network


def _build_with_weights(section: CNNSection, path: str | Path) -> nn.Module:
    if section.library == "timm":
        from clotline.models.timm_networks import build_timm

        _check_imagenet_weights(section, path)
        return build_timm(section.architecture, path)
    backbone = _build(section.library, section.architecture)
    _check_imagenet_weights(section, path)
    weights = load_tensors(path)
    if isinstance(backbone, torchvision.models.DenseNet):
        # torchvision's files have names of an earlier torch.
        weights = {_OLD_NAME.sub(r"\1\2", name): tensor for name, tensor in weights.items()}
    load_weights(backbone, weights, path)
    return backbone


#: Of a layer of DenseNet: denselayer1.norm.1.weight, which is denselayer1.norm1.weight now.
_OLD_NAME = re.compile(r"(\.denselayer\d+\.(?:norm|conv))\.(\d\.)")


def _check_imagenet_weights(section: CNNSection, path: str | Path) -> None:
    url = imagenet_url(section.library, section.architecture)
    checksum, found = section.weights_sha256 or url_checksum(url), sha256(path)
    if checksum is None:
        log.info(
            "%s has SHA-256 %s; weights_sha256 can be set to it, which trains the network anew",
            *(path, found),
        )
    elif not found.startswith(checksum):
        raise ClotlineError(
            f"{path} is not the file that {url} names: its SHA-256 does not "
            f"begin with {checksum}. Delete it and run the same target again"
        )


def _start_residuals_at_zero(backbone: nn.Module) -> None:
    """Makes each residual block begin as the identity: its last normalisation gives zero.

    Goyal et al., Accurate, Large Minibatch SGD, 2017, section 5.1.

    Raises:
        ClotlineError: the network has no block with a shortcut and a normalisation at its end.
    """
    found = False
    for block in backbone.modules():
        if hasattr(block, "zero_init_last"):  # timm's
            block.zero_init_last()
            found = True
        elif (last := _last_normalisation(block)) is not None:
            nn.init.zeros_(last.weight)
            found = True
    if not found:
        raise ClotlineError(
            f"{type(backbone).__name__} has no residual blocks that end with a normalisation, "
            "which zero_init_residual would start at zero: set the backbone's zero_init_residual "
            "to false, or choose another architecture"
        )


def _last_normalisation(block: nn.Module) -> nn.Module | None:
    """That of a residual block of one of the libraries; None of all other modules."""
    match block:
        case Bottleneck():
            return block.bn3
        case BasicBlock():
            return block.bn2
        case video.Bottleneck():
            return block.conv3[-1]
        case video.BasicBlock():
            return block.conv2[-1]
        case ResBottleneckBlock():
            return block.f.c[1]
        case MBConv() | FusedMBConv() if block.use_res_connect:
            return block.block[-1][1]
        case mobilenetv2.InvertedResidual() if block.use_res_connect:
            return block.conv[-1]
        case mobilenetv3.InvertedResidual() if block.use_res_connect:
            return block.block[-1][1]
        case mnasnet._InvertedResidual() if block.apply_residual:
            return block.layers[-1]
        case MBConvBlock() if _has_shortcut(block):
            return block._bn2
    return None


def _has_shortcut(block: MBConvBlock) -> bool:
    arguments = block._block_args
    same_width = arguments.input_filters == arguments.output_filters
    return block.id_skip and arguments.stride in (1, [1]) and same_width


def _without_dropout(backbone: nn.Module) -> None:
    """Switches off dropout of units and of whole residual blocks."""
    for module in backbone.modules():
        if isinstance(module, nn.Dropout | StochasticDepth):
            module.p = 0.0
        elif isinstance(module, efficientnet_pytorch.EfficientNet):
            module._global_params = module._global_params._replace(drop_connect_rate=0.0)


def _last(module: nn.Module, layer: type) -> tuple[str, nn.Module]:
    layers = [(name, m) for name, m in module.named_modules() if isinstance(m, layer)]
    if not layers:
        raise ClotlineError(
            f"{type(module).__name__} has no {layer.__name__} layer that the slice's logit could "
            "replace: choose another architecture"
        )
    return layers[-1]


def replace_module(module: nn.Module, name: str, new: nn.Module) -> None:
    """Puts another layer where ``module`` has that of this name."""
    parent, _, child = name.rpartition(".")
    setattr(module.get_submodule(parent), child, new)


def take_channels(backbone: nn.Module, channels: int) -> None:
    """Makes a library's network take another number of channels than the three of an image."""
    if channels == RGB:
        return
    # Some networks begin with several convolutions, side by side.
    for convolution in (m for m in backbone.modules() if isinstance(m, CONVOLUTIONS)):
        if convolution.in_channels == RGB and convolution.groups == 1:
            weight = convolution.weight.detach().sum(1, keepdim=True)
            if channels > 1:
                weight = weight.repeat_interleave(channels, 1) / channels
            # The layer stays, for efficientnet-pytorch's own convolution pads by itself.
            convolution.weight = nn.Parameter(weight)
            convolution.in_channels = channels
