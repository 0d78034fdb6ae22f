"""Masks of drawn boxes, in the forms the page asks for."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from deepmac import __version__
from deepmac.demo.pictures import Picture
from deepmac.drawing import class_color
from deepmac.errors import UserError
from deepmac.predict.paste import masks_to_rles

MAX_BOXES = 200  # a palette PNG tells 255 apart


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


def instances(picture: Picture, boxes: NDArray[np.float64]) -> list[dict[str, Any]]:
    """Each box's mask and score, as the entries of a COCO annotation list.

    Returns:
        N dicts of ``bbox`` (xywh pixels), ``area``, ``score`` (mean probability within the
        mask) and ``segmentation`` (run lengths, ``counts`` as text).
    """
    import torch

    predictor, model = picture.predictor, picture.predictor.model
    crops = predictor.predict_crops(boxes)
    inside = crops > predictor.threshold
    scores = np.where(inside, crops, 0).sum(axis=(1, 2)) / np.maximum(inside.sum(axis=(1, 2)), 1)
    rles = masks_to_rles(
        crops,
        model.mask_frames(torch.from_numpy(boxes)),
        picture.height,
        picture.width,
        predictor.threshold,
        model.conventions.paste_rule,
    )
    return [
        {
            "bbox": [round(v, 2) for v in (x0, y0, x1 - x0, y1 - y0)],
            "area": int(coco_mask.area(rle)),
            "score": round(float(score), 4),
            "segmentation": {"size": rle["size"], "counts": rle["counts"].decode("ascii")},
        }
        for (x0, y0, x1, y1), score, rle in zip(boxes.tolist(), scores, rles, strict=True)
    ]


def coco_json(objects: list[dict[str, Any]], picture: Picture, file_name: str) -> dict[str, Any]:
    """A whole COCO data set of one picture and one category."""
    return {
        "info": {"description": f"masks of drawn boxes, deepmac {__version__}"},
        "images": [
            {"id": 1, "file_name": file_name, "width": picture.width, "height": picture.height}
        ],
        "categories": [{"id": 1, "name": "object", "supercategory": ""}],
        "annotations": [
            {"id": number, "image_id": 1, "category_id": 1, "iscrowd": 0, **one}
            for number, one in enumerate(objects, start=1)
        ],
    }


def index_png(objects: list[dict[str, Any]], picture: Picture) -> bytes:
    """A palette PNG: 0 is background, k the k-th box; of two masks the later one is on top."""
    pixels = np.zeros((picture.height, picture.width), dtype=np.uint8)
    for number, one in enumerate(objects, start=1):
        rle = {**one["segmentation"], "counts": one["segmentation"]["counts"].encode("ascii")}
        pixels[coco_mask.decode(rle) > 0] = number
    image = Image.fromarray(pixels).convert("P")
    colors = [(0, 0, 0), *(class_color(n) for n in range(255))]
    image.putpalette([int(value) for color in colors for value in color])
    file = io.BytesIO()
    image.save(file, "PNG", optimize=False)
    return file.getvalue()
