"""The mask heads of Deep-MAC: what turns the crop of one box into its mask.

Paper: "The surprising impact of mask-head architecture on novel class segmentation" (Birodkar
et al., ICCV 2021). All seventeen network types of the TensorFlow original, equal in parameters
and outputs.
"""

from __future__ import annotations

from abc import abstractmethod
from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepmac.nn.conventions import TODAY, Conventions
from deepmac.nn.extensions import is_path, made, named_class, taking_validity
from deepmac.nn.hourglass import HOURGLASS_HEADS, HourglassNetwork
from deepmac.nn.initialization import initialize_weights
from deepmac.nn.resnet_head import RESNET_HEADS, ResNetTrunk

COND_INST_HEADS = {"cond_inst1": 1, "cond_inst2": 2, "cond_inst3": 3}
"""Heads whose weights are the instance embedding, with their number of layers."""

MASK_HEADS: tuple[str, ...] = (
    *HOURGLASS_HEADS,
    *RESNET_HEADS,
    "fully_connected",
    "embedding_projection",
    *COND_INST_HEADS,
)


def build_mask_head(
    name: str,
    in_channels: int,
    width: int,
    mask_size: int,
    *,
    conventions: Conventions = TODAY,
) -> MaskHead:
    """Build one of ``MASK_HEADS``, or somebody's own.

    Args:
        name: the network type; or the path of a class: a ``MaskHead``, or any module from
            (N, in_channels, S, S) to (N, ``out_channels``, S, S), its attribute (1 where it has
            none). Its constructor gets those of the other arguments that it takes.
        in_channels: C + D for heads that are to see the instance embedding beside the pixel
            part, else C; always C for ``cond_inst*`` and ``embedding_projection``.
        width: channels the network starts with (``num_init_channels``).
        mask_size: side S of the crop; only ``fully_connected`` is bound to it.
        conventions: norms and initial weights.

    Raises:
        ValueError: an unknown name, or a width that ``cond_inst1`` cannot have.
    """
    if is_path(name):
        kind = named_class(name, nn.Module, "a mask head")
        own = made(kind, name, in_channels=in_channels, width=width, mask_size=mask_size)
        if isinstance(own, MaskHead):
            return own
        return ConvolutionalMaskHead(
            taking_validity(own),
            in_channels=in_channels,
            trunk_channels=getattr(own, "out_channels", 1),
            conventions=conventions,
        )
    convolutional = partial(ConvolutionalMaskHead, in_channels=in_channels, conventions=conventions)
    if name in HOURGLASS_HEADS:
        spec = HOURGLASS_HEADS[name].scaled(width)
        network = HourglassNetwork(in_channels=in_channels, spec=spec, conventions=conventions)
        return convolutional(network, trunk_channels=network.out_channels)
    if name in RESNET_HEADS:
        trunk = ResNetTrunk(
            in_channels=in_channels, width=width, spec=RESNET_HEADS[name], conventions=conventions
        )
        return convolutional(trunk, trunk_channels=trunk.out_channels)
    if name == "fully_connected":
        dense = FullyConnectedTrunk(
            in_channels=in_channels, width=width, mask_size=mask_size, conventions=conventions
        )
        return convolutional(dense, trunk_channels=1)
    if name == "embedding_projection":
        return EmbeddingProjectionHead(in_channels)
    if name in COND_INST_HEADS:
        return CondInstHead(in_channels, width, depth=COND_INST_HEADS[name])
    raise ValueError(
        f"no mask head is called {name!r}; known are {', '.join(MASK_HEADS)}, and your own as "
        "package.Class"
    )


def check_mask_size(name: str, mask_size: int, divisor: int) -> None:
    """Refuse masks that the head ``name`` cannot make.

    Raises:
        ValueError: their side is no multiple of ``divisor``.
    """
    if mask_size % divisor:
        raise ValueError(
            f"mask_head={name} needs a mask_size that is a multiple of {divisor}, not {mask_size}"
        )


class MaskHead(nn.Module):
    """A class-agnostic network from the crop of a box to its mask.

    Attributes:
        in_channels: as given to :func:`build_mask_head`.
        trunk_channels: channels of :meth:`trunk`.
        size_divisor: what the crop's sides must be multiples of.
    """

    def __init__(self, *, in_channels: int, trunk_channels: int, size_divisor: int = 1) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.trunk_channels = trunk_channels
        self.size_divisor = size_divisor
        # As in the original, one channel already is the mask.
        self.project_out: nn.Module = nn.Identity()
        if trunk_channels > 1:
            self.project_out = nn.Conv2d(trunk_channels, 1, 1)

    def forward(
        self, pixel: Tensor, instance: Tensor | None = None, valid: Tensor | None = None
    ) -> Tensor:
        """Mask logits of each row.

        Args:
            pixel: (N, C, S, S): coordinates (y, x) if used, then the cropped pixel embedding.
                N may be 0.
            instance: (N, D) instance embedding; left unread where ``in_channels`` equals C.
            valid: (N,) bool; rows that are False change neither other rows nor statistics, and
                their own logits mean nothing.

        Returns:
            (N, S, S) logits.

        Raises:
            ValueError: channels or sizes that do not fit this head.
        """
        return self.project_out(self.trunk(pixel, instance, valid)).squeeze(1)

    @abstractmethod
    def trunk(
        self, pixel: Tensor, instance: Tensor | None = None, valid: Tensor | None = None
    ) -> Tensor:
        """(N, trunk_channels, S, S): what ``project_out`` turns into logits."""


class ConvolutionalMaskHead(MaskHead):
    """A network on the pixel part and, where ``in_channels`` says so, the instance embedding.

    Args:
        net: ``net(x, valid)`` gives (N, trunk_channels, S, S) or a list whose last is such.
        in_channels: C, or C + D.
        trunk_channels: channels of what ``net`` gives.
        conventions: initial weights.
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        in_channels: int,
        trunk_channels: int,
        conventions: Conventions = TODAY,
    ) -> None:
        size_divisor = net.size_divisor if isinstance(net, HourglassNetwork) else 1
        super().__init__(
            in_channels=in_channels, trunk_channels=trunk_channels, size_divisor=size_divisor
        )
        self.join: nn.Module = JoinedInputs(in_channels)
        self.net = net
        initialize_weights(self.project_out, conventions)

    def trunk(
        self, pixel: Tensor, instance: Tensor | None = None, valid: Tensor | None = None
    ) -> Tensor:
        out = self.net(self.join(pixel, instance), valid)
        return out[-1] if isinstance(out, list) else out


class JoinedInputs(nn.Module):
    """(N, C, S, S) pixel part, and (N, D) instance embedding in every cell where it is asked for.

    Args:
        in_channels: C, or C + D, of what it gives.
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.in_channels = in_channels

    def forward(self, pixel: Tensor, instance: Tensor | None) -> Tensor:
        self.check(pixel, instance)
        n, channels, height, width = pixel.shape
        if instance is None or channels == self.in_channels:
            return pixel
        spread = instance[:, :, None, None].expand(n, instance.shape[1], height, width)
        return torch.cat([pixel, spread.to(pixel.dtype)], dim=1)

    def check(self, pixel: Tensor, instance: Tensor | None) -> None:
        """Raise ValueError for channels that do not make ``in_channels``."""
        channels = pixel.shape[1]
        extra = 0 if instance is None else instance.shape[1]
        if self.in_channels not in (channels, channels + extra):
            raise ValueError(
                f"this mask head takes {self.in_channels} channels but got {channels} of the "
                f"pixel part and {extra} of the instance embedding"
            )


class FullyConnectedTrunk(nn.Module):
    """A 1x1 convolution and two dense layers: (N, in_channels, S, S) to logits (N, 1, S, S)."""

    def __init__(
        self, *, in_channels: int, width: int, mask_size: int, conventions: Conventions = TODAY
    ) -> None:
        super().__init__()
        self.mask_size = mask_size
        self.input_layer = nn.Conv2d(in_channels, width, 1)
        self.fc1 = nn.Linear(width * mask_size**2, 1024)
        self.fc2 = nn.Linear(1024, mask_size**2)
        initialize_weights(self, conventions)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        size = self.mask_size
        if x.shape[-2:] != (size, size):
            raise ValueError(
                f"this fully_connected mask head takes crops of {size}x{size}, "
                f"not {x.shape[-2]}x{x.shape[-1]}"
            )
        hidden = F.relu(self.fc1(self.input_layer(x).flatten(1)))
        return self.fc2(hidden).reshape(-1, 1, size, size)


class EmbeddingProjectionHead(MaskHead):
    """The dot product of pixel and instance embedding; no parameters."""

    def __init__(self, in_channels: int) -> None:
        super().__init__(in_channels=in_channels, trunk_channels=1)

    def trunk(
        self, pixel: Tensor, instance: Tensor | None = None, valid: Tensor | None = None
    ) -> Tensor:
        dim = self.in_channels
        instance = _checked_instance(pixel, instance, "embedding_projection", dim, dim)
        return (pixel * instance[:, :, None, None]).sum(dim=1, keepdim=True)


class CondInstHead(MaskHead):
    """1x1 convolutions whose weights are the instance embedding (CondInst, Tian et al. 2020).

    The embedding holds, layer by layer, the weights (input, output) row by row, then the biases;
    ReLU in between, one output channel at the end.

    Raises:
        ValueError: one layer and a width other than ``in_channels`` (the original's rule).
    """

    def __init__(self, in_channels: int, width: int, *, depth: int) -> None:
        super().__init__(in_channels=in_channels, trunk_channels=1)
        self.name = f"cond_inst{depth}"
        self.layers = _cond_inst_layers(in_channels, width, self.name)
        self.parameter_count = sum(i * o + o for i, o in self.layers)

    def trunk(
        self, pixel: Tensor, instance: Tensor | None = None, valid: Tensor | None = None
    ) -> Tensor:
        parameters = _checked_instance(
            pixel, instance, self.name, self.in_channels, self.parameter_count
        )
        x, start = pixel.flatten(2), 0
        for inputs, outputs in self.layers:
            if start:
                x = F.relu(x)
            split = start + inputs * outputs
            weight = parameters[:, start:split].reshape(-1, inputs, outputs)
            start = split + outputs
            x = weight.transpose(1, 2) @ x + parameters[:, split:start, None]
        return x.unflatten(2, pixel.shape[-2:])


def _cond_inst_layers(in_channels: int, width: int, name: str) -> list[tuple[int, int]]:
    depth = COND_INST_HEADS[name]
    if depth == 1 and in_channels != width:
        raise ValueError(
            f"cond_inst1 needs as many init channels as pixel channels with coordinates "
            f"({in_channels}), not {width}"
        )
    widths = [in_channels, *[width] * (depth - 1), 1]
    return list(pairwise(widths))


def _checked_instance(
    pixel: Tensor, instance: Tensor | None, name: str, channels: int, dim: int
) -> Tensor:
    """The instance embedding of a head that cannot do without it."""
    got = 0 if instance is None else instance.shape[1]
    if instance is None or pixel.shape[1] != channels or got != dim:
        raise ValueError(
            f"{name} takes {channels} pixel channels and an instance embedding of {dim}, "
            f"but got {pixel.shape[1]} and {got}"
        )
    return instance
