"""A trained CNN made ready to give features fast."""

from collections import Counter
from types import UnionType

import torch
from efficientnet_pytorch.utils import Conv2dStaticSamePadding
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from clotline.models.backbones import (
    CONVOLUTIONS,
    NORMS,
    Classifier,
    in_fast_layout,
    replace_module,
)


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
    return in_fast_layout(model)


def pad_inside(model: nn.Module) -> None:
    """Has efficientnet-pytorch's convolutions pad by themselves, not in a copy of their inputs.

    Args:
        model: network, which is changed; what it computes stays the same.
    """
    for name, module in list(model.named_modules()):
        if isinstance(module, Conv2dStaticSamePadding):
            replace_module(model, name, _PaddedConvolution(module))


class _PaddedConvolution(nn.Conv2d):
    """A convolution with the origin's padding, also where that has one zero more at the end.

    Then it pads by one stride more on both sides and drops the outputs that the origin lacks.
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
    """Folds each batch normalisation into the convolution before it, if nothing else reads that.

    In evaluation mode both are linear, and one layer is faster than two. A network that cannot be
    traced, because its computing depends on its inputs' sizes or values, stays as it is.

    Args:
        model: network in evaluation mode, which is changed.
    """
    try:
        nodes = _LayerTracer().trace(model).nodes
    except _UNTRACEABLE:
        return
    calls = Counter(node.target for node in nodes if node.op == "call_module")
    for node in nodes:
        if not _is_call(node, model, NORMS):
            continue
        before = node.args[0]
        once = calls[node.target] == calls[before.target] == len(before.users) == 1
        if once and _is_call(before, model, CONVOLUTIONS):
            names = before.target, node.target
            replace_module(model, names[0], fuse_conv_bn_eval(*map(model.get_submodule, names)))
            replace_module(model, names[1], _what_follows(model.get_submodule(names[1])))


def _what_follows(norm: nn.Module) -> nn.Module:
    """What timm's batch normalisations do afterwards: drop blocks, and an activation."""
    return nn.Sequential(*(getattr(norm, n) for n in ("drop", "act") if hasattr(norm, n)))


def keep_first_layers_exact(model: nn.Module, side: int) -> None:
    """Keeps the first layers in float32 at any precision, in networks with depthwise convolutions.

    A depthwise convolution sums so few products that what 16 bits round off does not average out,
    and in a network's first layers it is lost for all that follow.

    Args:
        model: network, which is changed.
        side: of its inputs, in pixels. The first layers are those up to the last whose outputs are
            wider than an eighth of it.
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
        channels = next(iter(names)).in_channels
        model(next(model.parameters()).new_zeros(1, channels, side, side))
    for hook in hooks:
        hook.remove()
    for conv in dict.fromkeys(called[:first]):
        replace_module(model, names[conv], _InFloat32(conv))


class _InFloat32(nn.Module):
    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, inputs: Tensor) -> Tensor:
        with torch.autocast(inputs.device.type, enabled=False):
            return self.layer(inputs.float())


#: What tracing raises where a network computes with the sizes or values of its inputs.
_UNTRACEABLE = (fx.proxy.TraceError, TypeError, RuntimeError, ValueError, AttributeError)


class _LayerTracer(fx.Tracer):
    """Traces convolutions and batch normalisations as one call, subclasses of torch's own too."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return isinstance(module, CONVOLUTIONS | NORMS) or super().is_leaf_module(module, name)


def _is_call(node: fx.Node, model: nn.Module, layer: type | UnionType) -> bool:
    return node.op == "call_module" and isinstance(model.get_submodule(node.target), layer)
