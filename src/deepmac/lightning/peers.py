"""Trainings of several processes: when one dies, the others say so and end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence

import torch

from deepmac.lightning.private import observe_processes

_STOPPED = {128 + signal.SIGTERM, 128 + signal.SIGINT}
_LOST = re.compile(r"gloo/transport|Connection (closed|reset) by peer|NCCL|process group", re.I)
_GRACE = 30.0
"""Seconds in which a process notices by itself that another one is gone."""


def is_lost_peer(error: BaseException) -> bool:
    """Whether a collective failed because another process is no longer there."""
    kind = getattr(torch.distributed, "DistError", ())
    return isinstance(error, kind) or (
        isinstance(error, RuntimeError) and _LOST.search(str(error)) is not None
    )


def watch_children(sentence: Callable[[], str]) -> None:
    """Replace Lightning's observer, which kills all processes at once and says nothing.

    It also does so where all of them stop together, as after SIGTERM, with the exit status of that.

    Args:
        sentence: how the run goes on, for a process that does not notice by itself.
    """

    def launch(children: list[subprocess.Popen[bytes]]) -> None:
        threading.Thread(target=_watch, args=(children, sentence), daemon=True).start()

    observe_processes(launch)


def _watch(children: Sequence[subprocess.Popen[bytes]], sentence: Callable[[], str]) -> None:
    while not any(child.poll() not in {None, 0, *_STOPPED} for child in children):
        if all(child.poll() is not None for child in children):
            return
        time.sleep(1.0)
    time.sleep(_GRACE)
    for child in children:
        child.kill()
    print(f"deepmac: {sentence()}", file=sys.stderr, flush=True)
    os._exit(1)
