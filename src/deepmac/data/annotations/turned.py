"""Turned boxes: CVAT's ``rotation`` beside a COCO ``bbox``, or four ``corners`` (YOLO-obb)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple


class TurnedBox(NamedTuple):
    """A box that is turned about its own centre.

    Attributes:
        box: xyxy in pixels, before it is turned.
        degrees: clockwise on the screen, above -45 and at most 45; 0 for a box as any other.
    """

    box: tuple[float, float, float, float]
    degrees: float

    @property
    def hull(self) -> tuple[float, float, float, float]:
        """The smallest upright box around it, xyxy."""
        x0, y0, x1, y1 = self.box
        cos, sin = (abs(f(math.radians(self.degrees))) for f in (math.cos, math.sin))
        half_x = ((x1 - x0) * cos + (y1 - y0) * sin) / 2
        half_y = ((x1 - x0) * sin + (y1 - y0) * cos) / 2
        x, y = (x0 + x1) / 2, (y0 + y1) / 2
        return x - half_x, y - half_y, x + half_x, y + half_y


def turned_box(fields: Mapping[str, Any]) -> TurnedBox | None:
    """What an annotation says of a turned box; None where its ``bbox`` is all.

    ``corners`` are eight numbers x, y in order around the box; ``rotation`` (also within
    ``attributes``, as CVAT exports it) turns ``bbox`` about its centre, degrees clockwise.

    Raises:
        ValueError: half a sentence on what is wrong with it.
    """
    corners = fields.get("corners")
    if corners is not None:
        return _from_corners(corners)
    degrees = fields.get("rotation")
    if degrees is None and isinstance(fields.get("attributes"), Mapping):
        degrees = fields["attributes"].get("rotation")
    if degrees is None or degrees == 0:
        return None
    try:
        angle = float(degrees)
        x, y, width, height = (float(value) for value in fields["bbox"])
    except (KeyError, TypeError, ValueError, OverflowError):
        raise ValueError(f"has the rotation {degrees!r:.40}; it is degrees beside a bbox") from None
    if not math.isfinite(angle + x + y + width + height):
        raise ValueError(f"has the rotation {degrees!r:.40} of a bbox that is not finite")
    return _normal(x + width / 2, y + height / 2, width, height, angle)


def _from_corners(corners: Any) -> TurnedBox:
    try:
        flat = [float(value) for value in corners]
    except (TypeError, ValueError, OverflowError):
        flat = []
    if len(flat) != 8 or not math.isfinite(sum(flat)):
        raise ValueError(f"has the corners {corners!r:.60}; they are eight numbers x, y, ...")
    points = list(zip(flat[::2], flat[1::2], strict=True))
    edges = [
        (points[(n + 1) % 4][0] - points[n][0], points[(n + 1) % 4][1] - points[n][1])
        for n in range(4)
    ]
    along = edges[0][0] - edges[2][0], edges[0][1] - edges[2][1]  # twice the mean of two sides
    across = edges[1][0] - edges[3][0], edges[1][1] - edges[3][1]
    width, height = math.hypot(*along) / 2, math.hypot(*across) / 2
    x, y = sum(flat[::2]) / 4, sum(flat[1::2]) / 4
    return _normal(x, y, width, height, math.degrees(math.atan2(along[1], along[0])))


def _normal(x: float, y: float, width: float, height: float, degrees: float) -> TurnedBox:
    """The same rectangle, turned as little as possible."""
    quarters = math.ceil((degrees - 45) / 90)
    degrees -= 90 * quarters
    if quarters % 2:
        width, height = height, width
    box = x - width / 2, y - height / 2, x + width / 2, y + height / 2
    return TurnedBox(box, degrees if abs(degrees) > 1e-6 else 0.0)
