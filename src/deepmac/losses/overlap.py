"""The IoU of a mask as a loss: what the masks are measured by in the end.

Cross-entropy counts cells alike, whichever mask they belong to. Whether a mask is a good one is
decided by few of them, along its edge, and most in masks that are nearly right.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_STEEPNESS = 2.0
"""Of the step from outside to inside, in logits."""
_GOOD, _SPREAD = 0.88, 0.03
"""From what IoU on a mask is a good one, and how gradually."""


def soft_iou(logits: Tensor, targets: Tensor, counted: Tensor, *, threshold: float) -> Tensor:
    """IoU with a target of the mask that ends at a threshold, with a gradient.

    Args:
        logits: (..., h, w).
        targets: (..., h, w) in 0..1, shares of cells.
        counted: (..., h, w), 0 or 1: the others are of neither.
        threshold: probability above which a cell belongs to the mask.

    Returns:
        (...) in 0..1; 0 where both are empty.
    """
    middle = math.log(threshold / (1 - threshold))
    mask, truth = (_STEEPNESS * (logits - middle)).sigmoid() * counted, targets * counted
    met = mask * truth
    union = (mask + truth - met).sum((-2, -1))
    return met.sum((-2, -1)) / torch.where(union > 0, union, 1.0)


def not_good(iou: Tensor) -> Tensor:
    """1 for a mask that is far from its target, nearly 0 for a good one; steep in between."""
    return ((_GOOD - iou) / _SPREAD).sigmoid()
