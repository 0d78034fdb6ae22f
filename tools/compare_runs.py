"""Whether two versions of the project train alike: loss curves and metrics, digit for digit.

    python tools/compare_runs.py 249d993                      # that commit and the working tree
    python tools/compare_runs.py 249d993 HEAD --root COCO     # a second run, on eight photographs

Both train the same short runs from the same seed on one CPU thread. Every loss of every step and
all that ``metrics.json`` told before must be equal; the first difference of each is named, with
exit code 1.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parents[1]
SHAPES = (
    *("experiment=shapes", "data.shapes_train=64", "data.shapes_val=16"),
    "trainer.check_val_every_n_epoch=1000",
)
TINY = ("experiment=voc_to_nonvoc_tiny",)
WEAK = {
    "box_consistency.weight": 1.0,
    "color_consistency.weight": 1.0,
    "self_supervision.weight": 1.0,
    "self_supervision.max_translation": 0.1,
    "self_supervision.flip_probability": 0.5,
    "ignore_class_overlap": "true",
}
LOSSES = tuple(f"model.losses.{name}={value}" for name, value in WEAK.items())
WHOLE_MAP = ("model.predict_full_resolution_masks=true", "model.mask_head=hourglass10")

RUNS: dict[str, tuple[str, ...]] = {
    "shapes": SHAPES,
    "tiny": TINY,
    "shapes_release": (*SHAPES, "model.compat=tf_release", "model.crop_impl=auto", *LOSSES),
    "shapes_latest": (*SHAPES, "model.compat=tf_latest", *LOSSES),
    "shapes_latest_map": (*SHAPES, "model.compat=tf_latest", *WHOLE_MAP, *LOSSES),
    "shapes_weak": (*SHAPES, *LOSSES),
    "shapes_weak_map": (*SHAPES, *WHOLE_MAP, *LOSSES),
    "deepmarc": (
        *("experiment=deepmarc_small", "data=shapes", "split=annotated", "data.image_size=128"),
        *("data.shapes_train=64", "data.shapes_val=16", "data.num_workers=0"),
        *("data.batch_size=4", "model.proposals=50", "trainer.check_val_every_n_epoch=1000"),
    ),
}
"""Overrides by name of the run; ``tiny`` needs ``--root``."""
ALWAYS = (
    *("trainer.accelerator=cpu", "trainer.devices=1", "trainer.max_epochs=-1"),
    *("trainer.log_every_n_steps=1", "data.num_workers=0", "logger.tensorboard=null"),
    *("callbacks.pictures=null", "callbacks.best=null", "callbacks.last=null"),
)
_FORMER = re.compile(r"(?<=model\.losses\.)(\w+)\.")
"""Weak losses had flat names once."""
TIMES = ("train/seconds_per_step", "train/data_wait")


class Outcome(NamedTuple):
    """What a run left: its losses by step, and its metrics."""

    steps: list[dict[str, str]]
    metrics: dict[str, Any]


def main() -> int:
    """Exit code 0 where all runs are equal."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("before", help="a commit, or the folder of a checkout")
    parser.add_argument("after", nargs="?", default=str(HERE), help="likewise; default: this one")
    parser.add_argument("--root", help="a COCO data set, of which eight images are learned")
    parser.add_argument("--steps", type=int, default=50, help="optimizer steps of every run")
    parser.add_argument("--runs", nargs="+", choices=[*RUNS, "all"], default=["shapes", "tiny"])
    parser.add_argument("--keep", type=Path, help="folder for the outcomes of commits, used again")
    arguments = parser.parse_args()
    names = list(RUNS) if "all" in arguments.runs else arguments.runs
    if not arguments.root:
        names = [name for name in names if RUNS[name] is not TINY]
        print("without --root: no photographs")
    equal = True
    with tempfile.TemporaryDirectory() as folder:
        sides = [
            Side(given, Path(folder), arguments) for given in (arguments.before, arguments.after)
        ]
        for name in names:
            before, after = (side.outcome(name) for side in sides)
            differences = list(compare(before, after))
            equal = equal and not differences
            told = "; ".join([*(differences or ["equal in every digit"]), *added(before, after)])
            print(f"{name}: {len(after.steps)} steps, {told}", flush=True)
    return 0 if equal else 1


class Side:
    """One version of the project."""

    def __init__(self, given: str, scratch: Path, arguments: argparse.Namespace) -> None:
        self.scratch, self.arguments = scratch, arguments
        self.commit = None if Path(given).is_dir() else _git("rev-parse", "--short", given)
        self.folder = Path(given).resolve() if self.commit is None else scratch / self.commit
        if self.commit is not None and not self.folder.exists():
            self.folder.mkdir()
            archive = subprocess.run(
                ["git", "archive", self.commit], cwd=HERE, check=True, capture_output=True
            )
            subprocess.run(["tar", "-x"], cwd=self.folder, input=archive.stdout, check=True)

    def outcome(self, name: str) -> Outcome:
        """Of the run ``name``; a commit's may have been kept."""
        keep: Path | None = self.arguments.keep
        kept = None
        if keep is not None and self.commit is not None:
            kept = keep / f"{self.commit}-{name}-{self.arguments.steps}.json"
            if kept.is_file():
                return Outcome(**json.loads(kept.read_text()))
        outcome = self._train(name)
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps(outcome._asdict()))
        return outcome

    def _train(self, name: str) -> Outcome:
        out = self.scratch / f"{self.folder.name}-{name}-{time.monotonic_ns()}"
        overrides = [*RUNS[name], *ALWAYS, f"trainer.max_steps={self.arguments.steps}"]
        overrides += [f"hydra.run.dir={out}"]
        if "box_consistency:" not in (self.folder / "conf/model/deepmac.yaml").read_text():
            overrides = [_FORMER.sub(r"\1_", word) for word in overrides]
        if RUNS[name] is TINY:
            overrides += [f"data.root={self.arguments.root}", f"data.only_images={self._images()}"]
        else:
            overrides += [f"data.root={out.parent / (out.name + '-data')}"]
        run = subprocess.run(
            [sys.executable, str(self.folder / "train.py"), *overrides],
            env={
                **os.environ,
                "PYTHONPATH": str(self.folder / "src"),
                "OMP_NUM_THREADS": "1",
                "CUDA_VISIBLE_DEVICES": "",
            },
            cwd=self.folder,
            capture_output=True,
            text=True,
        )
        if run.returncode:
            raise SystemExit(f"{self.folder.name} {name}: {(run.stderr or run.stdout)[-3000:]}")
        with (out / "metrics.csv").open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row.get("train/loss")]
        steps = [{k: v for k, v in row.items() if v and k not in TIMES} for row in rows]
        return Outcome(steps, json.loads((out / "metrics.json").read_text()))

    def _images(self) -> str:
        """The first eight images of the training json that have objects."""
        (path,) = Path(self.arguments.root).glob("annotations/instances_train*.json")
        content = json.loads(path.read_text())
        crowded = {a["image_id"] for a in content["annotations"]}
        ids = [image["id"] for image in content["images"] if image["id"] in crowded][:8]
        return str(ids).replace(" ", "")


def compare(before: Outcome, after: Outcome) -> Iterator[str]:
    """One sentence on losses and one on metrics, where they differ."""
    if len(before.steps) != len(after.steps):
        yield f"{len(before.steps)} steps became {len(after.steps)}"
    for old, new in zip(before.steps, after.steps, strict=False):
        wrong = _first_difference(old, new)
        if wrong:
            yield f"step {old['step']}: {wrong}"
            break
    old, new = (dict(_leaves("", side.metrics)) for side in (before, after))
    wrong = _first_difference(old, {name: value for name, value in new.items() if name in old})
    if wrong:
        yield f"metrics.json: {wrong}"


def added(before: Outcome, after: Outcome) -> Iterator[str]:
    """What metrics.json tells now that it did not; nothing that was there has changed by it."""
    old, new = (dict(_leaves("", side.metrics)) for side in (before, after))
    if names := sorted(new.keys() - old.keys()):
        yield f"new in metrics.json: {', '.join(names)}"


def _first_difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    for name in [*old, *(name for name in new if name not in old)]:
        if old.get(name) != new.get(name):
            return f"{name} was {old.get(name)} and is {new.get(name)}"
    return ""


def _leaves(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(f"{prefix}/{key}" if prefix else str(key), inner)
    else:
        yield prefix, value


def _git(*arguments: str) -> str:
    run = subprocess.run(["git", *arguments], cwd=HERE, capture_output=True, text=True)
    if run.returncode:
        raise SystemExit(f"{arguments[-1]} is neither a folder nor a commit: {run.stderr.strip()}")
    return run.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
