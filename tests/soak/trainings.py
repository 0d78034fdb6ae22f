"""Trainings that are killed and go on: nothing half, nothing lost, nothing different."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import torch
import yaml
from PIL import Image
from pytorch_lightning import Trainer

from deepmac.cli import main
from soak.campaign import Part
from soak.children import End, Kill, Paused, Write, call, fresh
from soak.counts import Counts
from soak.world import World, small_disk
from tiny import REPOSITORY

_NOT_SAME = ("train/seconds_per_step", "train/data_wait")
_FRESH_EVERY = 50
TRAIN = (
    "data.shapes_train=4",
    "data.shapes_val=2",
    "data.shapes_size=64",
    "data.image_size=64",
    "data.batch_size=2",
    "data.val_batch_size=2",
    "data.num_workers=0",
    "model.backbone=test_resnet",
    "model.weights=null",
    "model.pyramid_width=8",
    "model.head_channels=4",
    "model.mask_head=resnet4",
    "model.num_init_channels=4",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=2",
    "trainer.log_every_n_steps=1",
    "trainer.check_val_every_n_epoch=1",
    "trainer.num_sanity_val_steps=0",
    "callbacks.last.init_args.every_n_train_steps=1",
    "callbacks.pictures=null",
    "logger.tensorboard=null",
)
"""Four steps in two epochs, a checkpoint after each."""


def fit(world: World, run: Path, kill: Kill | None = None, *more: str) -> End:
    """A training in a fork that begins before its command line is parsed."""
    words = _words(run, more)
    log = world.root / "fit.log"
    return call(lambda: main(words), folder=run, log=log, kill=kill, environment=world.environment)


def _words(run: Path, more: Sequence[str]) -> list[str]:
    return ["fit", *TRAIN, f"hydra.run.dir={run}", *more]


def part(world: World, goal: int) -> Part:
    """Kills of trainings, a half of them on a file system of its own."""
    return Part(Counts("trainings killed", goal), _Kills(world), world)


class _Kills:
    """Kill a training, most often once more or twice as it goes on, then let it end.

    Most trainings are forks of a command that stands where it calls ``Trainer.fit``; some are forks
    from before its command line is parsed, and some are processes of their own.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.paused: dict[tuple[Path, bool], Paused] = {}
        self.writes: dict[Path, Sequence[Write]] = {}

    def __call__(self, part: Part, draw: Random) -> None:
        counts = part.counts
        whole, end = undisturbed(self.world)
        other = counts.trials % 2 == 1
        place = _other_disk(self.world, part.stack) if other else self.world.root / "here"
        run, kind = place / "run", _KINDS.get(counts.trials % 40 - other, "forks of Trainer.fit")
        run.mkdir(parents=True, exist_ok=True)
        start: Callable[..., End] = partial(fit, self.world, run)
        writes = end.writes
        if kind == "processes of their own":
            start = partial(_fit_fresh, self.world, run)
        elif kind == "forks of Trainer.fit":
            start = partial(self._fit_paused, part.stack, run)
            if run not in self.writes:
                self.writes[run] = start().writes
            writes = self.writes[run]
        _empty(run)
        told = []
        for number in range(draw.choice((1, 2, 3, 4))):
            more = ("ckpt_path=last",) if number else ()
            kill = moment_of(writes, draw, within=_needs_within(counts))
            died = start(kill, *more)
            told.append(str(kill))
            if died.code == -9:
                counts.done += 1
                counts.notes["in the middle of a write"] += died.within
                counts.notes["on another file system"] += other
                counts.notes[kind] += 1
            elif died.kind != "success":
                wrong = "failed resume" if more else ""
                counts.add(died, name=f"{kind}, {', '.join(told)} in {run}", wrong=wrong)
                return
            if half := half_file(run):
                counts.add(died, name=", ".join(told), wrong="half file", why=half)
                return
        again = start(None, "ckpt_path=last")
        wrong, why = "", ""
        if again.code:
            wrong = "failed resume"
        elif why := differs(whole, run):
            wrong = "not as undisturbed"
        elif why := left_over(run):
            wrong = "left over"
        counts.add(again, name=f"{kind}, {', '.join(told)} in {run}", wrong=wrong, why=why)

    def _fit_paused(self, stack: ExitStack, run: Path, kill: Kill | None = None, *more: str) -> End:
        key = run, bool(more)
        if key not in self.paused:
            words, log = _words(run, more), self.world.root / "paused.log"
            self.paused[key] = Paused(
                lambda: main(words),
                Trainer,
                "fit",
                folder=run,
                log=log,
                environment=self.world.environment,
            )
            stack.callback(self.paused.pop, key)
            stack.callback(self.paused[key].close)
        return self.paused[key].call(self.world.root / "fit.log", kill)


_KINDS = {
    **dict.fromkeys((4, 12, 20, 28), "forks of the command"),
    36: "processes of their own",
}


def _empty(run: Path) -> None:
    """The folder stays: to the command that stands still it is there."""
    for path in run.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _needs_within(counts: Counts) -> bool:
    return counts.notes["in the middle of a write"] <= counts.done / 2


def undisturbed(world: World) -> tuple[Path, End]:
    """A training that nothing happens to, made once."""
    if world.whole is None:
        run = world.fresh("whole")
        end = fit(world, run)
        assert end.code == 0, end.text[-2000:]
        world.whole = run, end
    return world.whole


def _other_disk(world: World, stack: ExitStack) -> Path:
    """A file system that is not the temporary folder's."""
    if world.other_disk is None:
        disk = stack.enter_context(small_disk(world.root / "disk", 500))
        folder = disk or Path("/dev/shm") / f"soak-{os.getpid()}"
        if disk is None:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        stack.callback(setattr, world, "other_disk", None)
        world.other_disk = folder
    return world.other_disk


def moment_of(writes: Sequence[Write], draw: Random, *, within: bool) -> Kill:
    """Just before a write, some time after it, or while a file is being written."""
    if not within:
        return Kill(draw.randrange(len(writes)), draw.choice([0.0, draw.uniform(1e-4, 0.05)]))
    cpu = draw.random() < 0.7  # otherwise it waits for the disk, too
    gaps = []
    for number, (one, following) in enumerate(pairwise(writes)):
        gap = following.cpu - one.cpu if cpu else following.clock - one.clock
        if one.what.startswith("draft") and gap > 1e-4:
            gaps.append((number, gap))
    # Checkpoints take longest to write: they are met most often, but not always.
    number, gap = draw.choices(gaps, weights=[0.002 + gap for _, gap in gaps])[0]
    return Kill(number, gap * draw.uniform(0.02, 0.7), cpu)


def _fit_fresh(world: World, run: Path, kill: Kill | None = None, *more: str) -> End:
    words = [sys.executable, str(REPOSITORY / "train.py"), *_words(run, more)[1:]]
    moment = None
    if kill is not None:  # it cannot be asked for its writes: some time after a checkpoint
        moment = run / "checkpoints/last.ckpt", 1 + kill.at % 4, kill.delay * 3
    return fresh(words, folder=run, environment=world.environment, kill=moment)


def half_file(run: Path, but: Path | None = None) -> str:
    """The name of a file that is not whole; nothing is where all are. ``but`` holds inputs."""
    for path in sorted(p for p in run.rglob("[!.]*") if p.is_file()):
        if but in path.parents or any(
            above.suffix == ".parts" for above in path.parents
        ):  # of a job that is to go on
            continue
        try:
            _READERS.get(path.suffix, Path.read_bytes)(path)
        except Exception as error:
            return f"{path.name}: {type(error).__name__}: {error}"
    return ""


def _read_table(path: Path) -> None:
    text = path.read_text()
    lines = [line.count(",") for line in text.splitlines()]
    if not text.endswith("\n") or len(set(lines)) != 1:
        raise ValueError("a row is not whole")


def _read_page(path: Path) -> None:
    if not path.read_text().rstrip().endswith("</html>"):
        raise ValueError("no end")


_READERS: Mapping[str, Any] = {
    ".ckpt": lambda path: torch.load(path, weights_only=True),
    ".csv": _read_table,
    ".json": lambda path: json.loads(path.read_text()),
    ".yaml": lambda path: yaml.safe_load(path.read_text()) is not None,
    ".html": _read_page,
    ".png": lambda path: Image.open(path).load(),
}


def differs(whole: Path, run: Path) -> str:
    """What is not as in the undisturbed run."""
    if _rows(whole) != _rows(run):
        return "metrics.csv"
    for name in ("last", "best"):
        path = run / f"checkpoints/{name}.ckpt"
        if not path.is_file():
            return f"there is no {path.name}"
        ours, theirs = _parts(path), _kept_parts(whole / f"checkpoints/{name}.ckpt")
        for part in theirs:
            if not _same(ours[part], theirs[part]):
                return f"{part} of {name}.ckpt"
    return ""


def left_over(run: Path) -> str:
    """Files that an undisturbed run does not leave; Hydra keeps what ``train.py`` was told."""
    found = {p.name for p in run.rglob(".*")} - {".hydra"}
    found |= {p.name for p in (run / "checkpoints").iterdir()} - {"last.ckpt", "best.ckpt"}
    return ", ".join(sorted(found))


@cache
def _kept_parts(path: Path) -> dict[str, Any]:
    return _parts(path)


def _parts(path: Path) -> dict[str, Any]:
    content = torch.load(path, weights_only=True)
    names = ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "epoch")
    return {name: content[name] for name in names}


def _rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if v and k not in _NOT_SAME} for row in rows]


def _same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)
