"""What the TensorFlow original makes of an image's masks and boxes before its losses."""

from __future__ import annotations

import torch
from torch import Tensor

from deepmac.data.annotations.records import Instance, decode_mask
from deepmac.data.original.soft_targets import original_mask_targets
from deepmac.data.original.source_pixels import SourcePixels


def original_targets(
    instances: list[Instance],
    boxes: Tensor,
    pixels: SourcePixels,
    original_size: tuple[int, int],
    mask_size: int | None,
) -> Tensor:
    """Each instance's mask, moved along with the image and then cut out by its box.

    Args:
        instances: N instances with a mask.
        boxes: (N, 4) xyxy in pixels of the transformed image.
        pixels: of the transformed image.
        original_size: (height, width) of the annotated image.
        mask_size: S, or None for the whole transformed image.

    Returns:
        (N, S, S) float32 in [0, 1], soft; or (N, H, W) uint8, 0 or 1.
    """
    # One full-size mask at a time: a crowded image has a hundred.
    warped = (pixels.warp(decode_mask(instance, *original_size)) for instance in instances)
    if mask_size is None:
        return torch.stack(list(warped))
    crops = [
        original_mask_targets(mask.float()[None, None], box[None, None], mask_size)[0, 0]
        for mask, box in zip(warped, boxes, strict=True)
    ]
    return torch.stack(crops)
