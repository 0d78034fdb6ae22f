"""Class slots of the network, category ids of the data set: the one place that maps them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ClassMap:
    """Which category each class slot of a network stands for; travels inside checkpoints.

    Attributes:
        category_ids: the data set's own id of every class slot, in slot order.
        names: category names, in slot order.
        masked_category_ids: categories whose masks supervise training ("seen").
        unused_category_ids: slots that the data set has no category for (the original's heatmaps
            have such); nothing found there is reported.
    """

    category_ids: tuple[int, ...]
    names: tuple[str, ...]
    masked_category_ids: frozenset[int]
    unused_category_ids: frozenset[int] = frozenset()

    @classmethod
    def from_categories(cls, categories: Sequence[Any], masked: Collection[int]) -> ClassMap:
        """Slots in the order of ``categories`` (objects with ``id`` and ``name``)."""
        return cls(
            tuple(category.id for category in categories),
            tuple(category.name for category in categories),
            frozenset(masked),
        )

    def __len__(self) -> int:
        return len(self.category_ids)

    @property
    def label_of(self) -> dict[int, int]:
        """Category id -> class slot."""
        return {category_id: slot for slot, category_id in enumerate(self.category_ids)}

    def to_dict(self) -> dict[str, list[Any]]:
        """Plain lists, safe to store in a checkpoint that is read without running code."""
        return {
            "category_ids": list(self.category_ids),
            "names": list(self.names),
            "masked_category_ids": sorted(self.masked_category_ids),
            "unused_category_ids": sorted(self.unused_category_ids),
        }

    @classmethod
    def from_dict(cls, stored: dict[str, list[Any]]) -> ClassMap:
        """Inverse of :meth:`to_dict`.

        Raises:
            KeyError, TypeError, ValueError: something else than :meth:`to_dict` gives.
        """
        made = cls(
            tuple(stored["category_ids"]),
            tuple(stored["names"]),
            frozenset(stored["masked_category_ids"]),
            frozenset(stored.get("unused_category_ids", ())),
        )
        ids = (*made.category_ids, *made.masked_category_ids, *made.unused_category_ids)
        if not all(type(i) is int for i in ids) or not all(type(n) is str for n in made.names):
            raise TypeError("a class map holds whole numbers and names")
        if len(made.names) != len(made.category_ids) or len(set(made.category_ids)) != len(made):
            raise ValueError("a class map holds one name for each of its ids")
        return made
