"""Memory on a CPU: what a step or a prediction gave back, the next one takes."""

from __future__ import annotations

import ctypes
import os
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
_NEVER, _LARGEST = 2**31 - 1, 32 << 20  # what glibc takes at most
_kept = 0


def keep_freed_memory(most: int = _NEVER) -> bool:
    """Have glibc keep what is freed, instead of giving it back to the system.

    A step frees gigabytes and asks for them again, and the system clears every page anew: about 5 %
    of a step of the largest network, on two cores, and up to a fifth of a small network's pass.
    The process stays as large as its largest step, or larger than it need be by ``most``.

    Args:
        most: bytes that are kept; what was asked for before is never made less.

    Returns:
        Whether it was done: not with other C libraries, nor where ``MALLOC_TRIM_THRESHOLD_`` or
        ``MALLOC_MMAP_THRESHOLD_`` say what is wanted.
    """
    global _kept
    if _kept >= most:
        return True
    if sys.platform != "linux" or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    kept = mallopt(_TRIM_THRESHOLD, most), mallopt(_MMAP_THRESHOLD, _LARGEST)
    _kept = most
    return kept == (1, 1)
