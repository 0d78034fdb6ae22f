"""How far a written graph is from the network that it was made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepmac.export.graphs import Graph, blobs

Run = Callable[[dict[str, Tensor]], Sequence[NDArray[np.generic]]]
"""A runtime: inputs by name to the outputs in their order."""

_SAME_RANK = 1e-4


def largest_difference(graph: Graph, run: Run) -> float:
    """The largest difference over several shapes; boxes count in units of the picture's side.

    Shapes other than the traced ones are among them: one picture, no box, one box, other sides
    where they are free.
    """
    worst = 0.0
    for inputs in _cases(graph):
        with torch.no_grad():
            expected = graph.module(*inputs.values())
        expected = expected if isinstance(expected, tuple) else (expected,)
        got = run(inputs)
        wanted = [value.numpy() for value in expected]
        for one, other in zip(got, wanted, strict=True):
            if one.shape != other.shape:
                raise ValueError(f"shapes {one.shape} instead of {other.shape}")
        if graph.name == "detect":
            worst = max(worst, _detections(got, wanted, max(inputs["images"].shape[-2:])))
        else:
            worst = max(worst, _distance(got[0], wanted[0]))
    return worst


def _cases(graph: Graph) -> list[dict[str, Tensor]]:
    first = graph.inputs
    cases = [first]
    if 0 in graph.free["images"]:
        cases.append({name: value[:1] for name, value in first.items()})
    if "boxes" in first:
        by_box = [name for name in ("boxes", "points") if name in first]
        for count in (0, 1):
            cases.append({**first, **{name: first[name][:, :count] for name in by_box}})
    if 2 in graph.free["images"]:
        height, width = first["images"].shape[-2:]
        turned = blobs(1, width, height)  # the other way round
        other = {name: value[-1:] for name, value in first.items()} | {"images": turned}
        if "true_sizes" in other:
            other["true_sizes"] = torch.tensor([[width - 1, height]])
        cases.append(other)
    return cases


def _detections(
    got: Sequence[NDArray[np.generic]], wanted: Sequence[NDArray[np.generic]], side: int
) -> float:
    """Scores of every rank; boxes, labels and masks of ranks that rounding cannot swap."""
    boxes, labels, scores, masks = got
    true_boxes, true_labels, true_scores, true_masks = wanted
    rank = np.asarray(true_scores, dtype=np.float64)
    gap = np.abs(np.diff(rank, axis=1, prepend=np.inf, append=-np.inf))
    clear = np.minimum(gap[:, 1:], gap[:, :-1]) > _SAME_RANK
    if (labels[clear] != true_labels[clear]).any():
        return float("inf")
    return max(
        _distance(scores, true_scores),
        _distance(boxes[clear], true_boxes[clear]) / side,
        _distance(masks[clear], true_masks[clear]),
    )


def _distance(one: NDArray[np.generic], other: NDArray[np.generic]) -> float:
    if not one.size:
        return 0.0
    difference = np.abs(one.astype(np.float64) - other.astype(np.float64)).max()
    return float(difference) if np.isfinite(difference) else float("inf")
