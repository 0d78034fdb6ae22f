"""A campaign in pieces: parts that count, and a file from which the next piece goes on."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from soak.counts import Counts
from soak.world import World

_TOLD_EVERY = 30.0


@dataclass
class Part:
    """One kind of trial.

    Attributes:
        counts: so far.
        trial: makes the next one with numbers from the source given, adds to the counts.
        world: what it works on.
        stack: closes what it opens, at the end of a piece.
    """

    counts: Counts
    trial: Callable[[Part, Random], None]
    world: World
    stack: ExitStack = field(default_factory=ExitStack)


class Campaign:
    """Parts that share a seed.

    Args:
        parts: in their order.
        seed: the trial number n of a part is the same under the same seed.
        state: where the counts are kept; what it holds of the same seed is gone on from.
    """

    def __init__(self, parts: Sequence[Part], seed: int, state: Path | None) -> None:
        self.parts, self.seed, self.state = parts, seed, state
        if state is not None and state.is_file():
            kept = json.loads(state.read_text())
            if kept["seed"] != seed:
                raise SystemExit(f"{state} is of --seed {kept['seed']}: give another --state")
            for part in parts:
                if part.counts.what in kept["parts"]:
                    told = kept["parts"][part.counts.what]
                    told["goal"] = part.counts.goal
                    for name in ("notes", "outcomes"):
                        told[name] = Counter(told[name])
                    part.counts = Counts(**told)

    def run(self, seconds: float) -> bool:
        """Go on for so long; whether all goals are reached."""
        end = time.monotonic() + seconds
        for part in self.parts:
            with part.stack:
                for _ in self._trials(part, end):
                    counts = part.counts
                    random = Random(f"{self.seed} {counts.what} {counts.trials}")
                    part.trial(part, random)
                    counts.trials += 1
            if part.counts.trials:
                print(part.counts, flush=True)
        self._keep()
        return all(part.counts.done >= part.counts.goal for part in self.parts)

    def _trials(self, part: Part, end: float) -> Iterator[None]:
        told = time.monotonic()
        while part.counts.done < part.counts.goal and time.monotonic() < end:
            yield
            if time.monotonic() - told > _TOLD_EVERY:
                told = time.monotonic()
                print(f"  {part.counts}", flush=True)
                self._keep()

    def _keep(self) -> None:
        if self.state is None:
            return
        others = {}
        if self.state.is_file():
            others = json.loads(self.state.read_text())["parts"]
        parts = others | {part.counts.what: vars(part.counts) for part in self.parts}
        draft = self.state.with_suffix(".draft")
        draft.write_text(json.dumps({"seed": self.seed, "parts": parts}, indent=1) + "\n")
        draft.replace(self.state)
