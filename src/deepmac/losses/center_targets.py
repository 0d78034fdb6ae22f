"""What the CenterNet heads should say: Gaussian heatmaps, box sizes, centre offsets."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

RadiusRule = Literal["exact", "original"]


class CenterTargets(NamedTuple):
    """Targets on the stride-4 map.

    Attributes:
        heatmap: (B, C, h, w) in [0, 1], exactly 1 at every object's centre cell.
        size: (B, N, 2) width and height in cells.
        offset: (B, N, 2) x and y of the centre within its cell, in [0, 1).
        cell: (B, N) int64, flattened centre cell ``y * w + x``.
    """

    heatmap: Tensor
    size: Tensor
    offset: Tensor
    cell: Tensor


def center_targets(
    boxes: Tensor,
    labels: Tensor,
    valid: Tensor,
    *,
    num_classes: int,
    map_size: tuple[int, int],
    stride: int,
    min_iou: float = 0.7,
    radius_rule: RadiusRule = "exact",
) -> CenterTargets:
    """Draw all targets on the device of ``boxes``, with static shapes.

    Reference: ``target_assigner.CenterNetCenterHeatmapTargetAssigner``; Gaussians are not cut
    to a window there, nor here.

    Args:
        boxes: (B, N, 4) float xyxy in input pixels.
        labels: (B, N) int64 class slots.
        valid: (B, N) bool; padding rows draw nothing.
        num_classes: C.
        map_size: (h, w).
        stride: input pixels per cell.
        min_iou: a box shifted by the Gaussian's radius still overlaps its object this much.
        radius_rule: see :func:`gaussian_radius`.
    """
    height, width = map_size
    cells = boxes.float() / stride
    size = cells[..., 2:] - cells[..., :2]
    center = (cells[..., 2:] + cells[..., :2]) / 2
    limit = torch.tensor([width - 1, height - 1], device=boxes.device)
    cell = torch.minimum(center.floor().clamp(min=0), limit)
    offset = center - cell
    index = (cell[..., 1] * width + cell[..., 0]).long()

    radius = gaussian_radius(size[..., 1], size[..., 0], min_iou=min_iou, rule=radius_rule)
    sigma = (2 * radius.floor().clamp(min=0) + 1) / 6
    grid_x = torch.arange(width, device=boxes.device, dtype=torch.float32)
    grid_y = torch.arange(height, device=boxes.device, dtype=torch.float32)
    # exp(-(dx^2 + dy^2) / 2 sigma^2) is the product of one curve per axis.
    spread = (2 * sigma.square())[..., None]
    curve_x = torch.exp(-(grid_x - cell[..., 0:1]).square() / spread)
    curve_y = torch.exp(-(grid_y - cell[..., 1:2]).square() / spread)
    drawn = curve_y[..., :, None] * curve_x[..., None, :] * valid[..., None, None]
    heatmap = drawn.new_zeros(boxes.shape[0], num_classes, height, width)
    slots = labels[..., None, None].expand_as(drawn)
    heatmap = heatmap.scatter_reduce(1, slots, drawn, "amax", include_self=True)
    return CenterTargets(heatmap, size, offset, index)


def gaussian_radius(
    height: Tensor, width: Tensor, *, min_iou: float = 0.7, rule: RadiusRule = "exact"
) -> Tensor:
    """Largest shift of a box's corners that keeps its IoU with the object at ``min_iou``.

    Three cases are solved (both corners move along, the box shrinks, the box grows) and the
    smallest root is taken. The original never divides by the quadratic's leading coefficient,
    which makes two of the three roots too large (CornerNet's well-known slip); ``original``
    repeats that, ``exact`` does not.

    Args:
        height: (...) box heights, any unit.
        width: (...) box widths, the same unit.
        min_iou: the least overlap.
        rule: see above.

    Returns:
        (...) radii in that unit.
    """
    area, around = height * width, height + width
    # a r^2 + b r + c = 0; of two positive roots the smaller one is reached first.
    cases = (
        (1.0, -around, area * (1 - min_iou) / (1 + min_iou), -1),
        (4.0, -2 * around, (1 - min_iou) * area, -1),
        (4.0 * min_iou, 2 * min_iou * around, (min_iou - 1) * area, +1),
    )
    roots = []
    for a, b, c, sign in cases:
        root = (b * b - 4 * a * c).clamp(min=0).sqrt()
        roots.append((-b + root) / 2 if rule == "original" else (-b + sign * root) / (2 * a))
    return torch.minimum(torch.minimum(roots[0], roots[1]), roots[2])
