"""COCO json: the input with masks, or a list of results."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any

from deepmac.label.masks.calibration import SCORE_DECIMALS
from deepmac.label.merge import Labelled
from deepmac.label.writers.job import Writing
from deepmac.label.writers.text import dump, write_list


def write_coco(file: IO[str], labelled: Labelled, how: Writing) -> None:
    """The input with ``segmentation``, ``area`` and ``mask_score`` of every mask of ours."""
    content, sizes = labelled.plan.boxes.content, labelled.sizes()
    file.write("{")
    separator = "\n"
    for key, value in [
        *((k, v) for k, v in content.items() if k != "deepmac_label"),
        ("deepmac_label", how.note),
    ]:
        file.write(f"{separator}{dump(key)}:")
        separator = ",\n"
        if key == "annotations":
            write_list(file, _annotations(labelled, how))
        elif key == "images":
            write_list(file, (_with_size(image, sizes.get(n)) for n, image in enumerate(value)))
        else:
            file.write(dump(value))
    file.write("\n}\n")


def write_results(file: IO[str], labelled: Labelled, how: Writing) -> None:
    """The list that ``COCO.loadRes`` reads, of our masks alone.

    ``score`` is the input's own where it has one (also MegaDetector's ``conf``), else the mask's.
    """
    write_list(file, _results(labelled, how))


def _annotations(labelled: Labelled, how: Writing) -> Iterator[dict[str, Any]]:
    polygons = how.format == "coco-polygons"
    for _, entry, record in labelled.annotations():
        if record is None:
            yield entry
            continue
        made = dict(entry)
        made["segmentation"] = record["polygons"] if polygons else record["rle"]
        made["area"] = record["area"]
        made.setdefault("iscrowd", 0)
        if how.tighten:
            made["bbox"] = record["tight"]
        made["mask_score"] = round(how.score(record["raw"]), SCORE_DECIMALS)
        yield made


def _results(labelled: Labelled, how: Writing) -> Iterator[dict[str, Any]]:
    for _, entry, record in labelled.annotations():
        if record is not None:
            mask_score = round(how.score(record["raw"]), SCORE_DECIMALS)
            yield {
                "image_id": entry["image_id"],
                "category_id": entry["category_id"],
                "bbox": record["tight"] if how.tighten else entry["bbox"],
                "score": entry.get("score", entry.get("conf", mask_score)),
                "segmentation": record["rle"],
                "mask_score": mask_score,
                "annotation_id": entry["id"],
            }


def _with_size(image: Any, size: tuple[int, int] | None) -> Any:
    """The size goes to images whose entry does not say it."""
    if size is None or not isinstance(image, dict):
        return image
    width, height = image.get("width"), image.get("height")
    if type(width) is int and type(height) is int:
        return image
    if width is None and height is None and "width" not in image and "height" not in image:
        return {"width": size[0], "height": size[1]} | image
    return image | {"width": size[0], "height": size[1]}
