"""Masks predicted over the whole map, enlarged and cut out as the TensorFlow original does."""

from __future__ import annotations

import torch
from torch import Tensor

from deepmac.nn.roi_crop import corner_aligned_crop, separable_roi_align


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


def original_box_crops(
    logits: Tensor,
    boxes: Tensor,
    output_size: int,
    *,
    stride: int,
    by_count: bool,
) -> Tensor:
    """Each box's part of its map, which is enlarged by the stride first.

    Args:
        logits: (B, N, h, w).
        boxes: (B, N, 4) xyxy in input pixels.
        output_size: P.
        stride: input pixels per cell.
        by_count: as the newest code, which takes the number of boxes and the map's height for
            height and width: its maps become (stride * N, stride * h), whatever they show.

    Returns:
        (B, N, P, P).
    """
    batch, count, height, width = logits.shape
    rows, columns = (count, height) if by_count else (height, width)
    large = original_resize(logits.flatten(0, 1).unsqueeze(1), (stride * rows, stride * columns))
    stretch = torch.tensor([columns / width, rows / height], device=boxes.device, dtype=boxes.dtype)
    moved = (boxes * stretch.repeat(2)).reshape(batch * count, 1, 4)
    return corner_aligned_crop(large, moved, output_size).reshape(
        batch, count, output_size, output_size
    )
