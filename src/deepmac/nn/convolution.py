"""A convolution whose weights learn sooner on a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_STRIP = 8 << 20
"""Bytes of an image's input and gradient: where there are more, strips of so many.

oneDNN (3.12) reads all of an image again for each block of channels when it sums the gradient of
a kernel. At 128 x 128 cells of 256 channels that takes 1.4 times as long as strips do, and a step
of the large network 1.06 times.
"""


def convolve(layer: nn.Module, x: Tensor) -> Tensor:
    """``layer(x)`` of a ``Conv2d``; the gradient of its weights is summed over strips of rows.

    Only where that is sooner done: large channels-last maps in float32 on a CPU. The gradient
    differs by rounding.
    """
    if not (isinstance(layer, nn.Conv2d) and torch.is_grad_enabled() and _is_large(layer, x)):
        out: Tensor = layer(x)
        return out
    found: Tensor = _Strips.apply(x, layer.weight, layer.bias, layer.stride, layer.padding)
    return found


def _is_large(layer: nn.Conv2d, x: Tensor) -> bool:
    return (
        not torch.compiler.is_compiling()
        and x.device.type == "cpu"
        and x.dtype == layer.weight.dtype == torch.float32
        and layer.weight.requires_grad
        and not torch.is_autocast_enabled("cpu")
        and layer.kernel_size[0] > 1
        and not isinstance(layer.padding, str)
        and (layer.padding_mode, layer.groups, layer.dilation) == ("zeros", 1, (1, 1))
        and x.is_contiguous(memory_format=torch.channels_last)
        and _bytes(x, layer.out_channels, layer.stride[0], layer.stride[1]) > _STRIP
    )


def _bytes(x: Tensor, out_channels: int, down: int, across: int) -> int:
    """Of an image and, about, of its convolution."""
    channels, height, width = x.shape[1:]
    cells = height * width
    return 4 * (channels * cells + out_channels * cells // (down * across))


class _Strips(torch.autograd.Function):
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
        return F.conv2d(x, weight, bias, stride, padding)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_x = _backward(gradient, x, weight, ctx.stride, ctx.padding, 0)
        if ctx.needs_input_grad[1]:
            for own, seen in _strips(gradient, x, weight.shape[2], ctx.stride[0], ctx.padding[0]):
                part = _backward(own, seen, weight, ctx.stride, (0, ctx.padding[1]), 1)
                of_weight = part if of_weight is None else of_weight.add_(part)
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum((0, 2, 3))
        return of_x, of_weight, of_bias, None, None


def _strips(
    gradient: Tensor, x: Tensor, kernel: int, stride: int, padding: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows of the gradient, image by image, and the rows of ``x`` that they were made of."""
    height, rows = gradient.shape[2], x.shape[2]
    each = (x[0].numel() + gradient[0].numel()) * 4 // height
    step = max(_STRIP // each, 1)
    for image in range(len(x)):
        for start in range(0, height, step):
            stop = min(start + step, height)
            first, last = start * stride - padding, (stop - 1) * stride - padding + kernel
            seen = x[image : image + 1, :, max(first, 0) : min(last, rows)]
            if first < 0 or last > rows:
                seen = F.pad(seen, (0, 0, max(-first, 0), max(last - rows, 0)))
            yield gradient[image : image + 1, :, start:stop], seen


def _backward(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: tuple[int, int],
    padding: tuple[int, int],
    which: int,
) -> Tensor:
    """The gradient of the input (0) or of the weights (1)."""
    wanted = [which == at for at in range(3)]
    found: Tensor = torch.ops.aten.convolution_backward(
        gradient, x, weight, None, stride, padding, (1, 1), False, (0, 0), 1, wanted
    )[which]
    return found
