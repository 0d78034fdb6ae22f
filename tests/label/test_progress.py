"""How far a job is, for a log file and for a terminal."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np

from deepmac.label.plan import ImageTask
from deepmac.label.progress import Progress

TASK = ImageTask(0, Path("a.jpg"), (4, 4), np.arange(3), np.zeros((3, 4)))


def test_log__tells_pace_time_left_and_what_was_done_before(capsys) -> None:
    progress = Progress(line_seconds=0)
    progress.start({0: [TASK] * 4, 1: [TASK] * 2}, {0: [TASK] * 4})
    progress.advance(2, 6)
    progress.stop()
    first, second = capsys.readouterr().err.splitlines()
    assert first == "2 images done before; 4 left"
    assert re.fullmatch(r"2/4 images  [\d.]+ images/s  [\d.]+ masks/s  \d+:\d\d:\d\d left", second)


def test_terminal__shows_a_bar(capsys, monkeypatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    progress = Progress()
    progress.start({0: [TASK] * 4}, {0: [TASK] * 4})
    progress.advance(4, 12)
    progress.stop()
    said = capsys.readouterr().err
    assert "4/4" in said and "masks/s" in said


def test_quiet__says_nothing(capsys) -> None:
    progress = Progress(quiet=True, line_seconds=0)
    progress.start({0: [TASK] * 2}, {0: [TASK]})
    progress.advance(1, 3)
    assert capsys.readouterr().err == ""


def test_counts__are_english():
    from deepmac.errors import counted

    assert [counted(n, "image") for n in (0, 1, 2)] == ["0 images", "1 image", "2 images"]
