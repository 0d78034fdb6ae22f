"""How far a job is: a bar on a terminal, else a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress

from deepmac.errors import counted
from deepmac.label.plan import ImageTask


class Progress:
    """Images, images/s, masks/s and the time left, of this process's share, on standard error.

    Args:
        quiet: say nothing.
        line_seconds: between lines where standard error is no terminal.
    """

    def __init__(self, *, quiet: bool = False, line_seconds: float = 30.0) -> None:
        self.quiet, self.line_seconds = quiet, line_seconds
        self.images = self.masks = self.total = 0
        self._bar: RichProgress | None = None
        self._started = self._last_line = time.monotonic()

    def start(
        self, all_parts: Mapping[int, Sequence[ImageTask]], left: Mapping[int, Sequence[ImageTask]]
    ) -> None:
        """Begin to count; says what an earlier run has done already."""
        self.total = sum(map(len, left.values()))
        self._started = self._last_line = time.monotonic()
        before = sum(map(len, all_parts.values())) - self.total
        if before:
            self._say(f"{counted(before, 'image')} done before; {self.total} left")
        if self.quiet or not self.total or not sys.stderr.isatty():
            return
        self._bar = RichProgress(
            TextColumn("label"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[pace]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._bar.start()
        self._bar.add_task("label", total=self.total, pace="")

    def advance(self, images: int, masks: int) -> None:
        """Some more are done."""
        self.images += images
        self.masks += masks
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self.images, pace=self.pace(now))
        elif now - self._last_line >= self.line_seconds:
            self._last_line = now
            left = (now - self._started) / max(1, self.images) * (self.total - self.images)
            self._say(
                f"{self.images}/{self.total} images  {self.pace(now)}  "
                f"{timedelta(seconds=round(left))} left"
            )

    def stop(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def pace(self, now: float | None = None) -> str:
        """``12.0 images/s  80.1 masks/s`` since the start."""
        seconds = max(1e-9, (time.monotonic() if now is None else now) - self._started)
        return f"{self.images / seconds:.1f} images/s  {self.masks / seconds:.1f} masks/s"

    def _say(self, text: str) -> None:
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)
