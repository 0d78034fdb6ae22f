"""One recursive hourglass, the body of the backbones and of the mask heads alike.

After "Stacked hourglass networks" (Newell et al. 2016) in the form of CornerNet and CenterNet:
strided residual blocks instead of pooling. Parameters and outputs agree with the TensorFlow
original of Deep-MAC.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepmac.nn.conventions import TODAY, Conventions
from deepmac.nn.convolution import convolve
from deepmac.nn.initialization import initialize_weights
from deepmac.nn.norm import BatchNorm2d, NormOptions
from deepmac.nn.ranges import check_sides
from deepmac.nn.recompute import recomputed
from deepmac.nn.replicas import ALONE, Replicas
from deepmac.nn.tracing import static_shapes


@dataclass(frozen=True)
class HourglassSpec:
    """The shape of an hourglass network.

    Attributes:
        input_channels: channels of the input block's first convolution.
        channels: channels of each level, outermost first.
        blocks: residual blocks of each level; the last number is the bottom's.
        stacks: hourglasses one after the other; each gives an output.
        shortcut: a level adds its own resolution to what comes back from below.
        resample: levels halve the resolution; otherwise all work at the same one.
    """

    input_channels: int
    channels: tuple[int, ...]
    blocks: tuple[int, ...]
    stacks: int = 1
    shortcut: bool = True
    resample: bool = True

    @property
    def size_divisor(self) -> int:
        """What the sides of the map that enters the hourglass must be multiples of."""
        return 2 ** (len(self.channels) - 1) if self.resample else 1

    def scaled(self, width: int) -> HourglassSpec:
        """The same shape with all channels times ``width``."""
        return replace(
            self,
            input_channels=self.input_channels * width,
            channels=tuple(channels * width for channels in self.channels),
        )


HOURGLASS_HEADS: dict[str, HourglassSpec] = {  # in units of the mask head's width
    "hourglass10": HourglassSpec(1, (2, 2), (1, 1)),
    "hourglass20": HourglassSpec(1, (2, 2, 3), (1, 2, 2)),
    "hourglass20_uniform_size": HourglassSpec(1, (2, 2, 3), (1, 2, 2), resample=False),
    "hourglass20_no_shortcut": HourglassSpec(1, (2, 2, 3), (1, 2, 2), shortcut=False),
    "hourglass32": HourglassSpec(1, (2, 2, 3, 3), (2, 2, 2, 2)),
    "hourglass52": HourglassSpec(1, (2, 2, 3, 3, 3, 4), (2, 2, 2, 2, 2, 4)),
    "hourglass100": HourglassSpec(1, (2, 2, 3, 3, 3, 4), (4, 4, 4, 4, 4, 8)),
}
HOURGLASS_BACKBONES: dict[str, HourglassSpec] = {
    "hourglass_104": HourglassSpec(128, (256, 256, 384, 384, 384, 512), (2, 2, 2, 2, 2, 4), 2),
    "hourglass_52": HOURGLASS_HEADS["hourglass52"].scaled(64),
    "hourglass_32": HOURGLASS_HEADS["hourglass32"].scaled(48),
    "hourglass_20": HOURGLASS_HEADS["hourglass20"].scaled(48),
    "hourglass_10": HOURGLASS_HEADS["hourglass10"].scaled(32),
    # Not in the original: tests two stacks cheaply.
    "hourglass_tiny2": HourglassSpec(8, (16, 16, 24), (1, 2, 2), 2),
}


def hourglass_backbone(
    name: str,
    *,
    stride: int = 4,
    conventions: Conventions = TODAY,
    checkpoint_activations: bool = False,
) -> HourglassNetwork:
    """A named hourglass network on RGB images.

    Args:
        name: one of ``HOURGLASS_BACKBONES``.
        stride: input pixels per cell of the outputs, 4 (the original) or 8.
        conventions: norms and initial weights.
        checkpoint_activations: see :class:`HourglassNetwork`.

    Raises:
        ValueError: an unknown name or another stride.
    """
    if name not in HOURGLASS_BACKBONES:
        known = ", ".join(HOURGLASS_BACKBONES)
        raise ValueError(f"no hourglass backbone is called {name!r}; known are {known}")
    if stride not in (4, 8):
        raise ValueError(f"an hourglass backbone has stride 4 or 8, not {stride}")
    return HourglassNetwork(
        in_channels=3,
        spec=HOURGLASS_BACKBONES[name],
        input_kernel=7,
        input_stride=stride,
        conventions=conventions,
        checkpoint_activations=checkpoint_activations,
    )


class HourglassNetwork(nn.Module):
    """An input block and one or more hourglasses, each with an output of its own.

    Args:
        in_channels: channels of the input.
        spec: shape of the hourglasses.
        input_kernel: kernel of the input block's first convolution, 7 (images) or 3.
        input_stride: stride of the input block: 1, or a power of two from 4 on.
        conventions: norms and initial weights.
        checkpoint_activations: keep only the inputs of the residual blocks for the backward
            pass and compute the rest again. Results and running statistics are the same.

    Attributes:
        out_channels: channels of every output.
        num_outputs: how many outputs, one per stack.
        stride: input pixels per output cell.
        size_divisor: what the input's sides must be multiples of.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        spec: HourglassSpec,
        input_kernel: int = 3,
        input_stride: int = 1,
        conventions: Conventions = TODAY,
        checkpoint_activations: bool = False,
    ) -> None:
        super().__init__()
        options = conventions.hourglass_norm
        width = spec.channels[0]
        self.out_channels = width
        self.num_outputs = spec.stacks
        self.stride = input_stride
        self.size_divisor = input_stride * spec.size_divisor
        self.input_block = InputBlock(
            in_channels, spec.input_channels, width, input_kernel, input_stride, options
        )
        stacks, joints = range(spec.stacks), range(spec.stacks - 1)
        self.stacks = nn.ModuleList(Hourglass(spec, options=options) for _ in stacks)
        self.outputs = nn.ModuleList(ConvBlock(width, width, 3, options=options) for _ in stacks)
        # Between two stacks: what went into the first and what came out of it, both projected.
        self.join_input = nn.ModuleList(
            ConvBlock(width, width, 1, relu=False, options=options) for _ in joints
        )
        self.join_output = nn.ModuleList(
            ConvBlock(width, width, 1, relu=False, options=options) for _ in joints
        )
        self.join_residual = nn.ModuleList(Residual(width, width, options=options) for _ in joints)
        initialize_weights(self, conventions)
        for module in self.modules():
            if isinstance(module, Residual):
                module.checkpoint_activations = checkpoint_activations

    def forward(self, x: Tensor, valid: Tensor | None = None) -> list[Tensor]:
        """One output per stack, the best last.

        Args:
            x: (N, in_channels, H, W).
            valid: (N,) bool rows that count; see :class:`deepmac.nn.norm.BatchNorm2d`.

        Returns:
            ``num_outputs`` tensors (N, out_channels, H / stride, W / stride).

        Raises:
            ValueError: H or W is not a multiple of ``size_divisor``.
        """
        check_sides(x, self.size_divisor, "this hourglass")
        x = self.input_block(x, valid)
        results: list[Tensor] = []
        for index, (stack, output) in enumerate(zip(self.stacks, self.outputs, strict=True)):
            results.append(output(stack(x, valid), valid))
            if index + 1 < self.num_outputs:
                joined = self.join_input[index](x, valid)
                joined = joined + self.join_output[index](results[-1], valid)
                x = self.join_residual[index](F.relu(joined), valid)
        return results


class InputBlock(nn.Module):
    """A convolution and a residual block in front of the hourglasses.

    Stride 4 is shared by the two; each further factor of 2 is one more residual block.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        out_channels: int,
        kernel: int,
        stride: int,
        options: NormOptions,
    ) -> None:
        super().__init__()
        if stride != 1 and (stride < 4 or stride & (stride - 1)):
            raise ValueError(f"the input stride must be 1, 4, 8, 16 or so on, not {stride}")
        step = 1 if stride == 1 else 2
        self.conv_block = ConvBlock(in_channels, channels, kernel, stride=step, options=options)
        self.residual_block = Residual(channels, out_channels, stride=step, options=options)
        extra = (stride // 4).bit_length() - 1 if stride > 4 else 0
        self.extra = Chain(
            Residual(out_channels, out_channels, stride=2, options=options) for _ in range(extra)
        )

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        return self.extra(self.residual_block(self.conv_block(x, valid), valid), valid)


class Hourglass(nn.Module):
    """One level: its shortcut, a way down, the level below (recursive), a way up.

    Maps (N, channels[level], H, W) to the same shape. No ReLU follows the sum.
    """

    def __init__(self, spec: HourglassSpec, level: int = 0, *, options: NormOptions) -> None:
        super().__init__()
        outer, inner = spec.channels[level], spec.channels[level + 1]
        count, stride = spec.blocks[level], 2 if spec.resample else 1
        self.resample = spec.resample
        self.shortcut = _residuals(outer, outer, count, options=options) if spec.shortcut else None
        self.down = _residuals(outer, inner, count, stride=stride, options=options)
        if level + 2 < len(spec.channels):
            self.inner = Chain([Hourglass(spec, level + 1, options=options)])
        else:
            self.inner = _residuals(inner, inner, spec.blocks[level + 1], options=options)
        self.up = _residuals(inner, outer, count, widen_last=True, options=options)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        low = self.up(self.inner(self.down(x, valid), valid), valid)
        if self.shortcut is None:
            return upsample_nearest(low) if self.resample else low
        straight = self.shortcut(x, valid)
        return plus_upsampled(straight, low) if self.resample else straight + low


class Residual(nn.Module):
    """Two 3x3 convolutions around a skip, which is a 1x1 convolution where shapes change."""

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int = 1, options: NormOptions
    ) -> None:
        super().__init__()
        self.checkpoint_activations = False
        self.replicas: Replicas = ALONE
        self.conv_block = ConvBlock(in_channels, out_channels, 3, stride=stride, options=options)
        self.conv = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm = BatchNorm2d(out_channels, options)
        self.skip = None
        if stride != 1 or in_channels != out_channels:
            self.skip = ConvBlock(
                in_channels, out_channels, 1, stride=stride, relu=False, options=options
            )

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        if not self.checkpoint_activations or not torch.is_grad_enabled():
            return self._forward(x, valid)
        return recomputed(self, self.replicas, self._forward, x, valid)

    def _forward(self, x: Tensor, valid: Tensor | None) -> Tensor:
        out = self.norm(convolve(self.conv, self.conv_block(x, valid)), valid)
        skip = x if self.skip is None else self.skip(x, valid)
        return F.relu_(out + skip)


class ConvBlock(nn.Module):
    """Convolution without bias, batch norm, and a ReLU unless told otherwise."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        stride: int = 1,
        relu: bool = True,
        options: NormOptions,
    ) -> None:
        super().__init__()
        self.relu = relu
        # A strided 1x1 convolution reads every stride-th pixel. They are picked out first: the
        # backward of oneDNN's own (3.12, channels last, under 16 channels) corrupts the heap.
        self.every = stride if kernel == 1 else 1
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel,
            stride=1 if kernel == 1 else stride,
            padding=kernel // 2,
            bias=False,
        )
        self.norm = BatchNorm2d(out_channels, options)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        if self.every > 1:
            x = x[:, :, :: self.every, :: self.every]
        out = self.norm(convolve(self.conv, x), valid)
        return F.relu_(out) if self.relu else out


class Chain(nn.ModuleList):
    """Blocks one after the other, all given the row mask."""

    def __init__(self, blocks: Iterable[nn.Module] = ()) -> None:
        super().__init__(blocks)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        for block in self:
            x = block(x, valid)
        return x


def upsample_nearest(x: Tensor) -> Tensor:
    """(N, C, H, W) to (N, C, 2H, 2W), every cell four times.

    Expand and reshape: the backward of ``F.interpolate`` does not run on XLA devices. On a CPU it
    takes a twentieth of the time.
    """
    if x.is_cpu and not static_shapes(x):
        return F.interpolate(x, scale_factor=2.0, mode="nearest")
    n, c, h, w = x.shape
    return x[:, :, :, None, :, None].expand(n, c, h, 2, w, 2).reshape(n, c, 2 * h, 2 * w)


def plus_upsampled(fine: Tensor, coarse: Tensor) -> Tensor:
    """``fine + upsample_nearest(coarse)``; where nothing learns, in the memory of ``fine``.

    Half of a mask head's time outside its convolutions was the enlarged copy.
    """
    if torch.is_grad_enabled() or static_shapes(fine):
        return fine + upsample_nearest(coarse)
    for row in (0, 1):
        for column in (0, 1):
            fine[:, :, row::2, column::2] += coarse
    return fine


def _residuals(
    in_channels: int,
    out_channels: int,
    count: int,
    *,
    stride: int = 1,
    widen_last: bool = False,
    options: NormOptions,
) -> Chain:
    """``count`` blocks; the first takes the stride, the first or last the change of channels."""
    inner = in_channels if widen_last else out_channels
    widths = [in_channels, *[inner] * (count - 1), out_channels]
    return Chain(
        Residual(widths[i], widths[i + 1], stride=stride if i == 0 else 1, options=options)
        for i in range(count)
    )
