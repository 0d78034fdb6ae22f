"""Commands in forks of this process, which can be killed at any write, and what became of them.

This process has imported everything and has one thread; a fork of it runs the real ``main`` on real
files and costs no imports. The signals are real ones, sent from here.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import json
import os
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

_MUTATING = {"os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}


class Kill(NamedTuple):
    """When a child is killed.

    Attributes:
        at: number of the write below ``folder``, from 0.
        delay: seconds after that write began; 0 = just before it.
        cpu: they are of its own time, not the clock's: so it is met on a busy machine too.
    """

    at: int
    delay: float = 0.0
    cpu: bool = False

    def __str__(self) -> str:
        return f"write {self.at} + {self.delay:.4f} s{' of its own' if self.cpu else ''}"


class Write(NamedTuple):
    """A mutating operation of a child below its folder.

    Attributes:
        clock: seconds since the child began.
        cpu: seconds of its own.
        what: the operation and the path. ``draft`` opens a file that takes its place, by a link or
            a renaming, once it is whole.
    """

    clock: float
    cpu: float
    what: str


class End(NamedTuple):
    """How a child ended.

    Attributes:
        code: exit status; -N after signal N.
        text: what it said on both outputs.
        seconds: how long it took.
        writes: that it began below the folder.
        memory: largest resident size in MiB.
        within: it was killed while a file was being written.
    """

    code: int
    text: str
    seconds: float
    writes: Sequence[Write]
    memory: float
    within: bool = False

    @property
    def kind(self) -> str:
        """``success``, ``sentence``, ``traceback``, ``hang``, ``killed`` or ``crash``."""
        if "Traceback (most recent call last)" in self.text:
            return "traceback"
        if self.code in (-signal.SIGALRM, -signal.SIGPROF):
            return "hang"
        if self.code == -signal.SIGKILL:
            return "killed"
        if self.code < 0:
            return "crash"
        return "success" if self.code == 0 else "sentence"


class Bounds(NamedTuple):
    """Of a child.

    Attributes:
        seconds: by the clock, after which it counts as hanging.
        cpu_seconds: of its own, likewise, however busy the machine is.
        gigabytes: address space beyond what this process has already.
    """

    seconds: float = 300.0
    cpu_seconds: float = 300.0
    gigabytes: float | None = None


def settle() -> None:
    """Before the forks: what is imported is left out of their garbage collections."""
    gc.collect()
    gc.freeze()


def call(
    function: Callable[[], int],
    *,
    folder: Path,
    log: Path,
    kill: Kill | None = None,
    bounds: Bounds | None = None,
    environment: dict[str, str] | None = None,
) -> End:
    """Run ``function`` in a fork of this process.

    Args:
        function: returns the exit status.
        folder: writes below it are counted.
        log: takes what the child says.
        kill: when to kill it.
        bounds: of time and memory.
        environment: variables to set in the child; an empty value unsets.
    """
    watched = _Watched(folder, log, kill, bounds or Bounds())

    def job() -> int:
        set_environment(environment or {})
        watched.begin()
        return function()

    sys.stdout.flush()
    sys.stderr.flush()
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        end_with(job)
    return watched.end(child, start)


class Paused:
    """A command that stands still where it would call a function; forks of it go on from there.

    Args:
        function: the command; returns the exit status.
        owner: class that has the function before which it stops.
        name: of that function.
        folder: writes below it are counted.
        log: takes what it says until there; forks have logs of their own.
        environment: as in :func:`call`.
    """

    def __init__(
        self,
        function: Callable[[], int],
        owner: type,
        name: str,
        *,
        folder: Path,
        log: Path,
        environment: dict[str, str],
    ) -> None:
        self.folder, self.log = folder, log
        from_us, self._ask = os.pipe()
        self._answer, to_us = os.pipe()
        sys.stdout.flush()
        self._process = os.fork()
        if self._process == 0:
            os.close(self._ask)
            os.close(self._answer)
            goes_on = getattr(owner, name)

            @functools.wraps(goes_on)  # LightningCLI looks at its arguments
            def stop(*args: Any, **kwargs: Any) -> Any:
                self._stand_still(from_us, to_us)
                return goes_on(*args, **kwargs)

            setattr(owner, name, stop)
            set_environment(environment)
            _speak_into(log)
            end_with(function)
        os.close(from_us)
        os.close(to_us)

    def call(self, log: Path, kill: Kill | None = None) -> End:
        """Let a fork go on; as :func:`call`."""
        os.write(self._ask, json.dumps([str(log), kill]).encode() + b"\n")
        told = b""
        while not told.endswith(b"\n"):
            some = os.read(self._answer, 1 << 16)
            assert some, f"the command ended before: {self.log.read_text()[-2000:]}"
            told += some
        fields = json.loads(told)
        return End(*fields)._replace(writes=[Write(*one) for one in fields[3]])

    def close(self) -> None:
        """End it."""
        os.close(self._ask)
        os.close(self._answer)
        os.waitpid(self._process, 0)

    def _stand_still(self, from_us: int, to_us: int) -> None:
        assert len(os.listdir("/proc/self/task")) == 1, "a process with threads cannot be forked"
        settle()
        told = b""
        while some := os.read(from_us, 1 << 16):
            told += some
            if not told.endswith(b"\n"):
                continue
            log, kill = json.loads(told)
            told = b""
            watched = _Watched(self.folder, Path(log), Kill(*kill) if kill else None, Bounds())
            start = time.monotonic()
            child = os.fork()
            if child == 0:
                os.close(from_us)
                os.close(to_us)
                watched.begin()
                return
            answer = json.dumps(watched.end(child, start)).encode() + b"\n"
            while answer:
                answer = answer[os.write(to_us, answer) :]
        os._exit(0)


class _Watched:
    """A child's side, and its parent's, of being watched, bounded and killed."""

    def __init__(self, folder: Path, log: Path, kill: Kill | None, bounds: Bounds) -> None:
        self.folder, self.log, self.kill, self.bounds = folder, log, kill, bounds
        self.told = log.with_suffix(".writes")
        self.told.write_bytes(b"")
        log.write_bytes(b"")

    def begin(self) -> None:
        """In the child."""
        os.setpgid(0, 0)
        gc.set_threshold(50_000)
        _speak_into(self.log)
        for number in (signal.SIGALRM, signal.SIGPROF):
            signal.signal(number, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, self.bounds.seconds)
        signal.setitimer(signal.ITIMER_PROF, self.bounds.cpu_seconds)
        if self.bounds.gigabytes is not None:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            limit = pages * resource.getpagesize() + int(self.bounds.gigabytes * 2**30)
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        _watch(self.folder, os.open(self.told, os.O_WRONLY | os.O_APPEND), self.kill)

    def end(self, child: int, start: float) -> End:
        """In the parent: wait for it."""
        _, status, usage = os.wait4(child, 0)
        with suppress(OSError):
            os.killpg(child, signal.SIGKILL)  # the processes that it leaves
        lines = [line.split(" ", 2) for line in self.told.read_text(errors="replace").splitlines()]
        writes = [Write(float(clock), float(cpu), what) for clock, cpu, what in lines]
        code = os.waitstatus_to_exitcode(status)
        # What follows the opening of a draft is its link or its renaming, once it is whole.
        within = bool(writes) and writes[-1].what.startswith("draft")
        return End(
            code,
            self.log.read_text(errors="replace"),
            time.monotonic() - start,
            writes,
            usage.ru_maxrss / 1024,
            code == -signal.SIGKILL and within,
        )


def _speak_into(log: Path) -> None:
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - pytest's go elsewhere
    sys.stderr = open(2, "w", closefd=False, buffering=1)  # noqa: SIM115


def set_environment(variables: dict[str, str]) -> None:
    """An empty value unsets."""
    for name, value in variables.items():
        os.environ[name] = value
        if not value:
            del os.environ[name]


def end_with(function: Callable[[], int]) -> NoReturn:
    """End this fork with the exit status that ``function`` gives, as a process of its own would."""
    code = 70
    try:
        code = function()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _kill_now(process: int, folder: Path) -> bool:
    """SIGKILL; whether a file below the folder was being written, drafts without names included."""
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGSTOP)
    within = False
    with suppress(OSError):
        for name in os.listdir(f"/proc/{process}/fd"):
            if os.readlink(f"/proc/{process}/fd/{name}").startswith(f"{folder}/"):
                info = Path(f"/proc/{process}/fdinfo/{name}").read_text()
                within |= int(info.split("flags:")[1].split()[0], 8) & 3 != os.O_RDONLY
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)
    return within


def fresh(
    words: Sequence[str],
    *,
    folder: Path,
    environment: dict[str, str],
    kill: tuple[Path, int, float] | None = None,
) -> End:
    """Run a program of its own, not a fork.

    Args:
        words: its command line.
        folder: where it writes.
        environment: as in :func:`call`.
        kill: a file, how often it was replaced, and the seconds after which then to kill.
    """
    start = time.monotonic()
    everything = {k: v for k, v in {**os.environ, **environment}.items() if v}
    process = subprocess.Popen(
        words, env=everything, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    within = False
    if kill is not None:
        path, times, delay = kill
        seen: set[int] = set()
        while process.poll() is None and len(seen) < times:
            with suppress(FileNotFoundError):
                seen.add(path.stat().st_ino)
            time.sleep(0.001)
        time.sleep(delay)
        within = _kill_now(process.pid, folder)
    text, _ = process.communicate()
    return End(process.returncode, text, time.monotonic() - start, (), 0.0, within)


def _watch(folder: Path, told: int, kill: Kill | None) -> None:
    """Write down every mutating operation below ``folder``; be killed at one of them."""
    below, count = str(folder), 0
    owner, start, cpu_start = os.getpid(), time.monotonic(), time.process_time()

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        if event == "open":
            path, _, flags = arguments
            if not isinstance(flags, int) or flags & (os.O_WRONLY | os.O_RDWR) == 0:
                return
        elif event in _MUTATING:
            path = arguments[1] if event == "os.link" else arguments[0]
        else:
            return
        if not isinstance(path, (str, bytes)) and not hasattr(path, "__fspath__"):
            return
        text = os.path.abspath(os.fsdecode(path))  # type: ignore[arg-type]
        if not text.startswith(below) or os.getpid() != owner:
            return
        if kill is not None and count == kill.at and kill.delay == 0:
            os.kill(owner, signal.SIGKILL)
        unnamed = event == "open" and int(arguments[2]) & os.O_TMPFILE == os.O_TMPFILE  # type: ignore[call-overload]
        if event == "open" and (unnamed or ".draft" in text):
            event = "draft"
        clock, cpu = time.monotonic() - start, time.process_time() - cpu_start
        name = ascii(text[len(below) :])
        os.write(told, f"{clock:.6f} {cpu:.6f} {event} {name}\n".encode())
        if kill is not None and count == kill.at:
            _kill_after(kill.delay, cpu=kill.cpu)
        count += 1

    sys.addaudithook(hook)


def _kill_after(seconds: float, *, cpu: bool) -> None:
    """Have the kernel send SIGKILL to this process; Python's own timers wait for its lock."""
    libc = ctypes.CDLL(None, use_errno=True)
    event = (ctypes.c_int * 16)()
    event[2] = signal.SIGKILL  # after the eight bytes of sigval; notification 0 = by a signal
    timer = ctypes.c_void_p()
    clock = time.CLOCK_PROCESS_CPUTIME_ID if cpu else time.CLOCK_MONOTONIC
    times = (ctypes.c_long * 4)(0, 0, int(seconds), int(seconds % 1 * 1e9))
    failed = libc.timer_create(clock, ctypes.byref(event), ctypes.byref(timer))
    if failed or libc.timer_settime(timer, 0, ctypes.byref(times), None):
        os.kill(os.getpid(), signal.SIGKILL)
