"""Stage 1 networks: any torchvision or efficientnet-pytorch classifier, for one-channel slices."""

from collections import Counter
from pathlib import Path

import efficientnet_pytorch
import torch
import torchvision
from efficientnet_pytorch.utils import Conv2dStaticSamePadding
from efficientnet_pytorch.utils import url_map as efficientnet_urls
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from clotline.checkpoint import load_checkpoint, load_tensors, load_weights
from clotline.errors import ClotlineError
from clotline.files import atomic, sha256


class Classifier(nn.Module):
    """A backbone and a linear layer that gives one logit a slice.

    Attributes:
        width: number of features that the backbone gives for a slice.
    """

    def __init__(self, backbone: nn.Module):
        super().__init__()
        name, last = _last(backbone, nn.Linear)
        self.width = last.in_features
        _replace(backbone, name, nn.Identity())
        self.backbone = backbone
        self.head = nn.Linear(self.width, 1)

    def features(self, slices: Tensor) -> Tensor:
        """(n, 1, s, s) float slices to (n, width) float features."""
        return self.backbone(slices)

    def forward(self, slices: Tensor) -> Tensor:
        """(n, 1, s, s) float slices to (n,) logits of the image label."""
        return self.head(self.backbone(slices)).squeeze(-1)


def build_classifier(section: dict, imagenet: str | Path | None = None) -> Classifier:
    """The network of one ``cnn`` entry of the configuration, with its initial weights.

    The three input channels of the first convolution become one by summing their weights: the
    response to a grey image stays that of the ImageNet network. Random weights are drawn from
    torch's global generator.

    Args:
        section: the entry; of it ``library``, ``architecture``, ``init`` and
            ``batch_norm_momentum`` are used.
        imagenet: the file of `fetch_imagenet_weights`, where ``init`` is imagenet.

    Raises:
        ClotlineError: the library has no such network, or the weights do not fit it.
    """
    init = section["init"]
    backbone = _build(section)
    if init == "imagenet":
        _load_imagenet_weights(backbone, section, imagenet)
    _take_one_channel(backbone)
    if (momentum := section["batch_norm_momentum"]) is not None:
        for module in backbone.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = momentum
    classifier = Classifier(backbone)
    if init not in ("imagenet", "random"):
        load_weights(classifier, load_checkpoint(init)["weights"], init)
    return classifier


def for_training(section: dict, imagenet: str | Path | None = None) -> nn.Module:
    """The network of `build_classifier`, same arguments, laid out for speed.

    It is compiled where the entry's ``compile`` says so.
    """
    model = build_classifier(section, imagenet).to(memory_format=torch.channels_last)
    return torch.compile(model) if section["compile"] else model


def load_classifier(checkpoint: dict, path: str | Path) -> Classifier:
    """The trained network in a checkpoint.

    Args:
        checkpoint: of `clotline.checkpoint.load_checkpoint`.
        path: its file, for messages.

    Raises:
        ClotlineError: the weights do not fit the network.
    """
    classifier = build_classifier(checkpoint["config"] | {"init": "random"})
    load_weights(classifier, checkpoint["weights"], path)
    return classifier


def as_extractor(model: Classifier, side: int) -> Classifier:
    """The network made ready to give features, and for nothing else: it cannot be trained any more.

    What it gives stays the same, but for rounding.

    Args:
        model: trained network, which is changed.
        side: of its inputs, in pixels.
    """
    pad_inside(model)
    fold_batch_norms(model.eval())
    keep_first_layers_exact(model, side)
    # The channels of a pixel side by side: what convolutions on CPUs and GPUs are fastest with.
    return model.to(memory_format=torch.channels_last)


def pad_inside(model: nn.Module) -> None:
    """Has efficientnet-pytorch's convolutions pad by themselves, not in a copy of their inputs.

    Args:
        model: network, which is changed; what it computes stays the same.
    """
    for name, module in list(model.named_modules()):
        if isinstance(module, Conv2dStaticSamePadding):
            _replace(model, name, _PaddedConvolution(module))


class _PaddedConvolution(nn.Conv2d):
    """Where the origin has one zero more behind than before, pads by a stride more before.

    And drops the first output, which the origin does not have.
    """

    def __init__(self, origin: Conv2dStaticSamePadding):
        super().__init__(
            *(origin.in_channels, origin.out_channels, origin.kernel_size, origin.stride),
            groups=origin.groups,
            bias=origin.bias is not None,
            device="meta",
        )
        self.weight, self.bias = origin.weight, origin.bias
        before, after = getattr(origin.static_padding, "padding", (0, 0))[:2]
        self._size = before + after - self.kernel_size[0]
        self._dropped = int(after > before)
        extra = self._dropped * self.stride[0]
        self.padding = (before + extra, before + extra)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = super().forward(inputs)
        if not self._dropped:
            return outputs
        last = (inputs.shape[-1] + self._size) // self.stride[0] + 1
        return outputs[..., 1 : last + 1, 1 : last + 1]


def fold_batch_norms(model: nn.Module) -> None:
    """Puts each batch normalisation into the convolution before it, where only it reads that.

    In evaluation mode both are linear, and together they are faster.

    Args:
        model: network in evaluation mode, which is changed.
    """
    tracer = _ConvolutionTracer()
    nodes = tracer.trace(model).nodes
    calls = Counter(node.target for node in nodes if node.op == "call_module")
    for node in nodes:
        if not _is_call(node, model, nn.BatchNorm2d):
            continue
        before = node.args[0]
        once = calls[node.target] == calls[before.target] == len(before.users) == 1
        if once and _is_call(before, model, nn.Conv2d):
            names = before.target, node.target
            _replace(model, names[0], fuse_conv_bn_eval(*map(model.get_submodule, names)))
            _replace(model, names[1], nn.Identity())


def keep_first_layers_exact(model: nn.Module, side: int) -> None:
    """Where convolutions are depthwise, has the first in float32 whatever the precision is.

    A depthwise convolution sums so few products that what 16 bits round off does not average out,
    and in a network's first layers it is lost for all that follow.

    Args:
        model: network, which is changed.
        side: of its inputs, in pixels. Down to an eighth of it layers count as the first.
    """
    names = {m: name for name, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    if not any(conv.groups == conv.in_channels > 1 for conv in names):
        return
    called: list[nn.Module] = []
    first = 0

    def note(conv: nn.Module, _, output: Tensor) -> None:
        nonlocal first
        called.append(conv)
        if output.shape[-1] * 8 > side:
            first = len(called)

    hooks = [conv.register_forward_hook(note) for conv in names]
    with torch.no_grad():
        model(next(model.parameters()).new_zeros(1, 1, side, side))
    for hook in hooks:
        hook.remove()
    for conv in dict.fromkeys(called[:first]):
        _replace(model, names[conv], _InFloat32(conv))


class _InFloat32(nn.Module):
    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, inputs: Tensor) -> Tensor:
        with torch.autocast(inputs.device.type, enabled=False):
            return self.layer(inputs.float())


class _ConvolutionTracer(fx.Tracer):
    """Takes convolutions whole, those of other classes than torch's own too."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return isinstance(module, nn.Conv2d) or super().is_leaf_module(module, name)


def _is_call(node: fx.Node, model: nn.Module, kind: type) -> bool:
    return node.op == "call_module" and isinstance(model.get_submodule(node.target), kind)


def _build(section: dict) -> nn.Module:
    library, architecture = section["library"], section["architecture"]
    if library == "torchvision":
        known = torchvision.models.list_models(module=torchvision.models)
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


def imagenet_url(section: dict) -> str:
    """Where the library itself downloads the architecture's ImageNet weights from.

    The first published weights, which the published detector started from.
    """
    if section["library"] == "efficientnet-pytorch":
        return efficientnet_urls[section["architecture"]]
    return torchvision.models.get_model_weights(section["architecture"])["IMAGENET1K_V1"].url


def fetch_imagenet_weights(section: dict, path: str | Path) -> None:
    """Downloads ImageNet weights to ``path`` and checks them against the checksum in their name.

    Raises:
        ClotlineError: no connection or a wrong checksum; says which file to put where.
    """
    url = imagenet_url(section)
    checksum = _checksum(url)
    try:
        with atomic(path) as temporary:
            torch.hub.download_url_to_file(
                url, str(temporary), hash_prefix=checksum, progress=False
            )
    except (OSError, RuntimeError) as error:
        raise ClotlineError(
            f"the ImageNet weights could not be downloaded from {url} ({error}). On a machine "
            f"with internet download that file (its SHA-256 begins with {checksum}) and put it "
            f"at {Path(path).absolute()}; or set the backbone's init to random"
        ) from None


def _load_imagenet_weights(backbone: nn.Module, section: dict, path: str | Path) -> None:
    checksum = _checksum(imagenet_url(section))
    if not sha256(path).startswith(checksum):
        raise ClotlineError(
            f"{path} is not the file that {imagenet_url(section)} names: its SHA-256 does not "
            f"begin with {checksum}. Delete it and run the same target again"
        )
    load_weights(backbone, load_tensors(path), path)


def _checksum(url: str) -> str:
    """The beginning of the file's SHA-256, which both libraries put into its name."""
    return torch.hub.HASH_REGEX.search(url).group(1)


def _last(module: nn.Module, kind: type) -> tuple[str, nn.Module]:
    found = [(name, m) for name, m in module.named_modules() if isinstance(m, kind)]
    if not found:
        raise ClotlineError(
            f"{type(module).__name__} has no {kind.__name__} layer to put the slice's logit in "
            "place of: choose another architecture"
        )
    return found[-1]


def _replace(module: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(module.get_submodule(parent), child, new)


def _take_one_channel(backbone: nn.Module) -> None:
    first = next(m for m in backbone.modules() if isinstance(m, nn.Conv2d))
    # In place: efficientnet-pytorch's own convolution pads by itself and must stay.
    first.weight = nn.Parameter(first.weight.detach().sum(1, keepdim=True))
    first.in_channels = 1
