"""Ctrl-C and SIGTERM: the job ends in order, says what is kept, and how to go on."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stopped(BaseException):
    """Someone wants the job to end; no Exception, so that nothing on the way takes it for a fault.

    Attributes:
        number: of the signal.
        kept: a sentence on what is on disk.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number
        self.kept = "nothing was written yet"

    @property
    def exit_code(self) -> int:
        """What a shell expects: 130 after Ctrl-C, 143 after SIGTERM."""
        return 128 + self.number

    def __str__(self) -> str:
        how = "Ctrl-C" if self.number == signal.SIGINT else signal.Signals(self.number).name
        return f"stopped by {how}: {self.kept}"


@contextmanager
def stoppable() -> Iterator[None]:
    """The first of the two signals raises :class:`Stopped` here; later ones change nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner, asked = os.getpid(), False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if os.getpid() != owner:
            os._exit(0)
        if not asked:
            asked = True
            raise Stopped(number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def leave_quietly(worker: int) -> None:
    """For a loader's new worker: either signal ends it, with the one status that is no fault.

    torch's own handler dies of SIGTERM, of which the loader tells while it is shut down.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(0))
