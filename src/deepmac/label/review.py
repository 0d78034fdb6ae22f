"""A page to look at the masks that deserve it most: lowest score first, nothing to install."""

from __future__ import annotations

import base64
import io
import json
import math
from collections import Counter
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from deepmac.data.images import ImageFileError, read_image
from deepmac.drawing import class_color
from deepmac.label.marks import FORMAT
from deepmac.label.masks.components import label_components
from deepmac.label.masks.polygons import simplify, trace
from deepmac.label.masks.records import SCORE_DECIMALS
from deepmac.label.merge import Labelled
from deepmac.label.plan import iter_tasks

WORST_OF_CLASS = 10
"""Masks of every class that are on the sheet beside the worst of all."""

MANY_PARTS = 3
"""Parts of at least a hundredth of a mask's area from which on it is in many pieces."""

_SURROUNDINGS = 0.35  # of the box's longer side, shown on each side
_LARGEST, _LARGEST_OF_MANY, _MANY = 1024, 512, 300  # longer side of a crop, pixels; how many crops
_JPEG_QUALITY = 85
_TOLERANCE = 0.6  # pixels that an outline on the sheet may be off


def review_sheet(
    labelled: Labelled, score: Callable[[float], float], worst: int, about: str
) -> str:
    """A self-contained HTML page.

    It holds the ``worst`` masks of lowest score and the worst few of every class, each cut from its
    picture at full resolution, with box and outline to be shown or hidden; the whole picture is
    taken from where it lies when asked for. Masks are filtered by class, score, size, how much of
    the box's edge they lie on and parts, and marked accepted, wrong or to be redrawn, by mouse,
    finger or key; the marks are kept by the browser and saved in the format of
    :mod:`deepmac.label.marks`.

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
        masks.append(
            {
                "id": entry["id"],
                "category": names.get(entry["category_id"], "?"),
                "score": round(score(float(labelled.raw[row])), SCORE_DECIMALS),
                "overall": row in overall,
                **pictures[row],
            }
        )
    shown = {mask["category"] for mask in masks}
    data = {
        "about": about,
        "format": FORMAT,
        "manyParts": MANY_PARTS,
        "worst": len(overall),
        "classes": [[name, seen[name]] for name in sorted(classes) if name in shown],
        "masks": masks,
    }
    # Names come from files of unknown origin: nothing in them may end the script element.
    text = json.dumps(data).replace("<", "\\u003c")
    page = files("deepmac.label").joinpath("review.html").read_text(encoding="utf-8")
    return page.replace("__DATA__", text)


def _pictures(labelled: Labelled, wanted: set[int]) -> dict[int, dict[str, Any]]:
    """What the sheet shows of each wanted row; one decoding for each image."""
    record = labelled.reader()
    content = labelled.plan.boxes.content
    colors = {identity: class_color(n) for n, identity in enumerate(_category_names(labelled))}
    longest = _LARGEST if len(wanted) <= _MANY else _LARGEST_OF_MANY
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
                category = content["annotations"][row]["category_id"]
                found[row] = {
                    "file": content["images"][task.position]["file_name"],
                    "link": task.path.absolute().as_uri(),
                    "color": "rgb({},{},{})".format(*colors.get(category, class_color(0))),
                    **_cut(pixels, task.boxes[n], entry["rle"], longest),
                }
    return found


def _category_names(labelled: Labelled) -> dict[int | str, str]:
    return labelled.plan.names


def _cut(
    pixels: NDArray[np.uint8], box: NDArray[np.float64], rle: dict[str, Any], longest: int
) -> dict[str, Any]:
    """A box with its surroundings, and its mask's outline, all in the picture's pixels.

    Returns:
        ``size`` of the picture, ``window`` (x, y, width, height) of the crop, ``box`` (xyxy),
        ``outline`` (an SVG path), ``picture`` (the crop as a data URL), ``edge`` (share of the
        box's edge that the mask lies on), ``parts`` (how many the mask has).
    """
    height, width = pixels.shape[:2]
    limits = np.array([width, height, width, height], dtype=np.float64)
    x0, y0, x1, y1 = np.clip(box[:4], 0, limits).tolist()
    margin = _SURROUNDINGS * max(x1 - x0, y1 - y0)
    left, top = int(max(0, x0 - margin)), int(max(0, y0 - margin))
    right, bottom = int(min(width, x1 + margin + 1)), int(min(height, y1 + margin + 1))
    crop = Image.fromarray(pixels[top:bottom, left:right])
    crop.thumbnail((longest, longest))
    buffer = io.BytesIO()
    crop.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    mask = coco_mask.decode(rle).astype(bool)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    offset = np.array([columns[0], rows[0]], dtype=np.float64)
    own = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    rings = [simplify(ring, _TOLERANCE) + offset for ring in trace(own)]
    return {
        "size": [width, height],
        "window": [left, top, right - left, bottom - top],
        "box": [round(v, 1) for v in (x0, y0, x1, y1)],
        "outline": "".join("M" + " ".join(f"{v:g}" for v in ring.round(1).ravel()) + "Z"
                           for ring in rings),
        "picture": "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii"),
        "edge": _edge_share(mask, (x0, y0, x1, y1)),
        "parts": _count_parts(own),
    }  # fmt: skip


def _edge_share(mask: NDArray[np.bool_], box: tuple[float, float, float, float]) -> float:
    """How much of the box's edge the mask lies on: much of it where the box cuts the object."""
    height, width = mask.shape
    x0, y0 = (min(int(v), side - 1) for v, side in zip(box[:2], (width, height), strict=True))
    x1, y1 = max(x0 + 1, math.ceil(box[2])), max(y0 + 1, math.ceil(box[3]))
    inner = mask[y0:y1, x0:x1]
    edge = np.concatenate([inner[0], inner[-1], inner[:, 0], inner[:, -1]])
    return round(float(edge.mean()), 3)


def _count_parts(mask: NDArray[np.bool_]) -> int:
    labels, count = label_components(mask, diagonal=True)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    return int((sizes >= max(1, sizes.sum() / 100)).sum())
