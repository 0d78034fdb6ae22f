"""Nested settings by their dotted names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def leaves(value: Any, name: str = "", *, into_lists: bool = False) -> Iterator[tuple[str, Any]]:
    """What is no mapping, with the names that lead to it.

    Args:
        value: settings.
        name: of ``value`` itself.
        into_lists: entries of lists one by one, all under the list's name.
    """
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from leaves(inner, f"{name}.{key}" if name else str(key), into_lists=into_lists)
    elif into_lists and isinstance(value, list):
        for inner in value:
            yield from leaves(inner, name, into_lists=True)
    else:
        yield name, value
