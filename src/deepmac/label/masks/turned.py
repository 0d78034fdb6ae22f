"""Masks of turned boxes: probabilities in the box's own frame, pixels in the picture's."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask


class TurnedBox(NamedTuple):
    """A box that is turned about its centre.

    Attributes:
        box: (4,) xyxy before it is turned.
        degrees: clockwise on the screen.
    """

    box: NDArray[np.float64]
    degrees: float


class Turned(NamedTuple):
    """Several: (n, 4) boxes and (n,) degrees."""

    boxes: NDArray[np.float64]
    degrees: NDArray[np.float64]

    def of(self, row: int) -> TurnedBox:
        """One of them."""
        return TurnedBox(self.boxes[row], float(self.degrees[row]))


def turned_rle(
    probabilities: NDArray[np.float32],
    frame: NDArray[np.float64],
    turned: TurnedBox,
    size: tuple[int, int],
    threshold: float,
) -> dict[str, Any]:
    """COCO run lengths of one object, all of it within its turned box.

    Args:
        probabilities: (S, S) within ``frame``.
        frame: (4,) xyxy, the region of the probabilities before it is turned.
        turned: the object's box; the frame is turned with it.
        size: (height, width) of the picture.
        threshold: a pixel belongs to the object above it.
    """
    height, width = size
    box, degrees = turned
    centre = (box[:2] + box[2:]) / 2
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    half = (box[2:] - box[:2]) / 2
    reach = np.array([half[0] * abs(cos) + half[1] * abs(sin), half[0] * abs(sin) + half[1] * cos])
    left, top = np.clip(np.floor(centre - reach), 0, (width, height)).astype(int)
    right, bottom = np.clip(np.ceil(centre + reach), 0, (width, height)).astype(int)
    mask = np.zeros((height, width), dtype=np.uint8, order="F")
    dx = np.arange(left, right)[None, :] + 0.5 - centre[0]
    dy = np.arange(top, bottom)[:, None] + 0.5 - centre[1]
    u, v = dx * cos + dy * sin, dy * cos - dx * sin  # turned back
    inside = (np.abs(u) <= half[0]) & (np.abs(v) <= half[1])
    cells = probabilities.shape[-1]
    sides = frame[2:] - frame[:2]
    x = np.clip((u + centre[0] - frame[0]) * (cells / sides[0]) - 0.5, 0, cells - 1)
    y = np.clip((v + centre[1] - frame[1]) * (cells / sides[1]) - 0.5, 0, cells - 1)
    x0, y0 = np.minimum(x.astype(int), cells - 2), np.minimum(y.astype(int), cells - 2)
    fx, fy = x - x0, y - y0
    upper = probabilities[y0, x0] * (1 - fx) + probabilities[y0, x0 + 1] * fx
    lower = probabilities[y0 + 1, x0] * (1 - fx) + probabilities[y0 + 1, x0 + 1] * fx
    mask[top:bottom, left:right] = (upper * (1 - fy) + lower * fy > threshold) & inside
    rle: dict[str, Any] = coco_mask.encode(mask)
    return rle
