"""``model.json``: all that the one who runs a graph must know."""

from __future__ import annotations

from typing import Any

from deepmac import __version__
from deepmac.export.graphs import Graph
from deepmac.models.card import ModelCard
from deepmac.nn.network import SegmentationNetwork
from deepmac.predict.letterbox import InputSpec

FORMAT = "deepmac-export-1"


def describe(
    network: SegmentationNetwork, card: ModelCard, graphs: dict[str, Graph]
) -> dict[str, Any]:
    """Plain values for JSON.

    Args:
        network: what was exported.
        card: its classes, normalisation, image size and threshold.
        graphs: by file name.
    """
    free = all(2 in graph.free["images"] for graph in graphs.values())
    classes, divisor = card.class_map, int(network.backbone.size_divisor)
    return {
        "format": FORMAT,
        "made_by": f"deepmac {__version__}",
        "graphs": {name: _graph(graph) for name, graph in graphs.items()},
        "input": {
            "pixels": "float32 RGB in 0..255; the graph normalises them itself",
            "image_size": card.image_size,
            "shape": card.input_shape if free else "square",
            "frame_step": InputSpec(divisor=divisor).step,
            "free_size": free,
            "size_divisor": divisor,
            "resize": f"{network.conventions.letterbox}_bilinear",
            "letterbox": "the picture is scaled until it just fits the frame, its sides are "
            "rounded, zeros at the bottom and right fill the frame. Shape square: the frame is "
            "image_size x image_size (where free_size is true, it may end at the next multiples "
            "of size_divisor). Shape picture: with s = sqrt(height / width), kept between 1/2 and "
            "2, image_size * s high and image_size / s wide, rounded to multiples of frame_step",
            "normalization": card.normalization.to_dict(),
        },
        "boxes": "xyxy in pixels of the letterboxed input, edges at integers",
        "masks": {
            "size": network.answer_size,
            "values": "foreground probability",
            "threshold": card.mask_threshold,
            "paste_rule": network.conventions.paste_rule,
            "frame_scale": network.frame_scale,
        },
        "classes": [
            {"id": number, "name": name, "masks_in_training": number in masked}
            for masked in (classes.masked_category_ids,)
            for number, name in zip(classes.category_ids, classes.names, strict=True)
        ],
    }


def _graph(graph: Graph) -> dict[str, Any]:
    return {
        "inputs": {
            name: {"dtype": str(value.dtype).removeprefix("torch."), "shape": _shape(graph, name)}
            for name, value in graph.inputs.items()
        },
        "outputs": list(graph.outputs),
    }


def _shape(graph: Graph, name: str) -> list[int | str]:
    symbols = {0: "batch", 1: "boxes", 2: "points" if name == "points" else "height", 3: "width"}
    free = graph.free[name]
    shape = graph.inputs[name].shape
    return [symbols[axis] if axis in free else side for axis, side in enumerate(shape)]
