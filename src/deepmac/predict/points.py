"""The one check of clicks, for every door, and their way between a picture and a network's input.

A click is ``x, y, label`` in a picture's pixels: label 1 on the object, 0 beside it. Those of N
boxes are (N, K, 3) with NaN where there is no further one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from deepmac.errors import UserError
from deepmac.predict.boxes import Boxes, edges

if TYPE_CHECKING:  # points are checked before torch is loaded
    from torch import Tensor

    from deepmac.nn.clicks import Clicks

Points = NDArray[np.float64]

AROUND = 0.1
"""How far beyond its box a click may lie, in the box's sides: what the network is shown there."""


def point_fault(point: Sequence[float], box: Sequence[float], size: tuple[int, int]) -> str | None:
    """Half a sentence on what is wrong with a click; None if nothing.

    Args:
        point: x, y, label.
        box: x0, y0, x1, y1 of its box.
        size: (width, height) of the picture.
    """
    x, y, label = point
    if not (math.isfinite(x) and math.isfinite(y)):
        return "holds a NaN or infinite number"
    if label not in (0, 1):
        return "has a label that is neither 1 (on the object) nor 0 (beside it)"
    if not (0 <= x <= size[0] and 0 <= y <= size[1]):
        return f"lies outside the picture of {size[0]} x {size[1]}"
    far_x, far_y = AROUND * (box[2] - box[0]), AROUND * (box[3] - box[1])
    if not (box[0] - far_x <= x <= box[2] + far_x and box[1] - far_y <= y <= box[3] + far_y):
        return "lies outside its box"
    return None


def checked_points(points: Any, boxes: Boxes, size: tuple[int, int]) -> Points:
    """(N, K, 3) clicks that a network can be given.

    Args:
        points: for each of N boxes its clicks (x, y, label), of any number, or None; an array
            (N, K, 3) will do.
        boxes: (N, 4) xyxy in the picture's pixels.
        size: (width, height) of the picture.

    Raises:
        UserError: another shape, or the first faulty click, by its position.
    """
    if hasattr(points, "detach"):
        points = points.detach().cpu().double().numpy()
    each = points.tolist() if isinstance(points, np.ndarray) else points
    if not isinstance(each, list | tuple) or len(each) != len(boxes):
        number = f"{len(each)} of them" if isinstance(each, list | tuple) else type(each).__name__
        raise UserError(
            f"points must be a list of (x, y, label) for each of the {len(boxes)} boxes, not "
            f"{number}: give boxes without points an empty one"
        )
    read = []
    for row, some in enumerate(each):
        if isinstance(some, np.ndarray):
            some = some.tolist()
        if not isinstance(some, list | tuple | None):
            raise UserError(f"the points of box {row} are no list of (x, y, label): {some!r:.60}")
        mine = [_read(point, row) for point in some or ()]
        for point in mine:
            if fault := point_fault(point, boxes[row].tolist(), size):
                shown = ", ".join(f"{value:g}" for value in point)
                raise UserError(f"the point ({shown}) of box {row} {fault}: leave it out")
        read.append(mine)
    return padded_points(read)


def padded_points(points: Sequence[Sequence[Sequence[float]]]) -> Points:
    """(N, K, 3) of as many clicks as each of N boxes has."""
    longest = max(map(len, points), default=0)
    padded = np.full((len(points), longest, 3), math.nan)
    for row, some in enumerate(points):
        if some:
            padded[row, : len(some)] = np.asarray(some, dtype=np.float64)
    return padded


def scaled_points(points: Points, before: tuple[int, int], after: tuple[int, int]) -> Points:
    """Clicks in a picture of one (height, width) in the pixels of another one."""
    scale = np.append((edges(after) / edges(before))[:2], 1.0)
    return points * scale


def clicks_of(points: Tensor | None) -> Clicks | None:
    """What a network takes of (B, N, K, 3) in input pixels; None where there is no click at all."""
    from deepmac.nn.clicks import Clicks

    if points is None or not points.numel() or bool(points.isnan().all()):
        return None
    return Clicks(points[..., :2], points[..., 2])


def _read(point: Any, row: int) -> tuple[float, float, float]:
    try:
        x, y, label = (float(value) for value in point)
    except (TypeError, ValueError, OverflowError):
        raise UserError(
            f"box {row} has the point {point!r:.60}; it is three numbers x, y, label"
        ) from None
    return x, y, label
