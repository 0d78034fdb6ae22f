"""Masks beside their boxes: what cannot be meant, or is no mask at all."""

from __future__ import annotations

import numpy as np
from pycocotools import mask as coco_mask

from deepmac.data.annotations.records import Box
from deepmac.data.annotations.segmentation import RawSegmentation, segmentation_rle
from deepmac.data.annotations.table import Table

LEAST_OVERLAP = 0.7
"""IoU of a box and its mask's own box below which one of the two is wrong; COCO's have >= 0.8."""
_NEAR, ROUNDED = 0.05, 0.5  # pixels that a vertex may lie off the box; where one is rounded
_FEWEST, _MANY = 6, 0.3  # boxes of a set that it can be judged by; share beyond the edge
_SMALL = 400  # pixels; masks of fewer fill a rectangle of whole pixels now and then
_FULL = 0.999  # share of the box that its own rectangle covers, rounding included


def mask_box(segmentation: RawSegmentation, height: int, width: int) -> Box | None:
    """The mask's own box, xyxy inside the image; None where it has no extent there."""
    if isinstance(segmentation, list):
        left, top, right, bottom = polygon_extent(segmentation)
    else:
        x, y, w, h = coco_mask.toBbox(segmentation_rle(segmentation, height, width)).tolist()
        left, top, right, bottom = x, y, x + w, y + h
    left, top = max(left, 0.0), max(top, 0.0)
    right, bottom = min(right, float(width)), min(bottom, float(height))
    return (left, top, right, bottom) if right > left and bottom > top else None


def polygon_extent(polygons: list[list[float]]) -> Box:
    """Extremes of all vertices, xyxy."""
    xs = [x for ring in polygons for x in ring[0::2]]
    ys = [y for ring in polygons for y in ring[1::2]]
    return float(min(xs)), float(min(ys)), float(max(xs)), float(max(ys))


def is_only_its_box(segmentation: RawSegmentation, box: Box, height: int, width: int) -> bool:
    """Whether a mask is exactly the rectangle of its box.

    Args:
        segmentation: sound, see ``find_fault``.
        box: xyxy in pixels.
        height: of the image.
        width: of the image.
    """
    x0, y0, x1, y1 = box
    if isinstance(segmentation, list):
        if len(segmentation) != 1:
            return False
        ring = np.asarray(segmentation[0], dtype=np.float64)
        xs, ys = ring[0::2], ring[1::2]
        whole = not (ring % 1).any() or not any(v % 1 for v in box)
        near = ROUNDED if whole else _NEAR
        right, low = abs(xs - x1) < abs(xs - x0), abs(ys - y1) < abs(ys - y0)
        beside = abs(xs - np.where(right, x1, x0)) <= near
        above = abs(ys - np.where(low, y1, y0)) <= near
        if (beside & above).all() and len(xs) <= 5:
            return len(set(zip(right.tolist(), low.tolist(), strict=True))) == 4
        area = abs(float(np.sum(xs * np.roll(ys, -1) - ys * np.roll(xs, -1)))) / 2
        return bool((beside | above).all()) and area >= _FULL * (x1 - x0) * (y1 - y0)
    rle = segmentation_rle(segmentation, height, width)
    x, y, w, h = coco_mask.toBbox(rle).tolist()
    sides = abs(np.array([x - x0, y - y0, x + w - x1, y + h - y1]))
    near = 1 if w * h >= _SMALL else _NEAR
    return bool(int(coco_mask.area(rle)) == w * h and w * h > 0 and (sides <= near).all())


def odd_boxes(table: Table, clipped: int) -> str | None:
    """What is wrong with the boxes of a whole set, as half a sentence; None where nothing is.

    Single boxes may be tiny or begin near the corner; that all of them do so cannot be meant.

    Args:
        table: the set.
        clipped: how many boxes reached far out of their pictures.
    """
    box = table.box
    if len(box) < _FEWEST:
        return None
    if (box[:, 2:] <= 1.5).all():
        return (
            f"all {len(box)} boxes lie within the first pixel: they may be shares of the picture; "
            "multiply them by its width and height."
        )
    size = np.stack([table.width, table.height], axis=1)[table.image_of_row]
    cut = box[:, 2:] >= size
    from_corner = ((box[:, 2:] - box[:, :2] > box[:, :2]) | cut).all()
    if from_corner and clipped >= _MANY * len(box):
        return (
            f"{clipped} of {len(box)} boxes reach out of their pictures, and all are larger than "
            "their place: they may be corners x0, y0, x1, y1; make them x, y, width, height."
        )
    return None


def overlap(first: Box, second: Box) -> float:
    """Intersection over union of two boxes."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    both = max(width, 0.0) * max(height, 0.0)
    areas = sum((b[2] - b[0]) * (b[3] - b[1]) for b in (first, second))
    return both / (areas - both) if areas > both else 0.0
