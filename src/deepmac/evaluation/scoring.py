"""Predictions against the ground truth of a list of images: scores of each class and object."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pycocotools import mask as mask_utils

from deepmac.data.annotations.coco import ImageRecord, Instance, instance_rle
from deepmac.evaluation.average_precision import (
    Backend,
    average_precision_by_class,
    detection_entry,
    load_backend,
    truth_entry,
)
from deepmac.evaluation.mask_quality import MaskQuality, Rle, filled_box, mask_quality
from deepmac.evaluation.results import ImageResult

#: Metric name -> category id -> value.
ClassScores = dict[str, dict[int, float]]

_NO_OVERLAP = MaskQuality(iou=0.0, boundary_iou=0.0)


@dataclass(slots=True)
class BoxMaskScores:
    """Scores of masks made for ground-truth boxes; one IoU for each object, by category id."""

    precision: ClassScores = field(default_factory=dict)
    ious: dict[int, list[float]] = field(default_factory=dict)
    boundary_ious: dict[int, list[float]] = field(default_factory=dict)
    missing: int = 0


class Scorer:
    """Knows how ground truth enters each measure; keeps decoded truth between evaluations.

    Args:
        category_ids: all classes of the data set.
        backend: library for COCO AP.
        max_detections: detections an image and class that count.

    Raises:
        ConfigError: the backend is not installed.
    """

    def __init__(
        self, category_ids: Sequence[int], *, backend: Backend, max_detections: int
    ) -> None:
        load_backend(backend)
        self.category_ids = tuple(category_ids)
        self.backend: Backend = backend
        self.max_detections = max_detections
        self._true_masks: dict[int, Rle | None] = {}
        self._floor: tuple[tuple[int, ...], BoxMaskScores] | None = None

    def boxes(self, images: Sequence[ImageRecord], results: Sequence[ImageResult]) -> ClassScores:
        """AP of detected boxes. Crowd regions are ignored; masks play no part."""
        truths = [
            _truth(image, instance, ignore=instance.iscrowd)
            for image in images
            for instance in image.instances
        ]
        detections = [
            detection_entry(
                result["image_id"],
                category_id,
                score,
                box,
                area=(box[2] - box[0]) * (box[3] - box[1]),
            )
            for result in results
            for category_id, score, box in zip(
                result["category_ids"], result["scores"], result["boxes"], strict=True
            )
        ]
        return self._average_precision("bbox", images, truths, detections)

    def masks(self, images: Sequence[ImageRecord], results: Sequence[ImageResult]) -> ClassScores:
        """AP of detected masks.

        A ground truth without a mask becomes an ignored region, its filled box: a detection of
        its class that lies in it is neither right nor wrong. A prediction at IoU threshold t is
        forgiven when the part t of it is inside the box.
        """
        truths = []
        for image in images:
            for instance in image.instances:
                mask, ignore = self._true_mask(image, instance), instance.iscrowd
                if mask is None:
                    mask, ignore = filled_box(instance.box, image.height, image.width), True
                truths.append(_truth(image, instance, ignore=ignore, mask=mask))
        detections = [
            detection_entry(
                result["image_id"],
                category_id,
                score,
                box,
                area=float(mask_utils.area(mask)),
                mask=mask,
            )
            for result in results
            for category_id, score, box, mask in zip(
                result["category_ids"],
                result["scores"],
                result["boxes"],
                result["masks"] or (),
                strict=True,
            )
        ]
        return self._average_precision("segm", images, truths, detections)

    def gt_box_masks(
        self, images: Sequence[ImageRecord], results: Sequence[ImageResult]
    ) -> BoxMaskScores:
        """Scores of masks predicted for ground-truth boxes; an absent one counts as empty."""
        made = {result["image_id"]: result["gt_box_masks"] or {} for result in results}
        return self._box_mask_scores(
            images, lambda image, instance: made[image.id].get(instance.id)
        )

    def filled_boxes(self, images: Sequence[ImageRecord]) -> BoxMaskScores:
        """Scores of the boxes themselves as masks; computed once for a list of images."""
        key = tuple(image.id for image in images)
        if self._floor is None or self._floor[0] != key:
            scores = self._box_mask_scores(
                images,
                lambda image, instance: filled_box(instance.box, image.height, image.width),
            )
            self._floor = (key, scores)
        return self._floor[1]

    def _box_mask_scores(
        self,
        images: Sequence[ImageRecord],
        mask_for: Callable[[ImageRecord, Instance], Rle | None],
    ) -> BoxMaskScores:
        scores = BoxMaskScores()
        truths, detections = [], []
        for image in images:
            for instance in image.instances:
                truth = self._true_mask(image, instance)
                if truth is None:
                    continue
                truths.append(_truth(image, instance, ignore=instance.iscrowd, mask=truth))
                if instance.iscrowd:
                    continue
                mask, quality = mask_for(image, instance), _NO_OVERLAP
                if mask is None:
                    scores.missing += 1
                else:
                    quality = mask_quality(mask, truth)
                    area = float(mask_utils.area(mask))
                    detections.append(
                        detection_entry(
                            image.id, instance.category_id, 1.0, instance.box, area=area, mask=mask
                        )
                    )
                scores.ious.setdefault(instance.category_id, []).append(quality.iou)
                scores.boundary_ious.setdefault(instance.category_id, []).append(
                    quality.boundary_iou
                )
        scores.precision = self._average_precision("segm", images, truths, detections)
        return scores

    def _average_precision(
        self,
        iou_type: Literal["bbox", "segm"],
        images: Sequence[ImageRecord],
        truths: Sequence[dict[str, Any]],
        detections: Sequence[dict[str, Any]],
    ) -> ClassScores:
        if not truths:
            return {}
        return average_precision_by_class(
            iou_type,
            image_sizes={image.id: (image.height, image.width) for image in images},
            category_ids=self.category_ids,
            truths=truths,
            detections=detections,
            max_detections=self.max_detections,
            backend=self.backend,
        )

    def _true_mask(self, image: ImageRecord, instance: Instance) -> Rle | None:
        if instance.id not in self._true_masks:
            self._true_masks[instance.id] = (
                instance_rle(instance, image.height, image.width)
                if instance.has_true_mask
                else None
            )
        return self._true_masks[instance.id]


def _truth(
    image: ImageRecord, instance: Instance, *, ignore: bool, mask: Rle | None = None
) -> dict[str, Any]:
    return truth_entry(
        image.id, instance.category_id, instance.box, area=instance.area, ignore=ignore, mask=mask
    )
