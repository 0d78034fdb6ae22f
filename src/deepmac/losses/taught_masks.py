"""Masks that a teacher gives to objects of a batch that have a box alone.

The teacher is the same network with other weights: their moving average (mean teacher, Tarvainen
and Valpola 2017; for masks of boxes BoxTeacher, Cheng et al. 2023). Its masks end at the box, which
is true, and count by the IoU to expect of them.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from deepmac.data.batch import Batch
from deepmac.losses.grids import inside_boxes
from deepmac.losses.training_masks import training_boxes
from deepmac.nn.deepmac import DeepMAC


@torch.no_grad()
def with_taught_masks(
    batch: Batch, teacher: DeepMAC, images: Tensor, *, threshold: float, trust: float
) -> Batch:
    """A batch in which all objects have masks; those that had one keep it.

    Args:
        batch: the padded batch, of crops.
        teacher: in eval mode.
        images: as the teacher takes them.
        threshold: a cell belongs to a taught mask above it.
        trust: 0..1, factor of the weight of each taught mask, which is the IoU to expect of it by
            the teacher's own probabilities (as ``deepmac.predict.masks.mask_scores``). A mask that
            is empty has no weight, and is none.

    Returns:
        ``batch`` with other ``mask_targets``, ``mask_weights`` and ``mask_valid``.
    """
    without = batch["valid"] & ~batch["mask_valid"]
    boxes = training_boxes(teacher, batch)
    found = teacher.mask_probabilities(teacher.last_stage(images), boxes, without).float()
    grid = (batch["mask_targets"].shape[-2], batch["mask_targets"].shape[-1])
    if found.shape[-2:] != grid:  # an edge head learns from finer targets
        found = F.interpolate(found, size=grid, mode="bilinear", align_corners=False)
    found = found * inside_boxes(batch["boxes"], teacher.mask_frames(boxes), grid)
    masks = found > threshold
    scores = expected_iou(found, masks)
    taught = without & (scores > 0)
    known = batch["mask_valid"].float()
    targets, rows = batch["mask_targets"], taught[..., None, None]
    return {
        **batch,
        "mask_targets": torch.where(rows, masks.to(targets.dtype), targets),
        "mask_weights": torch.where(taught, trust * scores, batch.get("mask_weights", known)),
        "mask_valid": batch["mask_valid"] | taught,
    }


def expected_iou(probabilities: Tensor, masks: Tensor) -> Tensor:
    """Expected overlap over expected union, cells being independent coins.

    Args:
        probabilities: (..., S, S) in 0..1.
        masks: (..., S, S) bool.

    Returns:
        (...) in 0..1; 0 of an empty mask.
    """
    met = (probabilities * masks).sum((-2, -1))
    outside = probabilities.sum((-2, -1)) - met
    return met / (masks.sum((-2, -1)) + outside).clamp(min=1.0)
