"""The settings of the losses: which are on, how much they weigh, in which variant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from deepmac.losses.center_targets import RadiusRule
from deepmac.nn.ranges import (
    NonNegativeFloat,
    NonNegativeInt,
    OpenShare,
    PositiveFloat,
    PositiveInt,
    Range,
    Share,
)

BoxNormalization = Literal["auto", "groundtruth_count", "balanced"]
SelfSupervision = Literal["dice", "mse", "kl"]
MaskNormalization = Literal["batch", "image"]
MaskLoss = Literal["cross_entropy", "dice"]


@dataclass(frozen=True)
class WeakLossOptions:
    """Losses for boxes without masks, all off by default.

    Attributes:
        box_consistency_weight: of :func:`deepmac.losses.weak.box_consistency`.
        box_consistency_normalization: ``auto``, ``groundtruth_count`` or ``balanced``.
        box_consistency_tightness: foreground must lie within the box.
        color_consistency_weight: of :func:`deepmac.losses.color.color_consistency`.
        color_consistency_threshold: pairs of at least this similarity count.
        color_consistency_dilation: cells between neighbours.
        color_consistency_warmup_start: optimizer step from which the weight rises.
        color_consistency_warmup_steps: steps until it is full; 0 = at once.
        self_supervision_weight: of :func:`deepmac.losses.weak.self_supervision`.
        self_supervision_kind: ``dice``, ``mse`` or ``kl``.
        self_supervision_max_translation: of the second view, as a share of the input's sides.
        self_supervision_scale_min: least side of the second view's window, 1 = the input's.
        self_supervision_scale_max: largest.
        self_supervision_flip_probability: of the second view.
        self_supervision_warmup_start: optimizer step from which the weight rises.
        self_supervision_warmup_steps: steps until it is full; 0 = at once.
        point_supervision_weight: of :func:`deepmac.losses.weak.point_supervision`.
        ignore_class_overlap: no mask loss where boxes of one class overlap.
    """

    box_consistency_weight: NonNegativeFloat = 0.0
    box_consistency_normalization: BoxNormalization = "auto"
    box_consistency_tightness: bool = False
    color_consistency_weight: NonNegativeFloat = 0.0
    color_consistency_threshold: Share = 0.4
    color_consistency_dilation: PositiveInt = 2
    color_consistency_warmup_start: NonNegativeInt = 0
    color_consistency_warmup_steps: NonNegativeInt = 0
    self_supervision_weight: NonNegativeFloat = 0.0
    self_supervision_kind: SelfSupervision = "dice"
    self_supervision_max_translation: Share = 0.0
    self_supervision_scale_min: PositiveFloat = 1.0
    self_supervision_scale_max: PositiveFloat = 1.0
    self_supervision_flip_probability: Share = 0.0
    self_supervision_warmup_start: NonNegativeInt = 0
    self_supervision_warmup_steps: NonNegativeInt = 0
    point_supervision_weight: NonNegativeFloat = 0.0
    ignore_class_overlap: bool = False

    def weak_weights(self) -> dict[str, float]:
        """Weights above 0, by the names that :class:`~deepmac.losses.weak.WeakLosses` uses."""
        weights = {
            "box_consistency": self.box_consistency_weight,
            "color_consistency": self.color_consistency_weight,
            "self_supervision": self.self_supervision_weight,
            "point_supervision": self.point_supervision_weight,
        }
        return {name: weight for name, weight in weights.items() if weight > 0}


@dataclass(frozen=True)
class LossOptions(WeakLossOptions):
    """Weights and variants of the losses (defaults: the original's configs, today's arithmetic).

    Attributes:
        heatmap_weight: of the penalty-reduced focal loss.
        size_weight: of the L1 loss on box width and height, in cells.
        offset_weight: of the L1 loss on the centre's place in its cell.
        mask_weight: of the mask loss over mask-supervised instances.
        mask_loss: ``cross_entropy`` averaged over pixels, or ``dice``.
        focal_alpha: exponent on the error of a prediction.
        focal_beta: exponent that spares cells near a centre.
        min_iou: see :func:`deepmac.losses.center_targets.center_targets`.
        radius_rule: see :func:`deepmac.losses.center_targets.gaussian_radius`.
        mask_normalization: ``batch`` divides by the instances with masks on all replicas;
            ``image`` averages within each image first (the 2021 release).
        probability_clip: clip heatmap probabilities this far from 0 and 1 as the original does;
            null computes the logarithms from the logits, which needs no clip.
        use_only_last_stage: mask loss on the last backbone output alone.
    """

    heatmap_weight: NonNegativeFloat = 1.0
    size_weight: NonNegativeFloat = 0.1
    offset_weight: NonNegativeFloat = 1.0
    mask_weight: NonNegativeFloat = 5.0
    mask_loss: MaskLoss = "cross_entropy"
    focal_alpha: NonNegativeFloat = 2.0
    focal_beta: NonNegativeFloat = 4.0
    min_iou: OpenShare = 0.7
    radius_rule: RadiusRule = "exact"
    mask_normalization: MaskNormalization = "batch"
    probability_clip: Annotated[float, Range(0, 0.5, open_low=True, open_high=True)] | None = None
    use_only_last_stage: bool = False
