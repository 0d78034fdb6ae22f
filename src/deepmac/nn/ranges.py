"""Numbers with their ranges as types: ``Annotated[int, Range(1)]``.

A signature says what its arguments may be; :mod:`deepmac.lightning.arguments` holds settings
against it, from the command line as from a script.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from torch import Tensor

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


def check_declared(kind: type, given: Mapping[str, Any]) -> None:
    """Hold arguments that a file names against the signature of ``kind``.

    Raises:
        ValueError: one has another type than declared, or lies out of its range.
    """
    declared = get_type_hints(kind.__init__, include_extras=True)  # type: ignore[misc]
    for name, value in given.items():
        if name in declared and not _fits(value, declared[name]):
            raise ValueError(f"{name} cannot be {value!r:.60}")


def _fits(value: Any, kind: Any) -> bool:
    if get_origin(kind) in (Union, UnionType):
        return any(_fits(value, part) for part in get_args(kind))
    ranges = [note for note in getattr(kind, "__metadata__", ()) if isinstance(note, Range)]
    return is_of(kind, value) and all(value in one for one in ranges)


def is_of(kind: Any, value: Any) -> bool:
    """Whether a value has a type that is no union, whatever its range; numbers are no bools."""
    base = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    if get_origin(base) is Literal:
        return value in get_args(base)
    base = get_origin(base) or base
    if base is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if base is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return not isinstance(base, type) or isinstance(value, base)


PositiveInt = Annotated[int, Range(1)]
Width = Annotated[int, Range(1, 8192)]
"""Channels of a layer."""
NonNegativeInt = Annotated[int, Range(0)]
PositiveFloat = Annotated[float, Range(0, open_low=True)]
NonNegativeFloat = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]
OpenShare = Annotated[float, Range(0, 1, open_low=True, open_high=True)]
Seed = Annotated[int, Range(0, 2**32 - 1)]


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
