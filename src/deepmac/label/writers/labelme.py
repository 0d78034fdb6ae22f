"""LabelMe's files: beside each picture a json with its polygons."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from deepmac.label.masks.calibration import SCORE_DECIMALS
from deepmac.label.merge import Labelled
from deepmac.label.writers.job import Writing
from deepmac.label.writers.objects import LEFT_OUT, file_stems, place_picture, rings_of
from deepmac.label.writers.text import dump, plain
from deepmac.label.writers.yolo import NO_PICTURE

_VERSION = "5.5.0"


def write_labelme(folder: Path, labelled: Labelled, how: Writing) -> dict[str, int]:
    """``IMAGE.json`` beside ``IMAGE.jpg``; returns counts of what has no place.

    Each part of an object is a polygon; those of one object share a ``group_id``. Scores are in
    ``description``, as LabelMe's own models write none.
    """
    stems, left_out, missing = file_stems(labelled), 0, 0
    for image in labelled.by_image():
        shapes: list[dict[str, Any]] = []
        for group, (entry, record) in enumerate(image.objects, start=1):
            rings = rings_of(entry, record, image.size)
            left_out += not rings
            note = ""
            if record is not None:
                note = f"mask_score {round(how.score(record['raw']), SCORE_DECIMALS)}"
            shapes += [
                {
                    "label": plain(labelled.plan.names[entry["category_id"]]),
                    "points": np.round(ring, 2).tolist(),
                    "group_id": group,
                    "description": note,
                    "shape_type": "polygon",
                    "flags": {},
                    "mask": None,
                }
                for ring in rings
            ]
        stem = stems[image.entry["id"]]
        picture = folder / f"{stem}{Path(image.entry['file_name']).suffix}"
        if image.size is None or not place_picture(image.path, picture, link=how.link):
            missing += 1
            continue
        content: dict[str, Any] = {
            "version": _VERSION,
            "flags": {},
            "shapes": shapes,
            "imagePath": picture.name,
            "imageData": None,
            "imageHeight": image.size[1],
            "imageWidth": image.size[0],
        }
        (folder / f"{stem}.json").write_text(dump(content) + "\n", encoding="utf-8")
    counts = {LEFT_OUT: left_out, NO_PICTURE: missing}
    return {what: number for what, number in counts.items() if number}
