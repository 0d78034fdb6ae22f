"""Single points on objects: what an annotation's ``points`` say, and where they end up.

``"points": [[x, y, label], ...]`` in pixels of the original image; label 1 is a point on the object
and 0 one beside it, for ``model.losses.point_supervision.weight``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from deepmac.data.annotations.index import CocoIndex
from deepmac.data.annotations.records import Instance, Point

if TYPE_CHECKING:  # annotations are read before torch is loaded
    from torch import Tensor

    from deepmac.data.transforms.geometry import Geometry


def read_points(raw: Any, width: int, height: int) -> tuple[Point, ...]:
    """The points of one annotation.

    Args:
        raw: the entry ``points`` of the file; None where there is none.
        width: of the image.
        height: of the image.

    Raises:
        ValueError: half a sentence on what is wrong with them.
    """
    if raw is None:
        return ()
    if not isinstance(raw, list):
        raise ValueError(f"has points of type {type(raw).__name__}, not a list of [x, y, label]")
    return tuple(_read_point(entry, width, height) for entry in raw)


def is_ours(raw: Any) -> bool:
    """Whether an entry ``points`` is meant as ours, if perhaps faulty: some [x, y, 0 or 1]."""
    if not isinstance(raw, list):
        return False
    return any(isinstance(p, list) and len(p) == 3 and p[2] in (0, 1, 0.0, 1.0) for p in raw)


def most_points(index: CocoIndex) -> int:
    """The largest number of points on one object of the set."""
    return index.summary.most_points


def point_fields(objects: Sequence[Instance], geometry: Geometry, count: int) -> dict[str, Tensor]:
    """What a sample says of its objects' points; nothing where the set has none.

    Args:
        objects: N objects.
        geometry: of the transformed image.
        count: K, the most points of one object in the set.

    Returns:
        ``points`` (N, K, 2) float32 xy in pixels of the transformed image, NaN where there is no
        further point or it has left the picture, and ``point_labels`` (N, K) int64.
    """
    if not count:
        return {}
    import torch

    points = torch.full((len(objects), count, 2), math.nan)
    labels = torch.zeros(len(objects), count, dtype=torch.int64)
    for row, item in enumerate(objects):
        if item.points:
            values = torch.tensor(item.points, dtype=torch.float64)
            points[row, : len(values)] = values[:, :2].float()
            labels[row, : len(values)] = values[:, 2].long()
    affine = geometry.affine
    points = points @ affine[:, :2].T + affine[:, 2]
    height, width = geometry.true_size
    inside = ((points >= 0) & (points <= torch.tensor([width, height]))).all(dim=-1)
    return {
        "points": torch.where(inside[..., None], points, math.nan),
        "point_labels": labels,
    }


def _read_point(entry: Any, width: int, height: int) -> Point:
    shown = f"{entry!r:.60}"
    try:
        x, y, label = entry
        inside = 0 <= x <= width and 0 <= y <= height
    except (TypeError, ValueError):
        raise ValueError(f"has the point {shown}; it is three numbers x, y, label") from None
    if label not in (0, 1):
        raise ValueError(f"has the point {shown}; its label is 1 (on the object) or 0 (beside it)")
    if not inside:
        raise ValueError(f"has the point {shown} outside the image of {width} x {height}")
    return float(x), float(y), int(label)
