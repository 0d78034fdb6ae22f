"""Commands that are killed at their writes, or whose disk is full, and started again."""

from __future__ import annotations

import csv
import hashlib
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from deepmac.cli import main
from soak.children import End, Kill, call
from soak.counts import Counts
from soak.world import World, small_disk
from tiny import TINY

_NOT_SAME = ("train/seconds_per_step", "train/data_wait")
TRAIN = (
    *(w for w in TINY if not w.startswith("trainer.max_epochs")),
    "trainer.max_epochs=2",
    "callbacks.last.init_args.every_n_train_steps=1",
    "callbacks.pictures=null",
    "logger.tensorboard=null",
)


def kill_trainings(world: World, count: int, seed: int) -> Counts:
    """Half of them on a file system of their own; resumed, all equal an undisturbed run."""
    counts, draw = Counts("trainings killed and resumed"), random.Random(seed)
    whole = world.fresh("whole")
    end = _fit(world, whole, None)
    assert end.code == 0, end.text[-2000:]
    with small_disk(world.root / "disk", 500) as disk:
        places = [world.root / "here", (disk or Path("/dev/shm")) / f"soak-{os.getpid()}"]
        for number in range(count):
            run = places[number % 2] / "run"
            shutil.rmtree(run.parent, ignore_errors=True)
            at, delay = draw.randrange(end.writes), draw.choice([0.0, 0.0005, 0.002, 0.01, 0.1])
            name = f"--seed {seed}, trial {number}: write {at} + {delay} s in {run}"
            _fit(world, run, Kill(at, delay))
            if draw.random() < 0.25:  # and once more, as it resumes
                _fit(world, run, Kill(draw.randrange(end.writes), 0.001), "ckpt_path=last")
            again = _fit(world, run, None, "ckpt_path=last")
            counts.add(
                again, name=name, wrong=_differs(whole, run) if again.code == 0 else "no resume"
            )
        for place in places:
            shutil.rmtree(place, ignore_errors=True)
    return counts


def _fit(world: World, run: Path, kill: Kill | None, *more: str) -> End:
    words = ["fit", *TRAIN, f"hydra.run.dir={run}", *more]
    log = world.root / "fit.log"
    return call(lambda: main(words), folder=run, log=log, kill=kill, environment=world.environment)


def _differs(whole: Path, run: Path) -> str:
    """What is not as in the undisturbed run."""
    if _rows(whole) != _rows(run):
        return "metrics.csv"
    for name in ("last", "best"):
        ours, theirs = (
            torch.load(folder / f"checkpoints/{name}.ckpt", weights_only=True)
            for folder in (run, whole)
        )
        parts = ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "epoch")
        if not all(_same(ours[part], theirs[part]) for part in parts):
            return f"{name}.ckpt"
    left = {p.name for p in (run / "checkpoints").iterdir()} - {"last.ckpt", "best.ckpt"}
    return f"left over: {sorted(left)}" if left else ""


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


def kill_tools(world: World, count: int, seed: int) -> list[Counts]:
    """``label``, ``export`` and ``shapes``: started again, the same bytes and nothing left over."""
    jobs: dict[str, Callable[[Path], list[str]]] = {
        "label": lambda out: _label(world, out),
        "export": lambda out: [
            "export",
            str(world.model),
            "--format",
            "safetensors",
            "--out",
            str(out),
        ],
        "shapes": lambda out: ["check-data", f"data.root={out}"],
    }
    found = []
    for name, words in jobs.items():
        counts, draw = Counts(f"{name} killed and started again"), random.Random(f"{seed}{name}")
        place = world.fresh(f"kill-{name}")

        def run(out: Path, kill: Kill | None, name: str = name, words: Any = words) -> End:
            job = (lambda: _draw(out)) if name == "shapes" else (lambda: main(words(out)))
            log = world.root / f"{name}.log"
            return call(job, folder=out.parent, log=log, kill=kill, environment=world.environment)

        whole = place / "whole" / "out"
        whole.parent.mkdir(parents=True)
        end = run(whole, None)
        if end.code:
            counts.add(end, name="undisturbed", wrong="does not run")
            found.append(counts)
            continue
        for _ in range(count):
            out = place / "killed" / "out"
            shutil.rmtree(out.parent, ignore_errors=True)
            out.parent.mkdir()
            at, delay = draw.randrange(end.writes), draw.choice([0.0, 0.0005, 0.003])
            killed = run(out, Kill(at, delay))
            again = killed if killed.code == 0 else run(out, None)
            wrong = "" if _digest(out.parent) == _digest(whole.parent) else "other bytes, or more"
            if again.code and out.exists() and "already exists" in again.text:
                wrong, again = "", killed  # the kill came after the last step
            wrong = wrong or ("" if again.code in (0, -9) else "does not start again")
            counts.add(again, name=f"--seed {seed}, write {at} + {delay} s", wrong=wrong)
        found.append(counts)
    return found


def _label(world: World, out: Path) -> list[str]:
    pictures = world.root / "set" / "images"
    return [
        *("label", "--model", str(world.model), "--images", str(pictures)),
        *("--boxes", str(world.boxes), "--out", str(out.with_suffix(".json"))),
    ]


def _draw(out: Path) -> int:
    from deepmac.data.shapes.data_set import write_shapes

    write_shapes(out, num_train=6, num_val=2, size=64)
    return 0


def _digest(folder: Path) -> dict[str, str]:
    """Of every file below, hidden ones and empty folders included."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else ""
        for path in sorted(folder.rglob("*"))
    }


def full_disks(world: World, count: int, seed: int) -> Counts:
    """Disks of some megabytes: one sentence that names a file there, nothing half-written."""
    counts, draw = Counts("full disks"), random.Random(seed)
    for number in range(count):
        size = draw.choice([1, 5, 9, 14, 20, 26, 33, 40])
        with small_disk(world.root / "full", size) as disk:
            if disk is None:
                print("  full disks: skipped, mounting a file system takes root")
                break
            label = number % 3 == 0
            words = (
                _label(world, disk / "out")
                if label
                else ["fit", *TRAIN, f"hydra.run.dir={disk / 'run'}"]
            )
            if label:
                (disk / "filler").write_bytes(
                    bytes((size << 20) - draw.choice([4096, 9000, 1 << 15]))
                )
            end = call(
                lambda words=words: main(words),  # type: ignore[misc]
                folder=disk,
                log=world.root / "full.log",
                environment=world.environment,
            )
            wrong = "" if end.code == 0 or str(disk) in end.text else "names no file of that disk"
            for path in disk.rglob("*.ckpt"):
                try:
                    torch.load(path, weights_only=True)
                except Exception:
                    wrong = f"half of {path.name}"
            counts.add(end, name=f"--seed {seed}, {size} MiB, {words[0]}", wrong=wrong)
    return counts
