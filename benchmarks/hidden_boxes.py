"""What it is worth to say which images are not exhaustively annotated.

``python -m benchmarks.hidden_boxes --out DIR`` draws ``shapes``, hides 60 % of the boxes of every
second training image (30 % of all), trains the small network twice with the same seed, once with
those images marked (``"exhaustive": false``) and once without the mark, and prints the box AP of
each on the exhaustive validation set.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from deepmac.data.shapes.data_set import write_shapes

_ROOT = Path(__file__).resolve().parent.parent


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hidden_boxes", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the sets and runs")
    parser.add_argument("--train", type=int, default=1600, help="training images")
    parser.add_argument("--val", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=4)
    options = parser.parse_args(arguments)
    root = options.out.absolute() / "set"
    write_shapes(root, num_train=options.train, num_val=options.val)
    whole = json.loads((root / "annotations/instances_train.json").read_text())
    chance = random.Random(0)
    partly = {image["id"] for n, image in enumerate(whole["images"]) if n % 2}
    kept = [
        entry
        for entry in whole["annotations"]
        if entry["image_id"] not in partly or chance.random() >= 0.6
    ]
    hidden = 1 - len(kept) / len(whole["annotations"])
    print(f"{options.train} training images, {100 * hidden:.0f} % of the boxes hidden", flush=True)
    marked = [
        {**image, "exhaustive": False} if image["id"] in partly else image
        for image in whole["images"]
    ]
    for name, images in (("ignored", whole["images"]), ("marked", marked)):
        path = options.out.absolute() / f"{name}.json"
        path.write_text(json.dumps({**whole, "images": images, "annotations": kept}))
        print(f"  mark {name:8} box AP {_box_ap(options, root, path, name):.1f}", flush=True)


def _box_ap(options: argparse.Namespace, root: Path, train_json: Path, name: str) -> float:
    """Of a run of ``experiment=shapes`` on one of the two files, in percent."""
    run = options.out.absolute() / name
    words = [
        "experiment=shapes", "data=coco", f"data.root={root}", f"data.train_json={train_json}",
        "data.image_dir=images", "data.image_size=128", "data.batch_size=8", "data.num_workers=0",
        f"trainer.max_epochs={options.epochs}", f"trainer.check_val_every_n_epoch={options.epochs}",
        "trainer.accelerator=cpu", f"hydra.run.dir={run}",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, str(_ROOT / "train.py"), *words], capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(done.stderr[-3000:])
    found = [json.loads(path.read_text()) for path in run.rglob("metrics*.json")]
    return 100 * float(found[0]["box"]["AP"]["all"])


if __name__ == "__main__":
    main()
