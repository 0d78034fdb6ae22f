"""Which losses without masks are on, and their values on a batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from deepmac.errors import ConfigError
from deepmac.losses.augmented_view import View, draw_view, undo_view, undo_view_of_crops
from deepmac.losses.color import color_consistency, lab_of_crops, lab_of_map
from deepmac.losses.grids import (
    alone_in_class,
    inside_boxes,
    original_alone_in_class,
    original_crop,
    original_inside_boxes,
)
from deepmac.losses.weak import (
    BoxNormalization,
    SelfSupervision,
    box_consistency,
    point_supervision,
    self_supervision,
    warmup,
)


@dataclass(frozen=True)
class WeakLossOptions:
    """Losses for boxes without masks, all off by default.

    Attributes:
        box_consistency_weight: of :func:`deepmac.losses.weak.box_consistency`.
        box_consistency_normalization: ``auto``, ``groundtruth_count`` or ``balanced``.
        box_consistency_tightness: foreground must lie within the box.
        color_consistency_weight: of :func:`deepmac.losses.color.color_consistency`.
        color_consistency_threshold: pairs of at least this similarity count.
        color_consistency_dilation: cells between neighbours.
        color_consistency_warmup_start: optimizer step from which the weight rises.
        color_consistency_warmup_steps: steps until it is full; 0 = at once.
        self_supervision_weight: of :func:`deepmac.losses.weak.self_supervision`.
        self_supervision_kind: ``dice``, ``mse`` or ``kl``.
        self_supervision_max_translation: of the second view, as a share of the input's sides.
        self_supervision_scale_min: least side of the second view's window, 1 = the input's.
        self_supervision_scale_max: largest.
        self_supervision_flip_probability: of the second view.
        self_supervision_warmup_start: optimizer step from which the weight rises.
        self_supervision_warmup_steps: steps until it is full; 0 = at once.
        point_supervision_weight: of :func:`deepmac.losses.weak.point_supervision`.
        ignore_class_overlap: no mask loss where boxes of one class overlap.
    """

    box_consistency_weight: float = 0.0
    box_consistency_normalization: BoxNormalization = "auto"
    box_consistency_tightness: bool = False
    color_consistency_weight: float = 0.0
    color_consistency_threshold: float = 0.4
    color_consistency_dilation: int = 2
    color_consistency_warmup_start: int = 0
    color_consistency_warmup_steps: int = 0
    self_supervision_weight: float = 0.0
    self_supervision_kind: SelfSupervision = "dice"
    self_supervision_max_translation: float = 0.0
    self_supervision_scale_min: float = 1.0
    self_supervision_scale_max: float = 1.0
    self_supervision_flip_probability: float = 0.0
    self_supervision_warmup_start: int = 0
    self_supervision_warmup_steps: int = 0
    point_supervision_weight: float = 0.0
    ignore_class_overlap: bool = False

    def weak_weights(self) -> dict[str, float]:
        """Weights above 0, by the names that :func:`weak_losses` uses."""
        weights = {
            "box_consistency": self.box_consistency_weight,
            "color_consistency": self.color_consistency_weight,
            "self_supervision": self.self_supervision_weight,
            "point_supervision": self.point_supervision_weight,
        }
        return {name: weight for name, weight in weights.items() if weight > 0}

    def draw_view(self, batch: int, generator: torch.Generator | None = None) -> View:
        """A random second view of each image."""
        return draw_view(
            batch,
            max_translation=self.self_supervision_max_translation,
            scale_min=self.self_supervision_scale_min,
            scale_max=self.self_supervision_scale_max,
            flip_probability=self.self_supervision_flip_probability,
            generator=generator,
        )


class Teacher(NamedTuple):
    """Masks of the same boxes from a second view, brought back to the first.

    Attributes:
        logits: (B, N, h, w).
        seen: (B, N, h, w), 1 where the second view shows the cell.
    """

    logits: Tensor
    seen: Tensor


def teacher_of(
    logits: Tensor,
    boxes: Tensor,
    view: View,
    image_size: tuple[int, int],
    *,
    full_resolution: bool,
    compat: bool,
) -> Teacher:
    """What ``self_supervision`` compares with.

    Args:
        logits: (B, N, h, w) masks in the second view.
        boxes: (B, N, 4) xyxy in input pixels, where their boxes lie there.
        view: the second view.
        image_size: (H, W) of the input.
        full_resolution: the grid is the whole map, not a crop.
        compat: the original brings crops back as if they were whole maps.
    """
    if full_resolution or compat:
        return Teacher(*undo_view(logits, view, compat=compat))
    return Teacher(*undo_view_of_crops(logits, boxes, view, image_size))


def weak_losses(
    options: WeakLossOptions,
    logits: Tensor,
    batch: Mapping[str, Tensor],
    *,
    full_resolution: bool,
    stride: int,
    step: int | Tensor | None = None,
    teacher: Teacher | None = None,
    compat: bool = False,
) -> dict[str, Tensor]:
    """Every weak loss that is on, per box.

    Args:
        options: which are on.
        logits: (B, N, h, w) masks of ``batch["mask_boxes"]``, of every ``valid`` row.
        batch: the padded batch; with point supervision also ``points`` (B, N, K, 2), xy in
            input pixels, NaN where there is none, and ``point_labels`` (B, N, K), 1 foreground.
        full_resolution: the grid is the whole map, not a crop.
        stride: input pixels per cell of the map.
        step: optimizer step for warm-ups; None in evaluation, where there is none.
        teacher: masks from a second view, for self-supervision.
        compat: the original's arithmetic, slips included.

    Returns:
        (B, N) by name; rows that are not ``valid`` are finite and mean nothing.

    Raises:
        ConfigError: point supervision without points.
    """
    on = options.weak_weights()
    if not on:
        return {}
    frames = frames_of(batch, full_resolution)
    grid = (logits.shape[-2], logits.shape[-1])
    losses: dict[str, Tensor] = {}
    inside = _inside(batch, frames, grid, compat)
    if "box_consistency" in on:
        projected, target = logits, inside
        if compat and not full_resolution:
            # Box-relative logits, cropped by the box once more.
            image = frames_of(batch, True)[0, 0]
            projected = original_crop(logits, batch["mask_boxes"], image)
            target = original_crop(inside, batch["mask_boxes"], image)
        losses["box_consistency"] = box_consistency(
            projected,
            target,
            normalization=options.box_consistency_normalization,
            tightness=options.box_consistency_tightness,
            compat=compat,
        )
    if "color_consistency" in on:
        losses["color_consistency"] = _rise(
            step, options.color_consistency_warmup_start, options.color_consistency_warmup_steps
        ) * _color(options, logits, batch, inside, full_resolution, stride, compat)
    if "self_supervision" in on and teacher is not None:
        losses["self_supervision"] = _rise(
            step, options.self_supervision_warmup_start, options.self_supervision_warmup_steps
        ) * self_supervision(
            logits, teacher.logits, inside * teacher.seen, kind=options.self_supervision_kind
        )
    if "point_supervision" in on:
        if "points" not in batch:
            raise ConfigError(
                "losses.point_supervision_weight is above 0, but no annotation has points: set it "
                'to 0, or give annotations "points": [[x, y, label], ...], label 1 on the object '
                "and 0 beside it"
            )
        losses["point_supervision"] = point_supervision(
            logits, batch["points"], batch["point_labels"], frames, compat=compat
        )
    return losses


def cells_without_overlap(
    batch: Mapping[str, Tensor], grid: tuple[int, int], *, full_resolution: bool, compat: bool
) -> Tensor:
    """(B, N, h, w) float, 0 where another box of the class covers the cell too."""
    boxes, labels, valid = batch["boxes"], batch["labels"], batch["valid"]
    if compat:  # whole inputs even for crops
        return original_alone_in_class(boxes, labels, valid, frames_of(batch, True), grid)
    return alone_in_class(boxes, labels, valid, frames_of(batch, full_resolution), grid)


def frames_of(batch: Mapping[str, Tensor], full_resolution: bool) -> Tensor:
    """(B, N, 4) xyxy in input pixels: what the grids of mask logits cover."""
    boxes = batch["mask_boxes"]
    if not full_resolution:
        return boxes
    height, width = batch["images"].shape[-2:]
    return boxes.new_tensor([0, 0, width, height]).expand_as(boxes)


def _inside(
    batch: Mapping[str, Tensor], frames: Tensor, grid: tuple[int, int], compat: bool
) -> Tensor:
    if compat:
        return original_inside_boxes(batch["boxes"], frames_of(batch, True), grid)
    return inside_boxes(batch["boxes"], frames, grid)


def _color(
    options: WeakLossOptions,
    logits: Tensor,
    batch: Mapping[str, Tensor],
    inside: Tensor,
    full_resolution: bool,
    stride: int,
    compat: bool,
) -> Tensor:
    images, boxes = batch["images"], batch["mask_boxes"]
    grid = (logits.shape[-2], logits.shape[-1])
    if full_resolution:
        colors = lab_of_map(images, stride, compat=compat)
    elif compat:
        return logits.new_zeros(logits.shape[:2])  # the original has none for crops
    else:
        colors = lab_of_crops(images, boxes, grid[0])
    seen = None
    if not compat:
        true = batch["true_sizes"].to(boxes.dtype)
        picture = torch.cat([torch.zeros_like(true), true[:, [1, 0]]], dim=1)[:, None]
        frames = frames_of(batch, full_resolution)
        seen = inside_boxes(picture, frames[:, :1] if full_resolution else frames, grid)
    return color_consistency(
        logits,
        colors,
        inside,
        seen=seen,
        threshold=options.color_consistency_threshold,
        dilation=options.color_consistency_dilation,
    )


def _rise(step: int | Tensor | None, start: int, steps: int) -> Tensor | float:
    return 1.0 if step is None else warmup(step, start, steps)
