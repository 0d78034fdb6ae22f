"""The last guard of every command: one sentence instead of a traceback, whatever happens."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from deepmac.errors import Interrupted, UserError

_TRACEBACK = "DEEPMAC_TRACEBACK"
GO_ON = "; to go on: "
_LONGEST = 390
"""Characters of a sentence: as much as is read."""
_FULL = (errno.ENOSPC, errno.EDQUOT)
_SHARED_MEMORY = ("unable to write to file </torch", "unable to allocate shared memory", "/dev/shm")


def guarded(job: Callable[[], int], *, go_on: str = "") -> int:
    """Run ``job``; what stops it is said in one sentence on the standard error.

    Args:
        job: returns the exit status.
        go_on: what to do once there is room on a full disk.

    Returns:
        ``job``'s status; 1 after a mistake of the user's, 70 after one of ours, 130 after Ctrl-C.
        ``DEEPMAC_TRACEBACK=1`` raises everything instead.
    """
    try:
        return job()
    except Exception as error:
        if os.environ.get(_TRACEBACK) == "1":
            raise
        text, code = _answer(error, go_on)
    except KeyboardInterrupt:
        if os.environ.get(_TRACEBACK) == "1":
            raise
        text, code = "stopped by Ctrl-C", 130
    if text:
        said, mark, command = text.partition(GO_ON)  # a command is for typing: whole, or useless
        print(f"deepmac: {_bounded(said)}{mark}{command}", file=sys.stderr, flush=True)
    return code


def _answer(error: Exception, go_on: str) -> tuple[str, int]:
    said = str(error)
    if isinstance(error, Interrupted):
        return said, error.code
    if isinstance(error, UserError):
        return said, 1
    if isinstance(error, MemoryError) or "DefaultCPUAllocator: can't allocate" in said:
        return f"there is not enough memory ({_line(said)}): take smaller batches or images", 1
    if _is_lost_worker(error):
        return (
            f"a process that reads pictures was killed ({_line(said)}), usually because the memory "
            f"is full: set fewer data.num_workers or a smaller batch{go_on}"
        ), 1
    if isinstance(error, OSError) and error.errno is not None:
        return _of_file_system(error, go_on), 1
    if any(words in said for words in _SHARED_MEMORY):
        return (
            f"the shared memory of this machine (/dev/shm) is full ({_line(said)}): enlarge it, or "
            "set data.num_workers=0"
        ), 1
    return _of_ours(error), 70


def _is_lost_worker(error: Exception) -> bool:
    """Told by the loader, or met in the middle of a batch that a process was handing over."""
    if "DataLoader worker" in str(error) or type(error).__name__ == "BrokenProcessPool":
        return True
    handing_over = any(
        "multiprocessing" in Path(frame.filename).parts
        for frame in traceback.extract_tb(error.__traceback__)
    )
    return handing_over and isinstance(error, ConnectionError | EOFError | FileNotFoundError)


def _of_file_system(error: OSError, go_on: str) -> str:
    where = f" {error.filename}" if error.filename else ""
    if error.errno in _FULL:
        return f"cannot write{where}: {error.strerror}; make room{go_on}"
    if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        return f"cannot write{where}: {error.strerror}; choose another place{go_on}"
    return f"cannot use{where or ' a file'}: {error.strerror}"


def _of_ours(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "deepmac" in Path(frame.filename).parts] or frames
    place = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "?"
    notes = "".join(f", {_line(note)}" for note in getattr(error, "__notes__", ()))
    return (
        f"an error that should not happen: {type(error).__name__} at {place}{notes} "
        f"({_line(str(error))}); please report it, with what {_TRACEBACK}=1 shows"
    )


def _bounded(text: str) -> str:
    """Shortened in the middle of its longest words, then of the whole: files may hold any text."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    while len(text) > _LONGEST:
        word = max(text.split(), key=len)
        if len(word) <= 60:
            return f"{text[: _LONGEST - 163]} ... {text[-158:]}"
        keep = max(20, (len(word) - (len(text) - _LONGEST) - 3) // 2)
        text = text.replace(word, f"{word[:keep]}...{word[-keep:]}", 1)
    return text


def _line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 160 else line[:157] + "..."
