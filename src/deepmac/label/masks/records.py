"""From box-relative probabilities to the record of a mask that goes on disk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from deepmac.label.masks.calibration import SCORE_DECIMALS
from deepmac.label.masks.components import fill_holes, largest_component
from deepmac.label.masks.polygons import coco_polygons, mask_polygons
from deepmac.label.masks.turned import Turned, turned_rle
from deepmac.models.refining import Refine
from deepmac.nn.conventions import PasteRule
from deepmac.predict.paste import mask_to_rle, masks_to_rles

Floats = NDArray[np.float32]
Boxes = NDArray[np.float64]


@dataclass(frozen=True)
class MaskOptions:
    """How masks are made of probabilities.

    Attributes:
        threshold: a pixel belongs to the object above it.
        largest_component: drop all but the largest connected part.
        fill_holes: fill what the mask encloses.
        polygons: make polygons too.
        box_margin: enlarge boxes by this share of their sides on each side first.
        refine: see ``deepmac.models.refining``.
    """

    threshold: float = 0.5
    largest_component: bool = False
    fill_holes: bool = False
    polygons: bool = False
    box_margin: float = 0.0
    refine: Refine = "none"


def enlarged(boxes: Boxes, margin: float, size: tuple[int, int] | None = None) -> Boxes:
    """(n, 4) xyxy boxes with a margin of that share of their sides, clipped to (width, height)."""
    grow = (boxes[:, 2:] - boxes[:, :2]) * margin
    wide = np.concatenate([boxes[:, :2] - grow, boxes[:, 2:] + grow], axis=1)
    return wide if size is None else np.clip(wide, 0, np.tile(np.array(size, dtype=np.float64), 2))


def raw_scores(probabilities: Floats, threshold: float = 0.5) -> NDArray[np.float64]:
    """How good the network thinks its masks are: the expected overlap over the expected union.

    With every cell an independent coin of its probability, a mask that takes the cells above the
    threshold meets the truth in sum(p inside) cells, and both together hold
    count(inside) + sum(p outside).

    Args:
        probabilities: (n, S, S) within the boxes.
        threshold: as for the masks.

    Returns:
        (n,) in 0..1; 0 for an empty mask.
    """
    values = probabilities.astype(np.float64)
    inside = probabilities > threshold
    met = np.where(inside, values, 0).sum(axis=(1, 2))
    union = inside.sum(axis=(1, 2)) + np.where(inside, 0, values).sum(axis=(1, 2))
    return np.divide(met, union, out=np.zeros_like(met), where=met > 0)


def mask_records(
    probabilities: Floats,
    boxes: Boxes,
    size: tuple[int, int],
    rule: PasteRule,
    options: MaskOptions,
    scores: NDArray[np.float64] | None = None,
    turned: Turned | None = None,
) -> Iterator[dict[str, Any]]:
    """One record for each box, in order: plain values for JSON.

    ``rle`` (text counts), ``raw`` (score), ``area`` and ``tight`` (xywh of the mask), and
    ``polygons`` where asked for. An empty mask has area 0.

    Args:
        probabilities: (n, S, S) within the boxes.
        boxes: (n, 4) xyxy in pixels, the region of each crop.
        size: (width, height) of the image.
        rule: of the network.
        options: see there.
        scores: (n,) raw scores; None takes those of the probabilities.
        turned: boxes that are turned; ``boxes`` are then the regions before that.
    """
    width, height = size
    if scores is None:
        scores = raw_scores(probabilities, options.threshold)
    for n, (one, box, score) in enumerate(zip(probabilities, boxes, scores.tolist(), strict=True)):
        if turned is None:
            rle = masks_to_rles(one[None], box[None], height, width, options.threshold, rule)[0]
        else:
            rle = turned_rle(one, box, turned.of(n), (height, width), options.threshold)
        if options.largest_component or options.fill_holes:
            rle = _cleaned(rle, options)
        record: dict[str, Any] = {
            "rle": {"size": [height, width], "counts": rle["counts"].decode("ascii")},
            "raw": round(score, SCORE_DECIMALS),
            "area": int(coco_mask.area(rle)),
            "tight": [float(value) for value in coco_mask.toBbox(rle)],
        }
        if options.polygons:
            record["polygons"] = coco_polygons(mask_polygons(rle))
        yield record


def _cleaned(rle: dict[str, Any], options: MaskOptions) -> dict[str, Any]:
    left, top, width, height = (int(value) for value in coco_mask.toBbox(rle))
    if not width or not height:
        return rle
    picture = coco_mask.decode(rle).astype(bool)
    window = slice(top, top + height), slice(left, left + width)
    mask = picture[window]
    if options.largest_component:
        mask = largest_component(mask)
    if options.fill_holes:
        mask = fill_holes(mask)
    picture[window] = mask
    return mask_to_rle(picture)
