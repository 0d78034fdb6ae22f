"""A command on a terminal of its own, and what a person sees there."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyte

_ROWS = 60
_QUIET = 0.04  # seconds without output: what is seen now is meant to be seen


@dataclass(frozen=True)
class Recording:
    """What was seen.

    Attributes:
        code: exit status; negative for a signal.
        frames: (seconds of work, the lines that are not empty) of each picture that stood. Work is
            the process's own time on a CPU: the machine may do other things as well.
        written: all that came, pictures that did not stand included.
    """

    code: int
    frames: list[tuple[float, list[str]]]
    written: str

    @property
    def end(self) -> list[str]:
        """The last picture."""
        return self.frames[-1][1]


def record(
    command: Sequence[str],
    *,
    columns: int,
    cwd: Path,
    environment: Mapping[str, str],
    interrupt: Callable[[list[str]], bool] | None = None,
    limit: float = 240,
) -> Recording:
    """Run a command on a terminal so many columns wide.

    Args:
        command: words.
        columns: of the terminal.
        cwd: where it runs.
        environment: its own.
        interrupt: Ctrl-C is typed once, at the first picture for which this is true.
        limit: seconds, after which the command is killed.
    """
    screen = pyte.Screen(columns, _ROWS)
    stream = pyte.ByteStream(screen)
    process, terminal = pty.fork()
    if process == 0:
        kept = {k: v for k, v in environment.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
        os.chdir(cwd)
        os.execvpe(command[0], command, {**kept, "TERM": "xterm-256color"})
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, columns, 0, 0))
    started, frames, written = time.monotonic(), [], b""
    while time.monotonic() - started < limit:
        if select.select([terminal], [], [], _QUIET)[0]:
            try:
                some = os.read(terminal, 65536)
            except OSError:  # nobody holds the other end any more
                break
            written += some
            stream.feed(some)
            continue
        lines = [line.rstrip() for line in screen.display if line.strip()]
        if lines and (not frames or frames[-1][1] != lines):
            frames.append((_worked(process), lines))
        if interrupt is not None and lines and interrupt(lines):
            os.write(terminal, b"\x03")
            interrupt = None
    else:
        os.kill(process, signal.SIGKILL)
    frames.append((_worked(process), [line.rstrip() for line in screen.display if line.strip()]))
    os.close(terminal)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    return Recording(code, frames, written.decode(errors="replace"))


def _worked(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
