"""Mask targets, straight from the original masks: exact area averages, nothing is resampled twice.

A target cell's value is the share of its area that the mask covers, with the cell mapped back to
the original image. (The reference warps every full-size mask along with the image, rounding each
time, and samples one point per cell.)
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepmac.data.annotations.coco import Instance, decode_mask, instance_rle
from deepmac.data.annotations.segmentation import Rle, run_lengths_of
from deepmac.data.transforms.geometry import Geometry
from deepmac.nn.conventions import TODAY, Conventions

_SMALLEST_CELL = 1e-6


@dataclass(frozen=True)
class TargetSpec:
    """What a network wants to learn masks from; the data asks it.

    Attributes:
        mask_size: side of the targets.
        stride: input pixels per cell of ``ignore`` and of full-resolution targets.
        full_resolution: targets over the whole canvas in cells of ``stride``, not within boxes.
        box_margin: targets reach this share of the box's side beyond it, on each side.
        conventions: whose letterbox, augmentations and targets.
    """

    mask_size: int = 32
    stride: int = 4
    full_resolution: bool = False
    box_margin: float = 0.0
    conventions: Conventions = TODAY


def crop_targets(
    instances: list[Instance],
    boxes: Tensor,
    geometry: Geometry,
    original_size: tuple[int, int],
    output_size: tuple[int, int],
) -> Tensor:
    """Each instance's mask within its box.

    Args:
        instances: N instances with a mask.
        boxes: (N, 4) xyxy in pixels of the transformed image.
        geometry: of the transformed image.
        original_size: (height, width) of the annotated image.
        output_size: (height, width) of a target.

    Returns:
        (N, *output_size) float32 in [0, 1].
    """
    targets = torch.zeros(len(instances), *output_size)
    rles = [instance_rle(instance, *original_size) for instance in instances]
    runs = run_lengths_of([rle["counts"] for rle in rles])
    frames = geometry.to_original(boxes).tolist()
    for target, run, (x0, y0, x1, y1) in zip(targets, runs, frames, strict=True):
        average = _average(run, original_size, (x0, y0, x1, y1), output_size)
        flipped = [axis for axis, is_flipped in enumerate((y0 > y1, x0 > x1)) if is_flipped]
        target.copy_(average.flip(flipped) if flipped else average)
    return targets


def area_average(
    rle: Rle, box: tuple[float, float, float, float], output_size: tuple[int, int]
) -> Tensor:
    """Share of each cell of a grid over ``box`` that the mask covers; 0 outside the image.

    Along a column the covered length up to any height is piecewise linear between the ends of the
    runs, so it is read off the run lengths; the mask is never decoded.

    Args:
        rle: compressed, column by column, as pycocotools makes it.
        box: xyxy in pixels of the mask; the order of opposite edges does not matter.
        output_size: (rows, columns) of the grid.

    Returns:
        (rows, columns) float32 in [0, 1].
    """
    height, width = rle["size"]
    (run,) = run_lengths_of([rle["counts"]])  # segmentations are checked when they are read
    return _average(run, (height, width), box, output_size)


def _average(
    lengths: NDArray[np.int64],
    size: tuple[int, int],
    box: tuple[float, float, float, float],
    output_size: tuple[int, int],
) -> Tensor:
    """The same of run lengths, which it overwrites."""
    height, width = size
    left, right = sorted((box[0], box[2]))
    top, bottom = sorted((box[1], box[3]))
    first, weights = _column_weights(left, right, width, output_size[1])
    if not len(weights):
        return torch.zeros(output_size)
    ends = lengths.cumsum()
    lengths[0::2] = 0
    covered = lengths.cumsum()
    cell = max((bottom - top) / output_size[0], _SMALLEST_CELL)
    edges = (top + cell * np.arange(output_size[0] + 1)).clip(0, height)
    columns = np.arange(first, first + len(weights)) * height
    heights = np.interp(columns[:, None] + edges, ends, covered)
    shares = ((heights[:, 1:] - heights[:, :-1]) / cell).astype(np.float32)
    return (torch.from_numpy(shares).T @ torch.from_numpy(weights)).clamp_(0, 1)


def ignore_map(
    crowds: list[Instance],
    geometry: Geometry,
    original_size: tuple[int, int],
    stride: int,
) -> Tensor:
    """Cells whose centre lies in a crowd region (in its box, where it has no mask).

    Args:
        crowds: of one image.
        geometry: from its pixels to the network's input.
        original_size: (height, width) of the image.
        stride: input pixels per cell.

    Returns:
        (h, w) bool over the canvas in cells of ``stride`` pixels, the last ones rounded up.
    """
    canvas_height, canvas_width = geometry.canvas_size
    rows, columns = math.ceil(canvas_height / stride), math.ceil(canvas_width / stride)
    ignore = np.zeros((rows, columns), dtype=bool)
    if not crowds:
        return torch.from_numpy(ignore)
    height, width = original_size
    centers = torch.zeros(max(rows, columns), 4)
    centers[:, :2] = (torch.arange(len(centers))[:, None] + 0.5) * stride
    x, y = geometry.to_original(centers)[:, :2].numpy().T
    x, y = x[:columns], y[:rows]
    inside_x, inside_y = (x >= 0) & (x < width), (y >= 0) & (y < height)
    for crowd in crowds:
        if crowd.segmentation is None:
            x0, y0, x1, y1 = crowd.box
            ignore |= ((y >= y0) & (y < y1))[:, None] & ((x >= x0) & (x < x1))
            continue
        mask = decode_mask(crowd, height, width)
        seen = mask[np.ix_(y[inside_y].astype(np.int64), x[inside_x].astype(np.int64))]
        ignore[np.ix_(inside_y, inside_x)] |= seen.astype(bool)
    return torch.from_numpy(ignore)


def _column_weights(
    left: float, right: float, width: int, cells: int
) -> tuple[int, NDArray[np.float32]]:
    """(P, cells): share of each cell's width that lies in pixel columns first..first + P - 1."""
    first, last = max(math.floor(left), 0), min(math.ceil(right), width)
    cell = max((right - left) / cells, _SMALLEST_CELL)
    edges = left + cell * np.arange(cells + 1)
    pixels = np.arange(first, max(first, last))[:, None]
    overlap = np.minimum(edges[1:], pixels + 1)
    overlap -= np.maximum(edges[:-1], pixels)
    np.maximum(overlap, 0, out=overlap)
    overlap /= cell
    return first, overlap.astype(np.float32)
