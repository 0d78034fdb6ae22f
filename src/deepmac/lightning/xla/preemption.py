"""SIGTERM for replicas: each process of a run hears of it, all stop after the same step.

The processes that Lightning starts for XLA train in threads, where no signal handler can be set.
They inherit the one set here; the step then agrees over all replicas (see ``step_report``).
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_received = threading.Event()


def requested() -> bool:
    """Whether this process was told to stop."""
    return _received.is_set()


@contextmanager
def noticed() -> Iterator[None]:
    """Within it, SIGTERM is remembered and passed on to the processes started within it."""
    _received.clear()
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner = os.getpid()

    def remember(number: int, frame: FrameType | None) -> None:
        _received.set()
        if os.getpid() == owner:
            for child in multiprocessing.active_children():
                if child.pid is not None:
                    with suppress(ProcessLookupError):
                        os.kill(child.pid, signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, remember)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
