"""Damaged inputs and hostile settings, each in a process of its own with bounds."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from deepmac.cli import main
from soak.children import End, call
from soak.counts import BAD, Counts, judge
from soak.kills import TRAIN
from soak.world import World

REGRESSIONS = Path(__file__).parent / "regressions"
_SECONDS, _GIGABYTES = 20.0, 6.0
VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 1, 0.5, 1e19, -1e300, 2**31, 2**63, 10**30, "", "a", "\ud800", "x" * 300),
    *(float("nan"), float("inf"), [], {}, [[]], {"id": [1]}, [1e9] * 4, [0, 0, 50, 1e9], "../../a"),
)
Change = tuple[tuple[Any, ...], Any]
"""A place in a JSON document, and what is put there; the place alone when it is dropped."""


def fuzz_boxes(world: World, count: int, seed: int) -> Counts:
    """COCO files through ``label``, with all the writers and the review page."""
    counts, draw = Counts("damaged box files through label"), random.Random(seed)
    good = json.loads(world.boxes.read_text())
    good = {**good, "images": good["images"][:2]}
    kept = {image["id"] for image in good["images"]}
    good["annotations"] = [a for a in good["annotations"] if a["image_id"] in kept][:4]
    for number in range(count):
        changes = [_change(good, draw) for _ in range(draw.randint(1, 3))]
        options = draw.choice(_OPTIONS)

        def trial(changes: list[Change], options: tuple[str, ...] = options) -> End:
            return label_changed(world, good, changes, options)

        end = trial(changes)
        name = f"--seed {seed}, trial {number} {' '.join(options)}"
        if counts.add(end, name=name, wrong=_unreadable(world) if end.code == 0 else "") in BAD:
            changes = _shrunk(changes, lambda some: judge(trial(some)) in BAD)
            keep_regression({"boxes": changes, "options": options, "said": end.text[-300:]})
    return counts


_OPTIONS: tuple[tuple[str, ...], ...] = (
    (),
    ("--format", "png"),
    ("--format", "yolo-seg"),
    ("--review", "3"),
    ("--on-error", "skip"),
)


def label_changed(
    world: World, good: Any, changes: list[Change], options: tuple[str, ...] | list[str]
) -> End:
    """``label`` on a document with some changes."""
    document = json.loads(json.dumps(good))
    for place, value in changes:
        _put(document, place, value)
    out = world.fresh("fuzzed")
    out.mkdir()
    try:
        text = json.dumps(document)
    except (ValueError, RecursionError):
        text = "{"
    (out / "in.json").write_text(text, encoding="utf-8")
    words = [
        *("label", "--model", str(world.model), "--images", str(world.root / "set" / "images")),
        *("--boxes", str(out / "in.json"), "--out", str(out / _output(options)), *options),
    ]
    return _bounded(world, words, out)


def _output(options: tuple[str, ...] | list[str]) -> str:
    return "masks" if {"png", "yolo-seg"} & set(options) else "out.json"


def _unreadable(world: World) -> str:
    """Whether what was written is no JSON (which knows no NaN) or unreadable for ourselves."""
    path = world.root / "fuzzed" / "out.json"
    if not path.is_file():
        return ""
    try:
        json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except ValueError as error:
        return f"{path.name} is no JSON: {error}"
    return ""


def _refuse(word: str) -> None:
    raise ValueError(f"it holds {word}")


def fuzz_checkpoints(world: World, count: int, seed: int) -> Counts:
    """Parts of other types, and cut or flipped bytes, through ``deepmac label --model``."""
    counts, draw = Counts("damaged checkpoints"), random.Random(seed)
    whole = world.root / "whole" / "checkpoints" / "last.ckpt"
    if not whole.is_file():
        run = world.root / "whole"
        words = ["fit", *TRAIN, f"hydra.run.dir={run}"]
        call(
            lambda: main(words),
            folder=run,
            log=world.root / "fit.log",
            environment=world.environment,
        )
    content, raw = torch.load(whole, weights_only=True), whole.read_bytes()
    kept = ("deepmac_class_map", "deepmac_normalization", "deepmac_system", "hyper_parameters")
    kept += ("state_dict", "datamodule_hyper_parameters", "global_step", "loops", "callbacks")
    content = {name: value for name, value in content.items() if name in kept}
    for number in range(count):
        place = world.fresh("fuzzed")
        place.mkdir()
        path = place / "model.ckpt"
        if draw.random() < 0.5:
            damaged = dict(content)
            where = _random_place(damaged, draw, deep=3)
            damaged = _copied(damaged)
            _put(damaged, where, draw.choice(VALUES))
            torch.save(damaged, path)
        else:
            data = bytearray(raw)
            for _ in range(draw.randint(1, 4)):
                data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
            path.write_bytes(data[: draw.randrange(len(data))] if draw.random() < 0.3 else data)
        words = [
            *("label", "--model", str(path), "--images", str(world.root / "set" / "images")),
            *("--boxes", str(world.boxes), "--out", str(place / "out.json")),
        ]
        counts.add(_bounded(world, words, place), name=f"--seed {seed}, trial {number}")
    return counts


SETTINGS: dict[str, tuple[Any, ...]] = {
    "data.batch_size": (0, -1, "null", 1.5, 10**9, "a"),
    "data.val_batch_size": (0, -1, "a"),
    "data.num_workers": (-1, "null", 1.5),
    "data.image_size": (0, -64, 65, 1000000, "null", 64.5),
    "data.max_boxes": (0, -1),
    "data.shapes_train": (0, -5, "a"),
    "data.shapes_size": (0, 31, 99999),
    "model.lr": ("nan", "inf", -1, 0, "1e400", "a"),
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
    "ckpt_path": ("best", "last", "/nowhere.ckpt", "/dev/null", "."),
    "hydra.run.dir": ("/proc/x", "/dev/null", "x" * 300),
    "callbacks.last.init_args.every_n_train_steps": (0, -1, "a"),
    "callbacks.nothing": ("null", "1"),
    "seed_everything": (-1, "a", 10**30),
    "split": ("nothing", "custom"),
    "experiment": ("nothing",),
}


def fuzz_settings(world: World, count: int, seed: int) -> Counts:
    """Each setting with each hostile value: one step of training, or one sentence."""
    counts, draw = Counts("hostile settings"), random.Random(seed)
    trials = [(name, value) for name, values in SETTINGS.items() for value in values]
    draw.shuffle(trials)
    for name, value in trials[:count]:
        place = world.fresh("setting")
        base = [w for w in TRAIN if w.split("=")[0] != name]
        words = ["fit", *base, "trainer.limit_train_batches=1", "trainer.limit_val_batches=0"]
        words = [w for w in words if w.split("=")[0] != name]
        if name != "hydra.run.dir":
            words.append(f"hydra.run.dir={place}")
        word = f"{name}={value}"
        end = call(
            lambda words=[*words, word]: main(words),  # type: ignore[misc]
            folder=place,
            log=world.root / "setting.log",
            seconds=90.0,
            environment=world.environment,
        )
        counts.add(end, name=word)
    return counts


def _bounded(world: World, words: list[str], place: Path) -> End:
    return call(
        lambda: main(words),
        folder=place,
        log=world.root / "fuzz.log",
        seconds=_SECONDS * 3,  # of a machine that may be busy
        gigabytes=_GIGABYTES,
        environment=world.environment,
    )


def _change(document: Any, draw: random.Random) -> Change:
    return _random_place(document, draw, deep=4), draw.choice(VALUES)


def _random_place(value: Any, draw: random.Random, *, deep: int) -> tuple[Any, ...]:
    place: list[Any] = []
    while isinstance(value, dict | list) and len(value) and len(place) < deep:
        key = draw.choice(list(value)) if isinstance(value, dict) else draw.randrange(len(value))
        place.append(key)
        value = value[key]
        if draw.random() < 0.25:
            break
    return tuple(place)


def _put(document: Any, place: tuple[Any, ...] | list[Any], value: Any) -> None:
    """Set what is there; a place that an earlier change removed is left out."""
    for key in place[:-1]:
        try:
            document = document[key]
        except (KeyError, IndexError, TypeError):
            return
    try:
        document[place[-1]] = value
    except (IndexError, TypeError):
        return


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(inner) for key, inner in value.items()}
    return [_copied(inner) for inner in value] if isinstance(value, list) else value


def _shrunk(changes: list[Change], still_bad: Callable[[list[Change]], bool]) -> list[Change]:
    """The fewest of the changes that are still answered badly."""
    for one in list(changes):
        fewer = [other for other in changes if other is not one]
        if fewer and still_bad(fewer):
            changes = fewer
    return changes


def keep_regression(found: dict[str, Any]) -> None:
    """A file that ``test_soak.py`` tries from then on."""
    REGRESSIONS.mkdir(exist_ok=True)
    number = len(list(REGRESSIONS.glob("*.json")))
    path = REGRESSIONS / f"found-{number:03d}.json"
    path.write_text(json.dumps(found, indent=1) + "\n")
    print(f"  kept as {path}")


def regressions() -> Iterator[dict[str, Any]]:
    """What was found before."""
    for path in sorted(REGRESSIONS.glob("*.json")):
        yield json.loads(path.read_text())


def clean(world: World) -> None:
    """Remove what the trials left."""
    for name in ("fuzzed", "setting"):
        shutil.rmtree(world.root / name, ignore_errors=True)
