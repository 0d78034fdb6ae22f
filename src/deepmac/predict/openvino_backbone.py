"""A network's backbone computed by OpenVINO on CPUs."""

from __future__ import annotations

import copy
import sys
import threading
import warnings
from typing import Any, Literal

import torch
from torch import Tensor, nn

from deepmac.errors import UserError
from deepmac.nn.tracing import padding_of_even_sides

_SIZES_KEPT = 24
"""Graphs of so many sizes of pictures are held: more than the shapes of most collections."""


class OpenVinoBackbone(nn.Module):
    """Normalised images to the maps of a backbone; of a stack of hourglasses the last one alone.

    A graph is compiled for each size of picture when it first comes, a tenth of a second. Pictures
    go through it one by one, so that no answer depends on its neighbours. It uses as many threads
    as torch has when the size first comes.

    Args:
        backbone: of a network that was not prepared; it is copied.
        precision: ``32`` or ``bf16``, which a processor without it computes in float32.

    Raises:
        UserError: it cannot be traced, or only for one size.
    """

    def __init__(self, backbone: Any, precision: Literal["32", "bf16"]) -> None:
        super().__init__()
        self.size_divisor = int(backbone.size_divisor)
        self._kind = "bf16" if precision == "bf16" else "f32"
        self._core = _openvino().Core()
        self._compiled: dict[tuple[int, ...], Any] = {}
        self._lock = threading.Lock()
        with torch.inference_mode(False), torch.no_grad(), padding_of_even_sides():
            self.eval()
            maps = _Maps(copy.deepcopy(backbone).eval())
            units = max(2, -(-96 // self.size_divisor))
            example = _images(units, units + 1, self.size_divisor)
            answer = maps.backbone(example)
            self.names = list(answer) if isinstance(answer, dict) else None
            try:
                self._model = _converted(maps, example)
                self._check(maps, _images(units + 2, units, self.size_divisor))
            except Exception as error:
                reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
                raise UserError(
                    f"OpenVINO cannot take this model's backbone ({reason[:200]}): leave the "
                    "runtime at torch"
                ) from error

    def forward(self, images: Tensor) -> list[Tensor] | dict[str, Tensor]:
        """(B, 3, H, W) float on the CPU -> float32 maps, channels last in memory."""
        with self._lock:  # a compiled graph answers one at a time
            graph = self._graph(tuple(images.shape[-2:]))
            maps = _answers(graph, images)
        return maps if self.names is None else dict(zip(self.names, maps, strict=True))

    def _graph(self, size: tuple[int, ...]) -> Any:
        if size not in self._compiled:
            if len(self._compiled) >= _SIZES_KEPT:
                self._compiled.pop(next(iter(self._compiled)))
            self._compiled[size] = self._compile(size, self._kind)
        return self._compiled[size]

    def _compile(self, size: tuple[int, ...], kind: str) -> Any:
        model = self._model.clone()
        model.reshape([1, 3, *size])
        settings = {
            "INFERENCE_PRECISION_HINT": kind,
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,  # processes of one job would all sit on the first cores
        }
        return self._core.compile_model(model, "CPU", settings)

    def _check(self, maps: _Maps, images: Tensor) -> None:
        """What a trace took for a constant shows in a picture of another size."""
        found = _answers(self._compile(tuple(images.shape[-2:]), "f32"), images)
        for ours, theirs in zip(found, maps(images), strict=True):
            if not (ours - theirs).abs().max() <= 1e-3 * max(1.0, float(theirs.abs().max())):
                raise ValueError("its answers depend on the size that it was traced with")


class _Maps(nn.Module):
    """The maps of a backbone that are read, as a tuple."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        maps = self.backbone(images)
        return tuple(maps.values()) if isinstance(maps, dict) else (maps[-1],)


def _answers(graph: Any, images: Tensor) -> list[Tensor]:
    each = [
        graph(image.float().contiguous().numpy(), share_inputs=True) for image in images.split(1)
    ]
    return [
        torch.cat([torch.from_numpy(one[i]) for one in each]).permute(0, 3, 1, 2)
        for i in range(len(graph.outputs))
    ]


def _converted(maps: _Maps, example: Tensor) -> Any:
    """A graph of free sizes; its maps lie in memory as torch's convolutions read them soonest."""
    openvino = _openvino()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tracer, about checks of sides
        model = openvino.convert_model(maps, example_input=example)
    layout = openvino.preprocess.PrePostProcessor(model)
    for i in range(len(model.outputs)):
        layout.output(i).model().set_layout(openvino.Layout("NCHW"))
        layout.output(i).tensor().set_layout(openvino.Layout("NHWC"))
    return layout.build()


def _images(rows: int, columns: int, unit: int) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randn(2, 3, rows * unit, columns * unit, generator=generator)


def _openvino() -> Any:
    """The package, which tells its makers of every import unless its reporter cannot be had."""
    reporter = "openvino_telemetry"
    if "openvino" in sys.modules or reporter in sys.modules:
        import openvino

        return openvino
    sys.modules[reporter] = None  # type: ignore[assignment]
    try:
        import openvino
    finally:
        del sys.modules[reporter]
    return openvino
