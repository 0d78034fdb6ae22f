"""Memory of a training on a CPU: what a step gave back, the next one takes."""

from __future__ import annotations

import ctypes
import os
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
_NEVER, _LARGEST = 2**31 - 1, 32 << 20  # what glibc takes at most


def keep_freed_memory() -> bool:
    """Have glibc keep what is freed, instead of giving it back to the system.

    A step frees gigabytes and asks for them again, and the system clears every page anew: about 5 %
    of a step of the largest network, on two cores. The process stays as large as its largest step.

    Returns:
        Whether it was done: not with other C libraries, nor where ``MALLOC_TRIM_THRESHOLD_`` or
        ``MALLOC_MMAP_THRESHOLD_`` say what is wanted.
    """
    if sys.platform != "linux" or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    kept = mallopt(_TRIM_THRESHOLD, _NEVER), mallopt(_MMAP_THRESHOLD, _LARGEST)
    return kept == (1, 1)
