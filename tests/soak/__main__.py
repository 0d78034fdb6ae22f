"""The campaign: ``make soak``, ``make soak ARGS=--quick`` (five minutes), or
``PYTHONPATH=tests python -m soak [--kills N] [--inputs N] [--settings N] [--only NAME ...]`` with
``OMP_NUM_THREADS=1``.

Kills trainings and tools at their writes and starts them again, fills disks, damages inputs, tries
hostile settings, crowds the demo; each within bounds of time and memory. Prints the counts as it
goes, and ends with an error where one of the bad ones is not zero. With ``--state FILE`` a campaign
of hours can be run in pieces of ``--minutes``.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

from deepmac.cli import main as deepmac
from soak import crowd, disks, inputs, settings, tools, trainings
from soak.campaign import Campaign, Part
from soak.children import settle
from soak.kinds import kinds
from soak.world import World

# Imported before the forks, which then cost no imports; all that does not start threads by it.
_WARM = (
    *("deepmac.lightning.cli", "deepmac.label.command", "deepmac.label.job", "hydra", "torch"),
    *("deepmac.export.export", "pycocotools.coco", "cloudpickle", "fsspec.implementations.local"),
)


def main() -> int:
    """Run the parts that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=1000, help="of trainings")
    parser.add_argument("--tools", type=int, default=200, help="kills of a tool")
    parser.add_argument("--disks", type=int, default=60, help="full disks")
    parser.add_argument("--inputs", type=int, default=10_000, help="damaged inputs")
    parser.add_argument("--settings", type=int, default=400, help="hostile settings")
    parser.add_argument("--crowds", type=int, default=3, help="before the demo")
    parser.add_argument("--only", nargs="+", default=[], help="parts, by the first word of each")
    parser.add_argument("--quick", action="store_true", help="five minutes' worth")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=1e9, help="then stop, and say how far")
    parser.add_argument("--state", type=Path, help="keeps the counts; gone on from where it is")
    options = parser.parse_args()
    if options.quick:
        options.kills, options.tools, options.disks = 12, 3, 6
        options.inputs, options.settings, options.crowds = 120, 20, 1
    started = time.monotonic()
    _warm()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        world = World(Path(folder))
        settle()
        parts: list[Part] = [
            trainings.part(world, options.kills),
            *tools.parts(world, options.tools),
            disks.part(world, options.disks),
            *inputs.parts(world, options.inputs, kinds()),
            settings.part(world, options.settings),
            crowd.part(world, options.crowds),
        ]
        if options.only:
            parts = [p for p in parts if p.counts.what.split()[0] in options.only]
        campaign = Campaign(parts, options.seed, options.state)
        done = campaign.run(options.minutes * 60)
    print(f"seed {options.seed}, {time.monotonic() - started:.0f} s")
    for counts in (part.counts for part in parts):
        for example in counts.examples:
            print(f"  {counts.what}: {example}")
    bad = any(part.counts.bad for part in parts)
    return 1 if bad else 0 if done else 3


def _warm() -> None:
    """Import and parse everything once; a process of one thread can be forked."""
    for name in _WARM:
        importlib.import_module(name)
    import torch
    from PIL import Image

    torch.set_num_threads(1)
    Image.init()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        deepmac(["fit", *trainings.TRAIN, "--print_config"])
    os.environ.pop("DEEPMAC_RUN_DIR", None)
    if len(os.listdir("/proc/self/task")) > 1 or threading.active_count() > 1:
        sys.exit("a process of several threads cannot be forked: set OMP_NUM_THREADS=1")


if __name__ == "__main__":
    sys.exit(main())
