"""YOLO's folder of text files: ``class x y width height``, relative to the picture, one box a line.

Read here and not by a library: the common readers open every picture fully and drop the sixth
number, and the format is five numbers.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import yaml

from deepmac.data.annotations.box_file import BoxFile
from deepmac.data.annotations.pictures import list_pictures, picture_sizes
from deepmac.data.annotations.problems import Problem
from deepmac.data.images import ImageFileError
from deepmac.errors import DataError

_NAME_FILES = ("data.yaml", "dataset.yaml", "classes.txt", "obj.names", "predefined_classes.txt")
_MAX_NAMES = 1 << 20


def read(folder: Path, image_dir: Path) -> BoxFile:
    """Read a YOLO folder; see :func:`deepmac.data.annotations.read_boxes.read_boxes`.

    A picture's boxes lie in the text file of the same relative path; a picture without one has no
    objects. Five numbers are a box, six a box and its score, more an outline: a mask that a person
    drew, kept as such. Category ids are YOLO's class numbers; names come from ``data.yaml`` or
    ``classes.txt`` in the folder or one above it. Images and boxes are numbered from 1, in the
    order of their paths.

    Raises:
        DataError: no pictures, or text files that belong to none of them.
    """
    digest = hashlib.sha256()
    names = _class_names(folder, digest)
    labels = {
        path.relative_to(folder).with_suffix("").as_posix(): path
        for path in sorted(folder.rglob("*.txt"))
        if path.name not in _NAME_FILES
    }
    pictures = list_pictures(image_dir)
    own = {picture: labels.pop(str(Path(picture).with_suffix("")), None) for picture in pictures}
    problems = [
        Problem("missing image", f"{path} has no picture {stem}.* in {image_dir}; add it.", path)
        for stem, path in labels.items()
    ]
    if not any(own.values()):
        raise DataError(
            f"none of the {len(labels)} text files in {folder} belongs to a picture in "
            f"{image_dir}: both need the same names; check the folders."
        )
    sizes = picture_sizes([image_dir / picture for picture in pictures])
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (picture, size) in enumerate(zip(pictures, sizes, strict=True), start=1):
        digest.update(picture.encode())
        images.append({"id": number, "file_name": picture})
        path = own[picture]
        if isinstance(size, ImageFileError):
            problems.append(Problem(size.kind, str(size), image_dir / picture, number))
        else:
            images[-1] |= {"width": size[0], "height": size[1]}
        if path is None:
            continue
        text = _text(path)
        digest.update(text.encode())
        if isinstance(size, ImageFileError):
            continue
        for line_number, line in enumerate(text.splitlines(), start=1):
            if not line.strip():
                continue
            found = _annotation(line, size)
            if isinstance(found, str):
                message = f"{path}, line {line_number}: {found}; correct it."
                problems.append(Problem("malformed box", message, path, number))
            else:
                annotations.append({"id": len(annotations) + 1, "image_id": number, **found})
    used = {a["category_id"] for a in annotations}
    categories = [
        {"id": number, "name": names.get(number, str(number))}
        for number in sorted(used | names.keys())
    ]
    content = {"images": images, "annotations": annotations, "categories": categories}
    return BoxFile(folder, "yolo", content, digest.hexdigest(), problems)


def _annotation(line: str, size: tuple[int, int]) -> dict[str, Any] | str:
    """Of one line, or what is wrong with it."""
    words = line.split()
    try:
        category, values = int(words[0]), [float(word) for word in words[1:]]
    except ValueError:
        return f"{line!r:.60} is not a class number and numbers"
    if not all(map(math.isfinite, values)):
        return f"{line!r:.60} holds a number that is NaN or infinite"
    width, height = size
    if len(values) in (4, 5):
        x, y, w, h = values[:4]
        box = [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height]
        entry = {"category_id": category, "bbox": box, "iscrowd": 0}
        return entry | ({"score": values[4]} if len(values) == 5 else {})
    if len(values) < 6 or len(values) % 2:
        return f"{len(values)} numbers after the class are no box (4) and no outline (6, 8, ...)"
    xs, ys = [v * width for v in values[0::2]], [v * height for v in values[1::2]]
    return {
        "category_id": category,
        "bbox": [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)],
        "iscrowd": 0,
        "segmentation": [[v for point in zip(xs, ys, strict=True) for v in point]],
    }


def _class_names(folder: Path, digest: Any) -> dict[int, str]:
    for place in (folder, folder.parent, folder.parent.parent):
        for name in _NAME_FILES:
            path = place / name
            if path.is_file() and path.stat().st_size < _MAX_NAMES:
                text = _text(path)
                digest.update(text.encode())
                return _yaml_names(path, text) if path.suffix == ".yaml" else _lines(text)
    return {}


def _lines(text: str) -> dict[int, str]:
    return dict(enumerate(line.strip() for line in text.splitlines() if line.strip()))


def _yaml_names(path: Path, text: str) -> dict[int, str]:
    try:
        names = yaml.safe_load(text)["names"]
        pairs = names.items() if isinstance(names, dict) else enumerate(names)
        return {int(number): str(name) for number, name in pairs}
    except (KeyError, TypeError, ValueError, yaml.YAMLError):
        raise DataError(f'{path} has no list of class "names"; correct or remove it.') from None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as text ({error}); check the file.") from None
