"""Masks as polygons: outlines along the pixels' edges, few points, holes and parts kept.

COCO's polygons know no holes. A hole is joined to the outline around it by a seam of no width,
walked in both directions, so that every rasteriser leaves it empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

Ring = NDArray[np.float64]
"""(n, 2) corners x, y in pixels, edges at integers; not closed by a repeated corner."""

TOLERANCES = (1.0, 0.6, 0.3, 0.0)
"""Pixels that an outline may be off, tried in this order until the mask comes back well."""
FAITHFUL = 0.985
"""IoU of the polygons' raster with the mask that is well enough."""


def mask_polygons(rle: Mapping[str, Any]) -> list[Ring]:
    """Polygons of a mask, one for each part (pixels that share only a corner are two parts).

    Args:
        rle: pycocotools' run lengths.

    Returns:
        Rings whose union, rasterised as COCO does, has an IoU of at least ``FAITHFUL`` with the
        mask; the exact outline where fewer points do not reach that. Empty for an empty mask.
    """
    height, width = rle["size"]
    left, top, columns, rows = (int(v) for v in coco_mask.toBbox(dict(rle)))
    if not columns or not rows:
        return []
    mask = coco_mask.decode(dict(rle))[top : top + rows, left : left + columns].astype(bool)
    outlines = trace(mask)
    for ring in outlines:
        ring += (left, top)
    for tolerance in TOLERANCES:
        simple = [simplify(ring, tolerance) for ring in outlines]
        polygons = _with_seams([ring for ring in simple if len(ring) > 2])
        if not tolerance or _iou(polygons, rle, height, width) >= FAITHFUL:
            break
    return polygons


def coco_polygons(polygons: list[Ring]) -> list[list[float]]:
    """As a COCO ``segmentation``: flat lists x, y, x, y, ... with two decimals."""
    return [np.round(ring, 2).ravel().tolist() for ring in polygons]


def joined(polygons: list[Ring]) -> Ring:
    """All parts as one polygon, linked by seams of no width, for formats that hold only one."""
    whole = polygons[0]
    for ring in polygons[1:]:
        distance = ((whole[:, None] - ring[None]) ** 2).sum(2)
        a, b = np.unravel_index(distance.argmin(), distance.shape)
        whole = _spliced(whole, int(a), np.roll(ring, -int(b), axis=0))
    return whole


def trace(mask: NDArray[np.bool_]) -> list[Ring]:
    """Outlines of a (h, w) mask along its pixels' edges, corners only.

    Outer outlines have a positive shoelace area (y down: clockwise on the screen), holes a
    negative one.
    """
    height, width = mask.shape
    framed = np.zeros((height + 2, width + 2), dtype=np.int8)
    framed[1:-1, 1:-1] = mask
    down, right = np.diff(framed, axis=0), np.diff(framed, axis=1)
    # Unit edges with the object on their right: start corner -> end corner, as corner numbers.
    stride = width + 1
    steps = {}
    for name, array, value in (("E", down, 1), ("W", down, -1), ("N", right, 1), ("S", right, -1)):
        y, x = np.nonzero(array == value)
        if name in "EW":  # between rows y - 1 and y of the mask, over column x - 1
            start = y * stride + x - 1 + (name == "W")
        else:  # between columns x - 1 and x, over row y - 1
            start = (y - 1 + (name == "N")) * stride + x
        steps[name] = set(start.tolist())
    move = {"E": 1, "W": -1, "N": -stride, "S": stride}
    # At a corner where two parts touch, turn to one's own part: they stay apart.
    turns = {"E": "SEN", "S": "WSE", "W": "NWS", "N": "ENW"}
    rings = []
    while steps["E"]:
        corner = first = min(steps["E"])
        heading = "E"
        corners: list[tuple[int, str]] = []
        while True:
            steps[heading].discard(corner)
            if not corners or corners[-1][1] != heading:
                corners.append((corner, heading))
            corner += move[heading]
            if corner == first and first not in steps["E"]:
                break
            for turn in turns[heading]:
                if corner in steps[turn]:
                    heading = turn
                    break
            else:
                break
        y, x = np.divmod(np.array([number for number, _ in corners]), stride)
        rings.append(np.stack([x, y], axis=1).astype(np.float64))
    return rings


def simplify(ring: Ring, tolerance: float) -> Ring:
    """Fewer corners, none of the dropped ones further than ``tolerance`` from the new outline.

    Douglas and Peucker's method, on the two halves between the corners that are furthest apart.
    """
    if tolerance <= 0 or len(ring) < 5:
        return ring
    far = int(((ring - ring[0]) ** 2).sum(1).argmax())
    closed = np.concatenate([ring, ring[:1]])
    keep = np.zeros(len(closed), dtype=bool)
    keep[[0, far, len(ring)]] = True
    stack = [(0, far), (far, len(ring))]
    while stack:
        start, end = stack.pop()
        if end - start < 2:
            continue
        inner = closed[start + 1 : end] - closed[start]
        chord = closed[end] - closed[start]
        length = float(np.hypot(*chord))
        if length:
            along = np.clip(inner @ chord / length**2, 0, 1)
            distance = np.hypot(*(inner - along[:, None] * chord).T)
        else:
            distance = np.hypot(*inner.T)
        worst = int(distance.argmax())
        if distance[worst] > tolerance:
            middle = start + 1 + worst
            keep[middle] = True
            stack += [(start, middle), (middle, end)]
    return closed[:-1][keep[:-1]]


def ring_area(ring: Ring) -> float:
    """Signed area: positive for outlines that run as :func:`trace`'s outer ones do."""
    x, y = ring.T
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def _with_seams(rings: list[Ring]) -> list[Ring]:
    """Holes joined to the outlines around them."""
    outer = [ring for ring in rings if ring_area(ring) > 0]
    holes = [ring for ring in rings if ring_area(ring) < 0]
    if not holes:
        return outer
    own: list[list[Ring]] = [[] for _ in outer]
    areas = [ring_area(ring) for ring in outer]
    for hole in holes:
        around = [i for i, ring in enumerate(outer) if _holds(ring, _beside(hole))]
        if around:
            own[min(around, key=areas.__getitem__)].append(hole)
    return [_seamed(ring, mine) for ring, mine in zip(outer, own, strict=True)]


def _beside(hole: Ring) -> NDArray[np.float64]:
    """A point on the object just outside a hole: half a pixel left of its leftmost corner."""
    corner = hole[hole[:, 0].argmin()]
    point: NDArray[np.float64] = corner - (0.25, 0.0)
    return point


def _holds(ring: Ring, point: NDArray[np.float64]) -> bool:
    """Whether a point lies inside, by the parity of a ray."""
    (x, y), following = point, np.roll(ring, -1, axis=0)
    crosses = (ring[:, 1] > y) != (following[:, 1] > y)
    a, b = ring[crosses], following[crosses]
    at = a[:, 0] + (y - a[:, 1]) / (b[:, 1] - a[:, 1]) * (b[:, 0] - a[:, 0])
    return bool(np.count_nonzero(at < x) % 2)


def _seamed(outline: Ring, holes: list[Ring]) -> Ring:
    """From each hole's leftmost corner straight left to what has been joined so far."""
    for hole in sorted(holes, key=lambda ring: float(ring[:, 0].min())):
        start = int(hole[:, 0].argmin())
        x, y = hole[start]
        a, b = outline, np.roll(outline, -1, axis=0)
        meets = (np.minimum(a[:, 1], b[:, 1]) <= y) & (np.maximum(a[:, 1], b[:, 1]) >= y)
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where(a[:, 1] == b[:, 1], 0.0, (y - a[:, 1]) / (b[:, 1] - a[:, 1]))
        at = np.where(a[:, 1] == b[:, 1], np.maximum(a[:, 0], b[:, 0]), a[:, 0])
        at = at + np.where(a[:, 1] == b[:, 1], 0.0, share * (b[:, 0] - a[:, 0]))
        at = np.where(meets & (at <= x), at, -np.inf)
        edge = int(at.argmax())
        if not np.isfinite(at[edge]):
            continue
        opened = np.insert(outline, edge + 1, (at[edge], y), axis=0)
        outline = _spliced(opened, edge + 1, np.roll(hole, -start, axis=0))
    return outline


def _spliced(ring: Ring, position: int, other: Ring) -> Ring:
    """Walk ``ring`` to a corner, all around ``other``, back to that corner, and on."""
    return np.concatenate([ring[: position + 1], other, other[:1], ring[position:]])


def _iou(polygons: list[Ring], rle: Mapping[str, Any], height: int, width: int) -> float:
    flat = [ring for ring in coco_polygons(polygons) if len(ring) >= 6]
    if not flat:
        return 0.0
    drawn = coco_mask.merge(coco_mask.frPyObjects(flat, height, width))
    return float(coco_mask.iou([drawn], [dict(rle)], [0])[0, 0])
