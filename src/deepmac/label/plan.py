"""Which boxes get a mask, which do not, and why."""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from deepmac.data.annotations.box_file import BoxFile
from deepmac.data.annotations.doubts import is_only_its_box
from deepmac.data.annotations.pictures import is_file, picture_sizes, require_folder, spelled
from deepmac.data.annotations.points import is_ours, read_points
from deepmac.data.annotations.problems import Problem, describe_kinds
from deepmac.data.annotations.records import Point
from deepmac.data.annotations.segmentation import find_fault, is_absent
from deepmac.data.annotations.turned import turned_box
from deepmac.data.images import MAX_PIXELS, ImageFileError, check_image
from deepmac.errors import DataError
from deepmac.label.choice import TOO_MANY, Choice, is_of_model
from deepmac.label.settings import OnError
from deepmac.predict.boxes import box_fault
from deepmac.predict.points import Points, padded_points, point_fault

_FEWEST, _MOST = 16, 1024
_MANY_PARTS = 1024


def images_per_part(images: int) -> int:
    """Neighbours whose masks are put on disk together; a killed job does at most these again.

    More where there are many images, so that no folder holds a million files.
    """
    return _FEWEST * min(_MOST // _FEWEST, max(1, images // (_FEWEST * _MANY_PARTS)))


_HUMAN, _CROWD, _NO_BOX = "human mask kept", "crowd region", "annotation without a box"


@dataclass(frozen=True, slots=True)
class ImageTask:
    """An image and its boxes that get masks.

    Attributes:
        position: of the image in the content's ``images``.
        path: of the picture.
        size: (width, height).
        rows: (n,) int64 positions in the content's ``annotations``.
        boxes: (n, 4) float64 xyxy in pixels; may reach out of the image.
        degrees: (n,) float64, by which each box is turned about its centre, clockwise on the
            screen; none is turned by default.
        points: (n, K, 3) float64 clicks x, y in pixels and label, NaN where there is no further
            one; none by default.
    """

    position: int
    path: Path
    size: tuple[int, int]
    rows: NDArray[np.int64]
    boxes: NDArray[np.float64]
    degrees: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    points: Points = field(default_factory=lambda: np.zeros((0, 0, 3)))

    def __post_init__(self) -> None:
        if len(self.degrees) != len(self.rows):
            object.__setattr__(self, "degrees", np.zeros(len(self.rows)))
        if len(self.points) != len(self.rows):
            object.__setattr__(self, "points", np.zeros((len(self.rows), 0, 3)))

    def some(self, rows: NDArray[np.int64]) -> ImageTask:
        """The same image with some of its boxes."""
        fields = {name: getattr(self, name)[rows] for name in ("rows", "boxes", "degrees")}
        return replace(self, **fields, points=self.points[rows])


@dataclass(frozen=True)
class Plan:
    """What is to be done with a box file.

    Attributes:
        boxes: the box file.
        image_dir: folder of the pictures.
        parts: tasks in the order of the images, those of some neighbours together; the number of
            a part depends on the image's position alone.
        left_alone: how many annotations get no mask and why, faults not counted.
        problems: faulty items; they get no mask.
        faulty: how many annotations are left out by them.
        sound_images: positions of the images with an id and a file name.
        sizes: (width, height) of those whose size is known.
        rows: positions of the sound annotations, by position of their image.
        names: of the sound categories, by id.
    """

    boxes: BoxFile
    image_dir: Path
    parts: dict[int, list[ImageTask]]
    left_alone: dict[str, int]
    problems: list[Problem]
    faulty: int
    sound_images: frozenset[int] = frozenset()
    sizes: dict[int, tuple[int, int]] = field(default_factory=dict)
    rows: dict[int, array[int]] = field(default_factory=dict)
    names: dict[int | str, str] = field(default_factory=dict)

    @property
    def with_points(self) -> int:
        """Boxes with clicks."""
        tasks = iter_tasks(self)
        return sum(int((~np.isnan(task.points)).any(axis=(1, 2)).sum()) for task in tasks)

    @property
    def num_images(self) -> int:
        """Images with such boxes."""
        return sum(map(len, self.parts.values()))


def make_plan(
    boxes: BoxFile,
    image_dir: Path,
    on_error: OnError = "stop",
    *,
    choice: Choice | None = None,
    trust_sizes: bool = True,
    images_together: int | None = None,
) -> Plan:
    """Check every box and sort out those that get a mask.

    An annotation that has a segmentation keeps it. Crowd regions and annotations without a box get
    none. Malformed, reversed, empty or outside boxes, repeated or unknown ids, missing images and
    numbers that JSON has not are problems.

    Args:
        boxes: the box file.
        image_dir: folder of the pictures.
        on_error: what problems do.
        choice: which of the sound boxes get a mask; all by default.
        trust_sizes: False compares the sizes that the file declares for images with masks with the
            pictures themselves, for outputs in which those masks are drawn. (The picture of a box
            is compared in any case, when it is decoded.)
        images_together: neighbours whose masks are put on disk together; by their number where it
            is left out.

    Raises:
        DataError: the image folder does not exist; or ``on_error`` is ``stop`` and there are
            problems (the first is named, the others counted).
    """
    require_folder(image_dir)
    planner = _Planner(boxes, image_dir, choice or Choice())
    planner.read_top()
    planner.read_images()
    planner.read_annotations()
    if not trust_sizes:
        planner.compare_sizes()
    count = len(boxes.content["images"])
    parts = planner.parts(images_together or images_per_part(count))
    if planner.problems and on_error == "stop":
        raise DataError(_stop_message(planner.problems))
    return Plan(
        boxes,
        image_dir,
        parts,
        dict(planner.left_alone),
        planner.problems,
        planner.faulty,
        frozenset(planner.position_of.values()),
        planner.sizes,
        planner.rows,
        planner.names,
    )


def _stop_message(problems: list[Problem]) -> str:
    first, others = problems[0].message, problems[1:]
    more = f" ... and {len(others)} more ({describe_kinds(others)})" if others else ""
    return f"{first}{more}; --on-error skip labels the rest"


_Found = tuple[int, tuple[float, ...], float, tuple[Point, ...]]
"""Row, xyxy box, degrees, clicks."""


@dataclass
class _Planner:
    boxes: BoxFile
    image_dir: Path
    choice: Choice
    problems: list[Problem] = field(default_factory=list)
    left_alone: Counter[str] = field(default_factory=Counter)
    faulty: int = 0
    position_of: dict[Any, int] = field(default_factory=dict)
    sizes: dict[int, tuple[int, int]] = field(default_factory=dict)
    found: dict[int, list[_Found]] = field(default_factory=dict)
    rows: dict[int, array[int]] = field(default_factory=dict)
    drawn: set[int] = field(default_factory=set)  # images with masks
    names: dict[int | str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.problems += [problem for problem in self.boxes.problems if not problem.is_note]
        for problem in self.boxes.problems:
            if problem.is_note:
                self.left_alone[problem.message] += 1

    def read_top(self) -> None:
        """Categories, and everything else that is no image and no annotation."""
        content = self.boxes.content
        for position, entry in enumerate(content["categories"]):
            identity = entry.get("id") if isinstance(entry, dict) else None
            if _is_id(identity):
                self.names[identity] = str(entry.get("name", identity))
            else:
                text = f"category number {position} is {entry!r:.60}; it needs an id and a name."
                self._add("malformed category", text)
        for key, value in content.items():
            if key not in ("images", "annotations") and not _is_json(value):
                self._add("number that JSON has not", f"{key!r:.40} holds NaN or an infinite one.")

    def read_images(self) -> None:
        """Note the position of each id; sizes that the file does not give come from the headers."""
        unknown = []
        for position, entry in enumerate(self.boxes.content["images"]):
            fields = entry if isinstance(entry, dict) else {}
            identity, name = fields.get("id"), fields.get("file_name")
            if not _is_id(identity) or not isinstance(name, str) or not name:
                self._add(
                    "malformed image entry",
                    f"image number {position} has the id {identity!r:.40} and the file_name "
                    f"{name!r:.80}; it needs both.",
                )
            elif identity in self.position_of:
                self._add(
                    "duplicate image id",
                    f"the image id {identity!r:.40} occurs more than once (again for "
                    f"{name!r:.80}); give each image its own id.",
                )
            else:
                self.position_of[identity] = position
                if not _is_json(entry):
                    self._add("number that JSON has not", f"image {identity!r:.40} holds one.")
                width, height = fields.get("width"), fields.get("height")
                if type(width) is not int or type(height) is not int or min(width, height) < 1:
                    unknown.append(position)
                elif width * height > MAX_PIXELS:
                    text = f"image {identity!r:.40} has {width!r:.20} x {height!r:.20} pixels"
                    self._add("image too large", f"{text}, more than {MAX_PIXELS:,}.")
                else:
                    self.sizes[position] = width, height
        self._read_headers(unknown)

    def read_annotations(self) -> None:
        """Sort the boxes by image; report the faulty."""
        seen: set[int | str] = set()
        for row, entry in enumerate(self.boxes.content["annotations"]):
            fields = entry if isinstance(entry, dict) else {}
            identity, image_id = fields.get("id"), fields.get("image_id")
            where = f"annotation {identity!r:.40} (image {image_id!r:.40})"
            fault: tuple[str, str] | None = None
            if not _is_id(identity):
                where = f"annotation number {row}"
                fault = "malformed annotation", f"has the id {identity!r:.40}; give it one."
            elif identity in seen:
                fault = "duplicate annotation id", "has an id used before; give each its own."
            elif not _is_id(image_id) or image_id not in self.position_of:
                fault = "unknown image id", "belongs to no image of the file; add or remove it."
            else:
                seen.add(identity)
                category = fields.get("category_id")
                position = self.position_of[image_id]
                if not _is_id(category) or category not in self.names:
                    text = f"has the category {category!r:.40} that the file does not list."
                    fault = "unknown category id", text
                else:
                    fault = self._sort(row, fields, position)
                    if fault is None:
                        self.rows.setdefault(position, array("q")).append(row)
                        if not _is_json(entry):
                            self._add("number that JSON has not", f"{where} holds one.")
            if fault:
                self.faulty += 1
                self._add(fault[0], f"{where} {fault[1]}")

    def parts(self, together: int) -> dict[int, list[ImageTask]]:
        """Tasks by part, without the images whose file is missing."""
        parts: dict[int, list[ImageTask]] = {}
        for position in sorted(self.found):
            entry = self.boxes.content["images"][position]
            name = entry["file_name"]
            path = self.image_dir / (spelled(self.image_dir, name) or name)
            if not is_file(path):
                message = f"image {path} does not exist; check the image folder and the file_name."
                self.problems.append(Problem("missing image", message, path))
                self.faulty += len(self.found[position])
                continue
            rows, boxes, degrees, points = zip(*self._best(self.found[position]), strict=True)
            task = ImageTask(
                position,
                path,
                self.sizes[position],
                np.array(rows, dtype=np.int64),
                np.array(boxes, dtype=np.float64),
                np.array(degrees, dtype=np.float64),
                padded_points(points),
            )
            parts.setdefault(position // together, []).append(task)
        return parts

    def _sort(self, row: int, fields: dict[str, Any], position: int) -> tuple[str, str] | None:
        """Put one annotation where it belongs; its fault, if any."""
        size = self.sizes.get(position)
        raw = fields.get("segmentation")
        again = self.choice.redo is not None and is_of_model(fields)
        if not is_absent(raw):
            self.drawn.add(position)
        if not is_absent(raw) and not again and not self._is_rectangle(raw, fields, size):
            self.left_alone[_HUMAN] += 1
            fault = find_fault(raw, size[1], size[0]) if size else None
            if fault:
                self.left_alone[f"of these with a {fault[0]}"] += 1
            return None
        if fields.get("iscrowd"):
            self.left_alone[_CROWD] += 1
            return None
        if reason := self.choice.refuses(fields):
            self.left_alone[reason] += 1
            return None
        if fields.get("bbox") in (None, []) and fields.get("corners") is None:
            self.left_alone[_NO_BOX] += 1
            return None
        if size is None:
            return "box of an unreadable image", "belongs to an image that has no size."
        try:
            turned = turned_box(fields)
        except ValueError as error:
            return "malformed box", f"{error}; correct it."
        if turned is not None:
            left, top, right, bottom = turned.hull
            hull = _checked_box([left, top, right - left, bottom - top], size)
            if isinstance(hull[0], str):
                return hull  # type: ignore[return-value]
            return self._find(row, fields, position, turned.box, turned.degrees, hull)  # type: ignore[arg-type]
        box = _checked_box(fields["bbox"], size)
        if isinstance(box[0], str):
            return box  # type: ignore[return-value]
        return self._find(row, fields, position, box, 0.0, box)  # type: ignore[arg-type]

    def _find(
        self,
        row: int,
        fields: dict[str, Any],
        position: int,
        box: tuple[float, ...],
        degrees: float,
        around: tuple[float, ...],
    ) -> tuple[str, str] | None:
        """Take a box with its clicks, which lie ``around``; their fault, if any."""
        size = self.sizes[position]
        raw = fields.get("points")
        points: tuple[Point, ...] = ()
        if is_ours(raw):  # other tools have entries of that name
            try:
                points = read_points(raw, *size)
            except ValueError as error:
                return "malformed points", f"{error}; correct or remove it."
            for point in points:
                if fault := point_fault(point, around, size):
                    return "malformed points", f"has the point {list(point)}, which {fault}."
        self.found.setdefault(position, []).append((row, box, degrees, points))
        return None

    def _is_rectangle(self, raw: Any, fields: dict[str, Any], size: Any) -> bool:
        """Whether a mask is no more than its box, as many exporters write one for boxes."""
        if size is None or fields.get("iscrowd") or fields.get("bbox") in (None, []):
            return False
        if is_of_model(fields):
            return False
        box = _checked_box(fields["bbox"], size)
        if isinstance(box[0], str) or find_fault(raw, size[1], size[0]):
            return False
        return is_only_its_box(raw, box, size[1], size[0])  # type: ignore[arg-type]

    def compare_sizes(self) -> None:
        """Drop the declared sizes that are not those of the pictures whose masks are drawn."""
        images = self.boxes.content["images"]
        for position in sorted(self.drawn & self.sizes.keys()):
            path = self.image_dir / images[position]["file_name"]
            if not is_file(path):  # the masks of a picture that is elsewhere can be drawn too
                continue
            try:
                check_image(path, self.sizes[position])
            except ImageFileError as error:
                self.problems.append(Problem(error.kind, str(error), path))
                self.faulty += len(self.found.pop(position, ()))
                del self.sizes[position]

    def _best(self, found: list[_Found]) -> list[_Found]:
        """Those within ``--max-per-image``."""
        if self.choice.max_per_image is None:
            return found
        annotations = self.boxes.content["annotations"]
        kept = self.choice.best([annotations[row] for row, *_ in found])
        if len(kept) < len(found):
            self.left_alone[TOO_MANY] += len(found) - len(kept)
        return [found[n] for n in kept]

    def _read_headers(self, positions: list[int]) -> None:
        # The readers of other formats have looked at every header and told of the unreadable.
        if self.boxes.format != "coco":
            return
        images = self.boxes.content["images"]
        names = [images[position]["file_name"] for position in positions]
        paths = [self.image_dir / (spelled(self.image_dir, name) or name) for name in names]
        for position, size in zip(positions, picture_sizes(paths), strict=True):
            if isinstance(size, ImageFileError):
                path = self.image_dir / images[position]["file_name"]
                self.problems.append(Problem(size.kind, str(size), path))
            else:
                self.sizes[position] = size

    def _add(self, kind: str, sentence: str) -> None:
        path = self.boxes.path
        self.problems.append(Problem(kind, f"{path}: {sentence}", path))


def _checked_box(raw: Any, size: tuple[int, int]) -> tuple[float, ...] | tuple[str, str]:
    """COCO's xywh as xyxy, or (kind, half a sentence)."""
    try:
        x, y, width, height = (float(value) for value in raw)
    except (TypeError, ValueError, OverflowError):
        return "malformed box", f"has the bbox {raw!r:.80}; it is four numbers x, y, width, height."
    box = x, y, x + width, y + height
    if fault := box_fault(box, size):
        return fault[0], f"has the bbox {raw}, which {fault[1]}; correct it."
    return bounded(box, size)


def bounded(
    box: tuple[float, float, float, float], size: tuple[int, int]
) -> tuple[float, float, float, float]:
    """A sound xyxy box without what lies far beyond its picture.

    That means nothing, and drawing it would take for ever.
    """
    left, top, right, bottom = box
    right, bottom = min(right, 2.0 * size[0]), min(bottom, 2.0 * size[1])
    return max(left, -float(size[0])), max(top, -float(size[1])), right, bottom


def _is_id(value: Any) -> TypeGuard[int | str]:
    return isinstance(value, int | str) and not isinstance(value, bool)


def _is_json(value: Any) -> bool:
    """Whether a value holds no number that JSON has not (NaN, infinity)."""
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return False
    return True


def iter_tasks(plan: Plan) -> Iterator[ImageTask]:
    """All tasks in the order of their images."""
    for number in sorted(plan.parts):
        yield from plan.parts[number]
