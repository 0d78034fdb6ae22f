"""The campaign: ``make soak``, ``make soak ARGS=--quick`` (five minutes), or
``PYTHONPATH=tests python -m soak [--kills N] [--fuzz N] [--only NAME ...] [--seed N]``.

Kills trainings and tools at their writes and starts them again, fills disks, damages inputs, tries
hostile settings; each in a process of its own, within bounds of time and memory. Ends with the
counts, and with an error where one of the bad ones is not zero.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from soak import fuzz, kills
from soak.counts import Counts
from soak.world import World

# Imported before the forks, which then cost no imports.
_WARM = (
    "deepmac.lightning.cli",
    "deepmac.label.command",
    "deepmac.label.job",
    "deepmac.export.export",
    "hydra",
    "torch",
)


def main() -> int:
    """Run the parts that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=1000, help="trainings; a fifth of it of tools")
    parser.add_argument("--disks", type=int, default=60, help="full disks")
    parser.add_argument("--fuzz", type=int, default=10_000, help="damaged inputs")
    parser.add_argument("--settings", type=int, default=400, help="hostile settings")
    parser.add_argument("--quick", action="store_true", help="five minutes' worth")
    parser.add_argument("--only", nargs="+", default=[], help="train tools disks boxes ...")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="the counts as JSON")
    options = parser.parse_args()
    if options.quick:
        options.kills, options.disks, options.fuzz, options.settings = 8, 4, 40, 12
    for name in _WARM:
        importlib.import_module(name)
    import torch

    torch.set_num_threads(1)
    kills_, seed = options.kills, options.seed
    started, counts = time.monotonic(), []
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        world = World(Path(folder))
        parts: dict[str, Callable[[], list[Counts]]] = {
            "train": lambda: [kills.kill_trainings(world, kills_, seed)],
            "tools": lambda: kills.kill_tools(world, max(1, kills_ // 5), seed),
            "disks": lambda: [kills.full_disks(world, options.disks, seed)],
            "boxes": lambda: [fuzz.fuzz_boxes(world, options.fuzz * 3 // 4, seed)],
            "checkpoints": lambda: [fuzz.fuzz_checkpoints(world, options.fuzz // 4, seed)],
            "settings": lambda: [fuzz.fuzz_settings(world, options.settings, seed)],
        }
        for name, part in parts.items():
            if not options.only or name in options.only:
                for found in part():
                    print(found, flush=True)
                    counts.append(found)
    print(f"seed {seed}, {time.monotonic() - started:.0f} s in all")
    if options.out:
        content = {found.what: dict(found.outcomes) for found in counts}
        options.out.write_text(json.dumps(content, indent=1) + "\n")
    return 1 if any(found.bad for found in counts) else 0


if __name__ == "__main__":
    sys.exit(main())
