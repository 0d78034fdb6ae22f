"""Where boxes lie on the grids of mask logits.

A grid covers a *frame*: the box that the mask head's crop was made with, or the whole input.
"""

from __future__ import annotations

import torch
from torch import Tensor

from deepmac.data.batch import Batch

Grid = tuple[int, int]


def inside_boxes(boxes: Tensor, frames: Tensor, grid: Grid) -> Tensor:
    """Cells whose centre lies in the box, and always the cell that holds the box's centre.

    Args:
        boxes: (..., 4) xyxy in input pixels.
        frames: (..., 4) xyxy in input pixels, what the grid covers; broadcast with ``boxes``.
        grid: (rows, columns).

    Returns:
        (..., rows, columns) float 0 or 1; all 0 for an empty frame.
    """
    rows, columns = _spans(boxes, frames, grid)
    return rows[..., :, None] * columns[..., None, :]


def alone_in_class(
    boxes: Tensor, labels: Tensor, valid: Tensor, frames: Tensor, grid: Grid
) -> Tensor:
    """Cells that fewer than two boxes of the instance's class cover.

    Args:
        boxes: (B, N, 4) xyxy in input pixels.
        labels: (B, N) int64 class slots.
        valid: (B, N) bool, boxes that count.
        frames: (B, N, 4) xyxy in input pixels.
        grid: (rows, columns).

    Returns:
        (B, N, rows, columns) float 0 or 1.
    """
    rows, columns = _spans(boxes[:, None], frames[:, :, None], grid)
    same = (labels[:, :, None] == labels[:, None, :]) & valid[:, None, :]
    covering = torch.matmul((rows * same[..., None]).transpose(-1, -2), columns)
    return (covering < 1.5).to(boxes.dtype)


def frames_of(batch: Batch, full_resolution: bool) -> Tensor:
    """(B, N, 4) xyxy in input pixels: what the grids of mask logits cover.

    That is ``mask_frames`` of the batch, where the network looks beyond ``mask_boxes``.
    """
    boxes = batch["mask_frames"] if "mask_frames" in batch else batch["mask_boxes"]
    if not full_resolution:
        return boxes
    height, width = batch["images"].shape[-2:]
    return boxes.new_tensor([0, 0, width, height]).expand_as(boxes)


def _spans(boxes: Tensor, frames: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """(..., rows) and (..., columns): which lines of the grid the box covers."""
    spans = []
    for axis, cells in ((1, grid[0]), (0, grid[1])):
        low, high = boxes[..., axis, None], boxes[..., axis + 2, None]
        start, length = frames[..., axis, None], (frames[..., axis + 2] - frames[..., axis])
        step = length[..., None] / cells
        edge = start + torch.arange(cells, device=boxes.device, dtype=boxes.dtype) * step
        centre, middle = edge + step / 2, (low + high) / 2
        holds = (edge <= middle) & (middle < edge + step)
        spans.append(((centre >= low) & (centre < high) | holds).to(boxes.dtype))
    return spans[0], spans[1]
