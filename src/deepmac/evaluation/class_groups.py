"""Means over groups of classes: all, seen, unseen, supercategories."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from math import fsum

from deepmac.data.annotations.coco import Category

#: Group name -> category ids.
Groups = Mapping[str, frozenset[int]]


def class_mean(values: Mapping[int, float], groups: Groups) -> dict[str, float | None]:
    """Mean over the classes of each group that have a value; None where no class has one.

    Args:
        values: category id -> value; classes without ground truth are absent.
        groups: group name -> category ids.
    """
    return {
        name: _mean([values[i] for i in sorted(members & values.keys())])
        for name, members in groups.items()
    }


def instance_mean(values: Mapping[int, Sequence[float]], groups: Groups) -> dict[str, float | None]:
    """Mean over the objects of each group, every object alike; None where there is none.

    Args:
        values: category id -> one value for each object.
        groups: group name -> category ids.
    """
    return {
        name: _mean(list(chain.from_iterable(values[i] for i in sorted(members & values.keys()))))
        for name, members in groups.items()
    }


def group_sum(counts: Mapping[int, int], groups: Groups) -> dict[str, int]:
    """Sum of the counts of each group's classes."""
    return {
        name: sum(counts[i] for i in members & counts.keys()) for name, members in groups.items()
    }


def supercategory_groups(categories: Iterable[Category]) -> dict[str, frozenset[int]]:
    """``supercategory/<name>`` -> category ids; classes without a supercategory are in none."""
    members: dict[str, set[int]] = {}
    for category in categories:
        if category.supercategory:
            members.setdefault(f"supercategory/{category.supercategory}", set()).add(category.id)
    return {name: frozenset(members[name]) for name in sorted(members)}


def _mean(values: Sequence[float]) -> float | None:
    # an exact sum makes the mean independent of the order, so shards and processes agree
    return fsum(values) / len(values) if values else None
