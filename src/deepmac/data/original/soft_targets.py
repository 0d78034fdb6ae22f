"""Mask targets as in the TensorFlow original."""

from __future__ import annotations

from torch import Tensor

from deepmac.nn.roi_crop import corner_aligned_crop


def original_mask_targets(masks: Tensor, boxes: Tensor, mask_size: int) -> Tensor:
    """Each instance's full-size mask cut out by its box, soft, with corners on pixel centres.

    Args:
        masks: (B, N, H, W) in [0, 1], at the input's resolution.
        boxes: (B, N, 4) xyxy in input pixels.
        mask_size: S.

    Returns:
        (B, N, S, S).
    """
    batch, count, height, width = masks.shape
    crops = corner_aligned_crop(
        masks.reshape(batch * count, 1, height, width),
        boxes.reshape(batch * count, 1, 4),
        mask_size,
    )
    return crops.reshape(batch, count, mask_size, mask_size)
