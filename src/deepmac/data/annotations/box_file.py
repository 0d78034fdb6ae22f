"""Annotations of any format as the content of a COCO file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from deepmac.data.annotations.problems import Problem

BoxFormat = Literal[
    "coco", "yolo", "voc", "labelme", "megadetector", "open_images", "panoptic", "tfrecord"
]


@dataclass(frozen=True)
class BoxFile:
    """Annotations as read.

    Attributes:
        path: the file or folder.
        format: what it was.
        content: the dict of a COCO file with the lists ``images``, ``annotations`` and
            ``categories``. For COCO and Camera Traps json the file's own, nothing changed; for the
            others made from theirs, ``bbox`` as xywh in pixels.
        digest: SHA-256 of everything read.
        problems: boxes or images that could not be taken over.
    """

    path: Path
    format: BoxFormat
    content: dict[str, Any]
    digest: str
    problems: list[Problem] = field(default_factory=list)


@dataclass
class ContentBuilder:
    """A COCO file's lists in the making; images and boxes are numbered from 1 as they come."""

    images: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)

    def add_image(self, file_name: str, size: tuple[int, int] | None, **other: Any) -> int:
        """An image of (width, height); returns its id."""
        entry: dict[str, Any] = {"id": len(self.images) + 1, "file_name": file_name}
        if size is not None:
            entry |= {"width": size[0], "height": size[1]}
        self.images.append(entry | other)
        return len(self.images)

    def add(self, image_id: int, category: Any, **fields: Any) -> dict[str, Any]:
        """An annotation; ``category`` is an id, or a name that :meth:`content` numbers."""
        entry = {"id": len(self.annotations) + 1, "image_id": image_id, "category_id": category}
        self.annotations.append(entry | fields)
        return self.annotations[-1]

    def content(self, names: dict[int, str] | None = None) -> dict[str, Any]:
        """The lists; without ``names``, categories are names, numbered from 1 in their order."""
        if names is None:
            found = sorted({entry["category_id"] for entry in self.annotations})
            number_of = {name: number for number, name in enumerate(found, start=1)}
            for entry in self.annotations:
                entry["category_id"] = number_of[entry["category_id"]]
            names = {number: name for name, number in number_of.items()}
        categories = [{"id": number, "name": name} for number, name in names.items()]
        return {
            "images": self.images,
            "annotations": self.annotations,
            "categories": categories,
        }
