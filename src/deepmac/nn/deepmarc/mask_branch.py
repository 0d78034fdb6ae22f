"""The mask branch of Deep-MARC: a deep mask head on RoI features, then one doubling.

After the Model Garden project deepmac_maskrcnn (its mask head and ``upsample_factor`` 2).
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor

from deepmac.nn.extensions import is_path
from deepmac.nn.hourglass import HOURGLASS_HEADS
from deepmac.nn.initialization import initialize_weights
from deepmac.nn.mask_heads import MaskHead, build_mask_head, check_mask_size
from deepmac.nn.norm import BatchNorm2d
from deepmac.nn.resnet_head import RESNET_HEADS

ROI_MASK_HEADS: tuple[str, ...] = ("mask_rcnn", *HOURGLASS_HEADS, *RESNET_HEADS, "fully_connected")
"""Heads that need nothing but features; ``mask_rcnn`` is Mask R-CNN's four convolutions."""

_DEFAULT_WIDTH, _DEFAULT_LAYERS = 4, 4  # 256 channels at the usual width of 64


def build_roi_mask_head(
    name: str, in_channels: int, width: int, mask_size: int, num_masks: int
) -> tuple[nn.Module, nn.Module]:
    """Mask head and mask predictor, in torchvision's division of labour.

    Args:
        name: one of ``ROI_MASK_HEADS``, or a class as ``build_mask_head`` takes it.
        in_channels: channels of the RoI features.
        width: of the head: hourglasses and ResNets start with it, ``mask_rcnn`` has four times it.
        mask_size: side S of the masks; the features' side is S / 2. Published: 28 for
            ``mask_rcnn``, 64 for the others.
        num_masks: masks per RoI: 1, or one per class and the background.

    Returns:
        The head, (R, in_channels, S/2, S/2) to (R, F, S/2, S/2), and the predictor of
        (R, num_masks, S, S) logits. R may be 0.

    Raises:
        ValueError: an unknown name, or a size that the head cannot take.
    """
    if name == "default":
        name = "mask_rcnn"  # as older checkpoints call it
    if name not in ROI_MASK_HEADS and not is_path(name):
        raise ValueError(
            f"Deep-MARC has no mask head {name!r}; known are {', '.join(ROI_MASK_HEADS)}, and your "
            "own as package.Class"
        )
    if mask_size < 2 or mask_size % 2:
        raise ValueError(f"Deep-MARC's masks double the RoI: mask_size={mask_size} must be even")
    if name == "mask_rcnn":
        hidden = _DEFAULT_WIDTH * width
        layers = [hidden] * _DEFAULT_LAYERS
        return MaskRCNNHeads(in_channels, layers, 1), MaskRCNNPredictor(hidden, hidden, num_masks)
    trunk = RoITrunk(build_mask_head(name, in_channels, width, mask_size // 2))
    check_mask_size(name, mask_size, 2 * trunk.head.size_divisor)
    return trunk, DoublingPredictor(trunk.head.trunk_channels, width, num_masks)


class RoITrunk(nn.Module):
    """A mask head without its own last layer."""

    def __init__(self, head: MaskHead) -> None:
        super().__init__()
        self.head = head
        head.project_out = nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        return self.head.trunk(features)


class DoublingPredictor(nn.Sequential):
    """2x2 transposed convolution of stride 2, norm, ReLU, 1x1 convolution."""

    def __init__(self, in_channels: int, width: int, num_masks: int) -> None:
        deconvolution = nn.ConvTranspose2d(in_channels, width, 2, stride=2, bias=False)
        logits = nn.Conv2d(width, num_masks, 1)
        super().__init__(
            OrderedDict(
                deconvolution=deconvolution,
                norm=BatchNorm2d(width),
                relu=nn.ReLU(inplace=True),
                logits=logits,
            )
        )
        # Every output pixel is reached from one cell: its fan is the input's channels.
        nn.init.normal_(deconvolution.weight, std=(2 / in_channels) ** 0.5)
        initialize_weights(logits)
