"""COCO's panoptic files: a json of segments, and a PNG of their ids for each picture."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from deepmac.data.annotations.box_file import BoxFile, ContentBuilder
from deepmac.data.annotations.pictures import is_file, is_folder
from deepmac.data.annotations.problems import Problem
from deepmac.data.images import ImageFileError, open_image
from deepmac.errors import DataError


def is_one(content: Any) -> bool:
    """Whether JSON content is panoptic."""
    entries = content.get("annotations") if isinstance(content, dict) else None
    try:
        first = entries[0] if entries else None  # type: ignore[index]
    except (TypeError, KeyError):
        return False
    return isinstance(first, dict) and "segments_info" in first


def read(path: Path, content: dict[str, Any], digest: str, image_dir: Path) -> BoxFile:
    """Read a panoptic json; see ``read_boxes``.

    The PNG files lie in the folder of the json's own name beside it. Segments of classes that are
    no things (``isthing`` 0) have no objects and are left out and counted.

    Raises:
        DataError: the PNG files are not there, or a list of the json is none.
    """
    masks = path.with_suffix("")
    if not is_folder(masks):
        raise DataError(f"{path} is panoptic, but its PNG files are not in {masks}; unpack them.")
    images, categories, annotations = (
        _section(path, content, name) for name in ("images", "categories", "annotations")
    )
    things, listed, names = set(), set(), {}
    problems: list[Problem] = []
    for number, entry in enumerate(categories):
        is_class = isinstance(entry, dict) and type(entry.get("id")) is int
        if not is_class or entry.get("isthing", 1) not in (0, 1):
            text = f"{path}: category number {number} is {entry!r:.80}; it needs an integer id, a "
            problems.append(Problem("malformed category", f"{text}name and isthing 0 or 1.", path))
            continue
        listed.add(entry["id"])
        if entry.get("isthing", 1):
            things.add(entry["id"])
            names[entry["id"]] = entry
    made, stuff = ContentBuilder(), 0
    known: dict[Any, dict[str, Any]] = {}
    for entry in images:
        if isinstance(entry, dict) and isinstance(entry.get("id"), int | str):
            known[entry["id"]] = entry
    for entry in annotations:
        fields = entry if isinstance(entry, dict) else {}
        image_id, name = fields.get("image_id"), fields.get("file_name")
        segments = fields.get("segments_info")
        image = known.get(image_id) if isinstance(image_id, int | str) else None
        if image is None or not isinstance(segments, list) or not isinstance(name, str):
            text = f"{path}: the entry of image {image_id!r:.40} has no image, file or segments."
            problems.append(Problem("malformed annotation", text, path))
            continue
        ids = _ids(masks / name, image, problems)
        if ids is None:
            continue
        for segment in segments:
            fields = segment if isinstance(segment, dict) else {}
            category = fields.get("category_id")
            if not isinstance(category, int | float) or category not in listed:
                text = (
                    f"{path}: segment {fields.get('id')!r:.40} of image {image_id!r:.40} has the "
                )
                text += f"category {category!r:.40} that the file does not list; correct it."
                problems.append(Problem("unknown category id", text, path))
                continue
            if category not in things:
                stuff += 1
                continue
            rle = coco_mask.encode(np.asfortranarray(ids == fields.get("id")).astype(np.uint8))
            mask = {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")}
            box = fields.get("bbox") or coco_mask.toBbox(rle).tolist()
            area = float(coco_mask.area(rle))
            made.add(
                image_id,  # type: ignore[arg-type]
                fields["category_id"],
                bbox=box,
                area=area,
                iscrowd=fields.get("iscrowd", 0),
                segmentation=mask,
            )
    if stuff:
        text = f"{path}: {stuff} segments are of classes that are no things, and left out."
        problems.append(Problem("segment of stuff", text, path, is_note=True))
    lists = {
        "images": list(known.values()),
        "annotations": made.annotations,
        "categories": list(names.values()),
    }
    return BoxFile(path, "panoptic", lists, digest, problems)


def _section(path: Path, content: dict[str, Any], name: str) -> Iterable[Any]:
    found: Any = content.get(name) or []
    if isinstance(found, str | bytes | dict) or not isinstance(found, Iterable):
        raise DataError(f"{path}: `{name}` is {found!r:.60}, not a list; correct it.")
    return found


def _ids(path: Path, image: dict[str, Any], problems: list[Problem]) -> Any:
    """(height, width) segment ids, or None."""
    if not is_file(path):
        problems.append(Problem("missing mask file", f"{path} does not exist; add it.", path))
        return None
    try:
        with open_image(path) as opened:
            if opened.size != (image.get("width"), image.get("height")):
                text = f"{path} has another size than its picture; correct it."
                problems.append(Problem("wrong mask size", text, path))
                return None
            rgb = np.asarray(opened.convert("RGB")).astype(np.int32)
    except ImageFileError as error:
        problems.append(Problem(error.kind, str(error), path))
        return None
    return rgb[..., 0] + 256 * rgb[..., 1] + 65536 * rgb[..., 2]
