"""Tracing a graph with ``torch.export``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from timm.layers import padding as timm_padding
from torch.export import ExportedProgram

from deepmac.export.graphs import Graph


def traced(graph: Graph) -> ExportedProgram:
    """The graph as an exported program, free where ``graph.free`` says so.

    Raises:
        Exception: whatever ``torch.export`` raises on a network that it cannot trace so.
    """
    with torch.no_grad(), _padding_of_even_sides():
        return torch.export.export(
            graph.module, tuple(graph.inputs.values()), dynamic_shapes=graph.free
        )


@contextmanager
def _padding_of_even_sides() -> Iterator[None]:
    """timm's "same" padding as the constant that it is on sides the stride divides.

    Pictures are multiples of all strides together. Where sides are free, the formula for any side
    makes the tracer reason for hours.
    """
    original = timm_padding.get_same_padding
    timm_padding.get_same_padding = lambda x, kernel_size, stride, dilation: max(
        (kernel_size - 1) * dilation + 1 - stride, 0
    )
    try:
        yield
    finally:
        timm_padding.get_same_padding = original
