"""A data set whose masks people put right: pictures and boxes out of a COCO json, and back."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path, PurePath
from typing import Any

from pycocotools import mask as coco_mask

from deepmac.data.annotations.read_boxes import read_boxes
from deepmac.data.annotations.segmentation import find_fault, is_absent, segmentation_rle
from deepmac.demo.answers import text_of
from deepmac.demo.downloads import checked_rles
from deepmac.errors import DataError, UserError
from deepmac.files import atomic_file
from deepmac.label.marks import Marks
from deepmac.label.masks.polygons import coco_polygons, mask_polygons
from deepmac.label.parts import writable
from deepmac.label.writers.text import dump, write_list

HUMAN = "human"
"""``mask_source`` of a mask that a person saw and made; nothing makes it anew."""


class Corrections:
    """The boxes of a COCO json, picture by picture, and the way back into the file.

    Saving a picture replaces its boxes by what the page sends: those that nobody touched are
    written as they were read, whatever keys they have.

    Args:
        boxes: a COCO json, as ``deepmac label`` writes it.
        images: folder of its pictures.
        marks: only pictures with these annotations are shown; None shows all.

    Raises:
        DataError: no such file or folder, no COCO json, or no annotation that is marked.
    """

    def __init__(self, boxes: Path, images: Path, marks: Marks | None = None) -> None:
        self.file = boxes
        self.images = images
        if not images.is_dir():
            raise DataError(f"the image folder {images} does not exist; check the path.")
        self.content = read_boxes(boxes, images, "coco").content
        self._state = self._stat()
        self._rows: dict[Any, list[int]] = defaultdict(list)
        for row, entry in enumerate(self.content["annotations"]):
            if isinstance(entry, dict) and isinstance(entry.get("image_id"), int | str):
                self._rows[entry["image_id"]].append(row)
        self._entries: dict[int, list[Any]] = {}  # as read, by picture
        self._given: dict[int, set[int]] = defaultdict(set)  # ids of new boxes, by picture
        self._last_id = 0
        self._marked = frozenset(marks.to_see) if marks else frozenset()
        self.shown = [
            position
            for position, image in enumerate(self.content["images"])
            if _is_image(image) and (marks is None or self._marked_of(image))
        ]
        if not self.shown:
            raise DataError(
                f"none of the marked annotations is in {boxes}; give the file they were marked in."
                if marks
                else f"{boxes} has no pictures."
            )
        self._polygons = any(
            isinstance(entry, dict) and isinstance(entry.get("segmentation"), list)
            and not is_absent(entry["segmentation"])
            for entry in self.content["annotations"]
        )  # fmt: skip

    def overview(self) -> dict[str, Any]:
        """The pictures in order with their marked annotations, and the names of the classes."""
        pictures = []
        for position in self.shown:
            image = self.content["images"][position]
            pictures.append(
                {"file_name": text_of(image["file_name"]), "marked": self._marked_of(image)}
            )
        names = [text_of(name) for name in self._names().values()]
        return {"file": self.file.name, "pictures": pictures, "classes": names}

    def path(self, number: int) -> Path:
        """The file of a picture.

        Raises:
            UserError: there is none, or it would lie outside of the image folder.
        """
        name = self._image(number)["file_name"]
        path = self.images / name
        inner = os.path.normpath(name)
        if PurePath(name).is_absolute() or inner.startswith("..") or not path.is_file():
            raise UserError(f"The picture {text_of(name)} is not in the image folder.")
        return path

    def boxes(self, number: int) -> dict[str, Any]:
        """Boxes of a picture in pixels, their class names and masks as run lengths."""
        image = self._image(number)
        size = _size(image)
        names = self._names()
        found = []
        for entry in self._annotations(number):
            if _is_shown(entry, size):
                found.append(
                    {
                        "id": entry["id"],
                        "xyxy": _xyxy(entry["bbox"], size),
                        "label": text_of(names.get(entry.get("category_id"), "")),
                        "segmentation": _rle(entry.get("segmentation"), size),
                        "iou": _number(entry.get("mask_score")),
                        "source": text_of(entry.get("mask_source", "")),
                        "marked": entry["id"] in self._marked,
                    }
                )
        return {"width": size[0], "height": size[1], "boxes": found}

    def save(self, number: int, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """Put a picture's boxes into the file; all of it appears at once.

        Args:
            number: of the picture.
            wanted: ``boxes``: each with ``xyxy``, ``label``, ``segmentation`` (None: no mask), the
                ``id`` that it came with or None, and ``kept``: true while its box is the file's.

        Returns:
            ``file``, and ``ids`` of the boxes in the file, in their order.

        Raises:
            UserError: boxes that are none, a file that has changed meanwhile or cannot be
                written.
        """
        image = self._image(number)
        size = _size(image)
        original = self._entries.setdefault(number, deepcopy(self._annotations(number)))
        by_id = {entry["id"]: entry for entry in original if _is_shown(entry, size)}
        boxes = wanted.get("boxes")
        if not isinstance(boxes, list) or not all(isinstance(box, dict) for box in boxes):
            raise UserError("The server did not understand the page: load it again.")
        rles = self._checked(boxes, size)
        entries = [entry for entry in original if not _is_shown(entry, size)]
        ids = []
        for box, rle in zip(boxes, rles, strict=True):
            identity = box.get("id")
            known = isinstance(identity, int | str) and identity in by_id
            if known:
                entry = deepcopy(by_id[identity])
            else:
                if type(identity) is not int or identity not in self._given[number]:
                    identity = self._new_id()
                    self._given[number].add(identity)
                entry = {"id": identity, "image_id": image["id"]}
            self._fill(entry, box, rle, keeps=known and box.get("kept") is True)
            entries.append(entry)
            ids.append(entry["id"])
        self._replace(image["id"], entries)
        self._write()
        return {"file": self.file.name, "ids": ids}

    def _fill(self, entry: dict[str, Any], box: Mapping[str, Any], rle: Any, keeps: bool) -> None:
        name = text_of(box.get("label") or "object").strip()[:100] or "object"
        if name != text_of(self._names().get(entry.get("category_id"), "")):
            entry["category_id"] = self._category(name)
        if keeps:
            return
        x0, y0, x1, y1 = box["xyxy"]
        entry["bbox"] = [round(v, 2) for v in (x0, y0, x1 - x0, y1 - y0)]
        entry["area"] = int(coco_mask.area(rle))
        entry["iscrowd"] = 0
        entry.pop("mask_score", None)
        entry.pop("mask_source", None)
        if not entry["area"]:
            entry["segmentation"] = []
            return
        entry["mask_source"] = HUMAN
        entry["segmentation"] = (
            coco_polygons(mask_polygons(rle))
            if self._polygons
            else {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")}
        )

    def _checked(self, boxes: list[dict[str, Any]], size: tuple[int, int]) -> list[dict[str, Any]]:
        """The run lengths of the boxes' masks."""
        for box in boxes:
            xyxy = box.get("xyxy")
            if not (
                isinstance(xyxy, list)
                and len(xyxy) == 4
                and all(type(v) in (int, float) for v in xyxy)
            ):
                raise UserError("A box must be four finite numbers: x0, y0, x1, y1.")
            x0, y0, x1, y1 = xyxy
            if _xyxy([x0, y0, x1 - x0, y1 - y0], size) is None:
                raise UserError("A box lies outside the picture or has no area.")
        masks = [box.get("segmentation") for box in boxes]
        return checked_rles({"width": size[0], "height": size[1], "segmentations": masks})[1]

    def _replace(self, image_id: Any, entries: list[dict[str, Any]]) -> None:
        """Entries of an image in place of its old ones: same order, further ones at the end."""
        annotations = self.content["annotations"]
        new = {entry["id"]: entry for entry in entries if "id" in entry}
        nameless = [entry for entry in entries if "id" not in entry]
        kept: list[Any] = []
        for entry in annotations:
            if not isinstance(entry, dict) or entry.get("image_id") != image_id:
                kept.append(entry)
            elif "id" in entry and entry["id"] in new:
                kept.append(new.pop(entry["id"]))
            elif "id" not in entry:
                kept.append(nameless.pop(0))
        kept += new.values()
        self.content["annotations"] = kept
        self._rows.clear()
        for row, entry in enumerate(kept):
            if isinstance(entry, dict) and isinstance(entry.get("image_id"), int | str):
                self._rows[entry["image_id"]].append(row)

    def _write(self) -> None:
        if self._stat() != self._state:
            raise UserError(
                f"{self.file.name} was changed by another program: nothing was saved. Start "
                "deepmac demo again."
            )
        with writable(self.file), atomic_file(self.file) as file:
            file.write("{")
            for number, (key, value) in enumerate(self.content.items()):
                file.write(f"{',' if number else ''}\n{dump(key)}:")
                if key in ("images", "annotations"):
                    write_list(file, value)
                else:
                    file.write(dump(value))
            file.write("\n}\n")
        self._state = self._stat()

    def _stat(self) -> tuple[int, int]:
        try:
            found = self.file.stat()
        except OSError:
            return 0, 0
        return found.st_size, found.st_mtime_ns

    def _image(self, number: int) -> dict[str, Any]:
        if not 0 <= number < len(self.shown):
            raise UserError("There is no such picture.")
        image: dict[str, Any] = self.content["images"][self.shown[number]]
        return image

    def _annotations(self, number: int) -> list[Any]:
        return [self.content["annotations"][row] for row in self._rows[self._image(number)["id"]]]

    def _marked_of(self, image: Mapping[str, Any]) -> list[Any]:
        annotations = self.content["annotations"]
        ids = [annotations[row].get("id") for row in self._rows[image["id"]]]
        return [one for one in ids if isinstance(one, int | str) and one in self._marked]

    def _names(self) -> dict[Any, str]:
        return {
            entry["id"]: str(entry.get("name", entry["id"]))
            for entry in self.content["categories"]
            if isinstance(entry, dict) and isinstance(entry.get("id"), int | str)
        }

    def _category(self, name: str) -> Any:
        names = self._names()
        for identity, known in names.items():
            if text_of(known) == name:
                return identity
        identity = max((one for one in names if isinstance(one, int)), default=0) + 1
        self.content["categories"].append({"id": identity, "name": name})
        return identity

    def _new_id(self) -> int:
        taken = [a.get("id") for a in self.content["annotations"] if isinstance(a, dict)]
        self._last_id = 1 + max([self._last_id, *(one for one in taken if type(one) is int)])
        return self._last_id


def _is_image(image: Any) -> bool:
    return (
        isinstance(image, dict)
        and isinstance(image.get("id"), int | str)
        and isinstance(image.get("file_name"), str)
        and all(type(image.get(side)) is int and image[side] > 0 for side in ("width", "height"))
    )


def _is_shown(entry: Any, size: tuple[int, int]) -> bool:
    """Whether the page can show an annotation; others stay in the file as they are."""
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("id"), int | str)
        and not entry.get("iscrowd")
        and _xyxy(entry.get("bbox"), size) is not None
    )


def _size(image: Mapping[str, Any]) -> tuple[int, int]:
    return image["width"], image["height"]


def _xyxy(bbox: Any, size: tuple[int, int]) -> list[float] | None:
    """COCO's x, y, width, height as corners, or None for what is no box of a picture."""
    try:
        x, y, width, height = map(float, bbox)
    except (TypeError, ValueError, OverflowError):
        return None
    x1, y1 = x + width, y + height
    sound = width > 0 and height > 0 and all(map(math.isfinite, (x, y, x1, y1)))
    return [x, y, x1, y1] if sound and x < size[0] and y < size[1] and x1 > 0 and y1 > 0 else None


def _number(value: Any) -> float | None:
    return float(value) if type(value) in (int, float) and 0 <= value <= 1 else None


def _rle(segmentation: Any, size: tuple[int, int]) -> dict[str, Any] | None:
    width, height = size
    if is_absent(segmentation) or find_fault(segmentation, height, width):
        return None
    rle = segmentation_rle(segmentation, height, width)
    return {"size": [height, width], "counts": rle["counts"].decode("ascii")}
