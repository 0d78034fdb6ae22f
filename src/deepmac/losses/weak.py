"""Mask losses without masks: boxes, a second look at the image, single points.

All give one number per box, (B, N), finite also in padding rows; who sums them leaves those out.
The newest code of the original has them, with slips (``deepmac.losses.original``); here is what
was meant. Reference: ``deepmac_meta_arch.py``; box consistency is from BoxInst (arXiv 2012.02310).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from deepmac.data.batch import Batch
from deepmac.errors import ConfigError
from deepmac.losses.color import color_consistency, lab_of_crops, lab_of_map
from deepmac.losses.grids import Grid, alone_in_class, frames_of, inside_boxes
from deepmac.losses.options import Agreement, BoxNormalization, WeakLossOptions
from deepmac.losses.second_view import Teacher

_FAR = -1e4  # below any logit
_TINY = 1e-7


class WeakLosses:
    """Every weak loss that is on, per box; the original's slips override single methods.

    Args:
        options: which are on.
    """

    def __init__(self, options: WeakLossOptions) -> None:
        self.options = options

    def __call__(
        self,
        logits: Tensor,
        batch: Batch,
        *,
        full_resolution: bool,
        stride: int,
        step: int | Tensor | None = None,
        teacher: Teacher | None = None,
    ) -> dict[str, Tensor]:
        """The losses by name.

        Args:
            logits: (B, N, h, w) masks of ``batch["mask_boxes"]``, of every ``valid`` row.
            batch: the padded batch; with point supervision also ``points`` (B, N, K, 2), xy in
                input pixels, NaN where there is none, and ``point_labels`` (B, N, K), 1 foreground.
            full_resolution: the grid is the whole map, not a crop.
            stride: input pixels per cell of the map.
            step: optimizer step for warm-ups; None in evaluation, where there is none.
            teacher: masks from a second view, for self-supervision.

        Returns:
            (B, N) by name; rows that are not ``valid`` are finite and mean nothing.

        Raises:
            ConfigError: point supervision without points.
        """
        options = self.options
        on = options.weak_weights()
        if not on:
            return {}
        losses: dict[str, Tensor] = {}
        inside = self.inside(batch, (logits.shape[-2], logits.shape[-1]), full_resolution)
        if "box_consistency" in on:
            losses["box_consistency"] = self.box_consistency(logits, inside, batch, full_resolution)
        if "color_consistency" in on:
            losses["color_consistency"] = _rise(
                step, options.color_consistency.warmup_start, options.color_consistency.warmup_steps
            ) * self.color_consistency(logits, inside, batch, full_resolution, stride)
        if "self_supervision" in on and teacher is not None:
            losses["self_supervision"] = _rise(
                step, options.self_supervision.warmup_start, options.self_supervision.warmup_steps
            ) * self_supervision(
                logits, teacher.logits, inside * teacher.seen, kind=options.self_supervision.kind
            )
        if "point_supervision" in on:
            if "points" not in batch:
                raise ConfigError(
                    "losses.point_supervision.weight is above 0, but no annotation has points: set "
                    'it to 0, or give annotations "points": [[x, y, label], ...], label 1 on the '
                    "object and 0 beside it"
                )
            losses["point_supervision"] = self.point_supervision(
                logits, batch["points"], batch["point_labels"], frames_of(batch, full_resolution)
            )
        return losses

    def inside(self, batch: Batch, grid: Grid, full_resolution: bool) -> Tensor:
        """(B, N, h, w) float, 1 in the cells of each box."""
        return inside_boxes(batch["boxes"], frames_of(batch, full_resolution), grid)

    def alone(self, batch: Batch, grid: Grid, full_resolution: bool) -> Tensor:
        """(B, N, h, w) float, 0 where another box of the class covers the cell too."""
        frames = frames_of(batch, full_resolution)
        return alone_in_class(batch["boxes"], batch["labels"], batch["valid"], frames, grid)

    def box_consistency(
        self, logits: Tensor, inside: Tensor, batch: Batch, full_resolution: bool
    ) -> Tensor:
        """See :func:`box_consistency`."""
        return box_consistency(
            logits,
            inside,
            normalization=self.options.box_consistency.normalization,
            within=self.within(logits, inside) if self.options.box_consistency.tightness else None,
        )

    def within(self, logits: Tensor, inside: Tensor) -> Tensor:
        """The logits where the box is, and nothing foreground elsewhere."""
        return torch.where(inside > 0, logits, _FAR)

    def color_consistency(
        self,
        logits: Tensor,
        inside: Tensor,
        batch: Batch,
        full_resolution: bool,
        stride: int,
    ) -> Tensor:
        """See :func:`deepmac.losses.color.color_consistency`."""
        images, boxes = batch["images"], frames_of(batch, False)
        if full_resolution:
            colors = lab_of_map(images, stride)
        else:
            colors = lab_of_crops(images, boxes, logits.shape[-2])
        true = batch["true_sizes"].to(boxes.dtype)
        picture = torch.cat([torch.zeros_like(true), true[:, [1, 0]]], dim=1)[:, None]
        frames = frames_of(batch, full_resolution)
        frames = frames[:, :1] if full_resolution else frames
        seen = inside_boxes(picture, frames, (logits.shape[-2], logits.shape[-1]))
        return self.neighbours(logits, colors, inside, seen)

    def neighbours(
        self, logits: Tensor, colors: Tensor, inside: Tensor, seen: Tensor | None
    ) -> Tensor:
        """The colour loss as it is set."""
        return color_consistency(
            logits,
            colors,
            inside,
            seen=seen,
            threshold=self.options.color_consistency.threshold,
            dilation=self.options.color_consistency.dilation,
        )

    def point_supervision(
        self, logits: Tensor, points: Tensor, labels: Tensor, frames: Tensor
    ) -> Tensor:
        """See :func:`point_supervision`."""
        return point_supervision(logits, points, labels, frames)


def box_consistency(
    logits: Tensor,
    inside: Tensor,
    *,
    normalization: BoxNormalization = "auto",
    within: Tensor | None = None,
) -> Tensor:
    """Cross-entropy between the mask's and the box's projections on both axes.

    Args:
        logits: (B, N, h, w).
        inside: (B, N, h, w) in [0, 1], the cells of the box on the same grid.
        normalization: ``auto`` averages over a projection's lines, ``groundtruth_count`` divides
            the sum by the lines of the box, ``balanced`` averages lines within and without
            apart and adds the two.
        within: (B, N, h, w) for tightness: the box's lines must reach foreground in these logits,
            which know of nothing beside the box; None = anywhere on the line.

    Returns:
        (B, N), the sum over both axes.
    """
    total = logits.new_zeros(logits.shape[:2])
    for axis in (2, 3):
        target = inside.amax(dim=axis)
        highest = logits.amax(dim=axis)
        if within is not None:
            met = target * within.amax(dim=axis) + (1 - target) * highest
            highest = torch.where(target > 0, met, highest)
        loss = F.binary_cross_entropy_with_logits(highest, target, reduction="none")
        total = total + _over_lines(loss, target, normalization)
    return total


def self_supervision(
    logits: Tensor, teacher: Tensor, weights: Tensor, *, kind: Agreement = "dice"
) -> Tensor:
    """How far masks are from those of another view of the same image, which get no gradient.

    Args:
        logits: (B, N, h, w).
        teacher: (B, N, h, w) logits from the other view, brought back to this one.
        weights: (B, N, h, w) in [0, 1], cells that count: of the box, seen in both views.
        kind: ``dice`` against the teacher's binary mask; squared difference or Kullback-Leibler
            divergence of probabilities, averaged over the cells that count.

    Returns:
        (B, N).
    """
    teacher = teacher.detach()
    if kind == "dice":
        return dice(logits, (teacher > 0).to(logits.dtype), weights)
    ours, theirs = logits.sigmoid(), teacher.sigmoid()
    if kind == "mse":
        error = (theirs - ours).square()
    else:
        error = _divergence(theirs, ours) + _divergence(1 - theirs, 1 - ours)
    return (error * weights).sum(dim=(2, 3)) / weights.sum(dim=(2, 3)).clamp(min=1)


def point_supervision(logits: Tensor, points: Tensor, labels: Tensor, frames: Tensor) -> Tensor:
    """Cross-entropy at single points known to be foreground or background.

    Args:
        logits: (B, N, h, w), read at the cell that holds the point.
        points: (B, N, K, 2) xy in input pixels; NaN where there is none.
        labels: (B, N, K) float, 1 foreground, 0 background.
        frames: (B, N, 4) xyxy in input pixels, what the grid covers; points outside do not count.

    Returns:
        (B, N).
    """
    loss, there, within = loss_at_points(logits, points, labels, frames)
    counted = there & within
    return torch.where(counted, loss, 0.0).sum(2) / counted.sum(2).clamp(min=1)


def loss_at_points(
    logits: Tensor, points: Tensor, labels: Tensor, frames: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Three of (B, N, K): the loss at each point, whether it is one, whether the grid holds it."""
    height, width = logits.shape[-2:]
    there = torch.isfinite(points).all(dim=-1)
    points = torch.where(there[..., None], points, 0.0)
    sides = (frames[..., 2:] - frames[..., :2]).clamp(min=_TINY)
    size = torch.tensor([width, height], device=logits.device, dtype=points.dtype)
    place = (points - frames[..., None, :2]) / sides[..., None, :] * size
    within = ((place >= 0) & (place < size)).all(dim=-1)
    cell = torch.minimum(place.clamp(min=0), size - 1).long()
    read = logits.flatten(2).gather(2, cell[..., 1] * width + cell[..., 0])
    loss = F.binary_cross_entropy_with_logits(read, labels.to(read.dtype), reduction="none")
    return loss, there, within


def cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """The mask loss with cells left out (where boxes of one class overlap).

    Args:
        logits: (B, N, h, w).
        targets: (B, N, h, w) in [0, 1].
        weights: (B, N, h, w), 0 or 1.

    Returns:
        (B, N) mean over the cells that count.
    """
    loss = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return (loss * weights).sum(dim=(2, 3)) / weights.sum(dim=(2, 3)).clamp(min=1)


def dice(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """One minus twice the overlap over the sum of both areas; 1 where both are empty.

    Args:
        logits: (B, N, h, w).
        targets: (B, N, h, w) in [0, 1].
        weights: (B, N, h, w), or None for all ones.

    Returns:
        (B, N).
    """
    probability = logits.sigmoid()
    counted = torch.ones_like(logits) if weights is None else weights
    overlap = (probability * targets * counted).sum(dim=(2, 3))
    area = ((probability + targets) * counted).sum(dim=(2, 3))
    return 1 - 2 * overlap / torch.where(area > 0, area, 1.0)


def warmup(step: int | Tensor, start: int, steps: int) -> Tensor:
    """Weight that rises from 0 at ``start`` to 1 at ``start + steps``; 1 throughout for 0 steps."""
    step = torch.as_tensor(step, dtype=torch.float32)
    if steps == 0:
        return torch.ones_like(step)
    return ((step - start) / steps).clamp(0, 1)


def _over_lines(loss: Tensor, target: Tensor, normalization: BoxNormalization) -> Tensor:
    if normalization == "auto":
        return loss.mean(dim=2)
    positives = target.sum(dim=2, keepdim=True)
    if normalization == "groundtruth_count":
        return loss.sum(2) / torch.where(positives > 0, positives, 1.0).squeeze(2)
    negatives = target.shape[2] - positives
    count = target * positives + (1 - target) * negatives
    return (loss / torch.where(count > 0, count, 1.0)).sum(dim=2)


def _divergence(theirs: Tensor, ours: Tensor) -> Tensor:
    theirs, ours = theirs.clamp(_TINY, 1), ours.clamp(_TINY, 1)
    return theirs * (theirs / ours).log()


def _rise(step: int | Tensor | None, start: int, steps: int) -> Tensor | float:
    return 1.0 if step is None else warmup(step, start, steps)
