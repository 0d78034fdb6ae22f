"""Damaged files and requests of every kind that a command reads, each answered in a fork."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from soak.campaign import Part
from soak.children import Bounds, End, call
from soak.counts import BAD, Counts, judge
from soak.damage import damage_file
from soak.trainings import undisturbed
from soak.world import World

REGRESSIONS = Path(__file__).parent / "regressions"
WRONG = 71
"""Exit status of a job that wrote what cannot be read back."""
_BOUNDS = Bounds(seconds=90.0, cpu_seconds=20.0, gigabytes=8.0)  # the machine may be busy


@dataclass(frozen=True)
class Kind:
    """Files of one kind.

    Attributes:
        name: of the kind.
        share: of all inputs.
        make: fills a folder with sound ones.
        pattern: which of them are damaged.
        job: what reads them, with an option; returns the exit status.
        options: to draw from.
    """

    name: str
    share: float
    make: Callable[[World, Path], None]
    pattern: str
    job: Callable[[World, Path, str], int]
    options: tuple[str, ...] = ("",)


def parts(world: World, goal: int, kinds: list[Kind]) -> list[Part]:
    """A part for each kind."""
    total = sum(kind.share for kind in kinds)
    return [
        Part(
            Counts(f"{kind.name}: damaged inputs", max(1, round(goal * kind.share / total))),
            partial(_trial, kind=kind),
            world,
        )
        for kind in kinds
    ]


def _trial(part: Part, draw: Random, *, kind: Kind) -> None:
    world, counts = part.world, part.counts
    counts.done += 1
    option = draw.choice(kind.options)
    victim = draw.choice(_victims(world, kind))
    seeds = [f"{draw.random()}" for _ in range(draw.choice((1, 1, 2, 3)))]
    end = _answer(world, kind, option, victim, seeds)
    verdict = counts.add(end, name=f"{victim} {option}", wrong=wrong_of(end))
    if verdict not in BAD:
        return
    while len(seeds) > 1:  # the fewest damages that are still answered badly
        fewer = next(
            (
                some
                for one in seeds
                if _bad(
                    _answer(world, kind, option, victim, some := [s for s in seeds if s != one])
                )
            ),
            None,
        )
        if fewer is None:
            break
        seeds = fewer
    _answer(world, kind, option, victim, seeds)
    _keep(kind, option, victim, (world.root / "damaged" / victim).read_bytes(), verdict)


def _without(seeds: list[str], one: str) -> list[str]:
    return [seed for seed in seeds if seed != one]


def wrong_of(end: End) -> str:
    return "silent wrong" if end.code == WRONG else ""


def _bad(end: End) -> bool:
    return (wrong_of(end) or judge(end)) in BAD


def _victims(world: World, kind: Kind) -> list[str]:
    sound = _sound(world, kind)
    found = [p for pattern in kind.pattern.split() for p in sorted(sound.rglob(pattern))]
    return [str(path.relative_to(sound)) for path in found if path.is_file()]


def _sound(world: World, kind: Kind) -> Path:
    folder = world.root / "sound" / kind.name
    if not folder.is_dir():
        undisturbed(world)
        folder.mkdir(parents=True)
        # Not here: what computes may start threads, and forks come after.
        log = world.root / "sound.log"
        end = call(partial(_make, kind, world, folder), folder=folder, log=log,
                   environment=world.environment)  # fmt: skip
        assert end.code == 0, end.text[-2000:]
    return folder


def _make(kind: Kind, world: World, folder: Path) -> int:
    kind.make(world, folder)
    return 0


def _answer(world: World, kind: Kind, option: str, victim: str, seeds: list[str]) -> End:
    place = world.fresh("damaged")
    shutil.copytree(_sound(world, kind), place)
    damage_file(place / victim, seeds)
    return _run(world, kind, option, place)


def _run(world: World, kind: Kind, option: str, place: Path) -> End:
    return call(
        lambda: kind.job(world, place, option),
        folder=place,
        log=world.root / "damaged.log",
        bounds=_BOUNDS,
        environment=world.environment,
    )


def _keep(kind: Kind, option: str, victim: str, raw: bytes, verdict: str) -> None:
    """A file that ``test_soak.py`` tries from then on."""
    if len(raw) > 40_000:
        print(f"  too large to keep: {len(raw)} bytes", flush=True)
        return
    REGRESSIONS.mkdir(exist_ok=True)
    found = {"kind": kind.name, "option": option, "file": victim, "verdict": verdict}
    try:
        found["text"] = raw.decode("utf-8")
    except UnicodeDecodeError:
        found["base64"] = base64.b64encode(raw).decode()
    number = len(list(REGRESSIONS.glob(f"{kind.name}-*.json")))
    path = REGRESSIONS / f"{kind.name}-{number:03d}.json"
    path.write_text(json.dumps(found, indent=1) + "\n")
    print(f"  kept as {path}", flush=True)


def regressions() -> Iterator[dict[str, Any]]:
    """What was found before."""
    for path in sorted(REGRESSIONS.glob("*.json")):
        yield {**json.loads(path.read_text()), "name": path.stem}


def answer_again(world: World, kind: Kind, found: dict[str, Any]) -> End:
    """Of an input that was found before."""
    place = world.fresh("damaged")
    shutil.copytree(_sound(world, kind), place)
    raw = found["text"].encode() if "text" in found else base64.b64decode(found["base64"])
    (place / found["file"]).write_bytes(raw)
    return _run(world, kind, found["option"], place)
