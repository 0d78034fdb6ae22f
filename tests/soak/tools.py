"""Tools that are killed and started again: the same bytes, and nothing left over."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

import numpy as np
import yaml

from convert.bundle_writer import write_bundle
from deepmac.cli import main
from deepmac.data.shapes.data_set import write_shapes
from deepmac.lightning.compose import compose, lightning_config
from soak.campaign import Part
from soak.children import Bounds, End, Kill, Write, call
from soak.counts import Counts
from soak.trainings import moment_of
from soak.world import World

Words = Callable[[World, Path], list[str]]
"""A command that writes into a folder; what it reads is made there or in the world."""


def parts(world: World, goal: int) -> list[Part]:
    """A part for each tool; those that take long get a tenth of the kills."""
    found = []
    for name, (words, share) in TOOLS.items():
        counts = Counts(f"{name} killed", max(1, round(goal * share)))
        found.append(Part(counts, _Tool(name, words), world))
    return found


class _Tool:
    """Kills of one tool."""

    def __init__(self, name: str, words: Words) -> None:
        self.name, self.words = name, words
        self.whole: dict[str, str] = {}
        self.writes: list[Write] = []

    def __call__(self, part: Part, draw: Random) -> None:
        world, counts = part.world, part.counts
        folder = world.root / f"kill-{self.name}"
        if not self.writes:
            end = self._run(world, self._fresh(folder), None)
            if end.code:
                counts.done = counts.goal
                counts.add(end, name="undisturbed", wrong="failed resume")
                return
            self.whole, self.writes = digests(folder), list(end.writes)
        self._fresh(folder)
        within = draw.random() < 0.5 and any(w.what.startswith("draft") for w in self.writes)
        kill = moment_of(self.writes, draw, within=within)
        killed = self._run(world, folder, kill)
        again = killed
        if killed.code == -9:
            counts.done += 1
            counts.notes["in the middle of a write"] += killed.within
            again = self._run(world, folder, None)
        wrong = "" if digests(folder) == self.whole else "not as undisturbed"
        if again.code and "already exists" in again.text and not wrong:
            again = again._replace(code=0)  # the kill came after the last step
        if again.code and not wrong:
            wrong = "failed resume"
        counts.add(again, name=str(kill), wrong=wrong, why=self._other(folder) if wrong else "")

    def _fresh(self, folder: Path) -> Path:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder

    def _run(self, world: World, folder: Path, kill: Kill | None) -> End:
        if self.name == "shapes":
            job = partial(_draw, folder / "out")
        else:
            job = partial(main, self.words(world, folder))
        return call(
            job,
            folder=folder,
            log=world.root / f"{self.name}.log",
            kill=kill,
            bounds=Bounds(600, 600),
            environment=world.environment,
        )

    def _other(self, folder: Path) -> str:
        now = digests(folder)
        names = {name for name in now.keys() | self.whole.keys()
                 if now.get(name) != self.whole.get(name)}  # fmt: skip
        return ", ".join(sorted(names))[:300]


def _label(format: str, world: World, folder: Path) -> list[str]:
    out = "out" if format in ("png", "yolo-seg") else "out.json"
    return [
        *("label", "--model", str(world.model), "--images", str(world.pictures), "--boxes"),
        *(str(world.boxes), "--out", str(folder / out), "--format", format, "--workers=0"),
        *(("--review", str(folder / "review.html")) if format == "coco" else ()),
    ]


def _export(format: str, world: World, folder: Path) -> list[str]:
    return ["export", str(world.model), "--format", format, "--out", str(folder / "out")]


def published(world: World) -> Path:
    """A model as TensorFlow's authors published theirs."""
    source = world.root / "published"
    if not source.is_dir():
        reference = Path(__file__).parents[1] / "reference/fixtures/model"
        with np.load(reference / "rel_tiny2_weights.npz") as weights:
            arrays = {key.removeprefix("w::"): weights[key] for key in weights.files}
        with np.load(reference / "rel_tiny2_io.npz") as answers:
            config = str(answers["config"])
        write_bundle(source / "checkpoint" / "ckpt-0", arrays | {"save_counter": np.array(1)})
        (source / "pipeline.config").write_text(f"model {{ {config} }}")
    return source


def _convert(world: World, folder: Path) -> list[str]:
    return ["convert", str(published(world)), "--out", str(folder / "out")]


def study_runs(world: World) -> Path:
    """Two finished runs of a sweep."""
    source = world.root / "runs"
    if not source.is_dir():
        for head in ("resnet4", "hourglass10"):
            words = ["experiment=mask_head_study", f"mask_head={head}", "seed_everything=1"]
            (source / head).mkdir(parents=True)
            config = lightning_config(compose(words)[0])
            (source / head / "config.yaml").write_text(yaml.safe_dump(config))
            metrics = {"step": config["trainer"]["max_steps"], "mask": {"AP": {"all": 0.25}}}
            for name in ("mask_gt_box", "filled_box"):
                metrics[name] = {"mIoU": {"seen": 0.8, "unseen": 0.6}}
            (source / head / "metrics.json").write_text(json.dumps(metrics))
    return source


def _study(world: World, folder: Path) -> list[str]:
    if not (folder / "runs").is_dir():
        shutil.copytree(study_runs(world), folder / "runs")
    return ["study", str(folder / "runs")]


def _shard(world: World, folder: Path) -> list[str]:
    words = ["shard", f"data.root={world.root / 'set'}", "--out", str(folder / "out")]
    return [*words, "--chunk-mb=0.003", "--workers=1"]


def _draw(out: Path) -> int:
    write_shapes(out, num_train=6, num_val=2, size=64)
    return 0


TOOLS: dict[str, tuple[Words, float]] = {
    "label": (partial(_label, "coco"), 1),
    "label-png": (partial(_label, "png"), 0.3),
    "label-yolo": (partial(_label, "yolo-seg"), 0.3),
    "convert": (_convert, 1),
    "safetensors": (partial(_export, "safetensors"), 0.5),
    "onnx": (partial(_export, "onnx"), 0.1),
    "shapes": (lambda world, folder: [], 1),
    "study": (_study, 0.5),
    "shard": (_shard, 0.5),
}


def digests(folder: Path) -> dict[str, str]:
    """Of every file below, hidden ones and empty folders included."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else ""
        for path in sorted(folder.rglob("*"))
    }
