"""A checked set of annotations: its classes, its images, and what was wrong with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from deepmac.data.annotations.problems import Problem, describe_kinds
from deepmac.data.annotations.records import Category, ImageRecord
from deepmac.data.annotations.summary import Summary, summary_of
from deepmac.data.annotations.table import Table, TableImages, pack
from deepmac.errors import ConfigError, DataError


@dataclass(frozen=True)
class CocoIndex:
    """A checked set of annotations of any format.

    Attributes:
        json_path: The annotation file or folder.
        image_dir: Folder that the file names start from.
        categories: By id.
        images: By id; images without objects are kept. Records are made when they are asked for.
        problems: Everything found, errors (only if read with ``on_error="drop"``) and notes.
        dropped: How many ``images``, ``annotations`` and ``masks`` were left out.
        text_ids: The file's own image ids by ours, where it has others than integers.
        source: What was read and why: format and layout, for people.
        label_of: Category id -> class index 0..C-1, by id.
    """

    json_path: Path
    image_dir: Path
    categories: tuple[Category, ...]
    images: Sequence[ImageRecord]
    problems: tuple[Problem, ...] = ()
    dropped: Mapping[str, int] = field(default_factory=dict)
    text_ids: Mapping[int, str | int] = field(default_factory=dict)
    source: str = ""
    label_of: dict[int, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        labels = {category.id: label for label, category in enumerate(self.categories)}
        object.__setattr__(self, "label_of", labels)

    @cached_property
    def table(self) -> Table:
        """The same set as columns, one row an annotation: for counts over all of it."""
        if isinstance(self.images, TableImages):
            return self.images.table
        return pack(self.images)

    @cached_property
    def summary(self) -> Summary:
        """What training asks of the whole set."""
        return summary_of(self.table)

    @property
    def category_ids(self) -> tuple[int, ...]:
        """Category ids by class index."""
        return tuple(category.id for category in self.categories)

    @cached_property
    def position_of(self) -> Mapping[int, int]:
        """Image id -> position in ``images``."""
        return {int(i): position for position, i in enumerate(self.table.image_id.tolist())}

    def image(self, image_id: int) -> ImageRecord:
        """The image of an id; KeyError where there is none."""
        return self.images[self.position_of[image_id]]

    def dropped_summary(self) -> list[str]:
        """Sentences to show the user: what was left out and what was mended; [] if nothing."""
        errors = [problem for problem in self.problems if not problem.is_note]
        notes = [problem for problem in self.problems if problem.is_note]
        lines = []
        if errors:
            counts = ", ".join(f"{number} {what}" for what, number in self.dropped.items())
            lines.append(f"{self.json_path}: left out {counts} ({describe_kinds(errors)}).")
        if notes:
            lines.append(
                f"{self.json_path}: noted {describe_kinds(notes)}; `deepmac check-data` shows them."
            )
        return lines

    def restricted_to(self, image_ids: Iterable[int]) -> CocoIndex:
        """The same set with these images only.

        Raises:
            ConfigError: an id is not in the set.
        """
        wanted = set(image_ids)
        missing = sorted(wanted - self.position_of.keys())
        if missing:
            listed = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
            raise ConfigError(
                f"{len(missing)} of the {len(wanted)} chosen image ids are not in "
                f"{self.json_path} ({listed}); choose ids from that file."
            )
        return self.at(sorted(self.position_of[image_id] for image_id in wanted))

    def aligned_with(self, categories: Sequence[Category], of: str) -> CocoIndex:
        """The same set with the classes of another: matched by name, numbered as there.

        Args:
            categories: the other's, of which this set may have fewer.
            of: what they are of, for the message.

        Raises:
            DataError: this set has objects of a class that the other does not name.
        """
        wanted = tuple(categories)
        if [(c.id, c.name) for c in self.categories] == [(c.id, c.name) for c in wanted]:
            return self
        exact = {category.name: category.id for category in wanted}
        loose: dict[str, list[int]] = {}
        for category in wanted:
            loose.setdefault(category.name.strip().casefold(), []).append(category.id)
        number_of: dict[int, int] = {}
        for category in self.categories:
            near = loose.get(category.name.strip().casefold(), [])
            if category.name in exact:
                number_of[category.id] = exact[category.name]
            elif len(near) == 1:
                number_of[category.id] = near[0]
        used = set(np.unique(self.table.category_id).tolist())
        unknown = [c.name for c in self.categories if c.id in used and c.id not in number_of]
        if unknown:
            shown = ", ".join(f'"{name}"' for name in unknown[:5])
            raise DataError(
                f"{self.json_path} has objects of {len(unknown)} classes that {of} does not have "
                f"({shown}); give both the same classes."
            )
        changed = [c for c in self.categories if number_of.get(c.id, c.id) != c.id]
        problems = self.problems
        images = self.images
        if changed:
            text = (
                f'{self.json_path}: class "{changed[0].name}" has the id {changed[0].id} here and '
                f"{number_of[changed[0].id]} in {of} ({len(changed)} such): classes are matched by "
                "name."
            )
            problems = (*problems, Problem("class ids differ", text, self.json_path, is_note=True))
            table = self.table.with_categories({i: n for i, n in number_of.items() if i in used})
            kept = self.images
            images = (
                kept.with_table(table)
                if isinstance(kept, TableImages)
                else TableImages(table, self.image_dir)
            )
        return replace(self, categories=wanted, images=images, problems=problems)

    def at(self, positions: Sequence[int]) -> CocoIndex:
        """The same set with the images at these positions only."""
        if isinstance(self.images, TableImages):
            return replace(self, images=self.images.at(positions))
        return replace(self, images=tuple(self.images[position] for position in positions))
