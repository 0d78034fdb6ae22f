"""Ids of a file as integers of 64 bits, whatever the file writes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeGuard

LARGEST = (1 << 63) - 1


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether a value is a whole number that fits into 64 bits; 1.0 is, True is not."""
    if type(value) is float:
        return value.is_integer() and abs(value) < 1 << 53
    return type(value) is int and abs(value) <= LARGEST


def integers_of(values: Iterable[Any]) -> Mapping[int | str, int] | None:
    """Integers for ids that are text or too large; None where the file's own will do.

    A file of numbers keeps them, with single other ids as its faults. One whose ids are all text,
    or that has numbers beyond 64 bits, gets 1, 2, ... in its own order.
    """
    seen: dict[int | str, int] = {}
    texts, numbers, huge = 0, 0, 0
    for value in values:
        if type(value) is str:
            texts += 1
        elif is_number(value):
            numbers += 1
        elif type(value) is int:
            huge += 1
        else:
            continue
        seen.setdefault(value, len(seen) + 1)
    if huge or (texts and not numbers):
        return seen
    return None
