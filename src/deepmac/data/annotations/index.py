"""A checked set of annotations: its classes, its images, and what was wrong with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from deepmac.data.annotations.problems import Problem, describe_kinds
from deepmac.data.annotations.records import Category, ImageRecord
from deepmac.data.annotations.table import Table, TableImages, pack
from deepmac.errors import ConfigError


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

    def at(self, positions: Sequence[int]) -> CocoIndex:
        """The same set with the images at these positions only."""
        if isinstance(self.images, TableImages):
            return replace(self, images=self.images.at(positions))
        return replace(self, images=tuple(self.images[position] for position in positions))
