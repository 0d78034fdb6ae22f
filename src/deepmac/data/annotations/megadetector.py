"""MegaDetector's batch results: detections of camera-trap pictures, relative to the picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deepmac.data.annotations.box_file import BoxFile
from deepmac.data.annotations.pictures import picture_sizes, require_folder
from deepmac.data.annotations.problems import Problem
from deepmac.data.images import ImageFileError
from deepmac.errors import DataError


def is_one(content: Any) -> bool:
    """Whether JSON content is MegaDetector's and not COCO's."""
    return isinstance(content, dict) and "detection_categories" in content


def read(path: Path, content: Any, digest: str, image_dir: Path) -> BoxFile:
    """Read MegaDetector results; see :func:`deepmac.data.annotations.read_boxes.read_boxes`.

    Images and boxes are numbered from 1 in the file's order. A detection's ``conf`` stays under
    that name; all its other keys (``classifications``) and the image's are kept too, and ``info``
    stays at the top.

    Raises:
        DataError: it is something else.
    """
    require_folder(image_dir)
    entries = content.get("images") if isinstance(content, dict) else None
    classes = content.get("detection_categories") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not isinstance(classes, dict):
        raise DataError(
            f'{path} is no MegaDetector file: it has no list "images" and no '
            '"detection_categories"; choose another --boxes-format.'
        )
    problems: list[Problem] = []
    good = []
    for position, entry in enumerate(entries):
        if isinstance(entry, dict) and isinstance(entry.get("file"), str):
            good.append(entry)
        else:
            message = f"{path}: image number {position} has no file; add its path."
            problems.append(Problem("malformed image entry", message, path))
    sizes = picture_sizes([image_dir / entry["file"] for entry in good])
    numbers = all(key.isdecimal() for key in classes)
    category_of = {key: int(key) if numbers else n for n, key in enumerate(classes, start=1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, (entry, size) in enumerate(zip(good, sizes, strict=True), start=1):
        other = {k: v for k, v in entry.items() if k not in ("file", "detections")}
        images.append({"id": image_id, "file_name": entry["file"], **other})
        detections = entry.get("detections") or []
        if isinstance(size, ImageFileError):
            if detections:
                problems.append(Problem(size.kind, str(size), image_dir / entry["file"], image_id))
            continue
        images[-1] |= {"width": size[0], "height": size[1]}
        for detection in detections:
            found = _annotation(detection, size, category_of)
            if found is None:
                message = (
                    f"{path}: {entry['file']} has the detection {detection!r:.80}; it needs a "
                    "known category and a bbox of four numbers."
                )
                problems.append(Problem("malformed box", message, path, image_id))
            else:
                annotations.append({"id": len(annotations) + 1, "image_id": image_id} | found)
    categories = [{"id": category_of[key], "name": str(name)} for key, name in classes.items()]
    kept = {"info": content["info"]} if "info" in content else {}
    made = kept | {"images": images, "annotations": annotations, "categories": categories}
    return BoxFile(path, "megadetector", made, digest, problems)


def _annotation(
    detection: Any, size: tuple[int, int], category_of: dict[str, int]
) -> dict[str, Any] | None:
    fields = detection if isinstance(detection, dict) else {}
    try:
        x, y, w, h = (float(value) for value in fields["bbox"])
        category_id = category_of[str(fields["category"])]
    except (KeyError, TypeError, ValueError):
        return None
    width, height = size
    other = {k: v for k, v in fields.items() if k not in ("category", "bbox")}
    box = [x * width, y * height, w * width, h * height]
    return {"category_id": category_id, "bbox": box, "iscrowd": 0, **other}
