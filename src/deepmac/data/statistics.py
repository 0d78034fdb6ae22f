"""Counts of an annotation file: what there is to learn from."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from deepmac.data.annotations.records import CocoIndex

SMALL, LARGE = 32.0**2, 96.0**2
"""COCO's size limits in square pixels of the original image."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """Counts of one set; crowd regions are never objects.

    Attributes:
        points: Objects with points on or beside them.
        boxes_per_image: "mean", "median", "95%", "99%" and "max" of objects an image.
        sizes: Objects by COCO's "small", "medium" and "large".
        class_boxes: Category id -> objects.
        class_masks: Category id -> objects with a mask.
    """

    images: int
    empty_images: int
    objects: int
    masks: int
    points: int
    crowds: int
    boxes_per_image: Mapping[str, float]
    sizes: Mapping[str, int]
    class_boxes: Mapping[int, int]
    class_masks: Mapping[int, int]


def count(index: CocoIndex) -> Statistics:
    """Count everything in a set; pixels are not read."""
    sizes = {"small": 0, "medium": 0, "large": 0}
    boxes: Counter[int] = Counter()
    masks: Counter[int] = Counter()
    per_image, crowds, points = [], 0, 0
    for image in index.images:
        objects = [item for item in image.instances if not item.iscrowd]
        per_image.append(len(objects))
        crowds += len(image.instances) - len(objects)
        for item in objects:
            boxes[item.category_id] += 1
            masks[item.category_id] += item.segmentation is not None
            points += bool(item.points)
            size = "small" if item.area < SMALL else "medium" if item.area < LARGE else "large"
            sizes[size] += 1
    numbers = np.array(per_image or [0])
    median, most, nearly_all = np.percentile(numbers, (50, 95, 99))
    return Statistics(
        images=len(index.images),
        empty_images=per_image.count(0),
        objects=boxes.total(),
        masks=masks.total(),
        points=points,
        crowds=crowds,
        boxes_per_image={
            "mean": float(numbers.mean()),
            "median": float(median),
            "95%": float(most),
            "99%": float(nearly_all),
            "max": float(numbers.max()),
        },
        sizes=sizes,
        class_boxes={i: boxes[i] for i in index.category_ids},
        class_masks={i: masks[i] for i in index.category_ids},
    )
