"""The finished parts of a job as one: every annotation with its mask, in the input's order."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deepmac.errors import UserError
from deepmac.label.parts import Parts
from deepmac.label.plan import Plan


@dataclass(frozen=True)
class Labelled:
    """Where every mask lies on disk, and what became of every box.

    Only positions and scores are held: masks are read again when they are asked for.

    Attributes:
        plan: what was to be done.
        part_of: (annotations,) int64 part of each row, -1 where there is no mask.
        offset: (annotations,) int64 byte at which its record starts.
        raw: (annotations,) float64 raw scores, NaN where there is no mask.
        empty: rows whose mask holds no pixel.
        errors: (kind, sentence, rows) of pictures that could not be read.
    """

    plan: Plan
    parts: Parts
    part_of: NDArray[np.int64]
    offset: NDArray[np.int64]
    raw: NDArray[np.float64]
    empty: list[int]
    errors: list[tuple[str, str, list[int]]]

    @property
    def rows(self) -> NDArray[np.int64]:
        """Rows that have a mask now."""
        return np.flatnonzero(self.part_of >= 0)

    def reader(self) -> Callable[[int], dict[str, Any] | None]:
        """A function from row to record, or None for a row without a mask of ours."""
        current: list[Any] = [-1, None]

        def record(row: int) -> dict[str, Any] | None:
            number = int(self.part_of[row])
            if number < 0:
                return None
            if current[0] != number:
                if current[1] is not None:
                    current[1].close()
                current[:] = number, self.parts.path(number).open("rb")
            current[1].seek(int(self.offset[row]))
            found: dict[str, Any] = json.loads(current[1].readline())
            return found

        return record

    def annotations(self) -> Iterator[tuple[int, dict[str, Any], dict[str, Any] | None]]:
        """(row, annotation as read, record or None), in the input's order."""
        record = self.reader()
        for row, entry in enumerate(self.plan.boxes.content["annotations"]):
            yield row, entry, record(row)

    def by_image(self) -> Iterator[LabelledImage]:
        """The sound images with their sound annotations, in the input's order."""
        unread = {int(row) for _, _, rows in self.errors for row in rows}
        content, plan = self.plan.boxes.content, self.plan
        record = self.reader()
        for position, image in enumerate(content["images"]):
            if position not in plan.sound_images:
                continue
            rows = plan.rows.get(position, array("q"))
            # A picture that could not be read is not known to have the size that the file says.
            size = None if unread and not unread.isdisjoint(rows) else plan.sizes.get(position)
            objects = ((content["annotations"][row], record(row)) for row in rows)
            yield LabelledImage(image, size, plan.image_dir / image["file_name"], objects)

    def sizes(self) -> dict[int, tuple[int, int]]:
        """(width, height) of the images that got masks, by position."""
        return {task.position: task.size for part in self.plan.parts.values() for task in part}


class LabelledImage(NamedTuple):
    """An image of the output.

    Attributes:
        entry: as read.
        size: (width, height), or None where no one knows.
        path: of the picture.
        objects: (annotation as read, record of our mask or None) of each annotation.
    """

    entry: dict[str, Any]
    size: tuple[int, int] | None
    path: Path
    objects: Iterable[tuple[dict[str, Any], dict[str, Any] | None]]


def collect(plan: Plan, parts: Parts) -> Labelled:
    """Look through all parts.

    Raises:
        UserError: a part is missing or damaged.
    """
    count = len(plan.boxes.content["annotations"])
    part_of, offset = np.full(count, -1, dtype=np.int64), np.zeros(count, dtype=np.int64)
    raw = np.full(count, np.nan)
    empty: list[int] = []
    unread: dict[tuple[str, str], list[int]] = {}
    for number in sorted(plan.parts):
        if not parts.is_done(number, plan.parts[number]):
            raise UserError(
                f"{parts.path(number)} is missing, or its pictures have changed meanwhile: start "
                "again to label them"
            )
        missing = {row for task in plan.parts[number] for row in task.rows.tolist()}
        with parts.path(number).open("rb") as file:
            position = len(file.readline())
            for line in file:
                record = json.loads(line)
                missing.difference_update(record.get("rows") or [record.get("row")])
                if "error" in record:
                    unread.setdefault((record["kind"], record["error"]), []).extend(record["rows"])
                elif not record["area"]:
                    empty.append(record["row"])
                    raw[record["row"]] = 0.0
                else:
                    row = record["row"]
                    part_of[row], offset[row], raw[row] = number, position, record["raw"]
                position += len(line)
        if missing:
            raise UserError(f"{parts.path(number)} is damaged: start again with --restart")
    errors = [(kind, sentence, rows) for (kind, sentence), rows in unread.items()]
    return Labelled(plan, parts, part_of, offset, raw, empty, errors)
