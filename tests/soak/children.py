"""Commands in child processes that can be killed at any write, and what became of them."""

from __future__ import annotations

import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

_MUTATING = {"os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}


class Kill(NamedTuple):
    """When a child kills itself.

    Attributes:
        at: number of the write below ``folder``, from 0.
        delay: seconds after that write began; 0 = just before it.
    """

    at: int
    delay: float = 0.0


class End(NamedTuple):
    """How a child ended.

    Attributes:
        code: exit status; -N after signal N.
        text: what it said on both outputs.
        seconds: how long it took.
        writes: mutating file operations below the folder.
        memory: largest resident size in MiB.
    """

    code: int
    text: str
    seconds: float
    writes: int
    memory: float

    @property
    def kind(self) -> str:
        """``success``, ``sentence``, ``traceback``, ``hang``, ``killed`` or ``crash``."""
        if "Traceback (most recent call last)" in self.text:
            return "traceback"
        if self.code == -signal.SIGALRM:
            return "hang"
        if self.code == -signal.SIGKILL:
            return "killed"
        if self.code < 0:
            return "crash"
        return "success" if self.code == 0 else "sentence"


def call(
    function: Callable[[], int],
    *,
    folder: Path,
    log: Path,
    kill: Kill | None = None,
    seconds: float = 300.0,
    gigabytes: float | None = None,
    environment: dict[str, str] | None = None,
) -> End:
    """Run ``function`` in a fork of this process.

    Args:
        function: returns the exit status.
        folder: writes below it are counted.
        log: takes what the child says.
        kill: when to kill it.
        seconds: after which it counts as hanging.
        gigabytes: address space beyond what the process has already.
        environment: variables to set in the child; an empty value unsets.
    """
    counter = log.with_suffix(".writes")
    counter.unlink(missing_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        _be_child(function, folder, log, counter, kill, seconds, gigabytes, environment or {})
    _, status, usage = os.wait4(child, 0)
    return End(
        os.waitstatus_to_exitcode(status),
        log.read_text(errors="replace"),
        time.monotonic() - start,
        int(counter.read_text() or 0) if counter.exists() else 0,
        usage.ru_maxrss / 1024,
    )


def _be_child(
    function: Callable[[], int],
    folder: Path,
    log: Path,
    counter: Path,
    kill: Kill | None,
    seconds: float,
    gigabytes: float | None,
    environment: dict[str, str],
) -> None:
    code = 70
    try:
        os.setpgid(0, 0)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - pytest's go elsewhere
        sys.stderr = open(2, "w", closefd=False, buffering=1)  # noqa: SIM115
        for name, value in environment.items():
            os.environ[name] = value
            if not value:
                del os.environ[name]
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        if gigabytes is not None:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            limit = pages * resource.getpagesize() + int(gigabytes * 2**30)
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        written = _watch(folder, kill)
        code = function()
        sys.stdout.flush()
        sys.stderr.flush()
        counter.write_text(str(written[0]))
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _watch(folder: Path, kill: Kill | None) -> list[int]:
    """Count mutating operations below ``folder``; at one of them, end this process for good."""
    below, count = str(folder), [0]
    owner = os.getpid()

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if not isinstance(flags, int) or flags & (os.O_WRONLY | os.O_RDWR) == 0:
                return
        elif event in _MUTATING:
            path = arguments[0]
        else:
            return
        if not isinstance(path, (str, bytes)) and not hasattr(path, "__fspath__"):
            return
        text = os.fsdecode(path)  # type: ignore[arg-type]
        if event == "os.link":
            text = os.fsdecode(arguments[1])  # type: ignore[arg-type]
        if not os.path.abspath(text).startswith(below) or os.getpid() != owner:
            return
        count[0] += 1
        if kill is not None and count[0] == kill.at + 1:
            if kill.delay == 0:
                os.kill(owner, signal.SIGKILL)
            timer = threading.Timer(kill.delay, os.kill, (owner, signal.SIGKILL))
            timer.daemon = True
            timer.start()

    sys.addaudithook(hook)
    return count
