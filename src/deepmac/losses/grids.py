"""Where boxes lie on the grids of mask logits.

A grid covers a *frame*: the box that the mask head's crop was made with, or the whole input.
"""

from __future__ import annotations

import torch
from torch import Tensor

from deepmac.nn.roi_crop import corner_aligned_crop

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


def original_inside_boxes(boxes: Tensor, frames: Tensor, grid: Grid) -> Tensor:
    """The original's filled boxes: cells with ``start <= index <= end``, both ends included.

    That is half a cell off and up to a cell too wide; arguments as in :func:`inside_boxes`.
    """
    sides = (frames[..., 2:] - frames[..., :2])[..., [0, 1, 0, 1]]
    origin = frames[..., [0, 1, 0, 1]]
    size = torch.tensor([grid[1], grid[0]] * 2, device=boxes.device, dtype=boxes.dtype)
    x0, y0, x1, y1 = ((boxes - origin) / sides * size).unbind(-1)
    row = torch.arange(grid[0], device=boxes.device)
    column = torch.arange(grid[1], device=boxes.device)
    rows = (row >= y0[..., None]) & (row <= y1[..., None])
    columns = (column >= x0[..., None]) & (column <= x1[..., None])
    return (rows[..., :, None] & columns[..., None, :]).to(boxes.dtype)


def original_crop(grids: Tensor, boxes: Tensor, image: Tensor) -> Tensor:
    """Crop each instance's own grid by its box, taken as if the grid covered the whole input.

    Args:
        grids: (B, N, S, S).
        boxes: (B, N, 4) xyxy in input pixels.
        image: (4,) the input, ``(0, 0, width, height)``.

    Returns:
        (B, N, S, S), sampled as ``matmul_crop_and_resize`` does.
    """
    batch, count, height, width = grids.shape
    scale = torch.stack([width / image[2], height / image[3]]).repeat(2)
    crops = corner_aligned_crop(
        grids.reshape(batch * count, 1, height, width),
        (boxes * scale).reshape(batch * count, 1, 4),
        (height, width),
    )
    return crops.reshape(batch, count, height, width)


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


def original_alone_in_class(
    boxes: Tensor, labels: Tensor, valid: Tensor, frames: Tensor, grid: Grid
) -> Tensor:
    """As :func:`alone_in_class` with the original's filled boxes.

    The caller passes whole inputs as ``frames``, as the original does even for crops; rows that
    are not ``valid`` are given the map of their label (0 in padding).
    """
    filled = original_inside_boxes(boxes, frames, grid)
    same = (labels[:, :, None] == labels[:, None, :]) & valid[:, None, :]
    covering = torch.matmul(same.to(filled.dtype), filled.flatten(2)).reshape(filled.shape)
    return (covering < 1.5).to(boxes.dtype)


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
