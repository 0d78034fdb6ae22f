"""The settings of the losses: which are on, how much they weigh, in which variant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from deepmac.losses.center_targets import RadiusRule
from deepmac.nn.ranges import (
    NonNegativeFloat,
    NonNegativeInt,
    OpenShare,
    Range,
    Share,
)

BoxNormalization = Literal["auto", "groundtruth_count", "balanced"]
Agreement = Literal["dice", "mse", "kl"]
MaskNormalization = Literal["batch", "image"]
MaskLoss = Literal["cross_entropy", "dice"]


@dataclass(frozen=True)
class BoxConsistency:
    """The mask's projections on both axes are the box's.

    Attributes:
        weight: of :func:`deepmac.losses.weak.box_consistency`; 0 = off, as everywhere.
        normalization: ``auto``, ``groundtruth_count`` or ``balanced``.
        tightness: foreground must lie within the box.
    """

    weight: NonNegativeFloat = 0.0
    normalization: BoxNormalization = "auto"
    tightness: bool = False


@dataclass(frozen=True)
class ColorConsistency:
    """Neighbours of like colour have the same label.

    Attributes:
        weight: of :func:`deepmac.losses.color.color_consistency`.
        threshold: pairs of at least this similarity count.
        dilation: cells between neighbours.
        warmup_start: optimizer step from which the weight rises.
        warmup_steps: steps until it is full; 0 = at once.
    """

    weight: NonNegativeFloat = 0.0
    threshold: Share = 0.4
    dilation: Annotated[int, Range(1, 1024)] = 2
    warmup_start: NonNegativeInt = 0
    warmup_steps: NonNegativeInt = 0


@dataclass(frozen=True)
class SelfSupervision:
    """Masks agree with those of a second, moved view.

    Attributes:
        weight: of :func:`deepmac.losses.weak.self_supervision`.
        kind: ``dice``, ``mse`` or ``kl``.
        max_translation: of the second view, as a share of the input's sides.
        scale_min: least side of the second view's window, 1 = the input's.
        scale_max: largest.
        flip_probability: of the second view.
        warmup_start: optimizer step from which the weight rises.
        warmup_steps: steps until it is full; 0 = at once.
    """

    weight: NonNegativeFloat = 0.0
    kind: Agreement = "dice"
    max_translation: Share = 0.0
    scale_min: Annotated[float, Range(0, 100, open_low=True)] = 1.0
    scale_max: Annotated[float, Range(0, 100, open_low=True)] = 1.0
    flip_probability: Share = 0.0
    warmup_start: NonNegativeInt = 0
    warmup_steps: NonNegativeInt = 0


@dataclass(frozen=True)
class PointSupervision:
    """Points that annotations give, on the object or beside it.

    Attributes:
        weight: of :func:`deepmac.losses.weak.point_supervision`.
    """

    weight: NonNegativeFloat = 0.0


@dataclass(frozen=True)
class WeakLossOptions:
    """Losses for boxes without masks, all off by default.

    Attributes:
        box_consistency: of every box, with or without a mask.
        color_consistency: likewise.
        self_supervision: likewise.
        point_supervision: of boxes with points.
        ignore_class_overlap: no mask loss where boxes of one class overlap.
    """

    box_consistency: BoxConsistency = BoxConsistency()
    color_consistency: ColorConsistency = ColorConsistency()
    self_supervision: SelfSupervision = SelfSupervision()
    point_supervision: PointSupervision = PointSupervision()
    ignore_class_overlap: bool = False

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of :func:`dataclasses.asdict`; takes the flat names of older checkpoints too."""
        nested = nested_names(values)
        parts: dict[str, Any] = {
            name: kind(**nested[name]) if isinstance(nested[name], Mapping) else nested[name]
            for name, kind in WEAK_LOSSES.items()
            if name in nested
        }
        return cls(**{**nested, **parts})

    def weak_weights(self) -> dict[str, float]:
        """Weights above 0, by the names that :class:`~deepmac.losses.weak.WeakLosses` uses."""
        weights = {name: getattr(self, name).weight for name in WEAK_LOSSES}
        return {name: weight for name, weight in weights.items() if weight > 0}


WEAK_LOSSES: dict[str, type] = {
    "box_consistency": BoxConsistency,
    "color_consistency": ColorConsistency,
    "self_supervision": SelfSupervision,
    "point_supervision": PointSupervision,
}


def nested_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """Flat names as older checkpoints have them (``box_consistency_weight``), nested."""
    nested: dict[str, Any] = {}
    for name, value in values.items():
        group = next((known for known in WEAK_LOSSES if name.startswith(f"{known}_")), None)
        if group is None:
            nested[name] = value
        else:
            nested.setdefault(group, {})[name.removeprefix(f"{group}_")] = value
    return nested


@dataclass(frozen=True)
class LossOptions(WeakLossOptions):
    """Weights and variants of the losses (defaults: the original's configs, today's arithmetic).

    Attributes:
        heatmap_weight: of the penalty-reduced focal loss.
        size_weight: of the L1 loss on box width and height, in cells.
        offset_weight: of the L1 loss on the centre's place in its cell.
        mask_weight: of the mask loss over mask-supervised instances.
        mask_loss: ``cross_entropy`` averaged over pixels, or ``dice``.
        click_weight: of the loss of masks corrected by simulated clicks, where there is a click
            head: cross-entropy and dice.
        max_clicks: the most clicks simulated for an object; steps take 1, 2, ... by turns.
        edge_weight: of the cross-entropy of masks made finer, where there is an edge head.
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
    click_weight: NonNegativeFloat = 5.0
    max_clicks: Annotated[int, Range(1, 100)] = 4
    edge_weight: NonNegativeFloat = 5.0
    focal_alpha: NonNegativeFloat = 2.0
    focal_beta: NonNegativeFloat = 4.0
    min_iou: OpenShare = 0.7
    radius_rule: RadiusRule = "exact"
    mask_normalization: MaskNormalization = "batch"
    probability_clip: Annotated[float, Range(0, 0.5, open_low=True, open_high=True)] | None = None
    use_only_last_stage: bool = False
