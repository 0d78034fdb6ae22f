"""What the campaign counts, and what it calls bad."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from deepmac.label.command import SKIPPED
from soak.children import End

BAD = ("traceback", "hang", "crash", "fault of ours", "memory over the bound", "silent wrong")
LONGEST_SENTENCE = 700
MEMORY = 2048.0
"""MiB more than the process began with."""


@dataclass
class Counts:
    """Outcomes of one kind of trial."""

    what: str
    outcomes: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def add(self, end: End, *, name: str, wrong: str = "", began: float = 0.0) -> str:
        """Count a trial.

        Args:
            end: of its last command.
            name: with which it can be repeated.
            wrong: what was written is not what should be.
            began: MiB of the process before.
        """
        kind = judge(end, began)
        if wrong:
            kind, name = "silent wrong", f"{name}: {wrong}"
        self.outcomes[kind] += 1
        if kind in BAD:
            last = [line for line in end.text.splitlines() if line.strip()][-1:]
            self.examples.append(f"{kind}: {name} {' '.join(last)[:300]}")
            print(f"  {self.what}: {self.examples[-1]}", flush=True)
        return kind

    @property
    def bad(self) -> int:
        return sum(self.outcomes[kind] for kind in BAD)

    def __str__(self) -> str:
        told = ", ".join(f"{count} {kind}" for kind, count in sorted(self.outcomes.items()))
        return f"{self.what}: {sum(self.outcomes.values())} trials: {told or 'none'}"


def judge(end: End, began: float = 0.0) -> str:
    """One of ``success``, ``sentence``, ``killed`` and the bad ones."""
    kind = "success" if end.code == SKIPPED else end.kind
    if kind in ("success", "sentence") and end.memory - began > MEMORY:
        return "memory over the bound"
    if kind == "sentence":
        said = [line for line in end.text.splitlines() if line.startswith("deepmac: ")]
        if end.code == 70 or "should not happen" in end.text:
            return "fault of ours"
        if not said or len(said[-1]) > LONGEST_SENTENCE:
            return "silent wrong" if not said else "fault of ours"
    return kind
