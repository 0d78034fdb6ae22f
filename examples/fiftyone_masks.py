"""Masks for the boxes of a FiftyOne data set.

    import fiftyone as fo
    from fiftyone_masks import add_masks

    dataset = fo.load_dataset("mine")
    add_masks(dataset.iter_samples(autosave=True, progress=True), "ground_truth")

Each ``Detection`` gets its ``mask`` and a ``mask_score``; those that have a mask keep it. The ones
to look at first: ``dataset.filter_labels("ground_truth", F("mask_score") < 0.6)``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from deepmac import Predictor, load_model
from deepmac.data.images import read_image


def add_masks(samples: Iterable[Any], field: str, model: str = "deepmac-lite") -> int:
    """Give every detection without a mask one.

    Args:
        samples: FiftyOne's.
        field: of the detections.
        model: whatever ``deepmac.load_model`` takes.

    Returns:
        How many masks were made.
    """
    predictor, made = Predictor(load_model(model)), 0
    for sample in samples:
        labels = sample[field]
        wanted = [d for d in labels.detections if d.mask is None] if labels is not None else []
        if not wanted:
            continue
        pixels = read_image(sample.filepath)
        height, width = pixels.shape[:2]
        boxes = np.array([d.bounding_box for d in wanted], dtype=float)
        boxes[:, 2:] += boxes[:, :2]
        boxes *= [width, height, width, height]
        predictor.set_image(pixels)
        masks, scores = predictor.predict(boxes)
        for detection, box, mask, score in zip(wanted, boxes, masks, scores.tolist(), strict=True):
            # FiftyOne stretches a mask over its box: cut it at the box's pixels.
            left, top = np.clip(np.round(box[:2]), 0, [width - 1, height - 1]).astype(int)
            right, bottom = np.maximum(np.round(box[2:]).astype(int), [left + 1, top + 1])
            detection.mask = mask[top:bottom, left:right]
            detection["mask_score"] = score
            made += 1
    return made
