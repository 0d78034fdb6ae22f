"""Freed memory that stays with the process."""

import os
import platform
import subprocess
import sys

import pytest

GLIBC = platform.libc_ver()[0] == "glibc"
FAULTS = """
import resource
import torch
from deepmac.nn.allocator import keep_freed_memory

print(keep_freed_memory())
def step():
    for kept in ([torch.ones(6 << 20) for _ in range(8)], [torch.ones(4 << 20)]):
        del kept
for _ in range(3):  # pieces of what is free may not fit the next step: it grows once more
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def kept_and_faults(**environment: str) -> tuple[str, int]:
    done = subprocess.run(
        [sys.executable, "-c", FAULTS],
        env={k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    kept, faults = done.stdout.split()
    return kept, int(faults)


@pytest.mark.skipif(not GLIBC, reason="another C library than glibc")
def test_freed_memory__is_not_asked_of_the_system_again() -> None:
    kept, faults = kept_and_faults()
    wished, more = kept_and_faults(MALLOC_TRIM_THRESHOLD_="131072")
    assert (kept, wished) == ("True", "False")
    assert faults < more / 10
