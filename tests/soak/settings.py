"""Hostile settings: a step of training, or one sentence before anything is read."""

from __future__ import annotations

from functools import partial
from random import Random
from typing import Any

from deepmac.cli import main
from e2e.settings_fuzz import VALUES, settings
from soak.campaign import Part
from soak.children import Bounds, End, call
from soak.counts import Counts
from soak.trainings import TRAIN
from soak.world import World

MEANT: dict[str, tuple[Any, ...]] = {
    "data.batch_size": (0, -1, "null", 1.5, 10**9, "a"),
    "data.val_batch_size": (0, -1, "a"),
    "data.num_workers": (-1, "null", 1.5),
    "data.image_size": (0, -64, 65, 1, 1000000, "null", 64.5),
    "data.max_boxes": (0, -1),
    "data.shapes_train": (0, -5, "a"),
    "data.shapes_size": (0, 31, 99999),
    "model.lr": ("nan", "inf", -1, 0, "1e400", "a", 1e6),
    "model.warmup_start_lr": ("nan", -1),
    "model.warmup_steps": (-1, 1.5),
    "model.weight_decay": ("nan", -1),
    "model.head_channels": (0, -1, 1.5),
    "model.num_init_channels": (0, -1),
    "model.mask_threshold": (0, 1, "nan", -1),
    "model.backbone": ("", "resnet5000", "null"),
    "model.mask_head": ("", "hourglass11", "resnet4x"),
    "model.init_from": ("/nowhere.pth", "/dev/null", "."),
    "trainer.devices": ("abc", -1, 0, 99),
    "trainer.accelerator": ("gpu", "tpu", "abc"),
    "trainer.precision": ("8", "abc", "16-mixed"),
    "trainer.max_steps": (-2, 1.5, "nan"),
    "trainer.max_epochs": (-2, "a"),
    "trainer.max_time": ("abc", "00:00:00:-1"),
    "trainer.limit_val_batches": (2.5, -1),
    "trainer.limit_train_batches": (2.5, -1),
    "trainer.accumulate_grad_batches": (0, -1, 1.5),
    "trainer.gradient_clip_val": ("nan", -1),
    "trainer.log_every_n_steps": (-1, "a"),
    "trainer.val_check_interval": (0, -1, 2.5),
    "trainer.num_sanity_val_steps": (-2, "a"),
    "ckpt_path": ("best", "last", "/nowhere.ckpt", "/dev/null", "/dev/zero", "."),
    "hydra.run.dir": ("/proc/x", "/dev/null", "/dev/full", "x" * 300),
    "callbacks.last.init_args.every_n_train_steps": (0, -1, "a"),
    "callbacks.nothing": ("null", "1"),
    "seed_everything": (-1, "a", 10**30),
    "split": ("nothing", "custom"),
    "experiment": ("nothing",),
}
"""What was once answered badly; drawn before what the tree of settings has."""


def part(world: World, goal: int) -> Part:
    """Those once found, then any setting with any value."""
    return Part(Counts("settings that are hostile", goal), _trial, world)


def _trial(part: Part, draw: Random) -> None:
    world, counts = part.world, part.counts
    counts.done += 1
    meant = [(name, value) for name, values in MEANT.items() for value in values]
    if counts.trials < len(meant) and counts.goal > len(meant):
        name, value = meant[counts.trials]
    elif draw.random() < 0.5:
        name, value = draw.choice(meant)
    else:
        name, value = draw.choice(list(settings())), draw.choice(VALUES)
    end = answer(world, name, value)
    kind = counts.add(end, name=f"{name}={value}")
    if kind == "success":
        counts.notes["trained a step"] += 1


def answer(world: World, name: str, value: Any) -> End:
    """One step of training with the setting."""
    place = world.fresh("setting")
    words = [*TRAIN, "trainer.limit_train_batches=1", "trainer.limit_val_batches=0"]
    words = [word for word in words if word.split("=")[0] != name]
    if name != "hydra.run.dir":
        words.append(f"hydra.run.dir={place}")
    return call(
        partial(main, ["fit", *words, f"{name}={value}"]),
        folder=place,
        log=world.root / "setting.log",
        bounds=Bounds(seconds=90.0, cpu_seconds=20.0, gigabytes=16.0),
        environment=world.environment,
    )
