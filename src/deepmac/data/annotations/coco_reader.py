"""From the raw lists of a COCO file to a table; every fault on the way becomes a Problem."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from deepmac.data.annotations.doubts import (
    LEAST_OVERLAP,
    is_only_its_box,
    mask_box,
    odd_boxes,
    overlap,
)
from deepmac.data.annotations.fields import (
    Report,
    category_ids,
    corners,
    file_name_of,
    is_side,
    read_box,
)
from deepmac.data.annotations.identities import integers_of, is_number
from deepmac.data.annotations.pictures import picture_size
from deepmac.data.annotations.points import is_ours, read_points
from deepmac.data.annotations.problems import Problem
from deepmac.data.annotations.reading import Reading
from deepmac.data.annotations.records import Box, Category, ImageRecord, Instance, Point
from deepmac.data.annotations.segmentation import RawSegmentation, find_fault, is_absent, is_empty
from deepmac.data.annotations.store import Parsed
from deepmac.data.annotations.table import TableBuilder
from deepmac.data.images import MAX_PIXELS, ImageFileError
from deepmac.errors import DataError


class CocoReader:
    """Turns raw lists into a table and notes every fault on the way.

    Args:
        json_path: named in every problem.
        reading: what the file leaves open.
    """

    def __init__(self, json_path: Path, reading: Reading) -> None:
        self.json_path, self.reading = json_path, reading
        self.problems: list[Problem] = []
        self.dropped = {"images": 0, "annotations": 0, "masks": 0}
        self.categories: dict[int, Category] = {}
        self.images: dict[int, ImageRecord] = {}
        self.refused_images: set[int] = set()  # known ids whose entry or file is unusable
        self.own_ids: Mapping[int, str | int] = {}  # by ours, where the file has others
        self.sizes_from_files = False
        self.builder = TableBuilder()
        self.same_name: dict[int, list[int]] = {}  # categories that repeat another's name
        self.position_of: dict[int, int] = {}
        self._number_of: Mapping[int | str, int] | None = None
        self._row_number_of: Mapping[int | str, int] | None = None
        self._found: list[tuple[int, Problem]] = []  # (annotation's position, problem)
        self._seen: set[int] = set()
        self._used: dict[int, list[int]] = {}  # category -> objects, crowds
        self._our_points = False

    def read_categories(self, entries: list[Any]) -> None:
        """Classes; DataError where they cannot be told apart."""
        names: dict[str, int] = {}
        for position, entry in enumerate(entries):
            fields: dict[str, Any] = entry if isinstance(entry, dict) else {}
            identity, name = fields.get("id"), fields.get("name")
            if type(name) in (int, float):
                name = str(name)
            if not is_number(identity) or not isinstance(name, str) or not name.strip():
                raise DataError(
                    f"{self.json_path}: category number {position} is {entry!r:.80}; "
                    "it needs an integer id and a name."
                )
            identity = int(identity)
            if identity in self.categories:
                raise DataError(
                    f'{self.json_path}: categories "{self.categories[identity].name}" and '
                    f'"{name}" share the id {identity}; give each category its own id.'
                )
            if name.strip() in names:
                self.same_name.setdefault(names[name.strip()], []).append(identity)
            else:
                names[name.strip()] = identity
            supercategory = fields.get("supercategory")
            self.categories[identity] = Category(
                identity, name, supercategory if isinstance(supercategory, str) else ""
            )
        if not self.categories:
            raise DataError(f"{self.json_path} has no categories; list at least one class.")

    def read_images(self, entries: list[Any], image_dir: Path) -> None:
        """Pictures, with the sizes of those that the file gives none taken from their headers."""
        ids = (e.get("id") if isinstance(e, dict) else None for e in entries)
        self._number_of = integers_of(ids)
        if self._number_of is not None:
            self.own_ids = {number: own for own, number in self._number_of.items()}
            self._add(
                "image ids numbered",
                f"{self.json_path}: its image ids are text or too large for 64 bits; they are "
                "numbered from 1, and results name the file's own.",
                None,
                is_note=True,
            )
        for position, entry in enumerate(entries):
            image = self._read_image(entry, position, image_dir)
            if image is None:
                self.dropped["images"] += 1
            else:
                self.images[image.id] = image
        ordered = [self.images[identity] for identity in sorted(self.images)]
        self.position_of = {image.id: position for position, image in enumerate(ordered)}
        self.builder.add_images(ordered)

    def _read_image(self, entry: Any, position: int, image_dir: Path) -> ImageRecord | None:
        fields: dict[str, Any] = entry if isinstance(entry, dict) else {}
        raw, file_name = fields.get("id"), file_name_of(fields)
        image_id = self._number(raw)
        if image_id is None:
            fault = f"image number {position} has the id {raw!r:.40}; ids are integers."
            self._add("malformed image entry", f"{self.json_path}: {fault}", None)
            return None
        where = f"{self.json_path}: image {raw!r:.60}"
        if image_id in self.images or image_id in self.refused_images:
            self._add(
                "duplicate image id",
                f"{self.json_path}: the image id {raw!r:.60} occurs more than once "
                f"(again for {file_name!r:.80}); give each image its own id.",
                image_id,
            )
            return None
        self.refused_images.add(image_id)
        if file_name is None:
            self._add(
                "malformed image entry",
                f"{where} has no file_name; add the path of its file inside the image folder.",
                image_id,
            )
            return None
        width, height = fields.get("width"), fields.get("height")
        if width is None and height is None:
            self.sizes_from_files = True
            try:
                width, height = picture_size(image_dir, file_name)
            except ImageFileError as error:
                text = f"{where} has no width and height, and its {error}"
                self._add(error.kind, text, image_id, file=image_dir / file_name)
                return None
        if not is_side(width) or not is_side(height):
            self._add(
                "malformed image entry",
                f"{where} has width {width!r:.40} and height {height!r:.40}; both are whole "
                "numbers of pixels.",
                image_id,
            )
            return None
        if width * height > MAX_PIXELS:
            text = (
                f"has {int(width)} x {int(height)} pixels, more than {MAX_PIXELS:,}; scale it down."
            )
            self._add("image too large", f"{where} {text}", image_id)
            return None
        self.refused_images.discard(image_id)
        known = self.categories.keys()
        absent = category_ids(fields.get("neg_category_ids"), known)
        partly = category_ids(fields.get("not_exhaustive_category_ids"), known)
        exhaustive = self.reading.exhaustive
        if exhaustive is None:
            federated = "neg_category_ids" in fields or "not_exhaustive_category_ids" in fields
            exhaustive = fields.get("exhaustive") is not False and not federated
        return ImageRecord(
            image_id,
            file_name,
            image_dir / file_name,
            int(width),
            int(height),
            (),
            exhaustive=exhaustive,
            neg_category_ids=absent,
            not_exhaustive_category_ids=partly,
        )

    def read_annotations(self, entries: Iterable[Any]) -> None:
        """All annotations, one after the other."""
        entries = list(entries)
        self.number_rows(entry.get("id") if isinstance(entry, dict) else None for entry in entries)
        for position, entry in enumerate(entries):
            self.read_annotation(entry, position)

    def number_rows(self, ids: Iterable[Any]) -> None:
        """Look at the ids of all annotations before the first is read."""
        values = list(ids)
        if values and all(value is None for value in values):
            self._row_number_of = {}
        else:
            self._row_number_of = integers_of(values)
        if self._row_number_of is not None:
            self._add(
                "annotation ids numbered",
                f"{self.json_path}: its annotations have no ids, or ids that are text or too "
                "large for 64 bits; they are numbered from 1.",
                None,
                is_note=True,
            )

    def read_annotation(self, entry: Any, position: int) -> None:
        """One annotation: into the table, or left out with its fault noted."""
        fields: dict[str, Any] = entry if isinstance(entry, dict) else {}
        instance, image_id = self._read_annotation(fields, position)
        if instance is None or image_id is None:
            self.dropped["annotations"] += 1
            return
        self.count(instance.category_id, instance.iscrowd)
        image = self.images[image_id]
        self.builder.add(self.position_of[image_id], instance, image.height, image.width)

    def count(self, category_id: int, iscrowd: bool, number: int = 1) -> None:
        """Remember how often a class occurs."""
        self._used.setdefault(category_id, [0, 0])[bool(iscrowd)] += number

    def _read_annotation(
        self, fields: Mapping[str, Any], position: int
    ) -> tuple[Instance | None, int | None]:
        raw_id, raw_image = fields.get("id"), fields.get("image_id")
        if self._row_number_of == {}:
            identity: int | None = position + 1
            raw_id = identity
        elif self._row_number_of is not None:
            identity = self._row_number_of.get(raw_id) if isinstance(raw_id, int | str) else None
        else:
            identity = int(raw_id) if is_number(raw_id) else None
        if identity is None:
            text = f"annotation number {position} has the id {raw_id!r:.40}; ids are integers."
            self._add("malformed annotation", f"{self.json_path}: {text}", None, at=position)
            return None, None
        shown = raw_id if isinstance(raw_id, int) else repr(raw_id)[:60]
        where = f"{self.json_path}: annotation {shown} (image {raw_image!r:.40})"
        known_image = self._number(raw_image)

        def report(kind: str, sentence: str, *, is_note: bool = False) -> None:
            text = f"{where} {sentence}"
            self._add(kind, text, known_image, identity, at=position, is_note=is_note)

        if identity in self._seen:
            report("duplicate annotation id", "has an id used before; give each its own id.")
            return None, None
        self._seen.add(identity)
        image = None if known_image is None else self.images.get(known_image)
        if image is None:
            if known_image not in self.refused_images:
                report("unknown image id", f"{self._unknown_image(raw_image)}; add or remove it.")
            return None, None
        category_id = fields.get("category_id")
        if not is_number(category_id) or int(category_id) not in self.categories:
            report(
                "unknown category id",
                f"has the category {category_id!r:.40} that the file does not list; "
                "add the category or correct the id.",
            )
            return None, None
        crowd = fields.get("iscrowd", 0)
        crowd = 0 if crowd is None else crowd
        if not isinstance(crowd, int | float) or crowd not in (0, 1):
            report("malformed annotation", f"has iscrowd {crowd!r:.40}; it is 0 or 1.")
            return None, None
        crowd = bool(crowd) and self.reading.crowds == "regions"
        if fields.get("ignore") in (1, True) and not crowd:
            report("ignored object", "has ignore 1; it is a region like a crowd's.", is_note=True)
            crowd = True
        raw_box = fields.get("bbox")
        derived = raw_box is None or raw_box == []
        box = None if derived else read_box(raw_box, image, report)
        if box is None and not derived:
            return None, None
        segmentation = self._read_segmentation(fields.get("segmentation"), image, report)
        if derived and segmentation is not None:
            box = mask_box(segmentation, image.height, image.width)
            report("box from mask", "has no bbox; its mask's own is used.", is_note=True)
        if box is None:
            read_box(raw_box, image, report)
            return None, None
        made = fields.get("mask_source") == "model" or (
            "mask_source" not in fields and "mask_score" in fields
        )
        if segmentation is not None and not crowd and not made:
            segmentation = self._doubted(segmentation, box, image, report)
        area = fields.get("area")
        if area is None:
            area = (box[2] - box[0]) * (box[3] - box[1])
        elif type(area) not in (int, float) or not 0 < area <= 1e300:
            text = f"has the area {area!r:.40}; the area of its box is used instead."
            report("area replaced", text, is_note=True)
            area = (box[2] - box[0]) * (box[3] - box[1])
        points = self._read_points(fields.get("points"), image, report)
        score = fields.get("mask_score")
        sure = isinstance(score, int | float) and 0 <= score <= 1
        score = float(score) if sure and score is not None else None
        return Instance(
            identity,
            int(category_id),
            box,
            segmentation,
            crowd,
            float(area),
            points,
            "model" if made else "human",
            score,
            corners(fields.get("corners")),
        ), known_image

    def _read_segmentation(
        self, raw: Any, image: ImageRecord, report: Report
    ) -> RawSegmentation | None:
        if is_absent(raw):
            return None
        if isinstance(raw, list) and len(raw) > 1:
            good = [r for r in raw if not (isinstance(r, list) and len(r) in (0, 2, 4))]
            if good and len(good) < len(raw):
                text = f"has {len(raw) - len(good)} of {len(raw)} outlines of fewer than 3 points"
                report("outline left out", f"{text}; the others are its mask.", is_note=True)
                raw = good
        found = find_fault(raw, image.height, image.width)
        if found:
            report(found[0], f"{found[1]}; correct it or make it [] for a box without a mask.")
            self.dropped["masks"] += 1
            return None
        if is_empty(raw, image.height, image.width, exact=self.reading.exact_masks):
            text = "has a mask without a single pixel; it is used as a box without a mask."
            report("empty mask", text, is_note=True)
            return None
        segmentation: RawSegmentation = raw
        return segmentation

    def _doubted(
        self, mask: RawSegmentation, box: Box, image: ImageRecord, report: Report
    ) -> RawSegmentation | None:
        """The mask, or None where it is no more than its box (or unlike it and to be dropped)."""
        rectangle = self.reading.rectangle_masks == "box"
        if rectangle and is_only_its_box(mask, box, image.height, image.width):
            report(
                "mask is only its box",
                "has a mask that is exactly its box: it is used as a box without a mask "
                "(data.rectangle_masks=mask keeps such masks).",
                is_note=True,
            )
            return None
        own = mask_box(mask, image.height, image.width)
        if own is not None and overlap(own, box) >= LEAST_OVERLAP:
            return mask
        spans = "nothing" if own is None else ", ".join(f"{v:g}" for v in own)
        drop = self.reading.mismatched_masks == "drop"
        report(
            "box and mask disagree",
            f"has the box {', '.join(f'{v:g}' for v in box)} but a mask that spans {spans} "
            "(x0, y0, x1, y1): one of them is wrong; "
            + ("the mask is left out." if drop
               else "correct it, or leave such masks out with data.mismatched_masks=drop."),
            is_note=True,
        )  # fmt: skip
        return None if drop else mask

    def _read_points(self, raw: Any, image: ImageRecord, report: Report) -> tuple[Point, ...]:
        self._our_points = self._our_points or is_ours(raw)
        try:
            return read_points(raw, image.width, image.height)
        except ValueError as error:
            report("malformed points", f"{error}; correct it or remove the points.")
            self.dropped["points"] = self.dropped.get("points", 0) + 1
            return ()

    def parsed(self) -> Parsed:
        """Settle what needs all of the file, and give what was read."""
        self._settle_names()
        self._settle_points()
        self._note_crowds()
        table = self.builder.build()
        clipped = sum(problem.kind == "box clipped" for _, problem in self._found)
        if text := odd_boxes(table, clipped):
            self._add("boxes of another kind", f"{self.json_path}: {text}", None, is_note=True)
        ordered = sorted(self._found, key=lambda pair: pair[0])
        self.problems += [problem for _, problem in ordered]
        self._found = []
        return Parsed(
            tuple(category for _, category in sorted(self.categories.items())),
            table,
            tuple(self.problems),
            dict(self.dropped),
            dict(self.own_ids),
        )

    def _settle_names(self) -> None:
        """Of categories with one name, all but one have no objects: those are no classes."""
        for first, others in self.same_name.items():
            group = [first, *others]
            used = [identity for identity in group if identity in self._used]
            if len(used) > 1:
                raise DataError(
                    f"{self.json_path}: categories {used[0]} and {used[1]} share the name "
                    f'"{self.categories[used[0]].name}", and both have objects; give each '
                    "category its own name."
                )
            kept = used[0] if used else group[-1]
            for identity in group:
                if identity != kept:
                    name = self.categories.pop(identity).name
                    self._add(
                        "category left out",
                        f'{self.json_path}: category {identity} is "{name}", as category {kept}, '
                        "and has no objects; it is no class.",
                        None,
                        is_note=True,
                    )

    def _settle_points(self) -> None:
        """Points of another tool are none of our business: one note instead of many faults."""
        if self._our_points:
            return
        kept = [(at, p) for at, p in self._found if p.kind != "malformed points"]
        if len(kept) < len(self._found):
            number = len(self._found) - len(kept)
            self._found = kept
            self.dropped.pop("points", None)
            self._add(
                "points of another kind",
                f"{self.json_path}: {number} annotations have points that are no "
                "[x, y, label 1 or 0]; they are not used.",
                None,
                is_note=True,
            )

    def _note_crowds(self) -> None:
        for identity, (objects, crowds) in sorted(self._used.items()):
            if crowds and not objects and identity in self.categories:
                self._add(
                    "class of crowd regions only",
                    f'{self.json_path}: class "{self.categories[identity].name}" has {crowds} '
                    "crowd regions and not one object; where its file marks every run-length mask "
                    "as iscrowd, read them with data.crowds=objects.",
                    None,
                    is_note=True,
                )

    def _number(self, raw: Any) -> int | None:
        if self._number_of is not None:
            return self._number_of.get(raw) if isinstance(raw, int | str) else None
        return int(raw) if is_number(raw) else None

    def _unknown_image(self, raw: Any) -> str:
        swapped = str(raw) if is_number(raw) else None
        if isinstance(raw, str) and raw.lstrip("-").isdecimal() and len(raw) < 19:
            if self._number_of is None and int(raw) in self.images:
                return f"belongs to no image of the file: {raw!r} is text, the image's id a number"
        elif swapped is not None and self._number_of and swapped in self._number_of:
            return f"belongs to no image of the file: {raw} is a number, the image's id text"
        return "belongs to no image of the file"

    def _add(
        self,
        kind: str,
        message: str,
        image_id: int | None,
        annotation_id: int | None = None,
        *,
        at: int | None = None,
        file: Path | None = None,
        is_note: bool = False,
    ) -> None:
        problem = Problem(kind, message, file or self.json_path, image_id, annotation_id, is_note)
        if at is None:
            self.problems.append(problem)
        else:
            self._found.append((at, problem))
