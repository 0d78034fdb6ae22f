"""Convolutions for predictions on a CPU.

Their weights are laid out once as oneDNN reads them; the sum and the activation that follow a
convolution are done in the same pass over memory.

The operators are those that ``torch.compile`` emits for CPUs; they know no gradient.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame, DropPath
from timm.models._efficientnet_blocks import DepthwiseSeparableConv, InvertedResidual
from torch import Tensor, nn

from deepmac.nn.edge_head import ConvReLU, ConvStep
from deepmac.nn.hourglass import ConvBlock, HourglassNetwork, Residual
from deepmac.nn.mask_heads import ConvolutionalMaskHead

_CONVOLUTIONS = (nn.Conv2d, Conv2dSame)  # other subclasses may do more than convolve

_SIZES_KEPT = 64
"""Sizes of inputs for which the layout of a convolution's weights is known."""
_AT_ONCE = 8 << 20
"""Bytes of an expanded map that are computed and read together."""
_BLOCK = 16
"""Channels that a processor's register holds: pieces are multiples of it."""

ACTIVATIONS: dict[type[nn.Module], tuple[str, list[float]]] = {
    nn.ReLU: ("relu", []),
    nn.ReLU6: ("hardtanh", [0.0, 6.0]),
    nn.SiLU: ("swish", []),
    nn.Hardswish: ("hardswish", []),
}
"""What a convolution can do to its output while it writes it, with oneDNN's name and numbers."""


def can_pack() -> bool:
    """Whether this build of torch has oneDNN and its operators."""
    return bool(torch.backends.mkldnn.is_available()) and hasattr(
        torch.ops.mkldnn, "_reorder_convolution_weight"
    )


def pack_convolutions(module: nn.Module) -> None:
    """Replace every convolution below ``module``, in place; norms must be folded already."""
    if isinstance(module, ConvolutionalMaskHead) and _begins_with_a_block(module.net):
        net: Any = module.net
        module.join = _JoinedOnce(module.join, net.input_block.conv_block)
        net.input_block.conv_block = Through()
    for name, child in list(module.named_children()):
        if isinstance(child, _WITH_SKIP):
            _split_expansion(child)
        if isinstance(child, Residual) and _is_folded(child):
            setattr(module, name, _Residual(child))
        elif isinstance(child, ConvBlock) and _is_folded(child):
            setattr(module, name, _Block(child))
        elif isinstance(child, _WITH_SKIP) and _ends_in_a_convolution(child):
            setattr(module, name, _WithSkip(child))
        elif isinstance(child, ConvStep):
            setattr(module, name, _Step(child))
        elif isinstance(child, ConvReLU):
            setattr(module, name, PackedConvolution(child, nn.ReLU()))
        elif isinstance(child, Followed):
            setattr(module, name, PackedConvolution(child.convolution, child.then))
        elif type(child) in _CONVOLUTIONS and _takes(child):
            setattr(module, name, PackedConvolution(child))
        else:
            pack_convolutions(child)


class Followed(nn.Module):
    """A convolution and the activation that alone reads it, one of ``ACTIVATIONS``."""

    def __init__(self, convolution: Any, then: nn.Module) -> None:
        super().__init__()
        self.convolution = convolution
        self.then = then

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.then(self.convolution(x))
        return out


class PackedConvolution(nn.Module):
    """A 2-D convolution on a CPU, float32 or bfloat16.

    Args:
        convolution: whose weights are copied.
        then: one of ``ACTIVATIONS`` of its output, or None.
    """

    def __init__(self, convolution: Any, then: nn.Module | None = None) -> None:
        super().__init__()
        self.same = isinstance(convolution, Conv2dSame)
        self.kernel, self.stride = list(convolution.kernel_size), list(convolution.stride)
        self.dilation, self.groups = list(convolution.dilation), convolution.groups
        self.padding = [0, 0] if self.same else list(convolution.padding)
        self.then, self.bounds = ("none", []) if then is None else ACTIVATIONS[type(then)]
        self.bias = convolution.bias
        self._plain = convolution.weight.detach()
        self._laid_out: dict[tuple[int, ...], Tensor] = {}
        self._layouts: dict[bytes, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        x, weight, geometry = self._prepared(x)
        out: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, weight, self.bias, *geometry, self.then, self.bounds, ""
        )
        return out

    def plus(self, x: Tensor, other: Tensor, *, relu: bool = False) -> Tensor:
        """The convolution of ``x`` plus ``other`` of the output's shape, or the ReLU of that."""
        x, weight, geometry = self._prepared(x)
        then = "relu" if relu else None
        out: Tensor = torch.ops.mkldnn._convolution_pointwise.binary(
            x, other, weight, self.bias, *geometry, "add", 1.0, then, [], ""
        )
        return out

    def _prepared(
        self, x: Tensor
    ) -> tuple[Tensor, Tensor, tuple[list[int], list[int], list[int], int]]:
        """Input, weight, and padding, stride, dilation, groups."""
        padding, grown = self.padding, (0, 0)
        if self.same:
            before, after = self._same_padding(x)
            if before == after:
                padding = after
            elif self.groups > 1 and self.dilation == [1, 1]:
                # A kernel with a row of zeros more is sooner done than a copy with a border.
                padding, grown = after, (after[0] - before[0], after[1] - before[1])
            else:
                x = F.pad(x, (before[1], after[1], before[0], after[0]))
        geometry = padding, self.stride, self.dilation, self.groups
        size = (*grown, *x.shape[-2:])
        if size not in self._laid_out:
            if len(self._laid_out) >= _SIZES_KEPT:
                self._laid_out.clear()
                self._layouts.clear()
            self._laid_out[size] = self._weight(grown, geometry, list(x.shape))
        return x, self._laid_out[size], geometry

    def _weight(self, grown: tuple[int, int], geometry: Any, shape: list[int]) -> Tensor:
        """Laid out as oneDNN reads it soonest for an input of a shape; another layout would be
        turned into that in every pass. Sizes that agree in it share one copy."""
        if self._plain.is_mkldnn:
            self._plain = self._plain.to_dense()
        weight = F.pad(self._plain, (grown[1], 0, grown[0], 0))
        weight = torch.ops.mkldnn._reorder_convolution_weight(weight, *geometry, shape)
        if not self.same:
            self._plain = weight
        layout = torch.ops.mkldnn._get_mkldnn_serialized_md(weight).numpy().tobytes()
        return self._layouts.setdefault(layout, weight)

    def _same_padding(self, x: Tensor) -> tuple[list[int], list[int]]:
        """Rows and columns before and after, as TensorFlow's "same"."""
        total = [
            max((-(-side // stride) - 1) * stride + (kernel - 1) * dilation + 1 - side, 0)
            for side, stride, kernel, dilation in zip(
                x.shape[-2:], self.stride, self.kernel, self.dilation, strict=True
            )
        ]
        before = [both // 2 for both in total]
        return before, [both - first for both, first in zip(total, before, strict=True)]


class _Block(nn.Module):
    """A ``ConvBlock`` without its norm."""

    def __init__(self, block: ConvBlock) -> None:
        super().__init__()
        self.conv = PackedConvolution(block.conv, nn.ReLU() if block.relu else None)
        if block.every > 1:  # it is oneDNN's backward alone that strided 1x1 convolutions break
            self.conv.stride = [block.every, block.every]

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
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
        return self.conv.plus(self.conv_block(x), skip, relu=True)


class _Step(nn.Module):
    """A ``ConvStep``."""

    def __init__(self, step: ConvStep) -> None:
        super().__init__()
        self.first = PackedConvolution(step.first, nn.ReLU())
        self.second = PackedConvolution(step.second)

    def forward(self, x: Tensor) -> Tensor:
        return self.second.plus(self.first(x), x, relu=True)


class _JoinedOnce(nn.Module):
    """The first convolution of a mask head, which reads the instance embedding once a box.

    The embedding is the same in all cells, and so is what the convolution makes of it but for the
    outermost ones: nine vectors a box instead of as many channels in every cell.
    """

    def __init__(self, join: Any, block: ConvBlock) -> None:
        super().__init__()
        self.join, self.relu = join, block.relu
        self._whole = [block.conv]  # no submodule: what is laid out is a part of it
        self._first: PackedConvolution | None = None

    def forward(self, pixel: Tensor, instance: Tensor | None) -> Tensor:
        self.join.check(pixel, instance)
        channels = pixel.shape[1]
        weight = self._whole[0].weight
        if self._first is None:
            alone = copy.copy(self._whole[0])
            part = nn.Parameter(weight[:, :channels], requires_grad=False)
            alone._parameters = {**alone._parameters, "weight": part}
            self._first = PackedConvolution(alone)
        pixel = pixel.contiguous(memory_format=torch.channels_last)
        if instance is None or channels == self.join.in_channels:
            out = self._first(pixel)
            return F.relu_(out) if self.relu else out
        taps = torch.einsum("nd,odij->nijo", instance.float(), weight[:, channels:].float())
        seen = taps.new_tensor([[0, 1, 1], [1, 1, 1], [1, 1, 0]])  # by the first cell, inner, last
        taps = torch.einsum("yi,xj,nijo->nyxo", seen, seen, taps).to(pixel.dtype)
        y, x = (_first_inner_last(side, pixel.device) for side in pixel.shape[-2:])
        everywhere = taps[:, y[:, None], x].permute(0, 3, 1, 2)
        return self._first.plus(pixel, everywhere, relu=self.relu)


def _first_inner_last(side: int, device: torch.device) -> Tensor:
    place = torch.ones(side, dtype=torch.int64, device=device)
    place[0], place[-1] = 0, 2
    return place


def _begins_with_a_block(net: nn.Module) -> bool:
    """Whether a mask head's network begins with a 3 x 3 convolution at full resolution."""
    if not isinstance(net, HourglassNetwork):
        return False
    block = net.input_block.conv_block
    folded = isinstance(block, ConvBlock) and _is_folded(block)
    return folded and block.conv.kernel_size == (3, 3) and block.conv.stride == (1, 1)


class _Expansion(nn.Module):
    """A pointwise convolution to many channels and the depthwise one that reads them.

    Where the map between them is large, some channels at a time: it stays in the processor's cache
    then, and the system need not clear fresh pages for it.

    Args:
        pointwise: with the activation that follows it.
        depthwise: likewise.
    """

    def __init__(self, pointwise: nn.Module, depthwise: nn.Module) -> None:
        super().__init__()
        self._parts = [pointwise, depthwise]  # no submodules: what is laid out are pieces of them
        self.channels = _convolution_of(pointwise).out_channels
        self._pieces: dict[int, nn.ModuleList] = {}

    def forward(self, x: Tensor) -> Tensor:
        whole = x[:, :1].numel() * self.channels * x.element_size()
        blocks = max(1, int(_AT_ONCE * self.channels / whole) // _BLOCK)
        each = min(self.channels, blocks * _BLOCK)
        if each not in self._pieces:
            cuts = [slice(i, i + each) for i in range(0, self.channels, each)]
            self._pieces[each] = nn.ModuleList(
                nn.Sequential(*(_packed_piece(part, cut) for part in self._parts)) for cut in cuts
            )
        out = [piece(x) for piece in self._pieces[each]]
        return out[0] if len(out) == 1 else torch.cat(out, dim=1)


def _split_expansion(block: nn.Module) -> None:
    """Put an ``_Expansion`` in the place of a block's first two convolutions, where it may."""
    children = list(block.named_children())
    working = [(name, part) for name, part in children if not _is_idle(part)]
    if len(working) < 2:
        return
    (first, pointwise), (second, depthwise) = working[:2]
    narrow, wide = _convolution_of(pointwise), _convolution_of(depthwise)
    if narrow is None or wide is None:
        return
    plain = narrow.kernel_size == narrow.stride == (1, 1) and narrow.groups == 1
    if plain and _takes(narrow) and wide.groups == wide.out_channels == narrow.out_channels:
        setattr(block, first, _Expansion(pointwise, depthwise))
        setattr(block, second, Through())


def _convolution_of(part: nn.Module) -> Any:
    """The convolution in a part of a block, or None."""
    inner = part.convolution if isinstance(part, Followed) else part
    return inner if type(inner) in _CONVOLUTIONS and _takes(inner) else None


def _packed_piece(part: nn.Module, cut: slice) -> PackedConvolution:
    """Some output channels of a convolution with what follows it."""
    whole = _convolution_of(part)
    piece = copy.copy(whole)
    piece._parameters = {
        name: None if value is None else nn.Parameter(value[cut], requires_grad=False)
        for name, value in whole._parameters.items()
    }
    piece.out_channels = len(piece.weight)
    if whole.groups > 1:
        piece.in_channels = piece.groups = piece.out_channels
    return PackedConvolution(piece, part.then if isinstance(part, Followed) else None)


def _is_idle(part: nn.Module) -> bool:
    """Whether nothing happens in a part of a block: no path is dropped in predictions."""
    idle = (nn.Identity, Through, DropPath)
    return all(isinstance(leaf, idle) for leaf in part.modules() if not [*leaf.children()])


class _WithSkip(nn.Module):
    """A block of timm's that ends in a convolution, to which its input is added."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        parts = list(block.children())
        last = _last_convolution(parts)
        self.before = nn.Sequential(*parts[:last])
        pack_convolutions(self.before)
        self.last = PackedConvolution(parts[last])

    def forward(self, x: Tensor) -> Tensor:
        return self.last.plus(self.before(x), x)


_WITH_SKIP = (InvertedResidual, DepthwiseSeparableConv)  # their parts lie in the order of their use


def _last_convolution(parts: list[nn.Module]) -> int:
    return max(i for i, part in enumerate(parts) if isinstance(part, nn.Conv2d | Followed))


def _ends_in_a_convolution(block: Any) -> bool:
    """Whether a block adds its input to what its last convolution gives."""
    parts = list(block.children())
    last = _last_convolution(parts)
    plain = type(parts[last]) in _CONVOLUTIONS and _takes(parts[last])
    return block.has_skip and plain and all(map(_is_idle, parts[last + 1 :]))


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
