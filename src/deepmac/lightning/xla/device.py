"""Everything that the project asks of torch_xla: no other file imports it.

It is imported on first use, so that this file loads without it. Collectives, which every replica
must call equally often, say so in their docstrings.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping
from typing import Any

import torch
from pytorch_lightning.accelerators import XLAAccelerator
from torch import Tensor

_CHUNK = 1 << 18
"""int32 words that one gather moves: a fixed size, so that it is compiled once."""


def installed() -> bool:
    """Whether torch_xla is in this environment; it is not imported."""
    return importlib.util.find_spec("torch_xla") is not None


def runs_on(trainer: Any) -> bool:
    """Whether a trainer (or None) runs on XLA; torch_xla is not imported."""
    return trainer is not None and isinstance(trainer.accelerator, XLAAccelerator)


def device_count() -> int:
    """TPU cores of this machine; 1 where ``PJRT_DEVICE=CPU`` lets the CPU stand in."""
    if not installed():
        return 0
    if os.environ.get("PJRT_DEVICE") == "CPU":
        return 1
    from torch_xla._internal import tpu

    try:
        return int(tpu.num_available_devices())
    except (ValueError, AssertionError, OSError):  # a machine that is no TPU host
        return 0


def device() -> torch.device:
    """The XLA device of this replica."""
    import torch_xla

    chosen: torch.device = torch_xla.device()
    return chosen


def sync() -> None:
    """End the lazy graph here: run it, then the closures of ``after_step``."""
    import torch_xla

    torch_xla.sync()


def after_step(closure: Callable[..., None], *tensors: Tensor) -> None:
    """Call ``closure`` with the values, on the CPU, once the current graph has run."""
    import torch_xla.core.xla_model as xm

    xm.add_step_closure(lambda *values: closure(*(v.cpu() for v in values)), args=tensors)


def fetch(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the CPU; on XLA all of them from one run of one graph."""
    if any(value.device.type == "xla" for value in tensors.values()):
        sync()  # otherwise each transfer would compile and run a graph of its own
    return {name: value.cpu() for name, value in tensors.items()}


def all_reduce_sum(values: Tensor) -> Tensor:
    """Collective, in the graph: the sum over all replicas, its gradient summed likewise."""
    total: Tensor = _Sum.apply(values)
    return total


class _Sum(torch.autograd.Function):
    """torch_xla's own differentiable sum does not sum the gradient."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        import torch_xla.core.xla_model as xm

        total: Tensor = xm.all_reduce(xm.REDUCE_SUM, values)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        import torch_xla.core.xla_model as xm

        total: Tensor = xm.all_reduce(xm.REDUCE_SUM, grad)
        return total


def gather_bytes(payload: bytes) -> list[bytes]:
    """Collective: every replica's bytes on every replica, moved in pieces of one fixed shape."""
    lengths = [int(n) for n in _gather(torch.tensor([len(payload)], dtype=torch.int32)).flatten()]
    pieces = -(-max(lengths) // (4 * _CHUNK))
    words = torch.zeros(pieces * _CHUNK, dtype=torch.int32)
    if payload:
        words.view(torch.uint8)[: len(payload)] = torch.frombuffer(
            bytearray(payload), dtype=torch.uint8
        )
    whole = torch.empty(len(lengths), 0, dtype=torch.int32)
    for piece in words.split(_CHUNK) if pieces else ():
        whole = torch.cat([whole, _gather(piece)], dim=1)
    rows = whole.view(torch.uint8).numpy()
    return [row[:length].tobytes() for row, length in zip(rows, lengths, strict=True)]


def _gather(values: Tensor) -> Tensor:
    """(n,) of each replica -> (replicas, n) on the CPU."""
    import torch_xla.core.xla_model as xm

    gathered: Tensor = xm.all_gather(values.to(device())[None])
    sync()
    return gathered.cpu()


def recompute(function: Callable[..., Tensor], *inputs: Any) -> Tensor:
    """torch_xla's checkpoint, which keeps the compiler from merging both computations."""
    from torch_xla.utils.checkpoint import checkpoint

    result: Tensor = checkpoint(function, *inputs, use_reentrant=True, preserve_rng_state=False)
    return result


def host_tensors(value: Any) -> Any:
    """``value`` with every XLA tensor inside brought to the CPU."""
    import torch_xla.core.xla_model as xm

    return xm._maybe_convert_to_cpu(value, convert=True)


def prefetched(loader: Any, to: torch.device) -> Any:
    """torch_xla's loader, which reads ahead and uploads from threads of its own."""
    from torch_xla.distributed.parallel_loader import MpDeviceLoader

    # Few in flight: a batch of 1024-pixel images is large, and two hide the upload.
    return MpDeviceLoader(loader, to, loader_prefetch_size=4, device_prefetch_size=2)


def exact_float32_products() -> None:
    """Matrix products of float32 as float32; a TPU's default rounds their factors to bfloat16."""
    import torch_xla.backends

    if torch_xla.backends.get_mat_mul_precision() != "highest":
        torch_xla.backends.set_mat_mul_precision("highest")


def metrics() -> dict[str, int]:
    """What torch_xla has counted in this process since it started.

    Returns:
        Counters by name (``aten::nonzero``: how often that operator left the device), and of
        each metric how often it was taken (``CompileTime``) and its sum (``CompileTime.total``,
        nanoseconds or bytes).
    """
    import torch_xla.debug.metrics as debug

    found = {name: int(debug.counter_value(name)) for name in debug.counter_names()}
    for name in debug.metric_names():
        times, total, _ = debug.metric_data(name)
        found |= {name: int(times), f"{name}.total": int(total)}
    return found


def process_index() -> int:
    """Of this process among all of the run; on v2 and v3 a process holds two replicas."""
    import torch_xla.runtime

    return int(torch_xla.runtime.process_index())


def initialize_cache(path: str) -> None:
    """Keep compiled graphs in the folder ``path``, once and before anything is compiled.

    Every process needs a folder of its own.
    """
    import torch_xla.runtime

    if os.environ.get("XLA_PERSISTENT_CACHE_PATH") != path:
        torch_xla.runtime.initialize_cache(path, readonly=False)


def graph_text(tensors: list[Tensor]) -> str:
    """The pending graph that makes these XLA tensors, in HLO: lowered, not compiled, not run."""
    import torch_xla

    text: str = torch_xla._XLAC._get_xla_tensors_hlo(tensors)
    return text


def identity(tensor: Tensor) -> int:
    """Equal for two names of the same XLA tensor."""
    import torch_xla

    return int(torch_xla._XLAC._xla_get_tensor_id(tensor))
