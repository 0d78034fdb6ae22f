"""Mask losses without masks: boxes, a second look at the image, single points.

All give one number per box, (B, N), finite also in padding rows; who sums them leaves those out.
The newest code of the original has them, with slips; ``compat=True`` repeats a slip, the default
does what was meant. Reference: ``deepmac_meta_arch.py``; box consistency is from BoxInst
(arXiv 2012.02310).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

BoxNormalization = Literal["auto", "groundtruth_count", "balanced"]
SelfSupervision = Literal["dice", "mse", "kl"]

_FAR = -1e4  # below any logit
_TINY = 1e-7


def box_consistency(
    logits: Tensor,
    inside: Tensor,
    *,
    normalization: BoxNormalization = "auto",
    tightness: bool = False,
    compat: bool = False,
) -> Tensor:
    """Cross-entropy between the mask's and the box's projections on both axes.

    Args:
        logits: (B, N, h, w).
        inside: (B, N, h, w) in [0, 1], the cells of the box on the same grid.
        normalization: ``auto`` averages over a projection's lines, ``groundtruth_count`` divides
            the sum by the lines of the box, ``balanced`` averages lines within and without
            apart and adds the two.
        tightness: the box's lines must reach foreground within the box, not beside it.
        compat: there the original multiplies logits by ``inside``, so that a zero from outside
            the box hides every negative logit within.

    Returns:
        (B, N), the sum over both axes.
    """
    total = logits.new_zeros(logits.shape[:2])
    for axis in (2, 3):
        target = inside.amax(dim=axis)
        highest = logits.amax(dim=axis)
        if tightness:
            shown = logits * inside if compat else torch.where(inside > 0, logits, _FAR)
            within = shown.amax(dim=axis)
            highest = torch.where(target > 0, target * within + (1 - target) * highest, highest)
        loss = F.binary_cross_entropy_with_logits(highest, target, reduction="none")
        total = total + _over_lines(loss, target, normalization)
    return total


def self_supervision(
    logits: Tensor, teacher: Tensor, weights: Tensor, *, kind: SelfSupervision = "dice"
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


def point_supervision(
    logits: Tensor, points: Tensor, labels: Tensor, frames: Tensor, *, compat: bool = False
) -> Tensor:
    """Cross-entropy at single points known to be foreground or background.

    Args:
        logits: (B, N, h, w), read at the cell that holds the point.
        points: (B, N, K, 2) xy in input pixels; NaN where there is none.
        labels: (B, N, K) float, 1 foreground, 0 background.
        frames: (B, N, 4) xyxy in input pixels, what the grid covers.
        compat: the original averages over all K, missing points included as zeros, and reads
            points outside the grid at its edge. Otherwise neither counts.

    Returns:
        (B, N).
    """
    height, width = logits.shape[-2:]
    counted = torch.isfinite(points).all(dim=-1)
    points = torch.where(counted[..., None], points, 0.0)
    sides = (frames[..., 2:] - frames[..., :2]).clamp(min=_TINY)
    size = torch.tensor([width, height], device=logits.device, dtype=points.dtype)
    place = (points - frames[..., None, :2]) / sides[..., None, :] * size
    if not compat:
        counted = counted & ((place >= 0) & (place < size)).all(dim=-1)
    cell = torch.minimum(place.clamp(min=0), size - 1).long()
    read = logits.flatten(2).gather(2, cell[..., 1] * width + cell[..., 0])
    loss = F.binary_cross_entropy_with_logits(read, labels.to(read.dtype), reduction="none")
    loss = torch.where(counted, loss, 0.0)
    return loss.mean(dim=2) if compat else loss.sum(2) / counted.sum(2).clamp(min=1)


def cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor, *, compat: bool) -> Tensor:
    """The mask loss with cells left out (where boxes of one class overlap).

    Args:
        logits: (B, N, h, w).
        targets: (B, N, h, w) in [0, 1].
        weights: (B, N, h, w), 0 or 1.
        compat: the original sets the logit to 0 there, so that each such cell still adds log 2.

    Returns:
        (B, N) mean over the cells that count.
    """
    if compat:
        logits = logits * weights
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean((2, 3))
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
