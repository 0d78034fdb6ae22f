"""Mask-training boxes that are a little off, as detections are."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

JitterMode = Literal[
    "default",
    "expand",
    "shrink",
    "expand_symmetric",
    "shrink_symmetric",
    "expand_symmetric_xy",
    "shrink_symmetric_xy",
]


def jitter_boxes(
    boxes: Tensor,
    ratio: float,
    mode: JitterMode,
    canvas_size: tuple[int, int],
    *,
    share: float = 1.0,
) -> Tensor:
    """Move each edge of boxes by up to ``ratio`` of the box's width or height.

    Args:
        boxes: (N, 4) xyxy.
        ratio: below 0.5.
        mode: ``expand`` and ``shrink`` move outwards and inwards only; ``..._symmetric`` move
            opposite edges alike, which keeps the centre, and ``..._symmetric_xy`` both axes by
            the same share.
        canvas_size: (height, width) that results are clipped to; symmetric modes stay symmetric.
        share: of the boxes that are moved at all, each drawn for itself.

    Returns:
        (N, 4) xyxy.
    """
    symmetric = "symmetric" in mode
    draws = torch.rand(len(boxes), 2 if symmetric else 4)
    if mode == "default":
        draws = 2 * draws - 1
    elif mode.startswith("shrink"):
        draws = -draws
    growth = 1 + draws * (2 * ratio)
    half, center = (boxes[:, 2:] - boxes[:, :2]) / 2, (boxes[:, 2:] + boxes[:, :2]) / 2
    height, width = canvas_size
    limits = torch.tensor([width, height], dtype=boxes.dtype)
    if symmetric:
        room = torch.minimum(center, limits - center) / half.clamp(min=1e-6)
        if mode.endswith("_xy"):
            growth, room = growth[:, :1], room.amin(dim=1, keepdim=True)
        growth = torch.minimum(growth, room).expand(-1, 2).repeat(1, 2)
    corners = torch.cat([center - half * growth[:, :2], center + half * growth[:, 2:]], dim=1)
    moved = corners.clamp(min=0).minimum(limits.repeat(2))
    if share >= 1:
        return moved
    return torch.where(torch.rand(len(boxes), 1) < share, moved, boxes)
