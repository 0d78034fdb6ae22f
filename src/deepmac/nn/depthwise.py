"""Depthwise convolutions of timm's networks, whose backward is slow on a CPU."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame
from timm.layers.padding import pad_same
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from deepmac.nn.tracing import static_shapes

_FAST = 3  # side of the kernels whose gradient oneDNN (3.12) sums fast in bfloat16


def learn_sooner(network: nn.Module) -> None:
    """Give a network's depthwise convolutions a backward that is sooner done on a CPU in bfloat16.

    oneDNN has no fast code there for kernels of 5 x 5, nor for the input's gradient at stride 2:
    these took a third of a step of EfficientNet-Lite0. Weights, names and outputs stay, gradients
    differ by rounding. In float32, on other devices, and where shapes must not depend on data,
    nothing changes.
    """
    for module in network.modules():
        faster = _FASTER.get(type(module))
        if faster is not None and _is_depthwise(module):
            module.__class__ = faster


def as_made(network: nn.Module) -> None:
    """Take :func:`learn_sooner` back, where nothing learns."""
    for module in network.modules():
        for plain, faster in _FASTER.items():
            if type(module) is faster:
                module.__class__ = plain


class _Depthwise(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        if not _learns(self, x):
            return super().forward(x)
        assert not isinstance(self.padding, str)
        return _convolved(self, x, self.padding)


class _DepthwiseSame(Conv2dSame):
    def forward(self, x: Tensor) -> Tensor:
        if not _learns(self, x):
            out: Tensor = super().forward(x)
            return out
        return _convolved(self, pad_same(x, list(self.kernel_size), list(self.stride)), (0, 0))


_FASTER: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv2d: _Depthwise,
    Conv2dSame: _DepthwiseSame,
}


def _is_depthwise(layer: Any) -> bool:
    return (
        layer.groups == layer.in_channels == layer.out_channels > 1
        and (max(layer.stride) > 1 or max(layer.kernel_size) > _FAST)
        and all(k >= _FAST and k % 2 for k in layer.kernel_size)
        and layer.dilation == (1, 1)
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
        and all(p < k for p, k in zip(layer.padding, layer.kernel_size, strict=True))
    )


def _learns(layer: nn.Conv2d, x: Tensor) -> bool:
    return (
        torch.is_grad_enabled()
        and x.is_cpu
        and torch.is_autocast_enabled("cpu")
        and torch.get_autocast_dtype("cpu") == torch.bfloat16
        and not static_shapes(x)
        and (x.requires_grad or layer.weight.requires_grad)
    )


def _convolved(layer: nn.Conv2d, x: Tensor, padding: tuple[int, ...]) -> Tensor:
    out: Tensor = _Convolution.apply(x, layer.weight, layer.bias, layer.stride, padding)
    return out


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: tuple[int, int],
        padding: tuple[int, int],
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight, bias, stride, padding, groups=len(weight))

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        of_x = of_weight = of_bias = None
        with torch.autocast("cpu", enabled=False):
            if ctx.needs_input_grad[0]:
                of_x = _of_input(gradient, x.shape, weight, ctx.stride, ctx.padding).to(x.dtype)
            if ctx.needs_input_grad[1]:
                of_weight = _of_weight(gradient, x, weight, ctx.stride, ctx.padding)
            if ctx.needs_input_grad[2]:
                of_bias = gradient.sum((0, 2, 3), dtype=weight.dtype)
        return of_x, of_weight, of_bias, None, None


def _of_input(
    gradient: Tensor,
    shape: torch.Size,
    weight: Tensor,
    stride: tuple[int, int],
    padding: tuple[int, int],
) -> Tensor:
    """A convolution as well: with the kernel turned round, the strides filled with zeros."""
    (down, across), (height, width) = stride, weight.shape[2:]
    if stride != (1, 1):
        rows = shape[2] + 2 * padding[0] - height + 1
        columns = shape[3] + 2 * padding[1] - width + 1
        spread = torch.empty(
            *(*gradient.shape[:2], rows, columns),
            dtype=gradient.dtype,
            memory_format=torch.channels_last,
        ).zero_()
        spread[:, :, ::down, ::across] = gradient
        gradient = spread
    turned = weight.flip(2, 3).to(gradient.dtype)
    beyond = (height - 1 - padding[0], width - 1 - padding[1])
    return F.conv2d(gradient, turned, None, 1, beyond, groups=len(weight))


def _of_weight(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: tuple[int, int],
    padding: tuple[int, int],
) -> Tensor:
    """Summed for pieces of the kernel."""
    (down, across), (height, width) = stride, weight.shape[2:]
    (top, left), (rows, columns) = padding, gradient.shape[2:]
    padded = F.pad(x.to(gradient.dtype), (left, left, top, top))
    found = weight.new_empty(weight.shape)
    part = weight.new_empty(len(weight), 1, _FAST, _FAST, dtype=gradient.dtype)
    for i in range(0, height - 1, _FAST - 1):
        for j in range(0, width - 1, _FAST - 1):
            seen = padded[
                :, :, i : i + (rows - 1) * down + _FAST, j : j + (columns - 1) * across + _FAST
            ]
            found[:, :, i : i + _FAST, j : j + _FAST] = torch.ops.aten.convolution_backward(
                gradient, seen, part, None, stride, (0, 0), (1, 1), False, (0, 0), len(weight),
                [False, True, False],
            )[1]  # fmt: skip
    return found
