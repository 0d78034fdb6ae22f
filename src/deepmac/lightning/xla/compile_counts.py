"""What XLA's counters say of one step, and whether a step like it had to be expected to."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

READING = "aten::_local_scalar_dense"
"""The counter of ``.item()`` and of every tensor in an ``if``."""


@dataclass(frozen=True)
class Counts:
    """A selection of XLA's counters, at one moment or between two.

    Attributes:
        compiles: graphs compiled.
        seconds: spent on compiling.
        from_cache: graphs read from the persistent cache instead.
        unreadable: graphs found there that this backend could not read.
        to_host: transfers from the device.
        to_device: transfers to it.
        operators: how often each operator was called, those on the host among them.
    """

    compiles: int = 0
    seconds: float = 0.0
    from_cache: int = 0
    unreadable: int = 0
    to_host: int = 0
    to_device: int = 0
    operators: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, metrics: Mapping[str, int]) -> Counts:
        """Those of ``deepmac.lightning.xla.device.metrics``."""
        return cls(
            compiles=metrics.get("CompileTime", 0),
            seconds=metrics.get("CompileTime.total", 0) / 1e9,
            from_cache=metrics.get("PersistentCacheHit", 0),
            unreadable=metrics.get("PersistentCacheDeserializeFailure", 0),
            to_host=metrics.get("TransferFromDeviceTime", 0),
            to_device=metrics.get("TransferToDeviceTime", 0),
            operators={name: count for name, count in metrics.items() if "::" in name},
        )

    def __sub__(self, earlier: Counts) -> Counts:
        return Counts(
            compiles=self.compiles - earlier.compiles,
            seconds=self.seconds - earlier.seconds,
            from_cache=self.from_cache - earlier.from_cache,
            unreadable=self.unreadable - earlier.unreadable,
            to_host=self.to_host - earlier.to_host,
            to_device=self.to_device - earlier.to_device,
            operators={
                name: more
                for name, count in self.operators.items()
                if (more := count - earlier.operators.get(name, 0))
            },
        )

    @property
    def on_host(self) -> dict[str, int]:
        """Operators that XLA has not: the device waits while the host computes them."""
        return {n: count for n, count in self.operators.items() if not n.startswith("xla::")}


@dataclass(frozen=True)
class Step:
    """A step that has run.

    Attributes:
        kind: equal for steps that ought to be the same graph.
        name: for a person, such as ``training step 12``.
        reads: it is one that looks at values on the device.
        shapes: of the batch, by field.
    """

    kind: Hashable
    name: str
    reads: bool = False
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


class Expectations:
    """Finds what a step should not have done; each finding is told once."""

    def __init__(self) -> None:
        self._last: dict[Hashable, tuple[Step, Counts]] = {}
        self._told: set[str] = set()

    def findings(self, step: Step, counts: Counts) -> list[str]:
        """Sentences about operators on the host, and about a graph that is compiled again."""
        found = []
        for name, times in counts.on_host.items():
            if name not in self._told and not (step.reads and name == READING):
                self._told.add(name)
                found.append(_left_the_device(name, times, step))
        before = self._last.get(step.kind)
        if before and counts.compiles and "compile" not in self._told:
            self._told.add("compile")
            found.append(
                f"{step.name} compiled {counts.compiles} more graph(s) in {counts.seconds:.1f} s, "
                f"though {before[0].name} was like it: {_cause(before, (step, counts))}"
            )
        self._last[step.kind] = (step, counts)
        return found


def shapes_of(batch: Any) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of a batch."""
    if not isinstance(batch, Mapping):
        return {}
    return {name: tuple(v.shape) for name, v in batch.items() if isinstance(v, Tensor)}


def _left_the_device(name: str, times: int, step: Step) -> str:
    sentence = f"{name} left the device {times} time(s) in {step.name}"
    if name == READING:
        return f"{sentence}: a value was read (.item(), if, print), which stops the device"
    return f"{sentence}: the host computes it, and the data goes there and back in every step"


def _cause(before: tuple[Step, Counts], now: tuple[Step, Counts]) -> str:
    """The most telling difference between two steps that should be one graph."""
    old, new = before[0].shapes, now[0].shapes
    shapes = [
        f"{name} {old[name]} -> {new[name]}"
        for name in old.keys() & new.keys()
        if old[name] != new[name]
    ]
    if shapes:
        return f"the batch has other shapes ({', '.join(sorted(shapes))}); give all one shape"
    if now[1].on_host:
        return f"{', '.join(sorted(now[1].on_host))} on the host cut it in a new place"
    earlier, later = before[1].operators, now[1].operators
    operators = [
        f"{name} {earlier.get(name, 0)} -> {later.get(name, 0)}"
        for name in sorted(earlier.keys() | later.keys())
        if earlier.get(name, 0) != later.get(name, 0)
    ]
    if operators:
        return f"other operators were called ({', '.join(operators[:6])})"
    return "its operators were called as often, with other shapes or constants"
