"""What training asks of a whole set, so that it need not be at hand itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from deepmac.data.annotations.table import Table


@dataclass(frozen=True)
class Summary:
    """Of a set.

    Attributes:
        masked_categories: ids of those that have an object with a mask that a person drew.
        objects_per_image: how many images have 0, 1, 2, ... objects, crowd regions left out.
        most_points: the largest number of points on one object.
        exhaustive: whether every object of every image is annotated.
    """

    masked_categories: frozenset[int]
    objects_per_image: tuple[int, ...]
    most_points: int
    exhaustive: bool

    @property
    def most_objects(self) -> int:
        """On one image."""
        return max(0, len(self.objects_per_image) - 1)

    def beyond(self, limit: int) -> tuple[int, int]:
        """Images with more objects than a limit, and how many objects these are too many."""
        images = objects = 0
        for count, number in enumerate(self.objects_per_image):
            if count > limit:
                images, objects = images + number, objects + number * (count - limit)
        return images, objects

    def __add__(self, other: Summary) -> Summary:
        """Of both sets together."""
        size = max(len(self.objects_per_image), len(other.objects_per_image))
        counts = np.zeros(size, "i8")
        for one in (self, other):
            counts[: len(one.objects_per_image)] += np.array(one.objects_per_image, "i8")
        return Summary(
            self.masked_categories | other.masked_categories,
            tuple(counts.tolist()),
            max(self.most_points, other.most_points),
            self.exhaustive and other.exhaustive,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "masked_categories": sorted(self.masked_categories),
            "objects_per_image": list(self.objects_per_image),
            "most_points": self.most_points,
            "exhaustive": self.exhaustive,
        }

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Summary:
        """Inverse of :meth:`to_dict`."""
        return cls(
            frozenset(stored["masked_categories"]),
            tuple(stored["objects_per_image"]),
            int(stored["most_points"]),
            bool(stored["exhaustive"]),
        )


NOTHING = Summary(frozenset(), (), 0, True)


def summary_of(table: Table) -> Summary:
    """The summary of a table."""
    human = table.is_object & (table.mask_kind > 0) & (table.mask_source == 0)
    return Summary(
        frozenset(np.unique(table.category_id[human]).tolist()),
        tuple(np.bincount(table.objects_per_image()).tolist()) if len(table) else (),
        int(table.point_count.max(initial=0)),
        bool(table.exhaustive.all()),
    )
