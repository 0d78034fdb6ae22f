"""The whole training step as one XLA graph: counted, lowered, never compiled or run.

``python -m benchmarks.tpu_step`` in an environment with torch_xla; needs no TPU. For
``voc_to_nonvoc`` it takes half a minute and 4 GB of memory. Prints what the graph holds, and an
estimate on paper of time and memory on TPU slices (see ``tpu_estimate`` for what it assumes).
"""

from __future__ import annotations

import argparse
import math
import os
import re
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, cast

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.tpu_estimate import CHIPS, MFU, REDUCE_SECONDS, Graph, estimate, padded
from deepmac.class_map import ClassMap
from deepmac.data.batch import Batch
from deepmac.lightning.compose import compose, lightning_config
from deepmac.lightning.datamodule import XLA_MAX_BOXES
from deepmac.lightning.deepmac_module import DeepMACModule
from deepmac.lightning.optim.optimizer import build_optimizer
from deepmac.lightning.xla import device as xla
from deepmac.lightning.xla.optimizer_state import allocate_state
from deepmac.lightning.xla.strategies import XLAMixedPrecision
from deepmac.nn.replicas import Replicas, share

# Name, chip, devices, images per device and step: 128 a step as published, until one is left each.
SLICES = (
    ("v3-32", "v3", 32, 4),
    ("v3-128", "v3", 128, 1),
    ("v4-32", "v4", 16, 8),
    ("v5e-16", "v5e", 16, 8),
    ("v4-256", "v4", 128, 1),
    ("v4-512", "v4", 256, 1),
    ("v4-2048", "v4", 1024, 1),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Count one replica's step and print the estimates."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tpu_step", description=__doc__)
    parser.add_argument("--experiment", default="voc_to_nonvoc")
    parser.add_argument("--batch", type=int, default=4, help="images per replica")
    parser.add_argument("overrides", nargs="*", help="settings, such as mask_head=hourglass20")
    options = parser.parse_args(arguments)
    os.environ.setdefault("PJRT_DEVICE", "CPU")
    os.environ["XLA_ALWAYS_ALLREDUCE"] = "1"  # else left out where there is one replica
    settings = lightning_config(
        compose([f"experiment={options.experiment}", "trainer=tpu_pod", *options.overrides])[0]
    )
    graph, operations, seconds = count_step(settings, options.batch)
    images = settings["trainer"]["max_steps"] * 128
    console = Console(highlight=False, width=130)
    console.print(
        f"{options.experiment}, {options.batch} images and "
        f"{options.batch * (settings['data']['max_boxes'] or XLA_MAX_BOXES)} box rows per "
        f"device; traced in {seconds[0]:.0f} s, lowered in {seconds[1]:.0f} s on this CPU"
    )
    console.print(
        f"{sum(operations.values())} operations in the graph: "
        + ", ".join(f"{count} {name}" for name, count in operations.most_common(12))
    )
    console.print(
        f"{graph.flops / 1e12:.2f} TFLOP forward and backward ({graph.padded_flops / 1e12:.2f} "
        f"when matrix units are filled up); {graph.parameters / 1e6:.1f} M parameters, "
        f"{4 * graph.parameters / 1e9:.2f} GB; with gradients and Adam's moments "
        f"{16 * graph.parameters / 1e9:.2f} GB; activations {graph.least_activations / 1e9:.1f} GB "
        f"(inputs of convolutions) to {graph.most_activations / 1e9:.1f} GB (all that autograd "
        f"keeps); {graph.reductions} small all-reduces"
    )
    console.print(_table(graph, images))
    console.print(
        f"Assumed, not measured: {MFU[0]:.0%} to {MFU[1]:.0%} of the peak on the filled-up "
        f"products, {REDUCE_SECONDS * 1e6:.0f} us for a small all-reduce, nothing overlaps, the "
        f"input keeps up. {images / 1e6:.1f} M images in all."
    )


def count_step(
    settings: dict[str, Any], images: int
) -> tuple[Graph, Counter[str], tuple[float, float]]:
    """Trace a step of one replica, collectives included.

    Args:
        settings: a composed configuration.
        images: batch of the replica.

    Returns:
        The counts, operations of the lowered graph by name, seconds of tracing and lowering.
    """
    device = xla.device()
    torch.manual_seed(0)
    module = DeepMACModule(**{**settings["model"], "weights": None, "init_from": None})
    module.build(ClassMap(tuple(range(80)), tuple(map(str, range(80))), frozenset(range(20))))
    module = module.train().to(device)
    share(module, Replicas(2, xla.all_reduce_sum, xla.recompute))
    optimizer = build_optimizer([{"params": list(module.parameters())}], module.hparams)
    allocate_state([optimizer])
    batch = {name: value.to(device) for name, value in _batch(settings, images).items()}
    xla.sync()  # weights and batch are data of the graph; only filling with zeros has run
    started = time.monotonic()
    own = {xla.identity(tensor) for tensor in module.parameters()}
    products, kept = _Products(), _Kept(own)
    with products, saved_tensors_hooks(kept.add, lambda tensor: tensor):
        with XLAMixedPrecision().forward_context():
            losses = module.compute_losses(cast("Batch", batch))
        losses["loss"].backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    traced = time.monotonic()
    moments = [v for s in optimizer.state.values() for v in s.values() if v.device == device]
    made = [*losses.values(), *module.parameters(), *module.buffers(), *moments]
    operations = operations_of(xla.graph_text(made))
    graph = Graph(
        images=images,
        flops=products.flops,
        padded_flops=products.padded_flops,
        parameters=sum(p.numel() for p in module.parameters()),
        least_activations=sum(products.inputs.values()),
        most_activations=sum(kept.sizes.values()),
        reductions=operations["all-reduce"],
    )
    return graph, operations, (traced - started, time.monotonic() - traced)


def operations_of(text: str) -> Counter[str]:
    """Operations of a graph's main computation in HLO text, by name."""
    entry = text[text.index("\nENTRY") :]
    # NAME = SHAPE operation(...); a tuple's shape is in brackets of its own.
    return Counter(re.findall(r"= (?:\([^=]*?\)|\S+) ([a-z][\w-]*)\(", entry))


class _Products(TorchDispatchMode):
    """Counts multiplications of convolutions and matrix products, and the convolutions' inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = self.padded_flops = 0.0
        self.inputs: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket
        if name is torch.ops.aten.convolution:
            self._convolution(args[1].shape, out.shape)
            self.inputs[xla.identity(args[0])] = args[0].nbytes
        elif name is torch.ops.aten.convolution_backward:
            for _ in range(sum(args[-1][:2])):  # with respect to the input, to the weights
                self._convolution(args[2].shape, args[0].shape)
        elif name in (torch.ops.aten.mm, torch.ops.aten.bmm, torch.ops.aten.addmm):
            left, right = args[-2].shape, args[-1].shape
            self._add(math.prod(left[:-1]), left[-1], right[-1])
        return out

    def _convolution(self, weight: torch.Size, out: torch.Size) -> None:
        self._add(out[0] * math.prod(out[2:]), math.prod(weight[1:]), weight[0])

    def _add(self, rows: int, inner: int, columns: int) -> None:
        self.flops += 2 * rows * inner * columns
        self.padded_flops += 2 * rows * padded(inner) * padded(columns)


class _Kept:
    """What autograd keeps for the backward pass, parameters apart."""

    def __init__(self, parameters: set[int]) -> None:
        self._parameters = parameters
        self.sizes: dict[int, int] = {}

    def add(self, tensor: Tensor) -> Tensor:
        """Called for every tensor that is kept."""
        if tensor.device.type == "xla" and (key := xla.identity(tensor)) not in self._parameters:
            self.sizes[key] = tensor.nbytes
        return tensor


def _batch(settings: dict[str, Any], images: int) -> dict[str, Tensor]:
    """Random, in the shapes of the data module's batches."""
    data = settings["data"]
    side, stride, mask = (
        data["image_size"],
        settings["model"]["stride"],
        settings["model"]["mask_size"],
    )
    slots = data["max_boxes"] or XLA_MAX_BOXES
    corner = torch.rand(images, slots, 2) * side / 2
    boxes = torch.cat([corner, corner + torch.rand(images, slots, 2) * side / 2 + 1], dim=-1)
    some = torch.rand(images, slots) < 0.3
    return {
        "images": torch.randint(0, 256, (images, 3, side, side), dtype=torch.uint8),
        "boxes": boxes,
        "mask_boxes": boxes,
        "labels": torch.randint(0, 80, (images, slots)),
        "valid": some,
        "mask_valid": some,
        "mask_targets": torch.rand(images, slots, mask, mask),
        "true_sizes": torch.full((images, 2), side),
        "ignore": torch.zeros(images, side // stride, side // stride, dtype=torch.bool),
        "image_ids": torch.arange(images),
    }


def _table(graph: Graph, images: int) -> Table:
    names = ("slice", "devices x images", "ms products", "ms gradients", "ms small sums", "ms step")
    table = Table(*names, "GB of a device", "days", "images/s per host")
    for name, kind, replicas, batch in SLICES:
        chip = CHIPS[kind]
        found = estimate(graph, chip, replicas, batch, images)
        step = f"{found.step[0] * 1e3:.0f}-{found.step[1] * 1e3:.0f}"
        table.add_row(
            name,
            f"{replicas} x {batch}",
            f"{found.compute[0] * 1e3:.0f}-{found.compute[1] * 1e3:.0f}",
            f"{found.gradients * 1e3:.0f}",
            f"{found.reductions * 1e3:.0f}",
            step,
            f"{found.gigabytes[0]:.1f}-{found.gigabytes[1]:.1f} of {chip.gigabytes:.0f}"
            f"{'' if found.fits else ': tight'}",
            f"{found.days[0]:.2f}-{found.days[1]:.2f}",
            f"{found.images_per_second:.0f}",
        )
    return table


if __name__ == "__main__":
    main()
