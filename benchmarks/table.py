"""Rows of the table that ``make bench`` prints, and how two sides are timed in turns."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import textwrap
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch


@dataclass(frozen=True)
class Row:
    """One comparison, measured in one run.

    Attributes:
        name: what was done.
        unit: of both figures.
        ours: the figure.
        peer: whose work it is held against.
        theirs: the peer's figure; None where there is no peer.
        wanted: the ratio that is aimed at, at least.
        how: sizes, repeats, devices.
        limit: what the machine allows, in the same unit; None where it is not known.
        larger_is_better: of the unit.
    """

    name: str
    unit: str
    ours: float
    peer: str = ""
    theirs: float | None = None
    wanted: float | None = None
    how: str = ""
    limit: float | None = None
    larger_is_better: bool = False

    @property
    def ratio(self) -> float | None:
        """How many times better than the peer."""
        if self.theirs is None:
            return None
        better, worse = (
            (self.ours, self.theirs) if self.larger_is_better else (self.theirs, self.ours)
        )
        return better / worse

    def cells(self) -> list[str]:
        """As text, in the order of `HEADINGS`."""
        ratio = "-" if self.ratio is None else f"{self.ratio:.2f} x"
        theirs = "-" if self.theirs is None else f"{self.peer} {_figure(self.theirs)}"
        wanted = "-" if self.wanted is None else f"≥ {self.wanted:g} x"
        limit = "-" if self.limit is None else _figure(self.limit)
        return [self.name, self.unit, _figure(self.ours), theirs, ratio, wanted, limit, self.how]


HEADINGS = ("what", "unit", "ours", "peer", "ratio", "aim", "machine's limit", "how")


class Skipped(Exception):
    """A row that cannot be measured here; its text says why."""


def in_turns(
    sides: Sequence[Callable[[], object]],
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
) -> list[float]:
    """Median seconds of each side; one run of each to warm up, then all of them in turn.

    Args:
        sides: what is timed.
        repeats: of each, at least 1.
        clock: ``time.process_time`` where other work runs beside it.
    """
    for side in sides:
        side()
    seconds: list[list[float]] = [[] for _ in sides]
    for _ in range(repeats):
        for own, side in zip(seconds, sides, strict=True):
            started = clock()
            side()
            own.append(clock() - started)
    return [median(own) for own in seconds]


def convolution_rate() -> float:
    """FLOP/s of a 3x3 convolution of 256 channels at 128 x 128, which big networks are made of."""
    layer = torch.nn.Conv2d(256, 256, 3, padding=1).to(memory_format=torch.channels_last)
    pixels = torch.randn(1, 256, 128, 128).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        (seconds,) = in_turns([lambda: layer(pixels)], 5)
    return 2 * 9 * 256**2 * 128**2 / seconds


def markdown(rows: Sequence[Row], notes: Sequence[str]) -> str:
    """A page with the table and how it was made."""
    lines = ["| " + " | ".join(HEADINGS) + " |", "|" + "---|" * len(HEADINGS)]
    lines += ["| " + " | ".join(row.cells()) + " |" for row in rows]
    told = (textwrap.fill(f"- {note}", 100, subsequent_indent="  ") for note in notes)
    return "\n".join([*lines, "", *told, ""])


def machine() -> str:
    """Processor, cores, versions, date and commit."""
    folder = Path(__file__).resolve().parent
    try:
        asked = ["git", "-C", str(folder), "rev-parse", "--short", "HEAD"]
        commit = subprocess.run(asked, capture_output=True, text=True).stdout.strip() or "unknown"
    except OSError:
        commit = "unknown"
    busy = os.getloadavg()[0]
    return (
        f"{_processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, torch "
        f"{torch.__version__}, Python {platform.python_version()}, commit {commit}, "
        f"{datetime.date.today():%Y-%m-%d}, load of the machine at the start {busy:.1f}"
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _figure(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"
