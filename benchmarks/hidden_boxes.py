"""What it is worth to say which images are not exhaustively annotated.

``python -m benchmarks.hidden_boxes --out DIR`` draws ``shapes``, hides 30 % of the training boxes,
all on every second image, and trains the small network twice with the same seed: on what is left
without a word, and with those images marked (``"exhaustive": false``); ``--arms whole`` trains on
all boxes. It prints the box AP of each on the exhaustive validation set. A run takes about seven
minutes of one core, and goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deepmac.data.shapes.data_set import write_shapes

_ROOT = Path(__file__).resolve().parent.parent
ARMS = {"whole": "no box hidden", "ignored": "hidden, mark ignored", "marked": "hidden and marked"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hidden_boxes", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the sets and runs")
    parser.add_argument("--train", type=int, default=1200, help="training images")
    parser.add_argument("--val", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--share", type=float, default=0.3, help="of the boxes that are hidden")
    parser.add_argument("--hide", choices=("random", "small"), default="random")
    parser.add_argument("--seed", type=int, default=0, help="of the trainings")
    parser.add_argument("--arms", nargs="+", choices=tuple(ARMS), default=("ignored", "marked"))
    options = parser.parse_args(arguments)
    root = options.out.absolute() / "set"
    if not root.is_dir():
        write_shapes(root, num_train=options.train, num_val=options.val)
    whole = json.loads((root / "annotations/instances_train.json").read_text())
    partly = {image["id"] for n, image in enumerate(whole["images"]) if n % 2}
    hidden = _hidden(whole, partly, options)
    few = {image["id"] for image in whole["images"][:8]}  # masks cost time and are not asked about
    for entry in whole["annotations"]:
        if entry["image_id"] not in few:
            entry["segmentation"] = []
    kept = [entry for entry in whole["annotations"] if entry["id"] not in hidden]
    marked = [{**image, "exhaustive": image["id"] not in partly} for image in whole["images"]]
    contents = {
        "whole": whole,
        "ignored": {**whole, "annotations": kept},
        "marked": {**whole, "images": marked, "annotations": kept},
    }
    print(
        f"{options.train} training images, {100 * len(hidden) / len(whole['annotations']):.0f} % "
        f"of the boxes hidden ({options.hide}), seed {options.seed}",
        flush=True,
    )
    for name in options.arms:
        started = time.monotonic()
        ap = _box_ap(options, root, contents[name], name)
        print(
            f"  {ARMS[name]:20} box AP {100 * ap['AP']['all']:.1f}, AP50 "
            f"{100 * ap['AP50']['all']:.1f}  ({time.monotonic() - started:.0f} s)",
            flush=True,
        )


def _hidden(whole: dict[str, Any], partly: set[int], options: argparse.Namespace) -> set[int]:
    """Ids of the boxes that nobody annotated: ``share`` of all, on these images alone."""
    could = [entry for entry in whole["annotations"] if entry["image_id"] in partly]
    random.Random(0).shuffle(could)
    if options.hide == "small":
        could.sort(key=lambda entry: entry["bbox"][2] * entry["bbox"][3])
    return {entry["id"] for entry in could[: round(options.share * len(whole["annotations"]))]}


def _box_ap(
    options: argparse.Namespace, root: Path, content: dict[str, Any], name: str
) -> dict[str, dict[str, float]]:
    """Of a run of ``experiment=shapes`` with the settings of one arm."""
    run = options.out.absolute() / f"{name}-{options.hide}-{options.seed}"
    train_json = run.with_suffix(".json")
    train_json.write_text(json.dumps(content))
    words = [
        "experiment=shapes", "data=coco", f"data.root={root}", f"data.train_json={train_json}",
        "data.image_dir=images", "data.image_size=128", "data.batch_size=8", "data.num_workers=0",
        "data.crop_scale=null", "data.color=false", f"seed_everything={options.seed}",
        f"data.seed={options.seed}", f"trainer.max_epochs={options.epochs}",
        f"trainer.check_val_every_n_epoch={options.epochs}", "trainer.accelerator=cpu",
        "callbacks.pictures=null", f"hydra.run.dir={run}",
    ]  # fmt: skip
    if not (run / "metrics.json").is_file():
        if (run / "checkpoints" / "last.ckpt").is_file():
            words.append("ckpt_path=last")
        done = subprocess.run(
            [sys.executable, str(_ROOT / "train.py"), *words], capture_output=True, text=True
        )
        if done.returncode:
            sys.exit(done.stderr[-3000:])
    found: dict[str, dict[str, float]] = json.loads((run / "metrics.json").read_text())["box"]
    return found


if __name__ == "__main__":
    main()
