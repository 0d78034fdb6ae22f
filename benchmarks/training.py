"""Training steps of deepmac-lite's recipe before and after windows: pictures and objects a second.

Both recipes take turns in one process on one thread, on the same photographs; figures are of the
faster half of the steps, in seconds of the processor, which other processes do not add to. Before:
whole pictures at 416 px, all heads, float32. After: windows around objects, masks alone, bfloat16
where the processor computes in it.

With ``--before CHECKOUT``, an older working copy of the repository, each recipe is its own
``train.py experiment=deepmac_lite``, on one thread: what a step costs is the processor time of a
longer run less that of a shorter one, objects a picture are counted on the same photographs.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import torch

from deepmac.data.annotations.coco import read_coco
from deepmac.data.collate import collate
from deepmac.data.dataset import CocoInstances
from deepmac.data.mask_targets import TargetSpec
from deepmac.data.transforms.compose import training_transform
from deepmac.data.transforms.windows import MIN_VISIBLE, window_transform
from deepmac.losses.criterion import DeepMACCriterion
from deepmac.losses.options import LossOptions
from deepmac.nn.deepmac import DeepMAC

WINDOWS = (192, 224, 256, 256, 384)
HERE = Path(__file__).resolve().parent.parent


def main(arguments: list[str] | None = None) -> None:
    """Print both recipes and their ratio."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks training", description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="COCO folder with masks")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--before", type=Path, help="an older working copy of the repository")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    recipes = [_Recipe(given.root, windows=False), _Recipe(given.root, windows=True)]
    if given.before:
        _print(_by_command(given.root.resolve(), given.before.resolve(), recipes, given.rounds))
        return
    seen: list[list[tuple[float, int, int]]] = [[], []]
    for number in range(given.rounds + 1):
        for recipe, steps in zip(recipes, seen, strict=True):
            step = recipe.step(number)
            if number:  # the first one warms up
                steps.append(step)
    rates = []
    for steps in seen:
        seconds = sum(sorted(s for s, _, _ in steps)[: max(1, len(steps) // 2)])
        fast = sorted(steps)[: max(1, len(steps) // 2)]
        pictures = sum(p for _, p, _ in fast) / seconds
        objects = sum(o for _, _, o in fast) / seconds
        rates.append((pictures, objects))
    _print(rates)


def _print(rates: list[tuple[float, float]]) -> None:
    for name, (pictures, objects) in zip(("whole pictures", "windows"), rates, strict=True):
        print(f"{name:16s} {pictures:6.1f} pictures/s {objects:6.1f} objects/s (one core)")
    (p0, o0), (p1, o1) = rates
    print(f"ratio            {p1 / p0:6.2f}            {o1 / o0:6.2f}")


def _by_command(
    root: Path, before: Path, recipes: list[_Recipe], rounds: int
) -> list[tuple[float, float]]:
    """Pictures and objects a second of each recipe's own command, the two in turns."""
    half = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    words = [[], ["trainer.max_time=null", *(["trainer.precision=bf16-mixed"] if half else [])]]
    spent: list[list[float]] = [[], []]
    for _ in range(rounds):
        for which, checkout in enumerate((before, HERE)):
            few, many = (_run(checkout, root, words[which], steps) for steps in (4, 20))
            spent[which].append((many - few) / 16)
            print(f"  {checkout.name}: {spent[which][-1]:.2f} s a step", flush=True)
    rates = []
    for recipe, seconds in zip(recipes, spent, strict=True):
        pictures = recipe.batch_size / median(seconds)
        rates.append((pictures, pictures * recipe.objects_a_picture()))
    return rates


def _run(checkout: Path, root: Path, words: list[str], steps: int) -> float:
    """Processor seconds of a training of so many steps."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, "train.py", "experiment=deepmac_lite", f"data.root={root}"),
            *("trainer=cpu", f"trainer.max_steps={steps}", "trainer.limit_val_batches=0"),
            *("data.num_workers=0", "callbacks.pictures=null", f"hydra.run.dir={folder}", *words),
        ]
        environment = {**os.environ, "PYTHONPATH": str(checkout / "src"), "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            command, cwd=checkout, env=environment, stdout=subprocess.DEVNULL
        )
        _, status, used = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(f"this failed in {checkout}: {' '.join(command)}")
    return used.ru_utime + used.ru_stime


class _Recipe:
    def __init__(self, root: Path, *, windows: bool) -> None:
        index = read_coco(
            root / "annotations" / "instances_train.json", root / "images", check_images="none"
        )
        self.windows = windows
        self.data = CocoInstances(
            index,
            label_of=index.label_of,
            masked_category_ids=frozenset(index.category_ids),
            transform=[
                window_transform(w, image_size=512, scale=(0.6, 1.3), flip=0.5, color=True)
                for w in WINDOWS
            ]
            if windows
            else training_transform(416, crop_scale=(0.5, 1.2)),
            training=True,
            targets=TargetSpec(box_margin=0.1 if windows else 0.0),
            max_objects=8 if windows else None,
            min_visible=MIN_VISIBLE if windows else 0.0,
        )
        self.batch_size = 8 if windows else 4
        torch.manual_seed(0)
        self.network = DeepMAC(
            num_classes=len(index.categories),
            backbone="tf_efficientnet_lite0",
            head_channels=64,
            mask_head="hourglass20",
            num_init_channels=32,
            crop_impl="separable",
            box_margin=0.1 if windows else 0.0,
            detector=not windows,
        ).to(memory_format=torch.channels_last)
        self.criterion = DeepMACCriterion(LossOptions())
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=1e-3)

    def objects_a_picture(self, pictures: int = 200) -> float:
        """Of how many objects a mask is learned, on average."""
        keys = [(0, i % len(self.data), i // len(self.data)) for i in range(pictures)]
        return sum(int(collate([self.data[key]])["mask_valid"].sum()) for key in keys) / pictures

    def step(self, number: int) -> tuple[float, int, int]:
        """Processor seconds, pictures and supervised objects of one step, its data included."""
        started = time.process_time()
        first = number * self.batch_size
        keys = [(0, (first + i) % len(self.data), number) for i in range(self.batch_size)]
        batch = collate([self.data[key] for key in keys])
        half = self.windows and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        images = batch["images"].contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            stages = self.network(images)
            logits = [
                self.network.mask_logits(stages[-1], batch["mask_boxes"], batch["mask_valid"])
            ]
        self.criterion(stages, logits, batch, stride=4)["loss"].backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return time.process_time() - started, len(images), int(batch["mask_valid"].sum())


if __name__ == "__main__":
    main()
