"""The two lines of a run at work, at any width."""

from __future__ import annotations

import time
from datetime import timedelta

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

_GAP = "  "
_LEAST_BAR = 8
_SPARE = 4  # a terminal shows typed keys, as ^C; a line that they fill would break


class Screen:
    """Renders as two lines that never wrap.

    Attributes:
        where: the run is.
        batches: (done, of how many) of an evaluation that runs; None in training.
        losses: by name, the one that is minimised first.
        speed: in words.
        note: takes the place of the losses.
    """

    def __init__(self) -> None:
        self.where = ""
        self.batches: tuple[int, float | None] | None = None
        self.losses: dict[str, float] = {}
        self.speed = ""
        self.note = ""
        self._share: float | None = None
        self._end: float | None = None

    def ends(self, rest: tuple[float, float] | None) -> None:
        """Share that is done and seconds that are left, as of now."""
        self._share = self._end = None
        if rest is not None:
            self._share, self._end = rest[0], time.monotonic() + rest[1]

    def line(self) -> str:
        """Everything, where no terminal limits it."""
        return _GAP.join(filter(None, [self.where, *self._shown(), self.speed, self._left()]))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """A line with a bar, and one with figures."""
        width = max(1, options.max_width - _SPARE)
        where, left, share = self.where, self._left(), self._share
        if self.batches is not None:
            done, of = self.batches
            where += f", batch {done}/{of:.0f}" if of else ""
            share = done / of if of else 0.0
        if share is not None:
            left = _GAP.join(filter(None, [f"{100 * share:3.0f} %", left]))
        first = Table.grid(padding=(0, 2, 0, 0), expand=True)
        first.add_column(no_wrap=True, overflow="ellipsis")
        row: list[Text | ProgressBar] = [Text(where)]
        if share is not None and width - cell_len(where + left) - 4 >= _LEAST_BAR:
            first.add_column(ratio=1)
            row.append(ProgressBar(1.0, share))
        first.add_column(no_wrap=True, justify="right")
        first.add_row(*row, Text(left))
        yield from console.render(first, options.update_width(width))
        yield Text(self._figures(width), no_wrap=True, overflow="ellipsis")

    def _figures(self, width: int) -> str:
        """As many losses as there is room for beside the speed."""
        if self.note:
            return self.note
        room = width - cell_len(self.speed)
        text = ""
        for loss in self._shown():
            if cell_len(text + loss + _GAP) > room:
                break
            text += loss + _GAP
        return text.ljust(room) + self.speed

    def _shown(self) -> list[str]:
        return [f"{name} {figure(value)}" for name, value in self.losses.items()]

    def _left(self) -> str:
        if self._end is None:
            return ""
        return f"{timedelta(seconds=max(0, round(self._end - time.monotonic())))} left"


def figure(value: float) -> str:
    """With three digits, and for a small number three behind the point."""
    size = abs(value)
    if size >= 1e5:
        return f"{value:.3g}"
    return f"{value:.{3 if size < 1 else 2 if size < 10 else 1 if size < 100 else 0}f}"
