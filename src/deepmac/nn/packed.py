"""Convolutions for predictions on a CPU.

Their weights are laid out once as oneDNN reads them; the sum and the ReLU that follow a convolution
are done in the same pass over memory.

The operators are those that ``torch.compile`` emits for CPUs; they know no gradient.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.layers import Conv2dSame
from timm.layers.padding import pad_same
from torch import Tensor, nn

from deepmac.nn.hourglass import ConvBlock, Residual

_CONVOLUTIONS = (nn.Conv2d, Conv2dSame)  # other subclasses may do more than convolve


def can_pack() -> bool:
    """Whether this build of torch has oneDNN and its operators."""
    return bool(torch.backends.mkldnn.is_available()) and hasattr(
        torch.ops.mkldnn, "_reorder_convolution_weight"
    )


def pack_convolutions(module: nn.Module) -> None:
    """Replace every convolution below ``module``, in place; norms must be folded already."""
    for name, child in list(module.named_children()):
        if isinstance(child, Residual) and _is_folded(child):
            setattr(module, name, _Residual(child))
        elif isinstance(child, ConvBlock) and _is_folded(child):
            setattr(module, name, _Block(child))
        elif type(child) in _CONVOLUTIONS and _takes(child):
            setattr(module, name, PackedConvolution(child))
        else:
            pack_convolutions(child)


class PackedConvolution(nn.Module):
    """A 2-D convolution on a CPU, float32 or bfloat16.

    Args:
        convolution: whose weights are copied.
        then: ``none``, or ``relu`` of its output.
    """

    def __init__(self, convolution: Any, then: str = "none") -> None:
        super().__init__()
        self.same = isinstance(convolution, Conv2dSame)
        self.kernel, self.stride = list(convolution.kernel_size), list(convolution.stride)
        self.dilation, self.groups = list(convolution.dilation), convolution.groups
        self.padding = [0, 0] if self.same else list(convolution.padding)
        self.then = then
        self.bias = convolution.bias
        self._weight = convolution.weight.detach()  # laid out anew when the first input comes

    def forward(self, x: Tensor) -> Tensor:
        x, weight = self._prepared(x)
        out: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, weight, self.bias, *self._geometry(), self.then, [], ""
        )
        return out

    def relu_of_sum(self, x: Tensor, other: Tensor) -> Tensor:
        """ReLU of the convolution of ``x`` plus ``other``, which has the output's shape."""
        x, weight = self._prepared(x)
        out: Tensor = torch.ops.mkldnn._convolution_pointwise.binary(
            x, other, weight, self.bias, *self._geometry(), "add", 1.0, "relu", [], ""
        )
        return out

    def _geometry(self) -> tuple[list[int], list[int], list[int], int]:
        return self.padding, self.stride, self.dilation, self.groups

    def _prepared(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.same:
            x = pad_same(x, self.kernel, self.stride, self.dilation)
        weight = self._weight
        if not weight.is_mkldnn:  # the best layout depends on the input's size
            weight = torch.ops.mkldnn._reorder_convolution_weight(
                weight, *self._geometry(), list(x.shape)
            )
            self._weight = weight
        return x, weight


class _Block(nn.Module):
    """A ``ConvBlock`` without its norm."""

    def __init__(self, block: ConvBlock) -> None:
        super().__init__()
        self.every = block.every
        self.conv = PackedConvolution(block.conv, "relu" if block.relu else "none")

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        if self.every > 1:
            x = x[:, :, :: self.every, :: self.every]
        out: Tensor = self.conv(x)
        return out


class _Residual(nn.Module):
    """A ``Residual`` without its norms."""

    def __init__(self, block: Residual) -> None:
        super().__init__()
        self.conv_block = _Block(block.conv_block)
        self.conv = PackedConvolution(block.conv)
        self.skip = None if block.skip is None else _Block(block.skip)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        skip = x if self.skip is None else self.skip(x)
        return self.conv.relu_of_sum(self.conv_block(x), skip)


def _is_folded(block: Any) -> bool:
    """Whether each norm of a block is part of its convolution."""
    blocks = [block]
    if isinstance(block, Residual):
        blocks += [part for part in (block.conv_block, block.skip) if part is not None]
    return all(isinstance(one.norm, Through) and _takes(one.conv) for one in blocks)


def _takes(convolution: Any) -> bool:
    return isinstance(convolution, Conv2dSame) or (
        convolution.padding_mode == "zeros" and not isinstance(convolution.padding, str)
    )


class Through(nn.Module):
    """In the place of a norm that is part of a convolution now."""

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        return x
