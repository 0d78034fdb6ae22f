"""Backbones of Deep-MARC: a timm network under torchvision's feature pyramid."""

from __future__ import annotations

from typing import Any

import timm
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from deepmac.nn.backbones import pyramid_levels, timm_features, timm_normalization
from deepmac.nn.extensions import is_path, made, named_class
from deepmac.nn.hourglass import HOURGLASS_BACKBONES

STRIDES = (4, 8, 16, 32, 64)
"""Input pixels per cell of the levels; boxes are cropped out of all but the last."""


def build_pyramid(name: str, **arguments: Any) -> Any:
    """A :class:`PyramidBackbone`, or somebody's own in its place.

    Args:
        name: as ``PyramidBackbone`` takes it; or the path of a module with its attributes, whose
            constructor gets those of the other arguments that it takes.
        **arguments: of ``PyramidBackbone``.

    Raises:
        ValueError: see ``PyramidBackbone``; a class that cannot be had or is no such module.
    """
    if not is_path(name) or timm.is_model(name):
        return PyramidBackbone(name, **arguments)
    own = made(named_class(name, nn.Module, "a backbone"), name, **arguments)
    told = ("out_channels", "size_divisor", "normalization")
    if lacking := [attribute for attribute in told if not hasattr(own, attribute)]:
        raise ValueError(f"{name} has to set {', '.join(lacking)}: see PyramidBackbone")
    return own


class PyramidBackbone(nn.Module):
    """Images to five feature maps (Lin et al. 2017: P2 to P6).

    Made like torchvision's ``BackboneWithFPN`` and named like it (``body``, ``fpn``): for
    ``resnet50`` and ``resnet101`` the weights of torchvision's detectors fit as they are.

    Args:
        name: any timm model with feature levels of stride 4, 8, 16 and 32.
        width: channels of every level.
        weights: of the body: None, ``timm``, ``package`` or a local file (see ``build_backbone``).
        freeze_norm: the body's batch norms keep the statistics and scales of their weights, as
            torchvision's detectors do; for few images per device.
        checkpoint_activations: trade time for memory in training.

    Attributes:
        out_channels: ``width``, under the name that torchvision asks for.
        size_divisor: what both sides of the images must be multiples of.
        normalization: what the weights expect.

    Raises:
        ValueError: an hourglass, which has no pyramid, or a name unknown to timm.
        UserError: weights that cannot be downloaded, found or matched.
    """

    def __init__(
        self,
        name: str,
        *,
        width: int = 256,
        weights: str | None = None,
        freeze_norm: bool = False,
        checkpoint_activations: bool = False,
    ) -> None:
        super().__init__()
        if name in HOURGLASS_BACKBONES:
            raise ValueError(
                f"{name} gives one map, but Deep-MARC needs a feature pyramid: choose a timm "
                "network such as resnet50."
            )
        body = timm_features(name, weights=weights, checkpoint_activations=checkpoint_activations)
        reductions = list(body.feature_info.reduction())
        self.levels = pyramid_levels(name, reductions, STRIDES[0])
        self.channels_last = str(getattr(body, "output_fmt", "NCHW")).endswith("NHWC")
        channels = [body.feature_info.channels()[level] for level in self.levels]
        self.body = timm.layers.freeze_batch_norm_2d(body) if freeze_norm else body
        self.fpn = FeaturePyramidNetwork(channels, width, extra_blocks=LastLevelMaxPool())
        self.out_channels = width
        self.size_divisor = STRIDES[-2]
        self.normalization = timm_normalization(name)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Normalised images to the levels ``0``, ``1``, ``2``, ``3`` and ``pool``.

        Args:
            images: (B, 3, H, W) float, H and W multiples of ``size_divisor``.

        Returns:
            (B, out_channels, H / stride, W / stride) with the ``STRIDES``, the last rounded up.
        """
        maps = self.body(images)
        levels = {}
        for name, index in enumerate(self.levels):
            level = maps[index]
            levels[str(name)] = level.permute(0, 3, 1, 2) if self.channels_last else level
        result: dict[str, Tensor] = self.fpn(levels)
        return result
