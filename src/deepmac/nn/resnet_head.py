"""The stride-1 residual networks among the mask heads.

Pre-activation residual blocks (He et al. 2016) as in the TensorFlow original, which puts one
more norm and ReLU after the second convolution.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from deepmac.nn.conventions import TODAY, Conventions
from deepmac.nn.hourglass import Chain
from deepmac.nn.initialization import initialize_weights
from deepmac.nn.norm import BatchNorm2d, NormOptions


@dataclass(frozen=True)
class ResNetSpec:
    """Groups of residual blocks; ``channels`` in units of the head's width."""

    channels: tuple[int, ...]
    blocks: tuple[int, ...]


RESNET_HEADS: dict[str, ResNetSpec] = {
    "resnet4": ResNetSpec((2,), (2,)),
    "resnet8": ResNetSpec((2,), (4,)),
    "resnet12": ResNetSpec((2,), (6,)),
    "resnet16": ResNetSpec((2,), (8,)),
    "resnet20": ResNetSpec((2, 3), (8, 2)),
}


class ResNetTrunk(nn.Module):
    """(N, in_channels, S, S) to (N, out_channels, S, S), any S."""

    def __init__(
        self,
        *,
        in_channels: int,
        width: int,
        spec: ResNetSpec,
        conventions: Conventions = TODAY,
    ) -> None:
        super().__init__()
        options = conventions.resnet_norm
        self.input_layer = nn.Conv2d(in_channels, width, 1)
        self.blocks = Chain()
        channels = width
        for factor, count in zip(spec.channels, spec.blocks, strict=True):
            for index in range(count):
                self.blocks.append(
                    PreactivationBlock(
                        channels, factor * width, project=index == 0, options=options
                    )
                )
                channels = factor * width
        self.out_channels = channels
        initialize_weights(self, conventions)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        return self.blocks(self.input_layer(x), valid)


class PreactivationBlock(nn.Module):
    """Norm, ReLU, convolution, twice, then norm and ReLU again before the sum.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        project: the skip is a 1x1 convolution of the activated input, not the input itself.
        options: of the norms.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, project: bool, options: NormOptions
    ) -> None:
        super().__init__()
        self.norm1 = BatchNorm2d(in_channels, options)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = BatchNorm2d(out_channels, options)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm3 = BatchNorm2d(out_channels, options)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1) if project else None

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        active = F.relu_(self.norm1(x, valid))
        skip = x if self.shortcut is None else self.shortcut(active)
        out = self.conv1(active)
        out = self.conv2(F.relu_(self.norm2(out, valid)))
        return F.relu_(self.norm3(out, valid)) + skip
