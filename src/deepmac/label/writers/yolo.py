"""Folders that YOLO trainers take as they are: pictures, labels, ``data.yaml``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pycocotools import mask as coco_mask

from deepmac.label.merge import Labelled
from deepmac.label.writers.job import Writing
from deepmac.label.writers.objects import LEFT_OUT, file_stems, mask_of, outline_of, place_picture
from deepmac.label.writers.text import plain

_MOST_GAPS = 10_000
NO_PICTURE = "images without a picture, left out"


def write_yolo(folder: Path, labelled: Labelled, how: Writing) -> dict[str, int]:
    """``images/``, ``labels/`` and ``data.yaml``; returns counts of what has no place.

    ``yolo-seg``: a line for each object, its class and one outline relative to the picture, parts
    and holes linked by seams of no width. ``yolo``: its class and the box of its mask. Masks that
    people drew are written too. Class numbers of YOLO boxes stay as they are; of others they are
    the positions of the sorted category ids.
    """
    numbers = class_numbers(labelled)
    stems, left_out, missing = file_stems(labelled), 0, 0
    for image in labelled.by_image():
        lines = []
        for entry, record in image.objects:
            values = (
                _outline(entry, record, image.size)
                if how.format == "yolo-seg"
                else _box(entry, record, image.size)
            )
            if values is None:
                left_out += 1
                continue
            words = " ".join(f"{value:.6f}" for value in values)
            lines.append(f"{numbers[entry['category_id']]} {words}\n")
        stem = stems[image.entry["id"]]
        suffix = Path(image.entry["file_name"]).suffix
        if not place_picture(image.path, folder / "images" / f"{stem}{suffix}", link=how.link):
            missing += 1
        path = folder / "labels" / f"{stem}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(lines), encoding="utf-8")
    described = {"train": "images", "val": "images", "names": _names(labelled, numbers)}
    text = yaml.safe_dump(described, sort_keys=False, allow_unicode=True)
    (folder / "data.yaml").write_text(text, encoding="utf-8")
    counts = {LEFT_OUT: left_out, NO_PICTURE: missing}
    return {what: number for what, number in counts.items() if number}


def class_numbers(labelled: Labelled) -> dict[Any, int]:
    """YOLO's number of each category."""
    ids = sorted(labelled.plan.names, key=lambda one: (isinstance(one, str), one))
    if labelled.plan.boxes.format == "yolo":
        return {one: one for one in ids if isinstance(one, int)}
    return {one: number for number, one in enumerate(ids)}


def _names(labelled: Labelled, numbers: dict[Any, int]) -> dict[int, str]:
    """Names by number; trainers refuse gaps, so classes that nobody named get their number."""
    names = {number: plain(labelled.plan.names[one]) for one, number in numbers.items()}
    highest = max(names, default=-1)
    if min(names, default=0) < 0 or highest > len(names) + _MOST_GAPS:
        return names
    return {number: names.get(number, str(number)) for number in range(highest + 1)}


def _outline(entry: Any, record: Any, size: tuple[int, int] | None) -> list[float] | None:
    ring = outline_of(entry, record, size)
    if ring is None:
        return None
    values: list[float] = np.clip(ring / np.array(size), 0, 1).ravel().tolist()
    return values


def _box(entry: Any, record: Any, size: tuple[int, int] | None) -> list[float] | None:
    rle = mask_of(entry, record, size)
    if rle is None or size is None:
        return None
    x, y, width, height = coco_mask.toBbox(dict(rle)).tolist()
    if not width or not height:
        return None
    sides = size[0], size[1]
    return [
        (x + width / 2) / sides[0],
        (y + height / 2) / sides[1],
        width / sides[0],
        height / sides[1],
    ]
