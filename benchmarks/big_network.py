"""Hourglass-104 with the hourglass52 mask head at 512 pixels beside the TensorFlow original.

The original runs in its own environment (``make reference`` builds it), in a process that takes
turns with this one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.table import Row, Skipped, convolution_rate, in_turns
from deepmac.class_map import ClassMap
from deepmac.lightning.deepmac_module import DeepMACModule
from deepmac.lightning.optim.optimizer import build_optimizer
from deepmac.nn.allocator import keep_freed_memory
from deepmac.nn.deepmac import DeepMAC
from deepmac.nn.inference import for_inference, has_bfloat16

ROOT = Path(__file__).resolve().parent.parent
BOXES, CLASSES = 20, 90
_GFLOP = 552.0  # the last stack's embeddings alone, and twenty boxes


class Original:
    """The TensorFlow side: says the seconds of a run each time it is asked for one."""

    def __init__(self, job: str, backbone: str, head: str, size: int) -> None:
        python = os.environ.get("DEEPMAC_REFERENCE_PYTHON", ROOT / ".venv-reference/bin/python")
        if not Path(python).exists():
            raise Skipped(
                "the TensorFlow original is not installed: `make reference` makes its environment"
            )
        script = ROOT / "tests/reference/live/tf_speed.py"
        command = [str(python), str(script), job, backbone, head, str(size), str(BOXES)]
        threads = str(torch.get_num_threads())
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "TF_ENABLE_ONEDNN_OPTS": "1"}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def __call__(self) -> None:
        """One run."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with suppress(OSError):  # it ended: its silence tells below
            self._process.stdin.write("go\n")
            self._process.stdin.flush()
        if self._process.stdout.readline() != "done\n":
            raise Skipped(
                "the TensorFlow side failed: run tests/reference/live/tf_speed.py by hand"
            )

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()


def inference(quick: bool) -> list[Row]:
    """A picture and twenty boxes to masks, warm."""
    names, size = _names(quick)
    torch.manual_seed(0)
    network = DeepMAC(num_classes=CLASSES, backbone=names[0], mask_head=names[1]).eval()
    image = torch.randint(0, 256, (1, 3, size, size), dtype=torch.uint8)
    boxes = _boxes(size)

    def ours(precision: Any) -> Any:
        prepared = for_inference(network, precision)
        return lambda: prepared.mask_probabilities(prepared.last_stage(image), boxes)

    sides = [ours("32")]
    if has_bfloat16(torch.device("cpu")):
        sides.append(ours("bf16"))
    original, note = _original("inference", *names, size)
    try:
        with torch.inference_mode():
            spent = in_turns(sides + ([original] if original else []), 1 if quick else 5)
    finally:
        if original:
            original.close()
    theirs = spent[len(sides)] if original else None
    how = f"{names[0]} + {names[1]}, {size} px, {BOXES} boxes{note}"
    limit = None if quick else _GFLOP * 1e9 / convolution_rate()
    rows = [
        Row("picture + 20 boxes, float32", "s", spent[0], "TensorFlow", theirs, 1.05, how, limit)
    ]
    if len(sides) > 1:
        rows.append(
            Row("picture + 20 boxes, bfloat16", "s", spent[1], "TensorFlow", theirs, 1.6, how)
        )
    return rows


def training(quick: bool) -> list[Row]:
    """One step: forward, losses, backward, Adam; batch of one picture."""
    names, size = _names(quick)
    torch.manual_seed(0)
    module: Any = DeepMACModule(backbone=names[0], mask_head=names[1])
    module.build(ClassMap(tuple(range(1, CLASSES + 1)), tuple("c" * CLASSES), frozenset({1})))
    optimizer = build_optimizer([{"params": list(module.parameters())}], module.hparams)
    batch = training_batch(size)
    keep_freed_memory()  # as every training on a CPU does

    def step(mixed: bool) -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            loss = module.compute_losses(batch)["loss"]
        loss.backward()
        optimizer.step()

    kinds = [False, True] if has_bfloat16(torch.device("cpu")) else [False]
    original, note = _original("step", *names, size)
    try:
        sides: list[Callable[[], None]] = [partial(step, mixed) for mixed in kinds]
        spent = in_turns(sides + ([original] if original else []), 1 if quick else 3)
    finally:
        if original:
            original.close()
    theirs = spent[len(kinds)] if original else None
    how = f"{names[0]} + {names[1]}, {size} px, {BOXES} boxes{note}"
    return [
        Row(
            f"training step, one picture, {'bfloat16 mixed' if mixed else 'float32'}",
            *("s", spent[at], "TensorFlow float32", theirs, 1.2, how),
        )
        for at, mixed in enumerate(kinds)
    ]


def training_batch(size: int, images: int = 1, boxes: int = BOXES) -> Any:
    """As ``deepmac.data.collate`` gives it: noise, and ellipses in boxes."""
    generator = torch.Generator().manual_seed(0)
    places = (torch.arange(32) + 0.5) / 16 - 1
    disc = (places[:, None] ** 2 + places**2 < 1).to(torch.uint8) * 255
    placed = _boxes(size, boxes).expand(images, -1, -1).clone()
    yes = torch.ones(images, boxes, dtype=torch.bool)
    return {
        "images": torch.randint(
            0, 256, (images, 3, size, size), dtype=torch.uint8, generator=generator
        ),
        "boxes": placed,
        "mask_boxes": placed,
        "labels": torch.arange(boxes).expand(images, -1) % CLASSES,
        "valid": yes,
        "mask_valid": yes,
        "mask_targets": disc.expand(images, boxes, 32, 32).clone(),
        "ignore": torch.zeros(images, size // 4, size // 4, dtype=torch.bool),
        "true_sizes": torch.full((images, 2), size),
        "image_ids": torch.arange(images),
    }


def _boxes(size: int, count: int = BOXES) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    corner = torch.rand(1, count, 2, generator=generator) * size * 0.6
    return torch.cat(
        [corner, corner + size * (0.1 + 0.3 * torch.rand(1, count, 2, generator=generator))], dim=2
    )


def _names(quick: bool) -> tuple[tuple[str, str], int]:
    return (
        (("hourglass_10", "hourglass10"), 128) if quick else (("hourglass_104", "hourglass52"), 512)
    )


def _original(job: str, backbone: str, head: str, size: int) -> tuple[Original | None, str]:
    try:
        return Original(job, backbone, head, size), ""
    except Skipped as reason:
        print(f"  {reason}", file=sys.stderr)
        return None, f" ({reason})"
