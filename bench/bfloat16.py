"""The arithmetic of bfloat16 units on a processor that has none.

There torch computes bf16-mixed a hundred times as slowly as float32. Here the operands of each
convolution and matrix product are rounded to bfloat16, multiplied and summed in float32, and the
result is rounded to bfloat16, as the units do; all else stays torch's own.
"""

import torch
from torch import Tensor
from torch.nn.functional import conv2d
from torch.overrides import TorchFunctionMode


class BFloat16Units(TorchFunctionMode):
    """Within this context, convolutions and linear layers under autocast are computed as said."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """Takes the place of the two functions, in both directions."""
        replaced = {torch.conv2d: _convolution, torch._C._nn.linear: _linear}.get(func)
        if replaced is None or not torch.is_autocast_enabled("cpu"):
            return func(*args, **(kwargs or {}))
        with torch.autocast("cpu", enabled=False):
            return replaced(*args, **(kwargs or {}))


def _rounded(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.bfloat16()


def _convolution(inputs, weight, bias=None, stride=1, padding=0, dilation=1, groups=1) -> Tensor:
    settings = stride, padding, dilation, groups
    return _Convolution.apply(_rounded(inputs), _rounded(weight), _rounded(bias), settings)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(context, inputs, weight, bias, settings):
        context.save_for_backward(inputs, weight)
        context.settings, context.bias = settings, bias is not None
        bias = None if bias is None else bias.float()
        return conv2d(inputs.float(), weight.float(), bias, *settings).bfloat16()

    @staticmethod
    def backward(context, gradient):
        inputs, weight = (tensor.float() for tensor in context.saved_tensors)
        stride, padding, dilation, groups = context.settings
        sizes = ([n, n] if isinstance(n, int) else list(n) for n in (stride, padding, dilation))
        needed = [*context.needs_input_grad[:2], context.bias]
        of_bias = [len(weight)] if context.bias else None
        found = torch.ops.aten.convolution_backward(
            gradient.float(), inputs, weight, of_bias, *sizes, False, [0, 0], groups, needed
        )
        return *(_rounded(tensor) for tensor in found), None


def _linear(inputs, weight, bias=None) -> Tensor:
    return _Linear.apply(_rounded(inputs), _rounded(weight), _rounded(bias))


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(context, inputs, weight, bias):
        context.save_for_backward(inputs, weight)
        context.bias = bias is not None
        bias = None if bias is None else bias.float()
        return torch.nn.functional.linear(inputs.float(), weight.float(), bias).bfloat16()

    @staticmethod
    def backward(context, gradient):
        inputs, weight = (tensor.float() for tensor in context.saved_tensors)
        gradient = gradient.float()
        rows = gradient.reshape(-1, gradient.shape[-1])
        of_weight = rows.T @ inputs.reshape(-1, inputs.shape[-1])
        of_bias = rows.sum(0) if context.bias else None
        return _rounded(gradient @ weight), _rounded(of_weight), _rounded(of_bias)
