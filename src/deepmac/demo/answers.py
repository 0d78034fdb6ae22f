"""Masks of drawn boxes, as the page asks for them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from deepmac import __version__
from deepmac.demo.pictures import Picture
from deepmac.errors import UserError
from deepmac.label.masks.calibration import Calibration
from deepmac.models.refining import REFINES, Refine

MAX_BOXES = 2000
MAX_POINTS = 200  # in a box


def boxes_of(values: Any, picture: Picture) -> NDArray[np.float64]:
    """(N, 4) xyxy boxes out of parsed JSON, clipped to the picture, the smaller edge first.

    Raises:
        UserError: anything but up to ``MAX_BOXES`` boxes of four finite numbers with an area.
    """
    if not isinstance(values, list) or len(values) > MAX_BOXES:
        raise UserError(f"Draw at most {MAX_BOXES} boxes.")
    numbers = (int, float)
    for box in values:
        if not (
            isinstance(box, list)
            and len(box) == 4
            and all(isinstance(v, numbers) and not isinstance(v, bool) for v in box)
            and all(abs(v) < 1e9 for v in box)  # False for NaN
        ):
            raise UserError("A box must be four finite numbers: x0, y0, x1, y1.")
    boxes = np.array(values, dtype=np.float64).reshape(-1, 4)
    corners = boxes.reshape(-1, 2, 2)
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    boxes = boxes.clip(0, [picture.width, picture.height, picture.width, picture.height])
    if ((boxes[:, 2:] - boxes[:, :2]) <= 0).any():
        raise UserError("A box lies outside the picture or has no area.")
    return boxes


def points_of(values: Any) -> list[Any] | None:
    """Clicks for each box, as ``Predictor.predict`` takes and checks them; None for no click.

    Raises:
        UserError: anything but lists, or more than ``MAX_POINTS`` for one box.
    """
    if values is None:
        return None
    if not isinstance(values, list) or not all(isinstance(some, list) for some in values):
        raise UserError("Points are a list of x, y and 1 or 0 for each box.")
    if any(len(some) > MAX_POINTS for some in values):
        raise UserError(f"Set at most {MAX_POINTS} points in a box.")
    return values


def threshold_of(value: Any) -> float | None:
    """The threshold that was asked for; None for the model's own.

    Raises:
        UserError: no number between 0 and 1.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        raise UserError("A threshold is a number between 0 and 1.")
    return float(value)


def refine_of(value: Any) -> Refine | None:
    """The refinement that was asked for; None for the model's own.

    Raises:
        UserError: there is no such one.
    """
    if value is not None and value not in REFINES:
        raise UserError(f"Masks are refined by one of {', '.join(REFINES)}.")
    chosen: Refine | None = value
    return chosen


def instances(
    picture: Picture,
    boxes: NDArray[np.float64],
    threshold: float | None = None,
    refine: Refine | None = None,
    calibration: Calibration | None = None,
    points: list[Any] | None = None,
) -> list[dict[str, Any]]:
    """Each box's mask and score, as the entries of a COCO annotation list.

    Args:
        picture: that the boxes are in.
        boxes: (N, 4) xyxy pixels.
        threshold: of the pixels' probability; None for the model's own.
        refine: see ``deepmac.models.refining``; None for the model's own.
        calibration: of the model; it holds for the model's own settings only, and for masks without
            clicks.
        points: clicks of each box.

    Returns:
        N dicts of ``bbox`` (xywh pixels), ``area``, ``score`` (the IoU that the network expects),
        ``iou`` (the IoU to expect, None where no calibration says) and ``segmentation`` (run
        lengths, ``counts`` as text).
    """
    predictor = picture.predictor
    threshold = predictor.threshold if threshold is None else threshold
    refine = predictor.refine if refine is None else refine
    as_measured = abs(threshold - predictor.threshold) < 1e-6 and refine == predictor.refine
    calibrated = calibration if as_measured else None
    found = predictor.predict(boxes, points, threshold=threshold, refine=refine)
    clicked = [bool(some) for some in points or [()] * len(boxes)]
    objects = []
    for (x0, y0, x1, y1), score, rle, by_clicks in zip(
        boxes.tolist(), found.scores.tolist(), found.rles, clicked, strict=True
    ):
        area = int(coco_mask.area(rle))
        iou = calibrated(score) if calibrated and area and not by_clicks else None
        objects.append(
            {
                "bbox": [round(v, 2) for v in (x0, y0, x1 - x0, y1 - y0)],
                "area": area,
                "score": round(score, 4),
                "iou": None if iou is None else round(iou, 4),
                "segmentation": {"size": rle["size"], "counts": rle["counts"].decode("ascii")},
            }
        )
    return objects


def coco_json(objects: list[dict[str, Any]], picture: Picture, file_name: str) -> dict[str, Any]:
    """A whole COCO data set of one picture and one category."""
    return {
        "info": {"description": f"masks of drawn boxes, deepmac {__version__}"},
        "images": [
            {"id": 1, "file_name": file_name, "width": picture.width, "height": picture.height}
        ],
        "categories": [{"id": 1, "name": "object", "supercategory": ""}],
        "annotations": [
            {"id": number, "image_id": 1, "category_id": 1, "iscrowd": 0, **_scored(one)}
            for number, one in enumerate(objects, start=1)
        ],
    }


def _scored(one: Mapping[str, Any]) -> dict[str, Any]:
    """With ``mask_score`` as ``deepmac label`` writes it: calibrated where that is known."""
    kept = {key: value for key, value in one.items() if key != "iou"}
    return kept | {"mask_score": one["score"] if one["iou"] is None else one["iou"]}


def text_of(value: Any) -> str:
    """A text from the page without what no file can hold: half of a surrogate pair."""
    return str(value).encode("utf-8", "replace").decode("utf-8")


def to_json(value: Any) -> bytes:
    """Plain ASCII, so that no character of a file name can fail to be sent."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode("ascii")
