"""Numbers with their ranges as types: ``Annotated[int, Range(1)]``, and the check of them.

A signature says what its arguments may be; :func:`check_arguments` holds values against it, from
the command line as from a script, before anything is read or allocated.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from torch import Tensor

from deepmac.errors import ConfigError

_LARGEST = 2**31 - 1
"""What an index of torch or COCO's C code can hold; no honest setting is larger."""


@dataclass(frozen=True)
class Range:
    """The numbers from ``low`` to ``high``.

    Attributes:
        low: the least.
        high: the largest.
        open_low: ``low`` itself is out.
        open_high: ``high`` itself is out.
    """

    low: float
    high: float = _LARGEST
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: float) -> bool:
        low = self.low < value if self.open_low else self.low <= value
        high = value < self.high if self.open_high else value <= self.high
        return low and high

    def __repr__(self) -> str:
        """As a sentence says it: ``1 or more``, ``above 0 and below 1``, ``0 to 1``."""
        low = f"above {self.low}" if self.open_low else f"{self.low} or more"
        if self.high == _LARGEST:
            return low
        if self.open_low or self.open_high:
            high = f"below {self.high}" if self.open_high else f"at most {self.high}"
            return f"{low} and {high}"
        return f"{self.low} to {self.high}"


PositiveInt = Annotated[int, Range(1)]
Width = Annotated[int, Range(1, 8192)]
"""Channels of a layer."""
NonNegativeInt = Annotated[int, Range(0)]
PositiveFloat = Annotated[float, Range(0, open_low=True)]
NonNegativeFloat = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]
OpenShare = Annotated[float, Range(0, 1, open_low=True, open_high=True)]
Seed = Annotated[int, Range(0, 2**32 - 1)]


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


def check_sides(maps: Tensor, divisor: int, what: str) -> None:
    """Refuse images or maps that ``what`` cannot halve as often as it wants to.

    Args:
        maps: (..., H, W).
        divisor: what H and W must be multiples of.
        what: for the message: "this backbone".

    Raises:
        ValueError: one of them is not.
    """
    height, width = maps.shape[-2:]
    if height % divisor or width % divisor:
        raise ValueError(
            f"an input of {height}x{width} does not fit {what}: both sides must be multiples of "
            f"{divisor}"
        )


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
        found = [list(_faults(name, part, value)) for part in get_args(kind) if _is_of(part, value)]
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


def _is_of(kind: Any, value: Any) -> bool:
    """Whether a part of a union is the one that a value belongs to."""
    base = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    if get_origin(base) is Literal:
        return value in get_args(base)
    base = get_origin(base) or base
    if base is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if base is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return not isinstance(base, type) or isinstance(value, base)


def shown(value: Any, width: int = 60) -> str:
    """A value as a sentence quotes it: on one line, cut where it is long."""
    text = " ".join(str(value).split())
    return text if len(text) <= width else f"{text[:width]}..."
