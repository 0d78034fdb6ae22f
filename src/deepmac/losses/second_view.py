"""A second view of a batch, moved, scaled and flipped: what it shows teaches the first one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from deepmac.data.batch import Batch
from deepmac.losses.options import WeakLossOptions
from deepmac.losses.training_masks import training_boxes, training_mask_logits
from deepmac.nn.deepmac import DeepMAC
from deepmac.nn.roi_crop import separable_roi_align

Crop = Callable[[Tensor, Tensor, tuple[int, int]], Tensor]
"""(B, C, h, w) maps, (B, N, 4) boxes in their pixels, a size -> (B, N, C, height, width)."""
_RESAMPLE: Crop = partial(separable_roi_align, sampling_ratio=1)


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


class Teacher(NamedTuple):
    """Masks of the same boxes from a second view, brought back to the first.

    Attributes:
        logits: (B, N, h, w).
        seen: (B, N, h, w), 1 where the second view shows the cell.
    """

    logits: Tensor
    seen: Tensor


class SecondView:
    """The teacher of self-supervision: masks that a network finds in a second view of a batch.

    Args:
        options: how far views go, and of which stages masks are wanted.
    """

    def __init__(self, options: WeakLossOptions) -> None:
        self.options = options

    @torch.no_grad()
    def teachers(
        self, network: DeepMAC, batch: Batch, *, only_last_stage: bool = False
    ) -> list[Teacher]:
        """One more pass of the network, over randomly moved, scaled and flipped images.

        In training mode its batch norms see that view, too, as in the original.

        Args:
            network: in the mode of the step.
            batch: the padded batch.
            only_last_stage: of the backbone's outputs.

        Returns:
            Masks of every ``valid`` row of ``mask_boxes``, brought back, for every stage.
        """
        images = batch["images"]
        size = (images.shape[-2], images.shape[-1])
        view = View(*(v.to(images.device) for v in draw_view(self.options, len(images))))
        boxes = view_boxes(training_boxes(network, batch), view, size)
        stages = network.stages(self.look(network, images, view))
        found = [
            training_mask_logits(network, stage, boxes, batch["valid"]).float()
            for stage in (stages[-1:] if only_last_stage else stages)
        ]
        return [self.undo(one, boxes, view, size, network.full_resolution) for one in found]

    def look(self, network: DeepMAC, images: Tensor, view: View) -> Tensor:
        """The images as seen."""
        return view_images(images, view)

    def undo(
        self,
        logits: Tensor,
        boxes: Tensor,
        view: View,
        image_size: tuple[int, int],
        full_resolution: bool,
    ) -> Teacher:
        """Masks in the second view, brought back.

        Args:
            logits: (B, N, h, w) masks in the second view.
            boxes: (B, N, 4) xyxy in input pixels, where their boxes lie there.
            view: the second view.
            image_size: (H, W) of the input.
            full_resolution: the grid is the whole map, not a crop.
        """
        if full_resolution:
            return Teacher(*undo_view(logits, view))
        return Teacher(*undo_view_of_crops(logits, boxes, view, image_size))


def draw_view(
    options: WeakLossOptions, batch: int, generator: torch.Generator | None = None
) -> View:
    """A uniformly random view for each image (drawn on the CPU)."""
    numbers = torch.rand(batch, 5, generator=generator)
    low, high = options.self_supervision.scale_min, options.self_supervision.scale_max
    return View(
        shift=(2 * numbers[:, 0:2] - 1) * options.self_supervision.max_translation,
        scale=low + numbers[:, 2:4] * (high - low),
        flip=numbers[:, 4] < options.self_supervision.flip_probability,
    )


def view_images(
    images: Tensor, view: View, *, fill: Tensor | None = None, crop: Crop = _RESAMPLE
) -> Tensor:
    """The images as seen, (B, C, H, W) float.

    Args:
        images: (B, C, H, W) of any type.
        view: of each image.
        fill: (C,) what lies beyond an image's edge; None = 0. (The original warps normalised
            images, which fills with the normalisation's mean.)
        crop: how pixels are sampled.
    """
    flipped = _flip(images.float(), view.flip)
    if fill is None:
        return _cut(flipped, _window(view), crop)
    return _cut(flipped - fill[:, None, None], _window(view), crop) + fill[:, None, None]


def view_boxes(boxes: Tensor, view: View, image_size: tuple[int, int]) -> Tensor:
    """Where boxes (B, N, 4), xyxy in pixels of an (H, W) input, lie in the view."""
    sides = boxes.new_tensor([image_size[1], image_size[0]] * 2)
    unit = boxes / sides
    mirrored = torch.stack([1 - unit[..., 2], unit[..., 1], 1 - unit[..., 0], unit[..., 3]], -1)
    unit = torch.where(view.flip[:, None, None], mirrored, unit)
    window = _window(view)
    corner, size = window[:, None, [0, 1, 0, 1]], (window[:, 2:] - window[:, :2])[:, None]
    return (unit - corner) / size[..., [0, 1, 0, 1]] * sides


def undo_view(logits: Tensor, view: View) -> tuple[Tensor, Tensor]:
    """Masks on the view's whole map, brought back to the first one's.

    Args:
        logits: (B, N, h, w), of boxes in the view.
        view: what made it.

    Returns:
        Two of (B, N, h, w): the logits, and 1 where the view shows the cell, else 0.
    """
    window = _window(View(-view.shift * view.scale, 1 / view.scale, view.flip))
    shown = _inside_unit(window[:, None], (logits.shape[-2], logits.shape[-1]))
    back = _cut(logits, window, _RESAMPLE)
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


def _cut(maps: Tensor, window: Tensor, crop: Crop) -> Tensor:
    """Resample (B, C, h, w) maps to what lies in the window, at the same size."""
    height, width = maps.shape[-2:]
    box = (window * window.new_tensor([width, height] * 2))[:, None]
    return crop(maps, box, (height, width))[:, 0]


def _flip(maps: Tensor, flip: Tensor) -> Tensor:
    return torch.where(flip[:, None, None, None], maps.flip(-1), maps)
