"""Disks of some megabytes: one sentence that names a file there, nothing half-written."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from random import Random

from deepmac.cli import main
from soak.campaign import Part
from soak.children import call
from soak.counts import Counts
from soak.tools import TOOLS
from soak.trainings import TRAIN, half_file
from soak.world import World, small_disk


def part(world: World, goal: int) -> Part:
    """Trainings and tools in turn."""
    return Part(Counts("disks that are full", goal), _trial, world)


def _trial(part: Part, draw: Random) -> None:
    world, counts = part.world, part.counts
    counts.done += 1
    with small_disk(world.root / "full", draw.choice(_SIZES)) as disk:
        if disk is None:
            counts.notes["left out: mounting takes root"] += 1
            return
        name = draw.choice(
            ("train", "train", "label", "label-png", "convert", "safetensors", "shard")
        )
        filler = disk / "filler"
        if name == "train":
            words = ["fit", *TRAIN, f"hydra.run.dir={disk / 'run'}"]
        else:
            make, _ = TOOLS[name]
            words = make(world, disk)
        free = draw.choice((4096, 9000, 1 << 15, 1 << 17, 1 << 20, 1 << 22))
        with filler.open("wb", buffering=0) as file:
            with suppress(OSError):
                while file.write(bytes(4096)):
                    pass
            file.truncate(max(0, file.tell() - free))
        end = call(
            partial(main, words),
            folder=disk,
            log=world.root / "full.log",
            environment=world.environment,
        )
        wrong, why = "", ""
        if end.code and str(disk) not in end.text:
            wrong, why = "silent wrong", "it names no file of that disk"
        elif why := half_file(disk / "run" if name == "train" else disk):
            wrong = "half file"
        counts.add(end, name=f"{name}, {free} bytes free", wrong=wrong, why=why)


_SIZES = (1, 5, 9, 14, 20)
