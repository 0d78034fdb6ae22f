"""Tracing a graph with ``torch.export``."""

from __future__ import annotations

import torch
from torch.export import ExportedProgram

from deepmac.export.graphs import Graph
from deepmac.nn.tracing import padding_of_even_sides


def traced(graph: Graph) -> ExportedProgram:
    """The graph as an exported program, free where ``graph.free`` says so.

    Raises:
        Exception: whatever ``torch.export`` raises on a network that it cannot trace so.
    """
    with torch.no_grad(), padding_of_even_sides():
        return torch.export.export(
            graph.module, tuple(graph.inputs.values()), dynamic_shapes=graph.free
        )
