"""A page to look at the masks that deserve it most: lowest score first, nothing to install."""

from __future__ import annotations

import base64
import io
import json
from collections import Counter
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from deepmac.data.images import ImageFileError, read_image
from deepmac.drawing import class_color, draw_instances
from deepmac.label.masks.records import SCORE_DECIMALS
from deepmac.label.merge import Labelled
from deepmac.label.plan import iter_tasks

WORST_OF_CLASS = 10
"""Masks of every class that are on the sheet beside the worst of all."""

_SURROUNDINGS = 0.35  # of the box's longer side, shown on each side
_LARGEST, _SMALLEST = 280, 160  # longer side of a picture, pixels
_JPEG_QUALITY = 80


def review_sheet(
    labelled: Labelled, score: Callable[[float], float], worst: int, about: str
) -> str:
    """A self-contained HTML page.

    It holds the ``worst`` masks of lowest score and the worst few of every class, each cut from its
    picture with box and outline. A class can be chosen, everything works by keyboard, and masks
    marked as wrong can be saved as a list of annotation ids.

    Args:
        labelled: all masks.
        score: from raw scores to those that are shown.
        worst: how many of all classes.
        about: a line about the job.
    """
    content = labelled.plan.boxes.content
    names = _category_names(labelled)
    rows = labelled.rows
    order = rows[np.lexsort((rows, labelled.raw[rows]))].tolist()
    overall = set(order[:worst])
    chosen: list[int] = []
    seen: Counter[str] = Counter()
    classes: Counter[str] = Counter()
    for row in order:
        name = names.get(content["annotations"][row]["category_id"], "?")
        classes[name] += 1
        if row in overall or seen[name] < WORST_OF_CLASS:
            chosen.append(row)
            seen[name] += 1
    pictures = _pictures(labelled, set(chosen))
    masks = []
    for row in chosen:
        if row not in pictures:
            continue
        entry = content["annotations"][row]
        file_name, picture = pictures[row]
        masks.append(
            {
                "id": entry["id"],
                "category": names.get(entry["category_id"], "?"),
                "score": round(score(float(labelled.raw[row])), SCORE_DECIMALS),
                "file": file_name,
                "overall": row in overall,
                "picture": picture,
            }
        )
    shown = {mask["category"] for mask in masks}
    data = {
        "about": about,
        "worst": len(overall),
        "classes": [[name, seen[name]] for name in sorted(classes) if name in shown],
        "masks": masks,
    }
    # Names come from files of unknown origin: nothing in them may end the script element.
    text = json.dumps(data).replace("<", "\\u003c")
    page = files("deepmac.label").joinpath("review.html").read_text(encoding="utf-8")
    return page.replace("__DATA__", text)


def _pictures(labelled: Labelled, wanted: set[int]) -> dict[int, tuple[str, str]]:
    """(file name, data URL) of each wanted row; one decoding for each image."""
    record = labelled.reader()
    content = labelled.plan.boxes.content
    colors = {identity: class_color(n) for n, identity in enumerate(_category_names(labelled))}
    found = {}
    for task in iter_tasks(labelled.plan):
        mine = [n for n, row in enumerate(task.rows.tolist()) if row in wanted]
        if not mine:
            continue
        try:
            pixels = read_image(task.path, task.size)
        except ImageFileError:  # gone since it was labelled: the sheet is a help, not the product
            continue
        for n in mine:
            row = int(task.rows[n])
            entry = record(row)
            if entry is not None:
                file_name = content["images"][task.position]["file_name"]
                color = colors[content["annotations"][row]["category_id"]]
                found[row] = file_name, _thumbnail(pixels, task.boxes[n], entry["rle"], color)
    return found


def _category_names(labelled: Labelled) -> dict[int | str, str]:
    return labelled.plan.names


def _thumbnail(
    pixels: NDArray[np.uint8], box: NDArray[np.float64], rle: dict[str, Any], color: Any
) -> str:
    height, width = pixels.shape[:2]
    margin = _SURROUNDINGS * max(box[2] - box[0], box[3] - box[1])
    left, top = (int(max(0, v - margin)) for v in box[:2])
    right, bottom = int(min(width, box[2] + margin)) + 1, int(min(height, box[3] + margin)) + 1
    window = slice(top, bottom), slice(left, right)
    crop = Image.fromarray(pixels[window])
    mask = Image.fromarray(coco_mask.decode(rle)[window] * np.uint8(255))
    longest = max(crop.size)
    scale = min(_LARGEST / longest, max(1.0, _SMALLEST / longest))
    size = (max(1, round(crop.width * scale)), max(1, round(crop.height * scale)))
    drawn = draw_instances(
        np.asarray(crop.resize(size, Image.Resampling.BICUBIC)),
        boxes=[(np.asarray(box) - [left, top, left, top]) * scale],
        masks=[np.asarray(mask.resize(size, Image.Resampling.BILINEAR)) > 127],
        colors=[color],
        dashed=[True],
    )
    buffer = io.BytesIO()
    Image.fromarray(drawn).save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
