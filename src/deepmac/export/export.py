"""A model as a folder of graphs."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from deepmac.errors import UserError
from deepmac.export.description import describe
from deepmac.export.graphs import Graph, boxes_graph, clicks_graph, detect_graph
from deepmac.export.onnx_format import OnnxRun, require_onnx, write_onnx
from deepmac.export.parity import largest_difference
from deepmac.export.torch_format import TorchRun, write_torch
from deepmac.export.tracing import traced
from deepmac.files import new_folder, refuse_existing
from deepmac.models.files import card_of
from deepmac.nn.network import SegmentationNetwork

Format = Literal["onnx", "torch", "safetensors"]

MAX_DIFFERENCE = 1e-2
"""A graph farther from its network than rounding can explain is not handed out."""

_SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}


@dataclass
class Exported:
    """What :func:`export_model` did.

    Attributes:
        folder: with the graphs and ``model.json``.
        differences: of every graph from the network, the largest seen.
        notes: what a user should know.
    """

    folder: Path
    differences: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def export_model(
    model: SegmentationNetwork,
    out: str | Path,
    format: Format = "onnx",
    *,
    fixed_size: bool = False,
) -> Exported:
    """Write ``detect`` (of a model with a detector), ``boxes`` and ``clicks`` (of one that takes
    any) graphs, and run each once.

    Args:
        model: from ``load_model``.
        out: folder to create.
        format: ``onnx``; ``torch`` for .pt2 archives; ``safetensors`` for the weights and their
            ``config.yaml``, which ``load_model`` takes.
        fixed_size: pictures have the model's own size. Otherwise their sides are free where the
            network can be traced so.

    Raises:
        UserError: the folder exists, a package is missing, the model has no card, or a network
            that cannot be exported. Nothing is written then.
    """
    out = Path(out)
    refuse_existing(out)
    card = card_of(model)
    if card is None:
        raise UserError("this network has no card with its classes: take it from load_model")
    if format == "safetensors":
        from deepmac.models.hub import save_pretrained

        return Exported(save_pretrained(model, out))
    if format == "onnx":
        require_onnx()
    network = copy.deepcopy(model).cpu().float().eval().requires_grad_(False)
    makers: list[Callable[[int | None], Graph]] = [lambda size: boxes_graph(network, size)]
    result = Exported(out)
    if network.detector:
        makers.insert(0, lambda size: detect_graph(network, card.class_map, size))
    else:
        result.notes.append("no detect graph: this model makes masks of given boxes alone")
    if network.takes_clicks:
        makers.append(lambda size: clicks_graph(network, size))
    with new_folder(out) as folder:
        graphs: dict[str, Graph] = {}
        for make in makers:
            graph, path = _write(make, card.image_size, format, fixed_size, folder, result)
            graphs[path.name] = graph
        text = json.dumps(describe(network, card, graphs), indent=2, ensure_ascii=False)
        (folder / "model.json").write_text(text + "\n", encoding="utf-8")
    return result


def _write(
    make: Callable[[int | None], Graph],
    image_size: int,
    format: Format,
    fixed_size: bool,
    folder: Path,
    result: Exported,
) -> tuple[Graph, Path]:
    """One graph, run once; with sides that are free, else with fixed ones."""
    reason = ""
    for size in (image_size,) if fixed_size else (None, image_size):
        graph = make(size)
        path = folder / f"{graph.name}{_SUFFIXES[format]}"
        try:
            program = traced(graph)
            if format == "onnx":
                write_onnx(program, graph, path)
            else:
                write_torch(program, path)
            run = OnnxRun(path) if format == "onnx" else TorchRun(path)
            difference = largest_difference(graph, run)
            if not difference <= MAX_DIFFERENCE:
                raise ValueError(f"it differs from the network by {difference:.1e}")
        except (UserError, OSError, MemoryError):
            raise
        except Exception as error:  # tracer, converter and runtime raise what they like
            reason = _reason(error)
            path.unlink(missing_ok=True)
            continue
        result.differences[path.name] = difference
        if size and not fixed_size:
            result.notes.append(
                f"{path.name} takes pictures of {size} x {size} alone: free sides do not work "
                f"with this network ({reason})"
            )
        return graph, path
    raise UserError(
        f"the graph {graph.name} of this network cannot be exported as {format} ({reason}): "
        "nothing was written; another backbone or mask head may do"
    )


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
