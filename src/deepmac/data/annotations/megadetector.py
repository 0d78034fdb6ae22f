"""MegaDetector's results: detections of camera-trap pictures, relative to the picture.

Two forms: the batch results (``images`` with ``detections``) and PyTorch-Wildlife's list
(``annotations`` with ``img_id`` and corners in pixels).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deepmac.data.annotations.box_file import BoxFile, ContentBuilder
from deepmac.data.annotations.pictures import picture_sizes, require_folder, spelled
from deepmac.data.annotations.problems import Problem
from deepmac.data.images import ImageFileError
from deepmac.errors import DataError

LEAST_CONFIDENCE = 0.1
"""Detections below it are left out: files keep boxes down to 0.005, nearly all of them wrong."""

_VIDEOS = (".mp4", ".avi", ".mov", ".mpeg", ".mpg", ".m4v", ".mkv", ".wmv", ".asf", ".flv")


def is_one(content: Any) -> bool:
    """Whether JSON content is MegaDetector's and not COCO's."""
    if not isinstance(content, dict):
        return False
    return "detection_categories" in content or _is_wildlife(content)


def _is_wildlife(content: dict[str, Any]) -> bool:
    entries = content.get("annotations")
    first = entries[0] if isinstance(entries, list) and entries else None
    return "images" not in content and isinstance(first, dict) and "img_id" in first


def read(
    path: Path,
    content: Any,
    digest: str,
    image_dir: Path,
    *,
    least_confidence: float = LEAST_CONFIDENCE,
) -> BoxFile:
    """Read MegaDetector results; see :func:`deepmac.data.annotations.read_boxes.read_boxes`.

    Images and boxes are numbered from 1 in the file's order. A detection's ``conf`` stays under
    that name; all its other keys (``classifications``) and the image's are kept too, and ``info``
    stays at the top. Videos and detections of less than ``least_confidence`` are left out and
    counted.

    Raises:
        DataError: it is something else.
    """
    require_folder(image_dir)
    if isinstance(content, dict) and _is_wildlife(content):
        content = _as_batch_results(content)
    entries = content.get("images") if isinstance(content, dict) else None
    classes = content.get("detection_categories") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not isinstance(classes, dict):
        raise DataError(
            f'{path} is no MegaDetector file: it has no list "images" and no '
            '"detection_categories"; choose another --boxes-format.'
        )
    problems: list[Problem] = []
    good: list[tuple[dict[str, Any], str]] = []
    videos = 0
    for position, entry in enumerate(entries):
        name = entry.get("file") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not name:
            message = f"{path}: image number {position} has no file; add its path."
            problems.append(Problem("malformed image entry", message, path))
        elif name.lower().endswith(_VIDEOS):
            videos += 1
        else:
            good.append((entry, spelled(image_dir, name) or name))
    sizes = picture_sizes([image_dir / name for _, name in good])
    names = {str(key): str(name) for key, name in classes.items()}
    made, weak, unlisted = ContentBuilder(), 0, 0
    numbers = _numbers(names)
    for (entry, name), size in zip(good, sizes, strict=True):
        other = {k: v for k, v in entry.items() if k not in ("file", "detections")}
        known = None if isinstance(size, ImageFileError) else size
        for key in ("id", "file_name", "width", "height"):
            other.pop(key, None)
        image_id = made.add_image(name, known, **other)
        detections = entry.get("detections")
        if detections is not None and not isinstance(detections, list):
            message = f"{path}: {name} has detections {detections!r:.40}; they are a list."
            problems.append(Problem("malformed image entry", message, path, image_id))
            continue
        if isinstance(size, ImageFileError):
            if detections:
                problems.append(Problem(size.kind, str(size), image_dir / name, image_id))
            continue
        for detection in detections or []:
            found = _annotation(detection, size)
            if isinstance(found, str):
                message = f"{path}: {name} has the detection {detection!r:.80}; {found}."
                problems.append(Problem("malformed box", message, path, image_id))
                continue
            key, fields = found
            if fields.get("conf", 1.0) < least_confidence:
                weak += 1
                continue
            if key not in numbers:
                unlisted += 1
                names[key] = key
                numbers = _numbers(names)
            made.add(image_id, key, **fields)
    for entry in made.annotations:
        entry["category_id"] = numbers[entry["category_id"]]
    for count, kind, text in (
        (videos, "video", "videos are left out; label their frames"),
        (weak, "weak detection", f"detections below {least_confidence} are left out"),
        (unlisted, "unlisted category", "detections are of categories that the file does not "
         "list; they are called by their keys"),
    ):  # fmt: skip
        if count:
            problems.append(Problem(kind, f"{path}: {count} {text}.", path, is_note=True))
    kept = {"info": content["info"]} if "info" in content else {}
    lists = made.content({numbers[key]: name for key, name in names.items()})
    return BoxFile(path, "megadetector", kept | lists, digest, problems)


def _numbers(names: dict[str, str]) -> dict[str, int]:
    """Category ids: the keys themselves where they are numbers."""
    if all(key.isascii() and key.isdecimal() and len(key) < 10 for key in names):
        return {key: int(key) for key in names}
    return {key: number for number, key in enumerate(names, start=1)}


def _annotation(detection: Any, size: tuple[int, int]) -> tuple[str, dict[str, Any]] | str:
    """(category key, fields) of a detection, or what is wrong with it."""
    fields = detection if isinstance(detection, dict) else {}
    key = fields.get("category")
    if not isinstance(key, str | int) or isinstance(key, bool) or len(f"{key!s:.40}") > 30:
        return "it needs a category"
    try:
        box = [float(value) for value in fields["bbox"]]
        x, y, w, h = box
    except (KeyError, TypeError, ValueError, OverflowError):
        return "it needs a bbox of four numbers"
    if not all(abs(value) <= 1e6 for value in box):
        return "its bbox holds a number that is none or too large"
    other = {k: v for k, v in fields.items() if k not in ("category", "bbox", "pixels")}
    for name in ("id", "image_id", "category_id"):
        other.pop(name, None)
    confidence = other.get("conf", 1.0)
    if type(confidence) not in (int, float) or not 0 <= confidence <= 1:
        return f"its conf {confidence!r:.20} is no number from 0 to 1"
    width, height = (1, 1) if fields.get("pixels") else size
    scaled = [x * width, y * height, w * width, h * height]
    return str(key), {"bbox": scaled, "iscrowd": 0, **other}


def _as_batch_results(content: dict[str, Any]) -> dict[str, Any]:
    """PyTorch-Wildlife's list as batch results with boxes in pixels."""
    classes = content.get("categories")
    names = {}
    for entry in classes if isinstance(classes, list) else []:
        if isinstance(entry, dict) and "id" in entry:
            names[str(entry["id"])] = str(entry.get("name", entry["id"]))
    images = []
    for entry in content["annotations"]:
        fields = entry if isinstance(entry, dict) else {}
        columns = [fields.get(k) for k in ("bbox", "category", "confidence")]
        rows = zip(*(c if isinstance(c, list) else [] for c in columns), strict=False)
        found = []
        for box, category, confidence in rows:
            try:
                x0, y0, x1, y1 = box
                box = [x0, y0, x1 - x0, y1 - y0]
            except (TypeError, ValueError):
                box = None
            found.append({"bbox": box, "category": category, "conf": confidence, "pixels": True})
        images.append({"file": fields.get("img_id"), "detections": found})
    return {"images": images, "detection_categories": names}
