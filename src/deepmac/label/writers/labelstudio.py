"""Label Studio's tasks: masks of people as annotations, ours as predictions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import IO, Any
from urllib.parse import quote

import numpy as np

from deepmac.label.choice import is_of_model
from deepmac.label.masks.calibration import SCORE_DECIMALS
from deepmac.label.masks.polygons import Ring
from deepmac.label.merge import Labelled, LabelledImage
from deepmac.label.writers.job import Writing
from deepmac.label.writers.objects import rings_of
from deepmac.label.writers.text import plain, write_list

LOCAL_FILES = "/data/local-files/?d="
FROM_NAME, TO_NAME = "label", "image"
"""Names that the labeling interface has to use for its PolygonLabels and its Image."""


def write_labelstudio(file: IO[str], labelled: Labelled, how: Writing) -> None:
    """One task a line: polygons in percent of the picture, one region for each part of an object.

    Regions of one object share ``meta.annotation_id``. Pictures are addressed as local files below
    ``LOCAL_FILES_DOCUMENT_ROOT``, which is to be the image folder.
    """
    version = f"deepmac-{how.note.get('model', '')}"
    write_list(file, (_task(image, labelled, how, version) for image in labelled.by_image()))
    file.write("\n")


def _task(image: LabelledImage, labelled: Labelled, how: Writing, version: str) -> dict[str, Any]:
    ours: list[dict[str, Any]] = []
    theirs: list[dict[str, Any]] = []
    for entry, record in image.objects:
        name = plain(labelled.plan.names[entry["category_id"]])
        score = entry.get("mask_score")
        if record is not None:
            score = round(how.score(record["raw"]), SCORE_DECIMALS)
        by_model = record is not None or is_of_model(entry)
        if image.size is None:
            continue
        rings = rings_of(entry, record, image.size)
        regions = polygon_regions(rings, image.size, name, entry["id"])
        if by_model and isinstance(score, int | float):
            regions = ({**region, "score": score} for region in regions)
        (ours if by_model else theirs).extend(regions)
    name = plain(image.entry["file_name"])
    task: dict[str, Any] = {
        "data": {"image": LOCAL_FILES + quote(name), "image_id": image.entry["id"]}
    }
    if theirs:
        task["annotations"] = [{"result": theirs}]
    if ours:
        scores = [region["score"] for region in ours if "score" in region]
        whole = {"score": round(float(np.mean(scores)), SCORE_DECIMALS)} if scores else {}
        task["predictions"] = [{"model_version": version, **whole, "result": ours}]
    return task


def polygon_regions(
    rings: Iterable[Ring], size: tuple[int, int], name: str, annotation_id: Any
) -> Iterator[dict[str, Any]]:
    """Label Studio's regions of one object.

    Args:
        rings: its outlines in pixels.
        size: (width, height) of the picture.
        name: of its class.
        annotation_id: what the regions of the object share.
    """
    for part, ring in enumerate(rings):
        yield {
            "id": f"{annotation_id}-{part}",
            "type": "polygonlabels",
            "from_name": FROM_NAME,
            "to_name": TO_NAME,
            "original_width": size[0],
            "original_height": size[1],
            "image_rotation": 0,
            "value": {
                "points": np.round(ring / np.array(size) * 100, 4).tolist(),
                "closed": True,
                "polygonlabels": [name],
            },
            "meta": {"annotation_id": annotation_id},
        }
