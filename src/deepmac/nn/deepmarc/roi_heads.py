"""The region heads of Deep-MARC: torchvision's, with the mask branch written anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection.roi_heads import (
    RoIHeads,
    fastrcnn_loss,
    project_masks_on_boxes,
)
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.poolers import initLevelMapper

from deepmac.errors import UserError
from deepmac.nn.replicas import ALONE, Replicas
from deepmac.nn.roi_crop import bounded_boxes, box_coordinates, grow_boxes, separable_roi_align

TrainBoxes = Literal["gt", "proposals"]
Features = Mapping[str, Tensor]
Targets = Sequence[Mapping[str, Tensor]]
Sizes = Sequence[tuple[int, int]]


class PyramidRoIAlign(MultiScaleRoIAlign):
    """torchvision's multi-scale RoIAlign that is told its strides.

    torchvision guesses them from the first images it meets, and guesses wrong when these fill
    only part of a padded square. Levels by box size as there: ``floor(4 + log2(side / 224))``.

    Args:
        strides: of the levels ``0``, ``1``, ...: powers of 2.
        output_size: side of the crop in cells.
        sampling_ratio: samples per cell and axis.
    """

    def __init__(self, strides: Sequence[int], output_size: int, sampling_ratio: int = 2) -> None:
        names = [str(level) for level in range(len(strides))]
        super().__init__(names, output_size, sampling_ratio)
        self.scales = [1 / stride for stride in strides]
        self.map_levels = initLevelMapper(
            strides[0].bit_length() - 1,
            strides[-1].bit_length() - 1,
            canonical_scale=self.canonical_scale,
            canonical_level=self.canonical_level,
        )

    def forward(
        self,
        x: dict[str, Tensor],
        boxes: list[Tensor],
        image_shapes: list[tuple[int, int]],
    ) -> Tensor:
        """As torchvision's, of boxes that cannot make it fail."""
        crops: Tensor = super().forward(x, [bounded_boxes(own) for own in boxes], image_shapes)
        return crops

    def padded(self, features: Features, boxes: Tensor) -> Tensor:
        """The same numbers without a shape that depends on data, for export and compilation.

        Args:
            features: the levels, (B, C, h, w) each.
            boxes: (B, N, 4) xyxy in input pixels.

        Returns:
            (B, N, C, S, S).
        """
        assert self.map_levels is not None and self.scales is not None
        batch, count = boxes.shape[:2]
        boxes = bounded_boxes(boxes)
        level_of = self.map_levels([boxes.flatten(0, 1)]).view(batch, count, 1, 1, 1)
        height, width = self.output_size
        total: Tensor | None = None
        for level, (name, scale) in enumerate(zip(self.featmap_names, self.scales, strict=True)):
            crops = separable_roi_align(
                features[name], boxes, (height, width), scale, self.sampling_ratio, aligned=False
            )
            crops = torch.where(level_of == level, crops, 0.0)
            total = crops if total is None else total + crops
        assert total is not None
        return total


class MaskRoIHeads(RoIHeads):
    """torchvision's box head; masks learned where there are any, on the boxes that it is told to.

    Fits into any ``GeneralizedRCNN`` of torchvision. Targets hold ``boxes`` (n, 4) and ``labels``
    (n,), 1 for the first class, and masks in one of two forms, or none at all:

    - ``mask_targets`` (n, T, T) in [0, 1], each over its row of ``mask_boxes`` (n, 4), which are
      the ``boxes`` where that key is absent; a mask ends where its box does;
    - ``masks`` (n, H, W) over the whole image, torchvision's form.

    ``open_classes`` (C,) bool are the classes, the first one first, of which the image may show
    objects that nobody annotated: proposals without an object are then told from the other classes
    alone. Without it every object is annotated.

    ``mask_valid`` (n,) bool says which rows really have a mask; without it, all of a target that
    has the key, none of one that has not. Other rows take part in detection alone.

    Args:
        *arguments: of ``RoIHeads``.
        class_agnostic: one mask per box, else one per class of which the label picks one.
        train_boxes: ``gt``: masks are learned on ground-truth boxes alone (the paper's finding);
            ``proposals``: on the sampled proposals that match an object (Mask R-CNN).
        outer_boxes_scale: masks are learned and predicted in boxes grown by this factor about
            their centres.
        use_xy: add two channels of coordinates (y, x from -1 to 1) to the mask head's input.
        **options: of ``RoIHeads``.

    Attributes:
        replicas: who shares a batch.
    """

    def __init__(
        self,
        *arguments: Any,
        class_agnostic: bool = True,
        train_boxes: TrainBoxes = "gt",
        outer_boxes_scale: float = 1.0,
        use_xy: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        if train_boxes not in ("gt", "proposals"):
            raise ValueError(f"train_boxes is gt or proposals, not {train_boxes!r}")
        if outer_boxes_scale < 1:
            raise ValueError(f"outer_boxes_scale={outer_boxes_scale} is below 1")
        self.class_agnostic = class_agnostic
        self.train_boxes: TrainBoxes = train_boxes
        self.outer_boxes_scale = outer_boxes_scale
        self.use_xy = use_xy
        self.replicas: Replicas = ALONE

    def forward(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
        targets: list[dict[str, Tensor]] | None = None,
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """As torchvision's: (no detections, losses) in training, else (detections, no losses).

        ``masks`` of the detections are (n, 1, S, S) probabilities within the box (times
        ``outer_boxes_scale``).
        """
        if self.training:
            self.check_targets(targets)
            assert targets is not None
            return [], self._losses(features, proposals, image_shapes, targets)
        found = self.detect(features, proposals, image_shapes)
        boxes, labels = [f["boxes"] for f in found], torch.cat([f["labels"] for f in found])
        masks = self.mask_logits(features, boxes, image_shapes, labels).sigmoid()[:, None]
        for detections, own in zip(found, masks.split([len(b) for b in boxes]), strict=True):
            detections["masks"] = own
        return found, {}

    def check_targets(self, targets: Any) -> None:
        """Boxes and labels are a must, masks are not."""
        if targets is None or not all("boxes" in t and "labels" in t for t in targets):
            raise ValueError("training needs targets, each with the keys boxes and labels")

    def detect(
        self, features: Features, proposals: Sequence[Tensor], image_shapes: Sizes
    ) -> list[dict[str, Tensor]]:
        """``boxes``, ``labels`` (from 1) and ``scores`` of each image, best first."""
        logits, regression = self._box_branch(features, proposals, image_shapes)
        results = self.postprocess_detections(
            logits, regression, list(proposals), list(image_shapes)
        )
        names = ("boxes", "scores", "labels")
        return [dict(zip(names, image, strict=True)) for image in zip(*results, strict=True)]

    def mask_logits(
        self,
        features: Features,
        boxes: Sequence[Tensor],
        image_shapes: Sizes,
        labels: Tensor | None = None,
    ) -> Tensor:
        """Mask logits in given boxes; neither proposals nor the box head are needed.

        Args:
            features: the levels of the pyramid.
            boxes: per image (n, 4) xyxy in input pixels.
            image_shapes: per image (height, width); unused where the pool knows its strides.
            labels: (R,) classes from 1 of all boxes, which class-specific masks need.

        Returns:
            (R, S, S) float32 for all boxes one after the other.
        """
        grown = [grow_boxes(b, self.outer_boxes_scale) for b in boxes]
        return self.crop_logits(self.mask_roi_pool(features, grown, image_shapes), labels)

    def crop_logits(self, crops: Tensor, labels: Tensor | None = None) -> Tensor:
        """As :meth:`mask_logits`, of features (R, C, S/2, S/2) that are cropped already."""
        if self.use_xy:
            height, width = crops.shape[-2:]
            grid = box_coordinates(height, width, device=crops.device, dtype=crops.dtype)
            crops = torch.cat([grid.expand(len(crops), -1, -1, -1), crops], dim=1)
        logits: Tensor = self.mask_predictor(self.mask_head(crops)).float()
        if self.class_agnostic:
            return logits[:, 0]
        if labels is None:
            raise UserError(
                "this network has one mask per class and was not told the classes of the boxes: "
                "train it with model.class_agnostic=true to give masks to any box"
            )
        return logits[torch.arange(len(logits), device=logits.device), labels]

    def _losses(
        self,
        features: Features,
        proposals: list[Tensor],
        image_shapes: Sizes,
        targets: Targets,
    ) -> dict[str, Tensor]:
        sampled, matched, labels, regression = self.select_training_samples(proposals, targets)
        logits, deltas = self._box_branch(features, sampled, image_shapes)
        if any("open_classes" in target for target in targets):
            logits = background_or_open(logits, labels, [t.get("open_classes") for t in targets])
        classifier, box = fastrcnn_loss(logits, deltas, labels, regression)
        if self.train_boxes == "gt":
            rows = [torch.where(_has_mask(target))[0] for target in targets]
            rois = [
                target.get("mask_boxes", target["boxes"])[row].to(sampled[0].dtype)
                for target, row in zip(targets, rows, strict=True)
            ]
        else:
            rois, rows = [], []
            for target, boxes, index, label in zip(targets, sampled, matched, labels, strict=True):
                positive = torch.where(label > 0)[0]
                positive = positive[_has_mask(target)[index[positive]]]
                rois.append(boxes[positive])
                rows.append(index[positive])
        return {
            "loss_classifier": classifier,
            "loss_box_reg": box,
            "loss_mask": self._mask_loss(features, rois, rows, image_shapes, targets),
        }

    def _mask_loss(
        self,
        features: Features,
        rois: list[Tensor],
        rows: list[Tensor],
        image_shapes: Sizes,
        targets: Targets,
    ) -> Tensor:
        """Cross-entropy averaged over pixels and RoIs; without any RoI 0, with gradients of 0."""
        classes = torch.cat([t["labels"][r] for t, r in zip(targets, rows, strict=True)])
        logits = self.mask_logits(features, rois, image_shapes, classes)
        size = logits.shape[-1]
        wanted = [
            self._mask_targets(target, roi, row, size)
            for target, roi, row in zip(targets, rois, rows, strict=True)
            if len(row)
        ]
        count = logits.new_tensor(float(len(logits)))
        count = self.replicas.sum(count).clamp(min=1.0) / self.replicas.count
        if not wanted:
            return logits.sum() * 0 / count
        loss = F.binary_cross_entropy_with_logits(logits, torch.cat(wanted), reduction="none")
        return loss.mean(dim=(1, 2)).sum() / count

    def _mask_targets(
        self, target: Mapping[str, Tensor], rois: Tensor, rows: Tensor, size: int
    ) -> Tensor:
        """(n, size, size): the masks of the ``rows`` within the grown ``rois``."""
        grown = grow_boxes(rois, self.outer_boxes_scale)
        if "mask_targets" not in target:
            masks: Tensor = project_masks_on_boxes(target["masks"], grown, rows, size)
            return masks
        frames = target.get("mask_boxes", target["boxes"])[rows].to(rois.dtype)
        return resample_masks(target["mask_targets"][rows].to(rois.dtype), frames, grown, size)

    def _box_branch(
        self, features: Features, proposals: Sequence[Tensor], image_shapes: Sizes
    ) -> tuple[Tensor, Tensor]:
        crops = self.box_roi_pool(features, list(proposals), list(image_shapes))
        logits, deltas = self.box_predictor(self.box_head(crops))
        return logits.float(), deltas.float()


def background_or_open(
    logits: Tensor, labels: Sequence[Tensor], open_classes: Sequence[Tensor | None]
) -> Tensor:
    """Logits whose cross-entropy does not mind an object of an open class in the background.

    Where the label is 0, slot 0 becomes "background or any open class": the loss is minus the
    logarithm of their probabilities' sum, and 0 where all classes are open.

    Args:
        logits: (R, 1 + C) of the rows of all images, slot 0 the background.
        labels: per image, of its rows, from 0.
        open_classes: per image (C,) bool, or None where all objects are annotated.
    """
    if all(own is None for own in open_classes):
        return logits
    may_be = torch.zeros_like(logits, dtype=torch.bool)
    start = 0
    for own, label in zip(open_classes, labels, strict=True):
        if own is not None:
            rows = slice(start, start + len(label))
            may_be[rows, 1:] = own[None, :] & (label == 0)[:, None]
        start += len(label)
    either = may_be.clone()
    either[:, 0] = True
    together = logits.masked_fill(~either, -torch.inf).logsumexp(dim=1, keepdim=True)
    changed = torch.cat([together, logits[:, 1:].masked_fill(may_be[:, 1:], -torch.inf)], dim=1)
    return torch.where(may_be.any(dim=1, keepdim=True), changed, logits)


def resample_masks(grids: Tensor, frames: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Masks given over one set of boxes, wanted over another; nothing lies beyond the first.

    The original crops ground-truth masks at 112x112 in their own box and resizes; where box and
    size agree, this gives the grid itself.

    Args:
        grids: (n, T, T) in [0, 1], cells that tile the frames.
        frames: (n, 4) xyxy.
        boxes: (n, 4) xyxy in the same frame of reference.
        size: side S of the result.

    Returns:
        (n, S, S): the mean of 2x2 bilinear samples per cell.
    """
    if grids.shape[-1] == size and torch.equal(frames, boxes):
        return grids
    sides = (frames[:, 2:] - frames[:, :2]).clamp(min=1e-6)
    cells = (boxes.view(-1, 2, 2) - frames[:, None, :2]) / sides[:, None] * grids.shape[-1]
    # A ring of zeros, so that masks end at their frame instead of going on.
    crops = separable_roi_align(F.pad(grids, [1] * 4)[:, None], cells.view(-1, 1, 4) + 1, size)
    return crops[:, 0, 0]


def _has_mask(target: Mapping[str, Tensor]) -> Tensor:
    """(n,) bool."""
    labels = target["labels"]
    if "mask_targets" not in target and "masks" not in target:
        return torch.zeros_like(labels, dtype=torch.bool)
    if "mask_valid" in target:
        return target["mask_valid"]
    return torch.ones_like(labels, dtype=torch.bool)
