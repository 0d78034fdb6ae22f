"""A file or folder of annotations, whatever its format: for training and for ``label``."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from deepmac.data.annotations import (
    labelme,
    megadetector,
    open_images,
    panoptic,
    store,
    tfrecord,
    voc,
    yolo,
)
from deepmac.data.annotations.box_file import BoxFile
from deepmac.data.annotations.coco import index_of, read_coco
from deepmac.data.annotations.index import CocoIndex
from deepmac.data.annotations.json_file import parse, read_file
from deepmac.data.annotations.layout import FORMATS, Place, content_kind, find
from deepmac.data.annotations.naming import of_json
from deepmac.data.annotations.problems import Problem
from deepmac.data.annotations.reading import CheckImages, OnError, Reading
from deepmac.errors import DataError

_DESCRIPTIONS = (".yaml", ".yml", ".txt", ".names", ".labels", ".pbtxt")
_FOLDERS = ("yolo", "voc", "labelme")
_YOLO: dict[str, yolo.Kind] = {
    "yolo": "auto",
    "yolo-boxes": "boxes",
    "yolo-seg": "outlines",
    "yolo-obb": "turned",
    "yolo-pose": "points",
}


def read_boxes(path: Path, image_dir: Path, box_format: str = "auto") -> BoxFile:
    """Read boxes.

    Args:
        path: a json file (COCO, COCO Camera Traps, MegaDetector, panoptic), a csv of Open Images, a
            TFRecord, or a folder: of YOLO ``.txt``, Pascal VOC ``.xml`` or LabelMe ``.json`` files,
            or a data set of one set in any layout that ``layout.find`` knows.
        image_dir: folder of the pictures; their sizes are read where the format needs them.
        box_format: one of ``layout.FORMATS``; ``auto`` looks.

    Raises:
        DataError: nothing there, or nothing that can be read as boxes.
    """
    if not path.exists():
        raise DataError(f"the boxes {path} do not exist; check the path.")
    if box_format not in FORMATS:
        raise DataError(f"there is no format {box_format!r}; there are {', '.join(FORMATS)}.")
    kind = box_format.split("-")[0]
    if path.is_dir():
        return _read_folder(path, image_dir, box_format)
    if path.suffix.lower() == ".csv" and (kind in ("auto", "open_images")):
        return open_images.read(path, image_dir)
    if kind == "tfrecord" or (kind == "auto" and tfrecord.is_one(path)):
        return tfrecord.read(tfrecord.with_siblings(path), image_dir)
    if kind in ("yolo", "voc"):
        raise DataError(f"{kind} boxes are a folder of files, but {path} is a file.")
    content, digest = load_json(path)
    found = content_kind(content) if kind == "auto" else kind
    if found == "megadetector" or (isinstance(content, list) and kind == "megadetector"):
        return megadetector.read(path, content, digest, image_dir)
    if found == "labelme":
        return labelme.read(path.parent, image_dir, files=[path])
    if found == "panoptic":
        return panoptic.read(path, content, digest, image_dir)
    return BoxFile(path, "coco", _checked_coco(path, content), digest)


def _read_folder(path: Path, image_dir: Path, box_format: str) -> BoxFile:
    if box_format.startswith("yolo"):
        return yolo.read(path, image_dir, kind=_YOLO[box_format])
    if box_format == "voc":
        return voc.read(path, image_dir)
    if box_format == "labelme":
        return labelme.read(path, image_dir)
    found = find(path, box_format)
    if len(found.sets) > 1 and found.format not in _FOLDERS:
        listed = ", ".join(str(p) for place in found.sets.values() for p in place.paths[:1])
        raise DataError(f"the boxes {found} are several sets: give one of them, such as {listed}.")
    place = next(iter(found.sets.values()))
    if found.format in _FOLDERS:
        return _read_folder(path, image_dir, found.format)
    return read_place(replace(place, image_dir=image_dir))


def read_place(place: Place) -> BoxFile:
    """The annotations of one set that ``layout.find`` has found."""
    first, images = place.paths[0], place.image_dir
    if place.format in _YOLO:
        pictures = None if place.pictures is None else list(place.pictures)
        return yolo.read(first, images, kind=_YOLO[place.format], pictures=pictures)
    if place.format == "voc":
        return voc.read(first, images, only=place.stems)
    if place.format == "labelme":
        return labelme.read(images, images, files=list(place.paths))
    if place.format == "open_images":
        return open_images.read(first, images)
    if place.format == "tfrecord":
        return tfrecord.read(place.paths, images)
    content, digest = load_json(first)
    if place.format == "megadetector":
        return megadetector.read(first, content, digest, images)
    if place.format == "panoptic":
        return panoptic.read(first, content, digest, images)
    if len(place.paths) > 1:
        every = [load_json(path) for path in place.paths]
        content = _joined(place.paths, [_checked_coco(p, c) for p, (c, _) in
                                        zip(place.paths, every, strict=True)])  # fmt: skip
        digest = hashlib.sha256("".join(d for _, d in every).encode()).hexdigest()
    return BoxFile(first, "coco", _checked_coco(first, content), digest)


def read_set(
    place: Place,
    *,
    on_error: OnError = "stop",
    check_images: CheckImages = "header",
    require_annotations: bool = True,
    reading: Reading | None = None,
) -> CocoIndex:
    """A set as training takes it; see ``read_coco`` for the arguments.

    Raises:
        DataError: one sentence with file, ids and what to do.
    """
    if place.format == "coco" and len(place.paths) == 1:
        return read_coco(
            place.paths[0],
            place.image_dir,
            on_error=on_error,
            check_images=check_images,
            require_annotations=require_annotations,
            reading=reading,
        )

    def lists() -> tuple[dict[str, Any], list[Problem]]:
        boxes = read_place(place)
        return boxes.content, boxes.problems

    return index_of(
        lists,
        place.image_dir if place.format == "labelme" else place.paths[0],
        place.image_dir,
        place=_cached(place, repr((check_images == "full", reading))),
        on_error=on_error,
        check_images=check_images,
        require_annotations=require_annotations,
        reading=reading,
    )


def _cached(place: Place, settings: str) -> Path | None:
    """Where the set lies in the cache once it has been read."""
    stems = None if place.stems is None else sorted(place.stems)
    identity = repr((place.format, place.paths, place.image_dir, place.pictures, stems))
    folders = [path for path in (*place.paths, place.image_dir) if path.is_dir()]
    if place.format == "voc":
        folders.append(place.paths[0].parent / "SegmentationObject")
    elif place.format == "panoptic":
        folders.append(place.paths[0].with_suffix(""))
    elif place.format == "open_images":
        folders.append(place.paths[0].parent)
    files = [path for path in place.paths if path.is_file()]
    above = {p for path in place.paths for p in list(path.absolute().parents)[:2]}
    for folder in above if place.format.startswith(("yolo", "tfrecord")) else ():
        with suppress(OSError):  # descriptions and label maps lie there
            files += [e for e in folder.iterdir() if e.suffix in _DESCRIPTIONS and e.is_file()]
    return store.place_of_files(folders, files, identity, settings)


def load_json(path: Path) -> tuple[Any, str]:
    """The content of a json file and the SHA-256 of its bytes.

    Raises:
        DataError: it cannot be read or is no JSON.
    """
    data = read_file(path)
    return parse(path, data), hashlib.sha256(data).hexdigest()


def _joined(paths: Sequence[Path], contents: list[dict[str, Any]]) -> dict[str, Any]:
    """Several COCO files as one: classes by name, images and annotations numbered anew.

    A file name that two files have is one image, as where each file holds other classes.
    """
    classes: dict[str, dict[str, Any]] = {}
    images: dict[str, dict[str, Any]] = {}
    annotations: list[dict[str, Any]] = []
    for path, content in zip(paths, contents, strict=True):
        class_of: dict[Any, int] = {}
        image_of: dict[Any, int] = {}
        for entry in content["categories"]:
            name = entry.get("name") if isinstance(entry, dict) else None
            if not isinstance(name, str) or not _is_id(entry.get("id")):
                raise DataError(f"{path}: the category {entry!r:.80} needs an id and a name.")
            if entry["id"] in class_of:
                raise DataError(f"{path}: two categories have the id {entry['id']!r:.40}.")
            kept = classes.setdefault(name, {**entry, "id": len(classes) + 1})
            class_of[entry["id"]] = kept["id"]
        for entry in content["images"]:
            fields = entry if isinstance(entry, dict) else {}
            name, own = fields.get("file_name"), fields.get("id")
            if not isinstance(name, str) or not _is_id(own):
                raise DataError(f"{path}: the image {entry!r:.80} needs an id and a file_name.")
            if own in image_of:
                raise DataError(f"{path}: the image id {own!r:.40} occurs more than once.")
            made = images.setdefault(name, {**fields, "id": len(images) + 1})
            image_of[own] = made["id"]
        for entry in content["annotations"]:
            fields = entry if isinstance(entry, dict) else {}
            own, category = fields.get("image_id"), fields.get("category_id")
            known = image_of.get(own) if _is_id(own) else None
            number = class_of.get(category) if _is_id(category) else None
            annotations.append(
                fields | {"id": len(annotations) + 1, "image_id": known or own,
                          "category_id": number or category}
            )  # fmt: skip
    return {
        "images": list(images.values()),
        "annotations": annotations,
        "categories": list(classes.values()),
    }


def _is_id(value: Any) -> bool:
    return isinstance(value, int | str) and not isinstance(value, bool)


def _checked_coco(path: Path, content: Any) -> dict[str, Any]:
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            named = of_json(content)
            advice = (
                "give COCO, COCO Camera Traps or MegaDetector json, or a folder of YOLO, VOC or "
                "LabelMe files."
            )
            advice = f"it looks like {named}." if named else advice
            raise DataError(
                f'{path} is JSON but no file of boxes: it has no list "{key}"; {advice}'
            )
    checked: dict[str, Any] = content
    return checked
