"""Mask targets and resizing as in the TensorFlow original."""

from __future__ import annotations

from torch import Tensor

from deepmac.nn.roi_crop import corner_aligned_crop, separable_roi_align


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


def original_resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """``tf.image.resize``: bilinear, half-pixel centres, edges repeated, no antialiasing.

    Args:
        maps: (B, C, h, w) float.
        size: (height, width).

    Returns:
        (B, C, height, width).
    """
    height, width = maps.shape[-2:]
    whole = maps.new_tensor([0, 0, width, height]).expand(maps.shape[0], 1, 4)
    return separable_roi_align(maps, whole, size, sampling_ratio=1)[:, 0]
