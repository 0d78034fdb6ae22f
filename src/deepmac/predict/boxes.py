"""The one check of boxes, for every door, and their way between a picture and a network's input."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deepmac.errors import UserError

if TYPE_CHECKING:  # boxes are checked before torch is loaded
    from torch import Tensor

Boxes = NDArray[np.float64]


def box_fault(box: Sequence[float], size: tuple[int, int]) -> tuple[str, str] | None:
    """What is wrong with a box, in a word for the kind and half a sentence; None if nothing.

    Args:
        box: x0, y0, x1, y1 in pixels. May reach out of the picture, but must meet it.
        size: (width, height) of the picture.
    """
    x0, y0, x1, y1 = box
    if not all(map(math.isfinite, box)):
        return "malformed box", "holds a NaN or infinite number"
    if x1 <= x0 or y1 <= y0:
        empty = min(x1 - x0, y1 - y0) == 0
        return (
            ("zero-area box", "has no area")
            if empty
            else ("reversed box", "has its corners swapped: the smaller x and y come first")
        )
    if x0 >= size[0] or y0 >= size[1] or x1 <= 0 or y1 <= 0:
        return "box outside image", f"lies outside the picture of {size[0]} x {size[1]}"
    return None


def checked_boxes(boxes: Tensor | ArrayLike, size: tuple[int, int]) -> Boxes:
    """(N, 4) float64 xyxy boxes that every crop can take.

    Args:
        boxes: (N, 4) in pixels; an empty list is no box.
        size: (width, height) of the picture.

    Raises:
        UserError: another shape, or the first faulty box, by its position.
    """
    array = box_array(boxes)
    for row, box in enumerate(array.tolist()):
        if fault := box_fault(box, size):
            raise UserError(f"box {row}, {_shown(box)}, {fault[1]}: correct or leave it out")
    return array


def box_array(boxes: Tensor | ArrayLike) -> Boxes:
    """(N, 4) float64 of anything that holds so many numbers; what they are is not looked at.

    Raises:
        UserError: another shape.
    """
    if hasattr(boxes, "detach"):
        boxes = boxes.detach().cpu().double().numpy()
    try:
        array = np.asarray(boxes, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        array = np.zeros(())
    if array.size == 0:
        array = array.reshape(0, 4)
    if array.ndim != 2 or array.shape[1] != 4:
        raise UserError(
            f"boxes must be (N, 4) finite numbers (x0, y0, x1, y1), not of shape {array.shape}"
        )
    return array


def scaled_boxes(boxes: Boxes, before: tuple[int, int], after: tuple[int, int]) -> Boxes:
    """(N, 4) xyxy boxes of a picture of one (height, width) in the pixels of another one."""
    return boxes / edges(before) * edges(after)


def edges(size: tuple[int, int]) -> Boxes:
    """(height, width) as the far edges of a box (x, y, x, y)."""
    height, width = size
    return np.array([width, height, width, height], dtype=np.float64)


def _shown(box: Sequence[Any]) -> str:
    return "(" + ", ".join(f"{value:g}" for value in box) + ")"
