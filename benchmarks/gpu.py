"""``make gpu``: what only a CUDA card shows, in order of worth, within six minutes.

Every part has a time budget; what is measured is written to ``docs/figures/gpu.json`` at once, so a
run that is cut off keeps what it has. ``--device cpu --tiny`` rehearses all of it on toy sizes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn

from benchmarks import crop, label
from benchmarks.big_network import training_batch
from benchmarks.table import machine
from deepmac.class_map import ClassMap
from deepmac.data.shapes.data_set import ensure_shapes
from deepmac.lightning.datamodule import CocoDataModule
from deepmac.lightning.deepmac_module import DeepMACModule
from deepmac.lightning.optim.optimizer import build_optimizer
from deepmac.nn.deepmac import DeepMAC
from deepmac.nn.deepmarc.model import DeepMARC
from deepmac.nn.inference import for_inference

CLASSES = 90
LITE: dict[str, Any] = {
    "backbone": "tf_efficientnet_lite0",
    "pyramid_width": 64,
    "head_channels": 64,
    "mask_head": "hourglass20",
    "num_init_channels": 32,
}
Findings = dict[str, Any]


class Card:
    """Where things run, at which sizes."""

    def __init__(self, device: str, tiny: bool) -> None:
        self.device, self.tiny = torch.device(device), tiny
        self.size = 128 if tiny else 512
        self.repeats = 2 if tiny else 10
        self.big = (
            {"backbone": "hourglass_10", "mask_head": "hourglass10"}
            if tiny
            else {"backbone": "hourglass_104", "mask_head": "hourglass52"}
        )

    def wait(self) -> None:
        """Until the card has done what it was told."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def seconds(self, work: Callable[[], object], repeats: int | None = None) -> float:
        """Median of some runs; two warm up."""
        spent = []
        for number in range((repeats or self.repeats) + 2):
            self.wait()
            started = time.perf_counter()
            work()
            self.wait()
            if number >= 2:
                spent.append(time.perf_counter() - started)
        return statistics.median(spent)

    @contextmanager
    def peak(self, into: Findings) -> Iterator[None]:
        """Books the most memory that was allocated, in GB."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        yield
        if self.device.type == "cuda":
            into["peak_gb"] = torch.cuda.max_memory_allocated() / 1e9


def parity(card: Card) -> Findings:
    """CPU and card, float32 without TF32 and bfloat16: heads, crops, masks, losses, one step."""
    found: Findings = {}
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.manual_seed(0)
    here = DeepMAC(num_classes=CLASSES, head_channels=64, **LITE_SMALL).eval()
    there = _copy(here, card)
    batch = training_batch(card.size, images=2, boxes=7)
    images, boxes = batch["images"], batch["boxes"]
    with torch.no_grad():
        stage, other = here(images)[-1], there(images.to(card.device))[-1]
        for name in ("heatmap", "size", "offset", "pixel_embedding", "instance_embedding"):
            found[f"{name}, largest difference"] = _apart(
                getattr(stage, name), getattr(other, name)
            )
        masks = here.mask_probabilities(stage, boxes)
        moved = boxes.to(card.device)
        found["masks, largest difference"] = _apart(masks, there.mask_probabilities(other, moved))
        for precision in ("32", "bf16"):
            prepared = for_inference(there, precision)  # type: ignore[arg-type]
            answer = prepared.mask_probabilities(prepared.last_stage(images.to(card.device)), moved)
            found[f"prepared {precision}, pixels that change side"] = (
                ((answer.cpu() > 0.5) != (masks > 0.5)).float().mean().item()
            )
    losses = [_step(_module(LITE_SMALL | {"head_channels": 64}), batch, device)
              for device in (torch.device("cpu"), card.device)]  # fmt: skip
    for name in losses[0]:
        first, second = losses[0][name], losses[1][name]
        found[f"{name}, relative difference"] = abs(first - second) / max(abs(first), 1e-9)
    worst = max(value for name, value in found.items() if "prepared" not in name)
    found["ok"] = worst < 2e-3
    return found


LITE_SMALL: dict[str, Any] = {k: v for k, v in LITE.items() if k != "head_channels"}


def big_training(card: Card) -> Findings:
    """``voc_to_nonvoc``: images a second and share of the measured matrix peak, best batch."""
    peak = matrix_peak(card)
    found: Findings = {"matrix_peak_tflops": peak, "step_tflop": _step_flops(card) / 1e12}
    found["batches"] = {}
    for images in (1,) if card.tiny else (16, 32, 64):  # at 16 an H100 waits for the processor
        if not _speed_into(found["batches"].setdefault(images, {}), card, card.big, images):
            break
    torch.backends.cudnn.benchmark = True  # pays where the boxes of every batch are as many
    tried = found["batches"].setdefault("16, cudnn.benchmark", {})
    _speed_into(tried, card, card.big, 1 if card.tiny else 16)
    torch.backends.cudnn.benchmark = False
    found["kernels"] = _kernels(card, card.big, 1 if card.tiny else 16)
    return _best(found)


def compiled(card: Card) -> Findings:
    """The same with ``model.compile=true``, and deepmac-lite's with and without it."""
    found: Findings = {"matrix_peak_tflops": matrix_peak(card)}
    found["step_tflop"] = _step_flops(card) / 1e12
    found["batches"] = {}
    images = 1 if card.tiny else 64
    started = time.monotonic()
    _speed_into(found["batches"].setdefault(images, {}), card, card.big | {"compile": True}, images)
    found["seconds_to_compile_and_run"] = time.monotonic() - started
    _best(found)
    images = 2 if card.tiny else 32
    found["lite_eager"] = _training_speed(card, _module(LITE), images, 7)
    found["lite_compiled"] = _training_speed(card, _module(LITE | {"compile": True}), images, 7)
    return found


def _speed_into(found: Findings, card: Card, network: dict[str, Any], images: int) -> bool:
    """Books the speed and memory of a batch; False where it does not fit."""
    try:
        with card.peak(found):
            found["images_per_second"] = _training_speed(card, _module(network), images, 7)
    except torch.OutOfMemoryError:
        found["out_of_memory"] = True
    return "out_of_memory" not in found


def _best(found: Findings) -> Findings:
    """Adds the best batch's speed and its share of the matrix peak."""
    best = max(one.get("images_per_second", 0.0) for one in found["batches"].values())
    found["images_per_second"] = best
    found["share_of_peak"] = best * found["step_tflop"] / found["matrix_peak_tflops"]
    return found


def _kernels(card: Card, network: dict[str, Any], images: int) -> dict[str, float]:
    """Milliseconds of a training step by the operator that spent them, the longest of them."""
    from torch.profiler import ProfilerActivity, profile

    step = _training_step(card, _module(network), images, 7)
    step()
    cuda = card.device.type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU]) as seen:
        step()
        card.wait()
    name = "self_device_time_total" if cuda else "self_cpu_time_total"
    spent = sorted(((getattr(e, name) / 1e3, e.key) for e in seen.key_averages()), reverse=True)
    return {key[:90]: round(milliseconds, 2) for milliseconds, key in spent[:14]}


def deepmarc(card: Card) -> Findings:
    """Deep-MARC's training step beside torchvision's Mask R-CNN, in turns."""
    from torchvision.models.detection import maskrcnn_resnet50_fpn

    images, size = (1, 128) if card.tiny else (16, 512)
    backbone = "resnet18" if card.tiny else "resnet50"
    head = "hourglass10" if card.tiny else "hourglass52"
    ours = DeepMARC(num_classes=CLASSES, backbone=backbone, mask_head=head).to(card.device).train()
    theirs = maskrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=CLASSES + 1, min_size=size, max_size=size
    )
    theirs = theirs.to(card.device).train()
    batch = {k: v.to(card.device) for k, v in training_batch(size, images, 7).items()}
    targets = [
        {
            "boxes": batch["boxes"][n],
            "labels": batch["labels"][n] + 1,
            "masks": torch.ones(7, size, size, dtype=torch.uint8, device=card.device),
        }
        for n in range(images)
    ]
    mask_targets = [
        {
            "boxes": batch["boxes"][n],
            "labels": batch["labels"][n] + 1,
            "mask_targets": torch.ones(7, 64, 64, device=card.device),
        }
        for n in range(images)
    ]
    pictures = [picture.float() / 255 for picture in batch["images"]]

    def step(network: nn.Module, losses: Callable[[], dict[str, torch.Tensor]]) -> Any:
        optimizer = torch.optim.SGD(network.parameters(), lr=1e-4)

        def run() -> None:
            optimizer.zero_grad(set_to_none=True)
            with _mixed(card):
                total = sum(losses().values())
            total.backward()  # type: ignore[union-attr]
            optimizer.step()

        return run

    mine = step(ours, lambda: ours.losses(ours(batch["images"])[-1], mask_targets))
    other = step(theirs, lambda: theirs(pictures, targets))
    few = 2 if card.tiny else 6
    a, b = card.seconds(mine, few), card.seconds(other, few)
    return {"ours": images / a, "torchvision": images / b, "ratio": b / a}


def crops(card: Card) -> Findings:
    """RoIAlign forward and backward, both forms."""
    return {
        row.name: {"separable_ms": row.ours, "torchvision_ms": row.theirs, "ratio": row.ratio}
        for row in crop.rows(card.tiny, card.device.type)
    }


def labelling(card: Card) -> Findings:
    """``label`` beside torchvision's Mask R-CNN, and the share outside the network."""
    sizes = (6, 2, 64) if card.tiny else (64, 8, 512)
    root = ensure_shapes(num_train=sizes[0], num_val=sizes[1], size=sizes[2])
    words = ["--root", str(root), "--device", card.device.type, "--size", str(card.size)]
    words += ["--images", str(sizes[0]), "--repeats", "1", "--precision", "auto"]
    found = label.measure(label.parser().parse_args(words))
    return {
        "images_per_second": found.images / found.ours,
        "torchvision": found.images / found.theirs,
        "ratio": found.theirs / found.ours,
        "shares": found.shares,
        "further_box_ms": 1e3 * found.further_box,
    }


def deterministic(card: Card) -> Findings:
    """Two steps from the same start, with deterministic algorithms: bit for bit equal?"""
    batch = training_batch(card.size, 2, 7)
    with _deterministic():
        first, second = (_step(_module(LITE), batch, card.device, steps=2) for _ in range(2))
    return {"equal": first == second}


@contextmanager
def _deterministic() -> Iterator[None]:
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def resume(card: Card) -> Findings:
    """Stopped after one step and gone on from a checkpoint: the same losses?"""
    with _deterministic():
        return _resumed(card)


def _resumed(card: Card) -> Findings:
    batch = training_batch(card.size, 2, 7)
    whole = _steps(_module(LITE), batch, card.device, 2)
    module = _module(LITE)
    optimizer = build_optimizer([{"params": list(module.parameters())}], module.hparams)
    first = _steps(module, batch, card.device, 1, optimizer)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.pt"
        torch.save([module.state_dict(), optimizer.state_dict()], path)
        weights, moments = torch.load(path, weights_only=True)
    module = _module(LITE)
    module.load_state_dict(weights)
    module.to(card.device)
    optimizer = build_optimizer([{"params": list(module.parameters())}], module.hparams)
    optimizer.load_state_dict(moments)
    rest = _steps(module, batch, card.device, 1, optimizer)
    apart = max(abs(a - b) / abs(a) for a, b in zip(whole, [*first, *rest], strict=True))
    return {"largest relative difference": apart}


def batch_size_auto(card: Card) -> Findings:
    """``data.batch_size=auto`` with 12 GB of the card, then steps of what it chose: do they fit?"""
    cuda, size = card.device.type == "cuda", 128 if card.tiny else 512
    root = ensure_shapes(num_train=16 if card.tiny else 192, num_val=2, size=size)
    module = DeepMACModule(**LITE)
    data = CocoDataModule(root=str(root), image_size=size, batch_size="auto", num_workers=0)
    trainer = pl.Trainer(
        accelerator="gpu" if cuda else "cpu", devices=1, max_steps=3, limit_val_batches=0,
        precision="bf16-mixed", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    found: Findings = {}
    total = torch.cuda.get_device_properties(0).total_memory if cuda else 0
    share = min(1.0, 12e9 / total) if cuda else 1.0
    try:
        if cuda:
            torch.cuda.set_per_process_memory_fraction(share)
        with card.peak(found):
            trainer.fit(module, datamodule=data)
        if cuda:
            found["share_of_room"] = torch.cuda.max_memory_reserved() / (share * total)
    finally:
        if cuda:
            torch.cuda.set_per_process_memory_fraction(1.0)
    return {**found, "batch_size": data.hparams["batch_size"], "steps": trainer.global_step}


PARTS: tuple[tuple[str, Callable[[Card], Findings], float], ...] = (
    ("parity", parity, 40),
    ("big_training", big_training, 90),
    ("deepmarc", deepmarc, 50),
    ("label", labelling, 50),
    ("crops", crops, 15),
    ("resume", resume, 20),
    ("deterministic", deterministic, 20),
    ("batch_size_auto", batch_size_auto, 40),
    ("compiled", compiled, 150),
)


def main() -> None:
    """Run the parts in their order until time is up."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="toy sizes, a rehearsal")
    parser.add_argument("--minutes", type=float, default=6.0, help="for all parts together")
    parser.add_argument("--out", type=Path, help="default: docs/figures/gpu.json; none if tiny")
    parser.add_argument("parts", nargs="*", help=", ".join(name for name, _, _ in PARTS))
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.exit(1, "there is no CUDA card: rehearse with --device cpu --tiny\n")
    out = options.out or (None if options.tiny else Path("docs/figures/gpu.json"))
    card = Card(options.device, options.tiny)
    name = torch.cuda.get_device_name() if card.device.type == "cuda" else "no card"
    report: Findings = {"machine": machine(), "card": name, "tiny": options.tiny, "parts": {}}
    started = time.monotonic()
    for part, measure, budget in PARTS:
        if options.parts and part not in options.parts:
            continue
        left = 60 * options.minutes - (time.monotonic() - started)
        if left < budget / 3:
            report["parts"][part] = {"skipped": f"{left:.0f} s were left of the time"}
        else:
            begun = time.monotonic()
            try:
                found = measure(card)
            except Exception as error:  # the next part may run all the same
                traceback.print_exc()
                found = {"failed": f"{type(error).__name__}: {str(error)[:300]}"}
            report["parts"][part] = {**found, "seconds": round(time.monotonic() - begun, 1)}
        print(part, json.dumps(report["parts"][part], indent=1), flush=True)
        if out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if any("failed" in one for one in report["parts"].values()):
        parser.exit(1, "a part failed: see above\n")


def matrix_peak(card: Card) -> float:
    """TFLOP/s of a large matrix product in bfloat16, measured."""
    side = 256 if card.tiny else 8192
    a = torch.randn(side, side, device=card.device, dtype=torch.bfloat16)
    return 2 * side**3 / card.seconds(lambda: a @ a) / 1e12


def _module(arguments: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    module: Any = DeepMACModule(**arguments)
    module.build(ClassMap(tuple(range(1, CLASSES + 1)), tuple("c" * CLASSES), frozenset({1})))
    return module.train()


def _training_speed(card: Card, module: Any, images: int, boxes: int) -> float:
    return images / card.seconds(_training_step(card, module, images, boxes))


def _training_step(card: Card, module: Any, images: int, boxes: int) -> Callable[[], None]:
    module = module.to(card.device)
    batch = {k: v.to(card.device) for k, v in training_batch(card.size, images, boxes).items()}
    optimizer = build_optimizer([{"params": list(module.parameters())}], module.hparams)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with _mixed(card):
            loss = module.compute_losses(batch)["loss"]
        loss.backward()
        optimizer.step()

    return step


def _step_flops(card: Card) -> float:
    """Forward and backward of one image with seven boxes, counted."""
    from torch.utils.flop_counter import FlopCounterMode

    module = _module(card.big | {"crop_impl": "torchvision"}).to(card.device)
    batch = {k: v.to(card.device) for k, v in training_batch(card.size, 1, 7).items()}
    with FlopCounterMode(display=False) as counter:
        module.compute_losses(batch)["loss"].backward()
    return float(counter.get_total_flops())


def _step(module: Any, batch: Any, device: torch.device, steps: int = 1) -> dict[str, float]:
    module = module.to(device)
    optimizer = build_optimizer([{"params": list(module.parameters())}], module.hparams)
    placed = {k: v.to(device) for k, v in batch.items()}
    losses: dict[str, torch.Tensor] = {}
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        losses = module.compute_losses(placed)
        losses["loss"].backward()
        optimizer.step()
    after = torch.stack([p.detach().float().norm() for p in module.parameters()]).norm()
    return {name: float(value.detach()) for name, value in {**losses, "weights": after}.items()}


def _steps(
    module: Any,
    batch: Any,
    device: torch.device,
    count: int,
    optimizer: torch.optim.Optimizer | None = None,
) -> list[float]:
    module = module.to(device)
    optimizer = optimizer or build_optimizer(
        [{"params": list(module.parameters())}], module.hparams
    )
    placed = {k: v.to(device) for k, v in batch.items()}
    losses = []
    for _ in range(count):
        optimizer.zero_grad(set_to_none=True)
        loss = module.compute_losses(placed)["loss"]
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def _mixed(card: Card) -> Any:
    return torch.autocast(card.device.type, torch.bfloat16, enabled=card.device.type == "cuda")


def _copy(network: DeepMAC, card: Card) -> DeepMAC:
    import copy

    return copy.deepcopy(network).to(card.device)


def _apart(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Largest difference relative to the largest value."""
    return float((ours - theirs.cpu()).abs().max() / ours.abs().max().clamp(min=1e-9))


if __name__ == "__main__":
    main()
