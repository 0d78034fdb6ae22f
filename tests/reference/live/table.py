"""What is compared, how far it may be off, and the table of it all.

The proof is float64, where both sides agree to some 1e-13 if they compute the same. What float32
adds is rounding, that of either side being how far its float32 answer is from its float64 one.
A float32 answer may be off by what is asked or, where more than that is rounding, by twice the
larger of the two roundings.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from deepmac.convert import convert_variables

Arrays = dict[str, np.ndarray]
Dtype = Literal["float32", "float64"]
DTYPES = {"float32": torch.float32, "float64": torch.float64}


class Pair(NamedTuple):
    """One tensor from both sides."""

    ours: Any
    theirs: Any


class Answer(NamedTuple):
    """What both sides gave in one dtype.

    Attributes:
        part: of the project.
        quantity: what was compared.
        pairs: the tensors; the worst counts.
        asked: bounds for float32 and float64; None only informs.
        absolute: differences as they are, not relative to the largest number of the tensor.
        comparable: the original computes the same thing in both dtypes.
    """

    part: str
    quantity: str
    pairs: list[Pair]
    asked: tuple[float | None, float | None] = (1e-4, 1e-9)
    absolute: bool = False
    comparable: bool = True

    @property
    def error(self) -> float:
        return max((difference(*pair, absolute=self.absolute) for pair in self.pairs), default=0.0)


class Row(NamedTuple):
    """One line: errors in both dtypes, and the rounding of both sides in float32."""

    part: str
    quantity: str
    error: float | None
    ours_rounds: float | None
    theirs_rounds: float | None
    exact: float | None
    asked: tuple[float | None, float | None]

    @property
    def broken(self) -> bool:
        asked, asked_exact = self.asked
        rounding = max(self.ours_rounds or 0.0, self.theirs_rounds or 0.0)
        allowed = None if asked is None else max(asked, 2 * rounding)
        return any(
            error is not None and bound is not None and not error <= bound
            for error, bound in ((self.error, allowed), (self.exact, asked_exact))
        )

    def cells(self) -> list[str]:
        exact_asked = None if self.exact is None else self.asked[1]
        numbers = [self.error, self.asked[0], self.theirs_rounds, self.ours_rounds]
        shown = [
            "" if number is None else f"{number:.1e}"
            for number in (*numbers, self.exact, exact_asked)
        ]
        return [self.part, self.quantity, *shown, "BROKEN" if self.broken else ""]


HEADINGS = (
    *("part", "quantity", "float32 error", "asked", "original rounds", "we round"),
    *("float64 error", "asked", ""),
)


def rows(single: Iterable[Answer], double: Iterable[Answer]) -> Iterator[Row]:
    """Lines for answers in float32, with those to the same questions in float64."""
    exact = {(answer.part, answer.quantity): answer for answer in double}
    for answer in single:
        other = exact.get((answer.part, answer.quantity))
        rounding: list[float | None] = [None, None]
        if other is not None and answer.comparable:
            rounding = [
                max(difference(one[side], two[side], absolute=answer.absolute) for one, two in both)
                for side in (0, 1)
                for both in [list(zip(answer.pairs, other.pairs, strict=True))]
            ]
        yield Row(
            answer.part, answer.quantity, answer.error, *rounding, other and other.error,
            answer.asked,
        )  # fmt: skip


def difference(ours: Any, theirs: Any, *, absolute: bool = False) -> float:
    """The largest difference; relative to the largest number unless ``absolute``."""
    ours, theirs = _double(ours), _double(theirs)
    if ours.shape != theirs.shape:
        return float("inf")
    if not ours.numel():
        return 0.0
    worst = float((ours - theirs).abs().max())
    return worst if absolute else worst / max(float(theirs.abs().max()), 1e-30)


def read(path: Path) -> Arrays:
    with np.load(path) as arrays:
        return dict(arrays)


def under(arrays: Mapping[str, np.ndarray], prefix: str) -> Arrays:
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def convert_exactly(variables: Arrays) -> dict[str, Tensor]:
    """Our names for float64 values: the conversion is float32, so it takes two parts of each."""
    high = {key: value.astype(np.float32) for key, value in variables.items()}
    low = {key: (value - high[key]).astype(np.float32) for key, value in variables.items()}
    state, rest = convert_variables(high), convert_variables(low)
    return {name: state[name].double() + rest[name].double() for name in state}


@contextmanager
def computing_in(dtype: Dtype) -> Iterator[None]:
    """Within it, what this project calls float is ``dtype``."""
    if dtype == "float32":
        yield
        return
    plain = Tensor.float
    torch.set_default_dtype(torch.float64)
    Tensor.float = Tensor.double  # type: ignore[method-assign]
    try:
        yield
    finally:
        Tensor.float = plain  # type: ignore[method-assign]
        torch.set_default_dtype(torch.float32)


def as_the_original_in_float64(module: nn.Module) -> None:
    """Norms as the original has them in float64.

    Keras keeps the norms' momentum in float32 there, and has no fused norm for float64: the
    residual heads' running variance is then the biased one.
    """
    from dataclasses import replace

    from deepmac.nn.norm import BatchNorm2d

    for norm in module.modules():
        if isinstance(norm, BatchNorm2d):
            norm.options = replace(
                norm.options,
                momentum=float(np.float32(norm.options.momentum)),
                biased_running_var=True,
            )


def _double(values: Any) -> Tensor:
    values = values.detach() if isinstance(values, Tensor) else torch.from_numpy(np.array(values))
    return values.double()
