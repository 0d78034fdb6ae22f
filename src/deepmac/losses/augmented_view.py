"""A second view of a batch, moved, scaled and flipped, and its masks brought back."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from deepmac.nn.roi_crop import corner_aligned_crop, separable_roi_align


class View(NamedTuple):
    """What a view does to each image, all (B,): flip it first, then cut a window.

    Attributes:
        shift: (B, 2) x, y of the content's shift, as shares of the input's sides.
        scale: (B, 2) sides of the window (x, y) in those of the input: above 1 the content shrinks.
        flip: (B,) bool.
    """

    shift: Tensor
    scale: Tensor
    flip: Tensor


def draw_view(
    batch: int,
    *,
    max_translation: float,
    scale_min: float,
    scale_max: float,
    flip_probability: float,
    generator: torch.Generator | None = None,
) -> View:
    """A uniformly random view for each image (drawn on the CPU)."""
    numbers = torch.rand(batch, 5, generator=generator)
    return View(
        shift=(2 * numbers[:, 0:2] - 1) * max_translation,
        scale=scale_min + numbers[:, 2:4] * (scale_max - scale_min),
        flip=numbers[:, 4] < flip_probability,
    )


def view_images(
    images: Tensor, view: View, *, fill: Tensor | None = None, compat: bool = False
) -> Tensor:
    """The images as seen, (B, C, H, W) float.

    Args:
        images: (B, C, H, W) of any type.
        view: of each image.
        fill: (C,) what lies beyond an image's edge; None = 0. (The original warps normalised
            images, which fills with the normalisation's mean.)
        compat: sample with corners on pixel centres, as the original does.
    """
    flipped = _flip(images.float(), view.flip)
    if fill is None:
        return _cut(flipped, _window(view), compat=compat)
    return _cut(flipped - fill[:, None, None], _window(view), compat=compat) + fill[:, None, None]


def view_boxes(boxes: Tensor, view: View, image_size: tuple[int, int]) -> Tensor:
    """Where boxes (B, N, 4), xyxy in pixels of an (H, W) input, lie in the view."""
    sides = boxes.new_tensor([image_size[1], image_size[0]] * 2)
    unit = boxes / sides
    mirrored = torch.stack([1 - unit[..., 2], unit[..., 1], 1 - unit[..., 0], unit[..., 3]], -1)
    unit = torch.where(view.flip[:, None, None], mirrored, unit)
    window = _window(view)
    corner, size = window[:, None, [0, 1, 0, 1]], (window[:, 2:] - window[:, :2])[:, None]
    return (unit - corner) / size[..., [0, 1, 0, 1]] * sides


def undo_view(logits: Tensor, view: View, *, compat: bool = False) -> tuple[Tensor, Tensor]:
    """Masks on the view's whole map, brought back to the first one's.

    Args:
        logits: (B, N, h, w), of boxes in the view.
        view: what made it.
        compat: the original's inverse is right only for a view that either scales and does not
            shift, or shifts and neither scales nor flips.

    Returns:
        Two of (B, N, h, w): the logits, and 1 where the view shows the cell, else 0.
    """
    if compat:
        inverse = View(-view.shift, 1 / view.scale, view.flip)
        return view_images(logits, inverse, compat=True), torch.ones_like(logits)
    window = _window(View(-view.shift * view.scale, 1 / view.scale, view.flip))
    shown = _inside_unit(window[:, None], (logits.shape[-2], logits.shape[-1]))
    back = _cut(logits, window, compat=False)
    return _flip(back, view.flip), _flip(shown, view.flip).expand_as(logits)


def undo_view_of_crops(
    logits: Tensor, boxes: Tensor, view: View, image_size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Masks of fixed size: crops move along with their boxes, so that only a flip is undone.

    Args:
        logits: (B, N, S, S), of ``boxes``.
        boxes: (B, N, 4) xyxy in input pixels, in the view.
        view: what made it.
        image_size: (H, W) of the input.

    Returns:
        As :func:`undo_view`.
    """
    sides = boxes.new_tensor([image_size[1], image_size[0]] * 2)
    shown = _inside_unit(boxes / sides, (logits.shape[-2], logits.shape[-1]))
    return _flip(logits, view.flip), _flip(shown, view.flip)


def _inside_unit(boxes: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B, N, h, w) 1 for cells of a grid over each box whose centre lies in [0, 1)."""
    lines = []
    for axis, cells in ((1, grid[0]), (0, grid[1])):
        start, end = boxes[..., axis, None], boxes[..., axis + 2, None]
        centre = (torch.arange(cells, device=boxes.device, dtype=boxes.dtype) + 0.5) / cells
        place = start + centre * (end - start)
        lines.append(((place >= 0) & (place < 1)).to(boxes.dtype))
    return lines[0][..., :, None] * lines[1][..., None, :]


def _window(view: View) -> Tensor:
    """(B, 4) xyxy of what the view shows, in shares of the input's sides."""
    corner = 0.5 - view.shift * view.scale - view.scale / 2
    return torch.cat([corner, corner + view.scale], dim=1)


def _cut(maps: Tensor, window: Tensor, *, compat: bool) -> Tensor:
    """Resample (B, C, h, w) maps to what lies in the window, at the same size."""
    height, width = maps.shape[-2:]
    box = (window * window.new_tensor([width, height] * 2))[:, None]
    if compat:
        return corner_aligned_crop(maps, box, (height, width))[:, 0]
    return separable_roi_align(maps, box, (height, width), sampling_ratio=1)[:, 0]


def _flip(maps: Tensor, flip: Tensor) -> Tensor:
    return torch.where(flip[:, None, None, None], maps.flip(-1), maps)
