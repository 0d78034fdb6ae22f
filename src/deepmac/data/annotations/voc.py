"""Pascal VOC's folder of xml files, one for each picture."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from deepmac.data.annotations.box_file import BoxFile
from deepmac.data.annotations.pictures import list_pictures, picture_sizes
from deepmac.data.annotations.problems import Problem
from deepmac.data.images import ImageFileError
from deepmac.errors import DataError

_FLAGS = ("pose", "truncated", "difficult", "occluded")


def read(folder: Path, image_dir: Path) -> BoxFile:
    """Read a VOC folder; see :func:`deepmac.data.annotations.read_boxes.read_boxes`.

    A file's picture is the one of the same relative path, or else the one it names. Coordinates are
    VOC's: pixels counted from 1, the last one inside, so that the box covers
    [xmin - 1, xmax] x [ymin - 1, ymax]. Categories are numbered from 1 in the alphabetical order
    of their names, images and boxes in the order of their files. ``pose``, ``truncated``,
    ``difficult`` and ``occluded`` are kept as keys of the annotation.

    Raises:
        DataError: no pictures, or none that an xml file belongs to.
    """
    digest = hashlib.sha256()
    pictures = list_pictures(image_dir)
    by_stem = {str(Path(picture).with_suffix("")): picture for picture in pictures}
    by_name = {Path(picture).name: picture for picture in pictures}
    problems: list[Problem] = []
    entries: list[tuple[Path, str, list[dict[str, Any]]]] = []
    for path in sorted(folder.rglob("*.xml")):
        data = path.read_bytes()
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + data)
        root = _parse(path, data, problems)
        if root is None:
            continue
        stem = path.relative_to(folder).with_suffix("").as_posix()
        name = Path((root.findtext("filename") or "").strip()).name
        picture = by_stem.get(stem) or by_name.get(name)
        if picture is None:
            message = f"{path} has no picture {stem}.* or {name} in {image_dir}; add it."
            problems.append(Problem("missing image", message, path))
            continue
        entries.append((path, picture, _objects(path, root, problems)))
    if not entries:
        raise DataError(
            f"no xml file in {folder} belongs to a picture in {image_dir}; check the folders."
        )
    names = sorted({found["name"] for _, _, objects in entries for found in objects})
    number_of = {name: number for number, name in enumerate(names, start=1)}
    sizes = picture_sizes([image_dir / picture for _, picture, _ in entries])
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, ((_, picture, objects), size) in enumerate(
        zip(entries, sizes, strict=True), start=1
    ):
        images.append({"id": image_id, "file_name": picture})
        if isinstance(size, ImageFileError):
            problems.append(Problem(size.kind, str(size), image_dir / picture, image_id))
        else:
            images[-1] |= {"width": size[0], "height": size[1]}
        for found in objects:
            name = found.pop("name")
            identity = {"id": len(annotations) + 1, "image_id": image_id}
            annotations.append(identity | {"category_id": number_of[name]} | found)
    categories = [{"id": number, "name": name} for name, number in number_of.items()]
    content = {"images": images, "annotations": annotations, "categories": categories}
    return BoxFile(folder, "voc", content, digest.hexdigest(), problems)


def _parse(path: Path, data: bytes, problems: list[Problem]) -> ElementTree.Element | None:
    # Entities are the one part of XML that can hurt, and annotations have no use for them.
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        problems.append(
            Problem("malformed xml", f"{path} declares entities; remove its DOCTYPE.", path)
        )
        return None
    try:
        return ElementTree.fromstring(data)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        problems.append(Problem("malformed xml", f"{path} is no XML ({error}); mend it.", path))
        return None


def _objects(
    path: Path, root: ElementTree.Element, problems: list[Problem]
) -> list[dict[str, Any]]:
    objects = []
    for number, item in enumerate(root.iter("object"), start=1):
        name = (item.findtext("name") or "").strip()
        try:
            corners = [float(item.findtext(f"bndbox/{k}") or "") for k in _CORNERS]
        except ValueError:
            corners = [math.nan]
        if not name or not all(map(math.isfinite, corners)):
            message = f"{path}: object number {number} has no name or no bndbox of four numbers."
            problems.append(Problem("malformed box", message, path))
            continue
        left, top, right, bottom = corners
        box = [left - 1, top - 1, right - left + 1, bottom - top + 1]
        flags = {k: text for k in _FLAGS if (text := item.findtext(k)) is not None}
        objects.append({"name": name, "bbox": box, "iscrowd": 0, **flags})
    return objects


_CORNERS = ("xmin", "ymin", "xmax", "ymax")
