"""A training step on TPUs, on paper: time, memory and days from what the graph holds."""

from __future__ import annotations

from dataclasses import dataclass

MFU = (0.25, 0.5)
"""Assumed share of a chip's peak that padded convolutions reach: a guess, not a measurement."""

MATRIX_UNIT = 128
"""Channels are padded to this many on the matrix units of v3, v4 and v5e."""

REDUCE_SECONDS = 30e-6
"""Assumed latency of a small all-reduce among 16 replicas: a guess, not a measurement. Each
doubling of them adds a tenth."""


@dataclass(frozen=True)
class Chip:
    """What torch_xla calls a device: a core on v3, a chip on v4 and v5e.

    Attributes:
        teraflops: peak in bfloat16.
        gigabytes: memory.
        link_gigabytes: that an all-reduce moves out of it per second.
        host_devices: devices of one host.
    """

    teraflops: float
    gigabytes: float
    link_gigabytes: float
    host_devices: int


# Peak and memory: cloud.google.com/tpu/docs, pages v3, v4, v5e; a v3 core is half a chip. Links:
# half of the bidirectional bandwidth of v5e there; v4 and v3 are guesses below their ports' sum.
CHIPS = {
    "v3": Chip(61.5, 16.0, 41.0, host_devices=8),
    "v4": Chip(275.0, 32.0, 150.0, host_devices=4),
    "v5e": Chip(197.0, 16.0, 100.0, host_devices=4),
}


@dataclass(frozen=True)
class Graph:
    """What was counted in the graph of one replica's step, for ``images`` images.

    Attributes:
        images: batch of the replica.
        flops: of all products, forward and backward.
        padded_flops: the same with channels filled up to ``MATRIX_UNIT``.
        parameters: of the network.
        least_activations: bytes that the backward pass needs at least (convolution inputs).
        most_activations: bytes that autograd keeps; the compiler recomputes some of them.
        reductions: small all-reduces that wait for one another (batch norm, loss counts).
    """

    images: int
    flops: float
    padded_flops: float
    parameters: int
    least_activations: float
    most_activations: float
    reductions: int


@dataclass(frozen=True)
class Estimate:
    """Seconds, gigabytes and days of a run; pairs are from hopeful to careful.

    Attributes:
        replicas: devices that each take ``batch`` images.
        batch: images per replica and step.
        compute: seconds of products.
        gradients: seconds to sum gradients over the replicas.
        reductions: seconds of small all-reduces.
        step: seconds in all.
        gigabytes: memory of one device.
        fits: whether the careful figure does.
        days: of the whole training.
        images_per_second: that every host must read and augment at the hopeful pace.
    """

    replicas: int
    batch: int
    compute: tuple[float, float]
    gradients: float
    reductions: float
    step: tuple[float, float]
    gigabytes: tuple[float, float]
    fits: bool
    days: tuple[float, float]
    images_per_second: float


def estimate(graph: Graph, chip: Chip, replicas: int, batch: int, images: int) -> Estimate:
    """Assumes that nothing overlaps and that activations and products grow with the batch.

    Args:
        graph: counted on a batch of ``graph.images``.
        chip: the device.
        replicas: their number.
        batch: images per replica and step.
        images: that the whole training sees, over all replicas.
    """
    share = batch / graph.images
    fast, slow = (graph.padded_flops * share / (chip.teraflops * 1e12 * mfu) for mfu in MFU[::-1])
    ring = 2 * (replicas - 1) / replicas
    gradients = ring * 4 * graph.parameters / (chip.link_gigabytes * 1e9)
    doublings = max(0, (replicas - 1).bit_length() - 4)
    reductions = graph.reductions * REDUCE_SECONDS * (1 + doublings / 10) if replicas > 1 else 0.0
    steps = images / (batch * replicas)
    step = (fast + gradients + reductions, slow + gradients + reductions)
    fixed = 5 * 4 * graph.parameters  # weights, gradients, two moments, a bucket of gradients
    low, high = (
        (fixed + share * kept) / 1e9 for kept in (graph.least_activations, graph.most_activations)
    )
    return Estimate(
        replicas=replicas,
        batch=batch,
        compute=(fast, slow),
        gradients=gradients,
        reductions=reductions,
        step=step,
        gigabytes=(low, high),
        fits=high <= chip.gigabytes,
        days=(step[0] * steps / 86_400, step[1] * steps / 86_400),
        images_per_second=batch * min(replicas, chip.host_devices) / step[0],
    )


def padded(channels: int) -> int:
    """Channels as the matrix unit counts them."""
    return -(-channels // MATRIX_UNIT) * MATRIX_UNIT
