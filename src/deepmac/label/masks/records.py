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
from deepmac.predict.masks import PictureMasks
from deepmac.predict.paste import mask_to_rle

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


def mask_records(
    masks: PictureMasks, options: MaskOptions, turned: Turned | None = None
) -> Iterator[dict[str, Any]]:
    """One record for each box, in order: plain values for JSON.

    ``rle`` (text counts), ``raw`` (score), ``area`` and ``tight`` (xywh of the mask), and
    ``polygons`` where asked for. An empty mask has area 0.

    Args:
        masks: of one picture's boxes.
        options: see there.
        turned: boxes that are turned; the frames are then the regions before that.
    """
    for n, score in enumerate(masks.scores.tolist()):
        if turned is None:
            rle = masks.rle(n)
        else:
            rle = turned_rle(
                masks.crops[n], masks.frames[n], turned.of(n), masks.size, masks.threshold
            )
        if options.largest_component or options.fill_holes:
            rle = _cleaned(rle, options)
        record: dict[str, Any] = {
            "rle": {"size": list(masks.size), "counts": rle["counts"].decode("ascii")},
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
