"""Counts of an annotation file: what there is to learn from."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepmac.data.annotations.index import CocoIndex

SMALL, LARGE = 32.0**2, 96.0**2
"""COCO's size limits in square pixels of the original image."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """Counts of one set; crowd regions are never objects.

    Attributes:
        masks: Objects with a mask that a person drew.
        model_masks: Objects with a mask that a model made; never counted among the others.
        points: Objects with points on or beside them.
        boxes_per_image: "mean", "median", "95%", "99%" and "max" of objects an image.
        sizes: Objects by COCO's "small", "medium" and "large".
        class_boxes: Category id -> objects.
        class_masks: Category id -> objects with a mask that a person drew.
    """

    images: int
    empty_images: int
    objects: int
    masks: int
    model_masks: int
    points: int
    crowds: int
    boxes_per_image: Mapping[str, float]
    sizes: Mapping[str, int]
    class_boxes: Mapping[int, int]
    class_masks: Mapping[int, int]


def count(index: CocoIndex) -> Statistics:
    """Count everything in a set; pixels are not read."""
    table = index.table
    is_object = table.is_object
    area, category = table.area[is_object], table.category_id[is_object]
    has_mask, is_human = table.mask_kind[is_object] > 0, table.mask_source[is_object] == 0
    is_masked = has_mask & is_human
    per_image = table.objects_per_image()
    small, large = int((area < SMALL).sum()), int((area >= LARGE).sum())
    boxes = _by_class(category)
    masks = _by_class(category[is_masked])
    numbers = per_image if len(per_image) else np.zeros(1)
    median, most, nearly_all = np.percentile(numbers, (50, 95, 99))
    return Statistics(
        images=len(index.images),
        empty_images=int((per_image == 0).sum()),
        objects=len(area),
        masks=int(is_masked.sum()),
        model_masks=int((has_mask & ~is_human).sum()),
        points=int((table.point_count[is_object] > 0).sum()),
        crowds=int((~is_object).sum()),
        boxes_per_image={
            "mean": float(numbers.mean()),
            "median": float(median),
            "95%": float(most),
            "99%": float(nearly_all),
            "max": float(numbers.max()),
        },
        sizes={"small": small, "medium": len(area) - small - large, "large": large},
        class_boxes={i: boxes.get(i, 0) for i in index.category_ids},
        class_masks={i: masks.get(i, 0) for i in index.category_ids},
    )


def _by_class(category_ids: NDArray[np.int64]) -> dict[int, int]:
    ids, counts = np.unique(category_ids, return_counts=True)
    return dict(zip(ids.tolist(), counts.tolist(), strict=True))
