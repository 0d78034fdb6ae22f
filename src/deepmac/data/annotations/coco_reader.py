"""From the raw lists of a COCO file to records; every fault on the way becomes a Problem."""

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from deepmac.data.annotations.points import read_points
from deepmac.data.annotations.problems import Problem
from deepmac.data.annotations.records import Box, Category, CocoIndex, ImageRecord, Instance, Point
from deepmac.data.annotations.segmentation import RawSegmentation, find_fault, is_absent, is_empty
from deepmac.data.images import ImageFileError, check_image
from deepmac.errors import DataError

_CLIP_NOTE_PIXELS = 1.0  # COCO's own boxes leave the image by less, from rounding
_FILES_PER_TASK = 256

Report = Callable[..., None]
"""report(kind, sentence, is_note=False): a fault of the annotation at hand."""


class CocoReader:
    """Turns the raw lists into records and notes every fault on the way."""

    def __init__(self, json_path: Path, *, exact_masks: bool) -> None:
        self.json_path = json_path
        self.exact_masks = exact_masks
        self.problems: list[Problem] = []
        self.dropped = {"images": 0, "annotations": 0, "masks": 0}
        self.categories: dict[int, Category] = {}
        self.images: dict[int, ImageRecord] = {}
        self.refused_images: set[int] = set()  # known ids whose entry or file is unusable
        self.instances: dict[int, list[Instance]] = {}

    def read_categories(self, entries: list[Any]) -> None:
        names: dict[str, int] = {}
        for position, entry in enumerate(entries):
            identity = entry.get("id") if isinstance(entry, dict) else None
            name = entry.get("name") if isinstance(entry, dict) else None
            if type(identity) is not int or not isinstance(name, str) or not name.strip():
                raise DataError(
                    f"{self.json_path}: category number {position} is {entry!r:.80}; "
                    "it needs an integer id and a name."
                )
            if identity in self.categories:
                raise DataError(
                    f'{self.json_path}: categories "{self.categories[identity].name}" and '
                    f'"{name}" share the id {identity}; give each category its own id.'
                )
            key = name.strip().casefold()
            if key in names:
                raise DataError(
                    f"{self.json_path}: categories {names[key]} and {identity} share the name "
                    f'"{name}"; give each category its own name.'
                )
            names[key] = identity
            supercategory = entry.get("supercategory")
            self.categories[identity] = Category(
                identity, name, supercategory if isinstance(supercategory, str) else ""
            )
        if not self.categories:
            raise DataError(f"{self.json_path} has no categories; list at least one class.")

    def read_images(self, entries: list[Any], image_dir: Path) -> None:
        for position, entry in enumerate(entries):
            fields = entry if isinstance(entry, dict) else {}
            image_id, file_name = fields.get("id"), fields.get("file_name")
            width, height = fields.get("width"), fields.get("height")
            if type(image_id) is not int:
                fault = f"image number {position} has the id {image_id!r:.40}; ids are integers."
                self._add("malformed image entry", f"{self.json_path}: {fault}", None)
            elif image_id in self.images or image_id in self.refused_images:
                self._add(
                    "duplicate image id",
                    f"{self.json_path}: the image id {image_id} occurs more than once "
                    f"(again for {file_name!r:.80}); give each image its own id.",
                    image_id,
                )
            elif not isinstance(file_name, str) or not file_name:
                self.refused_images.add(image_id)
                self._add(
                    "malformed image entry",
                    f"{self.json_path}: image {image_id} has no file_name; "
                    "add the path of its file inside the image folder.",
                    image_id,
                )
            elif type(width) is not int or type(height) is not int or min(width, height) < 1:
                self.refused_images.add(image_id)
                self._add(
                    "malformed image entry",
                    f"{self.json_path}: image {image_id} has width {width!r:.40} and height "
                    f"{height!r:.40}; both are whole numbers of pixels.",
                    image_id,
                )
            else:
                path = image_dir / file_name
                self.images[image_id] = ImageRecord(image_id, file_name, path, width, height, ())
                continue
            self.dropped["images"] += 1

    def read_annotations(self, entries: list[Any]) -> None:
        seen: set[int] = set()
        for position, entry in enumerate(entries):
            instance = self._read_annotation(entry, position, seen)
            if instance is None:
                self.dropped["annotations"] += 1
            else:
                self.instances.setdefault(entry["image_id"], []).append(instance)

    def _read_annotation(self, entry: Any, position: int, seen: set[int]) -> Instance | None:
        """The instance, or None when it is left out (and the fault noted)."""
        fields = entry if isinstance(entry, dict) else {}
        identity, image_id = fields.get("id"), fields.get("image_id")
        if type(identity) is not int:
            text = f"annotation number {position} has the id {identity!r:.40}; ids are integers."
            self._add("malformed annotation", f"{self.json_path}: {text}", None)
            return None
        where = f"{self.json_path}: annotation {identity} (image {image_id!r:.40})"
        known_image = image_id if type(image_id) is int else None

        def report(kind: str, sentence: str, *, is_note: bool = False) -> None:
            self._add(kind, f"{where} {sentence}", known_image, identity, is_note=is_note)

        if identity in seen:
            report("duplicate annotation id", "has an id used before; give each its own id.")
            return None
        seen.add(identity)
        image = None if known_image is None else self.images.get(known_image)
        if image is None:
            if known_image not in self.refused_images:
                report("unknown image id", "belongs to no image of the file; add or remove it.")
            return None
        category_id = fields.get("category_id")
        if type(category_id) is not int or category_id not in self.categories:
            report(
                "unknown category id",
                f"has the category {category_id!r:.40} that the file does not list; "
                "add the category or correct the id.",
            )
            return None
        crowd = fields.get("iscrowd", 0)
        if crowd not in (0, 1):
            report("malformed annotation", f"has iscrowd {crowd!r:.40}; it is 0 or 1.")
            return None
        box = _read_box(fields.get("bbox"), image, report)
        if box is None:
            return None
        area = fields.get("area")
        if area is None:
            area = (box[2] - box[0]) * (box[3] - box[1])
        elif type(area) not in (int, float) or not 0 < area < math.inf:
            text = f"has the area {area!r:.40}; the area of its box is used instead."
            report("area replaced", text, is_note=True)
            area = (box[2] - box[0]) * (box[3] - box[1])
        segmentation = self._read_segmentation(fields.get("segmentation"), image, report)
        points = self._read_points(fields.get("points"), image, report)
        return Instance(identity, category_id, box, segmentation, bool(crowd), float(area), points)

    def _read_segmentation(
        self, raw: Any, image: ImageRecord, report: Report
    ) -> RawSegmentation | None:
        if is_absent(raw):
            return None
        found = find_fault(raw, image.height, image.width)
        if found:
            report(found[0], f"{found[1]}; correct it or make it [] for a box without a mask.")
            self.dropped["masks"] += 1
            return None
        if is_empty(raw, image.height, image.width, exact=self.exact_masks):
            text = "has a mask without a single pixel; it is used as a box without a mask."
            report("empty mask", text, is_note=True)
            return None
        segmentation: RawSegmentation = raw
        return segmentation

    def _read_points(self, raw: Any, image: ImageRecord, report: Report) -> tuple[Point, ...]:
        try:
            return read_points(raw, image.width, image.height)
        except ValueError as error:
            report("malformed points", f"{error}; correct it or remove the points.")
            self.dropped["points"] = self.dropped.get("points", 0) + 1
            return ()

    def check_files(self, image_dir: Path, *, decode: bool) -> None:
        records = list(self.images.values())
        tasks = [records[i : i + _FILES_PER_TASK] for i in range(0, len(records), _FILES_PER_TASK)]
        with ThreadPoolExecutor(min(16, 4 * (os.cpu_count() or 1))) as pool:
            results = list(pool.map(lambda task: _check_files(task, decode), tasks))
        found = [pair for result in results for pair in result]
        missing = sum(error.kind == "missing image" for _, error in found)
        if records and missing == len(records):
            raise DataError(
                f"none of the {missing} images of {self.json_path} is in {image_dir} (looked for "
                f"{records[0].file_name} and the others); check the image folder."
            )
        for record, error in found:
            message = f"{str(error)[:-1]} (image {record.id} of {self.json_path})."
            self._add(error.kind, message, record.id, file=record.path)
            self.dropped["images"] += 1
            self.dropped["annotations"] += len(self.instances.pop(record.id, ()))
            del self.images[record.id]

    def index(self, image_dir: Path) -> CocoIndex:
        images = []
        for _, image in sorted(self.images.items()):
            instances = sorted(self.instances.get(image.id, ()), key=lambda item: item.id)
            images.append(replace(image, instances=tuple(instances)))
        return CocoIndex(
            json_path=self.json_path,
            image_dir=image_dir,
            categories=tuple(category for _, category in sorted(self.categories.items())),
            images=tuple(images),
            problems=tuple(self.problems),
            dropped=dict(self.dropped),
        )

    def _add(
        self,
        kind: str,
        message: str,
        image_id: int | None,
        annotation_id: int | None = None,
        *,
        file: Path | None = None,
        is_note: bool = False,
    ) -> None:
        file = file or self.json_path
        self.problems.append(Problem(kind, message, file, image_id, annotation_id, is_note))


def _read_box(raw: Any, image: ImageRecord, report: Report) -> Box | None:
    """COCO's (x, y, width, height) as xyxy inside the image; None for an unusable box."""
    try:
        x, y, width, height = raw
        finite = math.isfinite(x + y + width + height)
    except (TypeError, ValueError, OverflowError):
        text = f"has the bbox {raw!r:.80}; it is four numbers x, y, width, height."
        report("malformed box", text)
        return None
    if not finite:
        report("malformed box", f"has the bbox {raw}; correct the NaN or infinite number.")
        return None
    if width <= 0 or height <= 0:
        kind = "zero-area box" if min(width, height) == 0 else "negative box"
        report(kind, f"has the bbox {raw} of no area; correct or remove the annotation.")
        return None
    x2, y2 = x + width, y + height
    left, top, right, bottom = max(x, 0), max(y, 0), min(x2, image.width), min(y2, image.height)
    size = f"the image of {image.width} x {image.height}"
    if right <= left or bottom <= top:
        report("box outside image", f"has the bbox {raw} outside {size}; correct or remove it.")
        return None
    if max(left - x, top - y, x2 - right, y2 - bottom) > _CLIP_NOTE_PIXELS:
        report("box clipped", f"has the bbox {raw} partly outside {size}; clipped.", is_note=True)
    return float(left), float(top), float(right), float(bottom)


def _check_files(
    records: list[ImageRecord], decode: bool
) -> list[tuple[ImageRecord, ImageFileError]]:
    found = []
    for record in records:
        try:
            check_image(record.path, (record.width, record.height), decode=decode)
        except ImageFileError as error:
            found.append((record, error))
    return found
