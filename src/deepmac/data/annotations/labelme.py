"""LabelMe's json files (and AnyLabeling's), one for each picture.

Read here: labelme2coco and its kin unite or drop groups, circles and masks, and open every picture.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from deepmac.data.annotations.box_file import BoxFile, ContentBuilder
from deepmac.data.annotations.json_file import parse
from deepmac.data.annotations.pictures import list_pictures, picture_sizes, spelled, walk_files
from deepmac.data.annotations.problems import Problem
from deepmac.data.annotations.text_file import read_bytes
from deepmac.data.images import ImageFileError, raw_size
from deepmac.errors import DataError

_NO_OBJECTS = ("point", "points", "line", "linestrip")
_CIRCLE = 64  # corners of the polygon that stands for one
_LARGEST = 1e7


def is_one(content: Any) -> bool:
    """Whether JSON content is LabelMe's."""
    if not isinstance(content, dict) or "shapes" not in content:
        return False
    return isinstance(content["shapes"], list) or "imagePath" in content


def read(folder: Path, image_dir: Path, *, files: list[Path] | None = None) -> BoxFile:
    """Read a folder of LabelMe files; see ``read_boxes``.

    Polygons, circles and masks are masks; rectangles are boxes; turned rectangles are boxes with
    ``corners``; points and lines are no objects and counted. Polygons of one label and group are
    one object. Categories are numbered from 1 in the alphabetical order of their names.

    Raises:
        DataError: no file belongs to a picture.
    """
    digest = hashlib.sha256()
    names = list_pictures(image_dir)
    by_stem: dict[str, list[str]] = {}
    for name in names:
        by_stem.setdefault(Path(name).stem, []).append(name)
    problems: list[Problem] = []
    entries: list[tuple[Path, dict[str, Any], str]] = []
    if files is None:
        files = [folder / name for name in walk_files(folder) if name.lower().endswith(".json")]
    for path in files:
        data = read_bytes(path)
        digest.update(path.name.encode("utf-8", "replace") + b"\0" + data)
        try:
            content = parse(path, data)
        except DataError as error:
            problems.append(Problem("malformed json", str(error), path))
            continue
        if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
            if isinstance(content, dict) and content.keys() & {"imagePath", "shapes"}:
                text = f"{path} has no list shapes; correct it."
                problems.append(Problem("malformed json", text, path))
            else:
                text = f"{path} is not read: it is no LabelMe file."
                problems.append(Problem("file not read", text, path, is_note=True))
            continue
        picture = _picture(path, content, image_dir, by_stem)
        if picture is None:
            text = f"{path} has no picture {content.get('imagePath')!r:.80} in {image_dir}; add it."
            if content.get("imageData"):
                text = text[:-1] + " (the file holds a copy: `labelme_export_json` writes it)."
            problems.append(Problem("missing image", text, path))
            continue
        entries.append((path, content, picture))
    counts = Counter(picture for _, _, picture in entries)
    for picture, number in counts.items():
        if number > 1:
            text = f"{number} files say that they are of {picture}; none of them is read."
            problems.append(Problem("picture claimed twice", text, folder))
    entries = [entry for entry in entries if counts[entry[2]] == 1]
    if not entries:
        first = f": {problems[0].message}" if problems else "; check the folders."
        raise DataError(f"no LabelMe file in {folder} belongs to a picture in {image_dir}{first}")
    sizes = picture_sizes([image_dir / picture for _, _, picture in entries])
    made, others = ContentBuilder(), Counter[str]()
    for (path, content, picture), size in zip(entries, sizes, strict=True):
        where = image_dir / picture
        if isinstance(size, ImageFileError):
            problems.append(Problem(size.kind, str(size), where, made.add_image(picture, None)))
            continue
        given = content.get("imageWidth"), content.get("imageHeight")
        if all(type(side) is int for side in given) and given != size:
            if given != raw_size(where):
                text = f"{path} says {given[0]} x {given[1]} pixels, but {where} has {size[0]} x "
                problems.append(Problem("wrong image size", f"{text}{size[1]}; correct it.", path))
                continue
            size = given  # type: ignore[assignment]
        number = made.add_image(picture, size)
        for entry in _objects(path, content["shapes"], size, problems, others):
            made.add(number, entry.pop("label"), **entry)
    for kind, count in others.items():
        text = f"{folder}: {count} shapes of the kind {kind} are no objects and left out."
        problems.append(Problem(f"shape {kind}", text, folder, is_note=True))
    return BoxFile(folder, "labelme", made.content(), digest.hexdigest(), problems)


def _picture(
    path: Path, content: dict[str, Any], image_dir: Path, by_stem: dict[str, list[str]]
) -> str | None:
    named = content.get("imagePath")
    named = named.replace("\\", "/") if isinstance(named, str) else ""
    try:
        inner = (path.parent / named).resolve().relative_to(image_dir.resolve()).as_posix()
    except (ValueError, OSError):
        inner = ""
    for name in (inner, named):
        found = spelled(image_dir, name) if name not in ("", ".") else None
        if found is not None:
            return found
    own = by_stem.get(Path(named).stem, []) or by_stem.get(path.stem, [])
    return own[0] if len(own) == 1 else None


def _objects(
    path: Path,
    shapes: list[Any],
    size: tuple[int, int],
    problems: list[Problem],
    others: Counter[str],
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    groups: dict[tuple[str, Any], dict[str, Any]] = {}
    for number, shape in enumerate(shapes, start=1):
        fields = shape if isinstance(shape, dict) else {}
        label, kind = fields.get("label"), fields.get("shape_type") or "polygon"
        if kind in _NO_OBJECTS:
            others[str(kind)] += 1
            continue
        entry = _shape(str(kind), fields, size)
        if not isinstance(label, str) or not label.strip() or isinstance(entry, str):
            fault = entry if isinstance(entry, str) else "it has no label"
            text = f"{path}: shape number {number} is no object: {fault}; correct it."
            problems.append(Problem("malformed shape", text, path))
            continue
        group = fields.get("group_id")
        rings = entry.get("segmentation")
        if isinstance(group, int | str) and isinstance(rings, list):
            first = groups.setdefault((label.strip(), group), entry)
            if first is not entry:
                first["segmentation"] = [*first["segmentation"], *rings]
                first["bbox"] = _extent([p for ring in first["segmentation"] for p in _pairs(ring)])
                continue
        found.append(entry | {"label": label.strip()})
        if isinstance(group, int | str) and isinstance(rings, list):
            groups[label.strip(), group] = found[-1]
    return found


def _shape(kind: str, fields: dict[str, Any], size: tuple[int, int]) -> dict[str, Any] | str:
    """A COCO annotation's fields, or what is wrong."""
    try:
        points = [(float(x), float(y)) for x, y in fields.get("points") or []]
    except (TypeError, ValueError, OverflowError):
        return "its points are no pairs of numbers"
    if not points or not all(abs(v) < _LARGEST for point in points for v in point):
        return "its points are none, not finite or too far away"
    if kind == "rectangle" and len(points) in (2, 4):
        return {"bbox": _extent(points), "iscrowd": 0}
    if kind == "rotation" and len(points) == 4:
        flat = [v for point in points for v in point]
        return {"bbox": _extent(points), "corners": flat, "iscrowd": 0}
    if kind == "circle" and len(points) == 2:
        (x, y), (ex, ey) = points
        radius = math.hypot(ex - x, ey - y)
        angles = [2 * math.pi * i / _CIRCLE for i in range(_CIRCLE)]
        points = [(x + radius * math.cos(a), y + radius * math.sin(a)) for a in angles]
        kind = "polygon"
    if kind == "mask":
        return _mask(fields.get("mask"), points, size)
    if kind != "polygon":
        return f"shapes of the kind {kind!r:.30} with {len(points)} points are not known"
    if len(points) < 3:
        return f"a polygon of {len(points)} points has no area"
    flat = [v for point in points for v in point]
    return {"bbox": _extent(points), "segmentation": [flat], "iscrowd": 0}


def _mask(
    data: Any, points: list[tuple[float, float]], size: tuple[int, int]
) -> dict[str, Any] | str:
    """A mask that the file holds as a PNG of its box."""
    try:
        with Image.open(io.BytesIO(base64.b64decode(data)), formats=["PNG"]) as image:
            if image.width > size[0] + 1 or image.height > size[1] + 1:
                return "its mask is larger than the picture"
            small = np.asarray(image.convert("L")) > 0
    except (TypeError, ValueError, binascii.Error, OSError, SyntaxError):
        return "its mask is no PNG"
    left, top = (round(min(p[i] for p in points)) for i in (0, 1))
    if left < 0 or top < 0 or left >= size[0] or top >= size[1] or not small.any():
        return "its mask is empty or lies outside the picture"
    small = small[: size[1] - top, : size[0] - left]
    whole = np.zeros((size[1], size[0]), dtype=np.uint8, order="F")
    whole[top : top + small.shape[0], left : left + small.shape[1]] = small
    rle = coco_mask.encode(whole)
    entry = {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")}
    box = coco_mask.toBbox(rle).tolist()
    return {"bbox": box, "segmentation": entry, "iscrowd": 0}


def _pairs(flat: list[float]) -> list[tuple[float, float]]:
    return list(zip(flat[0::2], flat[1::2], strict=True))


def _extent(points: list[tuple[float, float]]) -> list[float]:
    xs, ys = zip(*points, strict=True)
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
