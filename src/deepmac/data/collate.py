"""Samples of unequal size into one padded batch."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from deepmac.data.batch import Batch, Sample

Choice = Callable[[Sample, int], Tensor]
"""Indices, ascending, of the objects that stay where there are more than so many."""

_STACKED = ("true_sizes", "image_ids", "geometry", "original_sizes")
_STACKED_WHERE_THERE = {"open_classes"}
_PER_OBJECT = {
    "boxes": 0,
    "labels": 0,
    "valid": False,
    "mask_valid": False,
    "mask_weights": 0,
    "mask_boxes": 0,
    "mask_targets": 0,
    "annotation_ids": -1,
    "points": float("nan"),
    "point_labels": 0,
}


def collate(
    samples: Sequence[Sample],
    max_boxes: int | None = None,
    *,
    choice: Choice | None = None,
    batch_size: int | None = None,
) -> Batch:
    """Pad and stack the samples of :class:`~deepmac.data.dataset.CocoInstances`.

    Images are padded at the bottom and right to the largest, objects to ``max_boxes`` or else to
    the largest count (at least 1), with rows that are not ``valid``.

    Args:
        samples: at least one.
        max_boxes: N; None = the largest count.
        choice: which objects stay where an image has more; None = :func:`most_useful`.
        batch_size: fill an incomplete last batch up with repetitions of its last sample.
    """
    present = len(samples)
    samples = [*samples, *[samples[-1]] * ((batch_size or present) - present)]
    fields = cast("list[dict[str, Tensor]]", samples)
    counts = [len(sample["boxes"]) for sample in samples]
    slots = max(1, *counts) if max_boxes is None else max_boxes
    stacked = [*_STACKED, *(_STACKED_WHERE_THERE & samples[0].keys())]
    batch: dict[str, Any] = {
        name: torch.stack([sample[name] for sample in fields]) for name in stacked
    }
    for name in ("images", "ignore"):
        batch[name] = _pad([sample[name] for sample in fields], 0)
    kept = [
        None if count <= slots else (choice or most_useful)(sample, slots)
        for sample, count in zip(samples, counts, strict=True)
    ]
    for name, fill in _PER_OBJECT.items():
        if name not in fields[0]:
            continue  # only where the data set has points
        rows = [
            sample[name] if chosen is None else sample[name][chosen]
            for sample, chosen in zip(fields, kept, strict=True)
        ]
        batch[name] = _pad(rows, fill, slots)
    batch["filler"] = torch.arange(len(samples)) >= present
    batch["dropped_boxes"] = torch.tensor([max(0, count - slots) for count in counts])
    return cast("Batch", batch)


def most_useful(sample: Sample, slots: int) -> Tensor:
    """Those with mask supervision first, then larger boxes."""
    sides = (sample["boxes"][:, 2:] - sample["boxes"][:, :2]).tolist()
    ranks = [
        (not is_masked, -width * height, index)
        for index, ((width, height), is_masked) in enumerate(
            zip(sides, sample["mask_valid"].tolist(), strict=True)
        )
    ]
    return torch.tensor(sorted(rank[-1] for rank in sorted(ranks)[:slots]))


def _pad(tensors: list[Tensor], fill: float, length: int | None = None) -> Tensor:
    """Stack tensors padded at the end of every dimension (the first one to ``length``)."""
    shape = [max(sides) for sides in zip(*(tensor.shape for tensor in tensors), strict=True)]
    if length is not None:
        shape[0] = length
    out = tensors[0].new_full((len(tensors), *shape), fill)
    for row, tensor in zip(out, tensors, strict=True):
        row[tuple(slice(side) for side in tensor.shape)] = tensor
    return out
