"""What the campaign counts, and what it calls bad."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from deepmac.label.command import SKIPPED
from soak.children import End

BAD = (
    *("traceback", "hang", "crash", "fault of ours", "memory over the bound", "silent wrong"),
    *("long sentence", "half file", "failed resume", "not as undisturbed", "left over"),
)
LONGEST_SENTENCE = 400
MEMORY = 2048.0
"""MiB of a process, all that it began with included."""


@dataclass
class Counts:
    """Outcomes of one kind of trial.

    Attributes:
        what: the kind.
        goal: of ``done``.
        done: kills, inputs or whatever is counted.
        trials: so far; their numbers are the seeds.
        notes: further counts that are neither good nor bad.
        outcomes: how often each came.
        examples: of bad ones, with what repeats them.
    """

    what: str
    goal: int
    done: int = 0
    trials: int = 0
    notes: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def add(self, end: End, *, name: str, wrong: str = "", why: str = "") -> str:
        """Count a trial.

        Args:
            end: of its last command.
            name: with which it can be repeated.
            wrong: one of :data:`BAD` that is known from elsewhere than its end.
            why: what shows it.
        """
        kind = wrong or judge(end)
        self.outcomes[kind] += 1
        if kind in BAD:
            last = [line for line in end.text.splitlines() if line.strip()][-1:]
            told = f"{kind}: trial {self.trials}, {name}: {why} {' '.join(last)[:600]}"
            self.examples.append(told)
            print(f"  {self.what}: {told}", flush=True)
        return kind

    @property
    def bad(self) -> int:
        return sum(self.outcomes[kind] for kind in BAD)

    def __str__(self) -> str:
        told = ", ".join(f"{count} {kind}" for kind, count in sorted(self.outcomes.items()))
        noted = ", ".join(f"{count} {kind}" for kind, count in sorted(self.notes.items()))
        text = f"{self.what}: {self.done} of {self.goal}: {told or 'none'}"
        return f"{text}; {noted}" if noted else text


def judge(end: End) -> str:
    """One of ``success``, ``sentence``, ``killed`` and the bad ones."""
    kind = "success" if end.code == SKIPPED else end.kind
    if kind in ("success", "sentence") and end.memory > MEMORY:
        return "memory over the bound"
    if kind == "sentence":
        said = [line for line in end.text.splitlines() if line.startswith("deepmac: ")]
        if end.code == 70 or "should not happen" in end.text:
            return "fault of ours"
        if not said:
            return "silent wrong"
        if len(said[-1]) > LONGEST_SENTENCE:
            return "long sentence"
    return kind
