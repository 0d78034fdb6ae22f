"""The Deep-MARC network: torchvision's Mask R-CNN with the mask heads of Deep-MAC.

Paper: "The surprising impact of mask-head architecture on novel class segmentation" (Birodkar
et al., ICCV 2021); original: the Model Garden project deepmac_maskrcnn. The mask head sees the
cropped pyramid features and nothing else, answers at twice their resolution, and is trained on
ground-truth boxes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import (
    FastRCNNConvFCHead,
    FastRCNNPredictor,
    TwoMLPHead,
)
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

from deepmac.nn.backbones import Normalization, Normalize
from deepmac.nn.centernet import Detections
from deepmac.nn.clicks import Clicks
from deepmac.nn.deepmarc.backbone import STRIDES, build_pyramid
from deepmac.nn.deepmarc.mask_branch import build_roi_mask_head
from deepmac.nn.deepmarc.roi_heads import MaskRoIHeads, PyramidRoIAlign, TrainBoxes
from deepmac.nn.network import SegmentationNetwork
from deepmac.nn.norm import BatchNorm2d
from deepmac.nn.ranges import PositiveFloat, Range, Share, Width
from deepmac.nn.tracing import static_shapes

_BOX_ROI = 7
_ASPECT_RATIOS = (0.5, 1.0, 2.0)
_UNKNOWN = -2.0  # label of an anchor of which nothing is known
_SURELY_NOT = -1e4  # a logit of which the loss of "no object" is 0

Stage = dict[str, Tensor]
"""The levels of the feature pyramid by name."""


class DeepMARC(SegmentationNetwork):
    """Boxes, classes and masks in two stages; masks of given boxes without the first.

    Parts and their names are torchvision's (``backbone``, ``rpn``, ``roi_heads``). Crowd regions
    are left out of training, as in the original. What is not an argument has torchvision's value,
    which is the original's.

    Args:
        num_classes: without the background.
        backbone: any timm model with levels of stride 4 to 32, or the path of a class made like
            :class:`~deepmac.nn.deepmarc.backbone.PyramidBackbone`.
        weights: initial backbone weights: None, ``timm``, ``package``, or a local file.
        normalization: how pixels are normalised; None takes what the backbone was trained with.
        pyramid_width: channels of the feature pyramid.
        freeze_norm: the backbone's batch norms stay as their weights came.
        mask_head: one of ``deepmac.nn.deepmarc.mask_branch.ROI_MASK_HEADS``, or the path of a
            class: see :func:`deepmac.nn.mask_heads.build_mask_head`.
        num_init_channels: width of the mask head.
        mask_size: side of the masks; the crops that the mask head sees have half of it.
        class_agnostic: one mask per box; False: one per class, and boxes need a class.
        train_boxes: learn masks on ``gt`` boxes alone or on ``proposals``.
        outer_boxes_scale: masks cover boxes grown by this factor: see :meth:`mask_frames`.
        use_xy: give the mask head two coordinate channels, which the original does not.
        box_head: ``mlp``: two dense layers (torchvision); ``conv``: four convolutions and a dense
            layer (the original).
        head_channels: of its dense layers.
        anchor_scale: side of a square anchor, in cells of its level.
        proposals: boxes per image that the first stage hands over, after its suppression.
        rois_per_image: proposals per image that the box head learns from.
        min_score: detections must be above it.
        nms_threshold: overlap above which the weaker detection of a class goes.
        max_detections: boxes returned per image.
        checkpoint_activations: recompute backbone activations in the backward pass.

    Raises:
        ValueError: a backbone that is unknown or has no pyramid, or settings that do not go
            together.
    """

    def __init__(
        self,
        *,
        num_classes: Annotated[int, Range(1, 1_000_000)],
        backbone: str = "resnet50",
        weights: str | None = None,
        normalization: Normalization | None = None,
        pyramid_width: Width = 256,
        freeze_norm: bool = False,
        mask_head: str = "hourglass52",
        num_init_channels: Width = 64,
        mask_size: Annotated[int, Range(1, 4096)] = 64,
        class_agnostic: bool = True,
        train_boxes: TrainBoxes = "gt",
        outer_boxes_scale: PositiveFloat = 1.0,
        use_xy: bool = False,
        box_head: Literal["mlp", "conv"] = "mlp",
        head_channels: Width = 1024,
        anchor_scale: PositiveFloat = 8.0,
        proposals: Annotated[int, Range(1, 100_000)] = 1000,
        rois_per_image: Annotated[int, Range(1, 100_000)] = 512,
        min_score: Share = 0.05,
        nms_threshold: Share = 0.5,
        max_detections: Annotated[int, Range(1, 100_000)] = 100,
        checkpoint_activations: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = build_pyramid(
            backbone,
            width=pyramid_width,
            weights=weights,
            freeze_norm=freeze_norm,
            checkpoint_activations=checkpoint_activations,
        )
        self.normalize = Normalize(normalization or self.backbone.normalization)
        self.num_classes = num_classes
        self.stride = STRIDES[0]
        self.mask_size = mask_size
        self.max_detections = max_detections
        self.frame_scale = outer_boxes_scale
        self.rpn = _proposal_network(pyramid_width, anchor_scale, proposals)
        slots = num_classes + 1  # torchvision's class 0 is the background
        head, predictor = build_roi_mask_head(
            mask_head,
            pyramid_width + 2 * use_xy,
            num_init_channels,
            mask_size,
            1 if class_agnostic else slots,
        )
        self.roi_heads = MaskRoIHeads(
            PyramidRoIAlign(STRIDES[:-1], _BOX_ROI),
            _box_head(box_head, pyramid_width, head_channels),
            FastRCNNPredictor(head_channels, slots),
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.5,
            batch_size_per_image=rois_per_image,
            positive_fraction=0.25,
            bbox_reg_weights=None,
            score_thresh=min_score,
            nms_thresh=nms_threshold,
            detections_per_img=max_detections,
            mask_roi_pool=PyramidRoIAlign(STRIDES[:-1], mask_size // 2),
            mask_head=head,
            mask_predictor=predictor,
            class_agnostic=class_agnostic,
            train_boxes=train_boxes,
            outer_boxes_scale=outer_boxes_scale,
            use_xy=use_xy,
        )

    def forward(self, images: Tensor) -> list[Stage]:
        """The feature pyramid, which everything else starts from; a list of one.

        Args:
            images: (B, 3, H, W) RGB, uint8 or float in 0..255; H and W multiples of
                ``backbone.size_divisor``.

        Raises:
            ValueError: H or W is not such a multiple.
        """
        levels = self.features(images)
        # Anchors and crops take their precision from the maps, and must place boxes to the pixel.
        return [{name: level.float() for name, level in levels.items()}]

    def last_stage(self, images: Tensor) -> Stage:
        """The one stage of :meth:`forward`: the two heads start from it when they are asked."""
        return self(images)[-1]

    def losses(
        self,
        stage: Stage,
        targets: Sequence[Mapping[str, Tensor]],
        true_sizes: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The five losses of Mask R-CNN by torchvision's names, in training mode.

        Args:
            stage: of the images.
            targets: per image; see :class:`~deepmac.nn.deepmarc.roi_heads.MaskRoIHeads`. Labels
                count from 1.
            true_sizes: (B, 2) int (height, width) of the content, to which proposals are clipped.
        """
        images = _image_list(stage, true_sizes)
        proposals, losses = self.rpn(images, stage, targets)
        _, others = self.roi_heads(stage, proposals, images.image_sizes, targets)
        return {**losses, **others}

    def detect(self, stage: Stage, true_sizes: Tensor | None = None) -> Detections:
        """The best ``max_detections`` boxes of each image, padded with scores of 0; eval mode.

        Args:
            stage: of the images.
            true_sizes: (B, 2) int (height, width) of the content, to which boxes are clipped;
                None = all of the input.
        """
        images = _image_list(stage, true_sizes)
        proposals, _ = self.rpn(images, stage)
        found = self.roi_heads.detect(stage, proposals, images.image_sizes)
        scores = stage["0"].new_zeros(len(found), self.max_detections, dtype=torch.float32)
        boxes = scores.new_zeros(*scores.shape, 4)
        labels = torch.zeros_like(scores, dtype=torch.int64)
        for row, image in enumerate(found):
            count = len(image["scores"])
            scores[row, :count] = image["scores"]
            boxes[row, :count] = image["boxes"]
            labels[row, :count] = image["labels"] - 1
        return Detections(boxes, labels, scores)

    def mask_logits(
        self,
        stage: Stage,
        boxes: Tensor,
        valid: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Tensor:
        """Mask logits of given boxes; neither the first stage nor the box head runs.

        Args:
            stage: of the images.
            boxes: (B, N, 4) xyxy in input pixels.
            valid: (B, N) bool; rows that are False cost nothing and come back as zeros (on XLA,
                while exporting or compiling they cost the same, and mean nothing).
            labels: (B, N) int64 class slots, which only class-specific masks need.

        Returns:
            (B, N, S, S) float32 with S = ``mask_size``, over the :meth:`mask_frames` of the boxes.

        Raises:
            UserError: masks are class-specific and ``labels`` is None.
        """
        batch, count = boxes.shape[:2]
        slots = None if labels is None else labels.flatten() + 1
        heads = self.roi_heads
        if static_shapes(boxes):
            crops = heads.mask_roi_pool.padded(stage, self.mask_frames(boxes)).flatten(0, 1)
            return heads.crop_logits(crops, slots).unflatten(0, (batch, count))
        live = boxes.new_ones(batch, count, dtype=torch.bool) if valid is None else valid
        rows = live.flatten()
        packed = [own[keep] for own, keep in zip(boxes.float(), live, strict=True)]
        own = heads.mask_logits(
            stage, packed, _sizes(stage), None if slots is None else slots[rows]
        )
        logits = own.new_zeros(batch * count, *own.shape[1:])
        logits = logits.index_copy(0, rows.nonzero().squeeze(1), own)
        return logits.unflatten(0, (batch, count))

    def mask_probabilities(
        self,
        stage: Stage,
        boxes: Tensor,
        valid: Tensor | None = None,
        labels: Tensor | None = None,
        clicks: Clicks | None = None,
    ) -> Tensor:
        """(B, N, S, S) foreground probabilities; arguments as in :meth:`mask_logits`.

        Rows that are not ``valid`` mean nothing; ``clicks`` are refused.
        """
        if clicks is not None:
            self.require_clicks()
        return self.mask_logits(stage, boxes, valid, labels).sigmoid()

    def inference_parts(self) -> list[nn.Module]:
        """See :class:`SegmentationNetwork`."""
        return [self.backbone, self.roi_heads.mask_head, self.roi_heads.mask_predictor]


class ProposalHead(RPNHead):
    """torchvision's, whose answers are float32 under mixed precision too."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        logits, deltas = super().forward(x)
        return [level.float() for level in logits], [level.float() for level in deltas]


class ProposalNetwork(RegionProposalNetwork):
    """torchvision's, which takes no place for background where an object may be unmarked.

    That is every anchor without an object on an image whose target has ``open_classes`` with a True
    one: they are drawn as ever, so that the others weigh what they always do, and have no loss.
    """

    def assign_targets_to_anchors(
        self, anchors: list[Tensor], targets: list[dict[str, Tensor]]
    ) -> tuple[list[Tensor], list[Tensor]]:
        labels, boxes = super().assign_targets_to_anchors(anchors, targets)
        for label, target in zip(labels, targets, strict=True):
            if "open_classes" in target:
                label[(label == 0) & target["open_classes"].any()] = _UNKNOWN
        return labels, boxes

    def compute_loss(
        self,
        objectness: Tensor,
        pred_bbox_deltas: Tensor,
        labels: list[Tensor],
        regression_targets: list[Tensor],
    ) -> tuple[Tensor, Tensor]:
        unknown = torch.cat(labels) == _UNKNOWN
        objectness = torch.where(unknown.view_as(objectness), _SURELY_NOT, objectness)
        known = [label.clamp(min=-1) + (label == _UNKNOWN) for label in labels]
        losses: tuple[Tensor, Tensor] = super().compute_loss(
            objectness, pred_bbox_deltas, known, regression_targets
        )
        return losses


def _proposal_network(channels: int, anchor_scale: float, proposals: int) -> ProposalNetwork:
    anchors = AnchorGenerator(
        tuple((anchor_scale * stride,) for stride in STRIDES), (_ASPECT_RATIOS,) * len(STRIDES)
    )
    return ProposalNetwork(
        anchors,
        ProposalHead(channels, anchors.num_anchors_per_location()[0]),
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=256,
        positive_fraction=0.5,
        pre_nms_top_n={"training": 2 * proposals, "testing": proposals},
        post_nms_top_n={"training": 2 * proposals, "testing": proposals},
        nms_thresh=0.7,
    )


def _box_head(kind: str, channels: int, width: int) -> nn.Module:
    if kind == "mlp":
        return TwoMLPHead(channels * _BOX_ROI**2, width)
    if kind == "conv":
        return FastRCNNConvFCHead(
            (channels, _BOX_ROI, _BOX_ROI), [channels] * 4, [width], norm_layer=BatchNorm2d
        )
    raise ValueError(f"box_head is mlp or conv, not {kind!r}")


def _sizes(stage: Stage) -> list[tuple[int, int]]:
    """(height, width) of the input, once for each image."""
    batch, _, height, width = stage["0"].shape
    return [(height * STRIDES[0], width * STRIDES[0])] * batch


def _image_list(stage: Stage, true_sizes: Tensor | None) -> ImageList:
    """What torchvision wants to know of the images: their sizes, not their pixels."""
    whole = _sizes(stage)
    shape = stage["0"].new_zeros(()).expand(len(whole), 3, *whole[0])
    if true_sizes is None:
        return ImageList(shape, whole)
    return ImageList(shape, [(int(height), int(width)) for height, width in true_sizes.tolist()])
