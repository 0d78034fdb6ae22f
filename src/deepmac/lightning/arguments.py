"""Settings held against the signatures that they are for, before anything is read or allocated."""

from __future__ import annotations

import math
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from deepmac.errors import ConfigError
from deepmac.lightning.flat import leaves
from deepmac.nn.ranges import Range, is_of


def check_arguments(
    prefix: str, values: Mapping[str, Any], *signatures: Callable[..., Any] | type
) -> None:
    """Hold values against the types of signatures.

    Args:
        prefix: how a user names the group of values: ``model``, ``data``.
        values: arguments by name; what no signature names is not looked at.
        signatures: callables, or classes with annotations (a ``TypedDict``, say).

    Raises:
        ConfigError: a number out of its range, or one that is not finite.
    """
    for signature in signatures:
        made = isinstance(signature, type) and "__init__" in vars(signature)
        source: Any = signature.__init__ if made else signature  # type: ignore[misc]
        for name, kind in get_type_hints(source, include_extras=True).items():
            if name in values:
                full = f"{prefix}.{name}" if prefix else name
                for fault in _faults(full, kind, values[name]):
                    raise ConfigError(fault)


def check_whole_numbers(settings: Any, place: str = "") -> None:
    """Refuse what no float holds, before the parser meets it.

    Args:
        settings: nested.
        place: where they stand, for the message.

    Raises:
        ConfigError: a whole number of hundreds of digits.
    """
    for name, value in leaves(settings, into_lists=True):
        if isinstance(value, int) and abs(value) > sys.float_info.max:
            where = f"{place}: " if place else ""
            raise ConfigError(f"{where}{name}={shown(value)} is no number to compute with")


def _faults(name: str, kind: Any, value: Any) -> Iterator[str]:
    """Sentences about what is wrong with a value; wrong types are the parser's to find."""
    if value is None and not _takes_null(kind):
        yield f"{name}=null: it has to have a value"
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{name}={value} is no number to compute with: give a finite one"
    elif get_origin(kind) is Annotated:
        base, *notes = get_args(kind)
        ranges = [note for note in notes if isinstance(note, Range)]
        if isinstance(value, int | float) and not all(value in note for note in ranges):
            yield f"{name}={shown(value)} is out of its range: {ranges[0]!r}"
        yield from _faults(name, base, value)
    elif get_origin(kind) in (Union, types.UnionType):
        found = [list(_faults(name, part, value)) for part in get_args(kind) if is_of(part, value)]
        if found and all(found):
            yield found[0][0]
    elif isinstance(value, list | tuple):
        parts = [part for part in get_args(kind) if part is not Ellipsis] or [Any]
        for index, entry in enumerate(value):
            yield from _faults(f"{name}[{index}]", parts[min(index, len(parts) - 1)], entry)
    elif isinstance(kind, type) and is_dataclass(kind):
        hints = get_type_hints(kind, include_extras=True)
        for field in fields(kind):
            entry = value.get(field.name) if isinstance(value, Mapping) else None
            entry = getattr(value, field.name, entry)
            yield from _faults(f"{name}.{field.name}", hints[field.name], entry)


def _takes_null(kind: Any) -> bool:
    base = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    if get_origin(base) in (Union, types.UnionType):
        return any(_takes_null(part) for part in get_args(base))
    return base in (None, type(None), Any)


def shown(value: Any, width: int = 60) -> str:
    """A value as a sentence quotes it: on one line, cut where it is long."""
    text = " ".join(str(value).split())
    return text if len(text) <= width else f"{text[:width]}..."
