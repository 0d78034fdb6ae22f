"""Exported programs as ONNX files, and onnxruntime to run them."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.export import ExportedProgram

from deepmac.errors import UserError
from deepmac.export.graphs import Graph

OPSET = 20
_MAX_FILE = 1_900_000_000  # a protobuf message ends at 2 GiB


def require_onnx() -> None:
    """Raise UserError unless the packages of the extra are there."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"ONNX needs the package {error.name}: pip install 'deepmac[export]', or use "
            "--format torch"
        ) from error


def write_onnx(program: ExportedProgram, graph: Graph, path: Path) -> None:
    """Write one graph."""
    with _quiet():
        onnx = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            dynamic_shapes=graph.free,
            verbose=False,
        )
    assert onnx is not None
    size = sum(v.numel() * v.element_size() for v in graph.module.state_dict().values())
    onnx.save(str(path), external_data=size > _MAX_FILE)


class OnnxRun:
    """Runs a file with onnxruntime on the CPU."""

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, inputs: dict[str, Tensor]) -> Sequence[NDArray[np.generic]]:
        feed = {name: value.numpy() for name, value in inputs.items()}
        results: Sequence[NDArray[np.generic]] = self.session.run(None, feed)
        return results


@contextmanager
def _quiet() -> Iterator[None]:
    """The converter's remarks are for its developers."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
