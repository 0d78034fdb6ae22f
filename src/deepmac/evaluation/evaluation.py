"""COCO AP for groups of classes, and the quality of masks made from ground-truth boxes."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from numpy.typing import ArrayLike

from deepmac.data.annotations.coco import CocoIndex, ImageRecord
from deepmac.errors import DataError
from deepmac.evaluation.average_precision import AP_METRICS, Backend
from deepmac.evaluation.class_groups import (
    class_mean,
    group_sum,
    instance_mean,
    supercategory_groups,
)
from deepmac.evaluation.mask_quality import Rle
from deepmac.evaluation.results import ImageResult, image_result
from deepmac.evaluation.scoring import BoxMaskScores, ClassScores, Scorer


class Evaluation:
    """Collects the predictions of every image, then scores them all.

    Four things are measured, each for ``all``, ``seen`` and ``unseen`` classes (seen: their masks
    were in training) and, where a single number stands for quality, each supercategory:

    - ``box``: COCO AP of the detected boxes.
    - ``mask``: COCO AP of the detected masks.
    - ``mask_gt_box``: masks predicted for the ground-truth boxes. ``AP`` takes each as a detection
      of its true class with score 1 (the paper's upper bound). ``mIoU`` and ``boundary_IoU`` are
      means over instances, ``mIoU_class_mean`` is the mean over classes of their means.
    - ``filled_box``: the same numbers when the box itself is the mask: the floor.

    AP is COCO's: IoU .50:.95, at most ``max_detections`` an image and class, a group's AP is the
    mean over its classes. Crowd regions are passed as crowd. A ground truth without a mask counts
    for boxes only; in mask AP its box becomes an ignored region, so that a correct mask of the
    same class in it is no false positive (nor a hit).

    Args:
        index: the data set.
        seen_category_ids: classes that had masks in training, the data set's ids.
        backend: library for COCO AP; "auto" takes the fastest installed (the extra
            ``deepmac[fast]`` brings them). All give the same numbers.
        max_detections: COCO's maxDets.
        detector: whether the model has one; without, ``box`` and ``mask`` have no values.

    Raises:
        DataError: a seen class is not in the data set.
        ConfigError: the backend is not installed.
    """

    def __init__(
        self,
        index: CocoIndex,
        *,
        seen_category_ids: Collection[int],
        backend: Backend = "auto",
        max_detections: int = 100,
        detector: bool = True,
    ) -> None:
        known = set(index.category_ids)
        if unknown := sorted(set(seen_category_ids) - known):
            raise DataError(
                f"{index.json_path} has no category {unknown[0]}, which the list of classes with "
                "masks in training names; correct that list."
            )
        self.index = index
        self.detector = detector
        self._scorer = Scorer(index.category_ids, backend=backend, max_detections=max_detections)
        self._results: dict[int, ImageResult] = {}
        seen = frozenset(seen_category_ids)
        self._groups = {
            "all": frozenset(known),
            "seen": seen,
            "unseen": frozenset(known - seen),
        }
        self._fine_groups = self._groups | supercategory_groups(index.categories)

    def add(
        self,
        image_id: int,
        *,
        boxes: ArrayLike,
        scores: ArrayLike,
        category_ids: ArrayLike,
        masks: Sequence[Rle] | None = None,
        gt_box_masks: Mapping[int, Rle] | None = None,
    ) -> None:
        """Take the predictions for one image, in any order of images.

        Args:
            image_id: the data set's id.
            boxes: (K, 4) float, xyxy in pixels of the original image.
            scores: (K,) float.
            category_ids: (K,) int, the data set's ids.
            masks: K run-length encoded masks of the original size; None: no masks were made.
            gt_box_masks: annotation id -> mask made for that ground-truth box; None: none were
                asked for. A mapping that lacks an object counts it as an empty mask.

        Raises:
            DataError: an id is not in the data set, or a mask has not the image's size.
            UserError: a box or score is not finite.
            ValueError: the lengths do not agree.
        """
        self._take(
            image_result(
                image_id,
                boxes=boxes,
                scores=scores,
                category_ids=category_ids,
                masks=masks,
                gt_box_masks=gt_box_masks,
            )
        )

    def state(self) -> list[ImageResult]:
        """Everything added, by image id: for gathering, or ``write_results_json``."""
        return [self._results[image_id] for image_id in sorted(self._results)]

    def merge(self, states: Iterable[Iterable[ImageResult]]) -> None:
        """Add the ``state()`` of other processes (its own among them does no harm).

        Samplers repeat images to give each process as many; of several results for one image
        the same one is kept whatever the order, so all processes agree.
        """
        for state in states:
            for result in state:
                self._take(result)

    def reset(self) -> None:
        """Forget all predictions; keep what is known of the ground truth."""
        self._results.clear()

    def compute(self, image_ids: Collection[int] | None = None) -> dict[str, Any]:
        """Score what was added.

        Args:
            image_ids: evaluate these alone. Images without predictions are left out, with their
                ground truth; ``images``, ``images_in_data_set`` and ``restricted`` tell.

        Returns:
            ``{section: {metric: {group: value or None}}}`` with the sections of the class, plus
            ``detector``, ``per_class``, ``instances``, ``images``, ``images_in_data_set``,
            ``restricted``. Values lie in 0..1. None: the group has no ground truth, or the section
            was not predicted.

        Raises:
            DataError: an unknown image id.
            ValueError: some images came with masks and some without.
        """
        images = self._chosen_images(image_ids)
        results = [self._results[image.id] for image in images]
        has_masks = _all_or_none(
            "masks", [r["masks"] for r in results if r["boxes"] or r["masks"] is not None]
        )
        has_box_masks = _all_or_none("gt_box_masks", [r["gt_box_masks"] for r in results])

        boxes = self._scorer.boxes(images, results) if self.detector else {}
        masks = self._scorer.masks(images, results) if has_masks and self.detector else {}
        box_masks = self._scorer.gt_box_masks(images, results) if has_box_masks else None
        floor = self._scorer.filled_boxes(images)
        objects, with_mask, crowd = self._count(images)
        return {
            "detector": self.detector,
            "box": self._ap_section(boxes),
            "mask": self._ap_section(masks),
            "mask_gt_box": self._box_mask_section(box_masks, self._fine_groups),
            "filled_box": self._box_mask_section(floor, self._groups),
            "per_class": self._per_class(objects, with_mask, boxes, masks, box_masks, floor),
            "instances": {
                "box": group_sum(objects, self._groups),
                "mask": group_sum(with_mask, self._groups),
                "crowd": crowd,
                "missing_gt_box_masks": box_masks.missing if box_masks else 0,
            },
            "images": len(images),
            "images_in_data_set": len(self.index.images),
            "restricted": len(images) < len(self.index.images),
        }

    def _take(self, result: ImageResult) -> None:
        image_id = result["image_id"]
        self._check(result)
        held = self._results.get(image_id)
        self._results[image_id] = result if held is None else min(held, result, key=repr)

    def _check(self, result: ImageResult) -> None:
        if result["image_id"] not in self.index.position_of:
            raise DataError(
                f"{self.index.json_path} has no image {result['image_id']}; evaluate predictions "
                "on the data set they were made from."
            )
        image = self.index.image(result["image_id"])
        if unknown := set(result["category_ids"]) - self._groups["all"]:
            raise DataError(
                f"The predictions for image {image.id} name category {min(unknown)}, which "
                f"{self.index.json_path} has not; the model was trained on other classes."
            )
        box_masks = result["gt_box_masks"] or {}
        if unknown := set(box_masks) - {instance.id for instance in image.instances}:
            raise DataError(
                f"The masks for given boxes of image {image.id} name annotation {min(unknown)}, "
                f"which that image has not in {self.index.json_path}."
            )
        for mask in [*(result["masks"] or ()), *box_masks.values()]:
            if mask["size"] != [image.height, image.width]:
                raise DataError(
                    f"A predicted mask of image {image.id} has the size (height, width) "
                    f"{tuple(mask['size'])}, the image {(image.height, image.width)}; paste masks "
                    "into the original image before they are evaluated."
                )

    def _chosen_images(self, image_ids: Collection[int] | None) -> list[ImageRecord]:
        wanted = self.index.position_of.keys() if image_ids is None else set(image_ids)
        if unknown := wanted - self.index.position_of.keys():
            raise DataError(f"{self.index.json_path} has no image {min(unknown)} to evaluate.")
        return [self.index.image(image_id) for image_id in sorted(wanted & self._results.keys())]

    def _count(self, images: Sequence[ImageRecord]) -> tuple[Counter[int], Counter[int], int]:
        """Objects of each class, those with a mask, and the number of crowd regions."""
        objects: Counter[int] = Counter()
        with_mask: Counter[int] = Counter()
        crowd = 0
        for image in images:
            for instance in image.instances:
                if instance.iscrowd:
                    crowd += 1
                    continue
                objects[instance.category_id] += 1
                with_mask[instance.category_id] += instance.has_true_mask
        return objects, with_mask, crowd

    def _ap_section(self, scores: ClassScores) -> dict[str, dict[str, float | None]]:
        return {
            metric: class_mean(
                scores.get(metric, {}), self._fine_groups if metric == "AP" else self._groups
            )
            for metric in AP_METRICS
        }

    def _box_mask_section(
        self, scores: BoxMaskScores | None, groups: Mapping[str, frozenset[int]]
    ) -> dict[str, dict[str, float | None]]:
        precision = scores.precision if scores else {}
        ious = scores.ious if scores else {}
        boundary_ious = scores.boundary_ious if scores else {}
        class_means = {category_id: sum(v) / len(v) for category_id, v in ious.items()}
        return {
            "AP": class_mean(precision.get("AP", {}), groups),
            "AP50": class_mean(precision.get("AP50", {}), self._groups),
            "AP75": class_mean(precision.get("AP75", {}), self._groups),
            "mIoU": instance_mean(ious, groups),
            "mIoU_class_mean": class_mean(class_means, self._groups),
            "boundary_IoU": instance_mean(boundary_ious, self._groups),
        }

    def _per_class(
        self,
        objects: Mapping[int, int],
        with_mask: Mapping[int, int],
        boxes: ClassScores,
        masks: ClassScores,
        box_masks: BoxMaskScores | None,
        floor: BoxMaskScores,
    ) -> dict[str, dict[str, Any]]:
        """One row for each class that has an object in the images, by name."""
        names = Counter(category.name for category in self.index.categories)
        table: dict[str, dict[str, Any]] = {}
        for category in self.index.categories:
            if not objects[category.id]:
                continue
            unique = (
                category.name if names[category.name] == 1 else f"{category.name} {category.id}"
            )
            table[unique] = {
                "category_id": category.id,
                "supercategory": category.supercategory,
                "seen": category.id in self._groups["seen"],
                "instances": objects[category.id],
                "instances_with_mask": with_mask[category.id],
                "box/AP": boxes.get("AP", {}).get(category.id),
                "mask/AP": masks.get("AP", {}).get(category.id),
                **_class_row("mask_gt_box", box_masks, category.id),
                **_class_row("filled_box", floor, category.id),
            }
        return table


def _class_row(
    section: str, scores: BoxMaskScores | None, category_id: int
) -> dict[str, float | None]:
    only = {section: frozenset((category_id,))}
    return {
        f"{section}/AP": scores.precision.get("AP", {}).get(category_id) if scores else None,
        f"{section}/mIoU": instance_mean(scores.ious, only)[section] if scores else None,
        f"{section}/boundary_IoU": (
            instance_mean(scores.boundary_ious, only)[section] if scores else None
        ),
    }


def _all_or_none(name: str, given: Sequence[object]) -> bool:
    """Whether ``name`` came with the images; with some of them alone, AP would be silently low."""
    present = sum(value is not None for value in given)
    if present not in (0, len(given)):
        raise ValueError(
            f"{present} of {len(given)} images came with {name}; give them for all or for none"
        )
    return present > 0
